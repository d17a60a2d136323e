"""Which strategy for a machine and a load: every candidate planned, predicted, ranked. Pure.

Each candidate is what ``mcrd supervisor`` would be told; its plan is the forwarder's own
(:func:`forwarder.plan.planner`), so what is predicted for is what would be started. Conservative where the
demand leaves it open: the kernel's part of receiving is done by the workers' own processors, and flows fall
on them by chance, as a network card's hash has it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from forwarder.config.options import SupervisorOptions, resolve
from forwarder.plan.host import Host, described_host
from forwarder.plan.model import Plan
from forwarder.plan.resources import TX_RING
from forwarder.plan.strategy import RulePlacement
from forwarder.problems import ProblemsError, flag
from lab.cli.workload import Demand
from reports import quantity
from reports.capacity.cost import Load
from reports.capacity.memory import Holding
from reports.capacity.model import CapacityModel
from reports.capacity.predict import Machine
from reports.capacity.rank import ALIKE, Candidate, Row, evaluate, ranked

MARGIN = 1.25
"""Fewer workers than processors are offered where they still do so much more than is asked, at the least."""
MOST_CPUS = 4096
MOST_SOCKETS = 16_384
"""Of a pool: more of them take gigabytes for rings of 64 frames, which hold no burst."""
MOST_WORKERS = 4096
"""That are planned for: more of them start for minutes, and no row of the architecture document has them."""


@dataclass(frozen=True, slots=True)
class Advice:
    demand: Demand
    rows: tuple[Row, ...]
    """Best first."""
    met: bool
    """Whether the first one's whole interval is above what is asked."""
    conclusion: tuple[str, ...]


def advise(demand: Demand, model: CapacityModel, host: Host | None = None) -> Advice:
    """Every strategy that can be planned for ``demand``, best first.

    Args:
        host: the machine, with the demand's interfaces; left out, one as the demand describes it.
    """
    rows = {row.candidate.options: row for row in _rows(demand, model, host or host_of(demand))}
    best, *others = ranked(rows.values())
    met = best.verdict == "meets it"
    return Advice(demand, (best, *others), met, tuple(_conclusion(best, demand, model)))


def _rows(demand: Demand, model: CapacityModel, host: Host) -> Iterator[Row]:
    for found in candidates(demand, host):
        yield evaluate(found, demand.dps, model)
    for narrowed in _narrowed(demand):
        row = _fewest(narrowed, host, demand, model)
        if row is not None:
            yield row


def candidates(demand: Demand, host: Host) -> Iterator[Candidate]:
    """All that can be planned, as wide as the machine is."""
    for given in _wide_as_the_machine(demand):
        found = planned_candidate(given, host, demand)
        if found is not None:
            yield found


Given = dict[str, Any]


def host_of(demand: Demand) -> Host:
    mtu = 1500 if demand.payload_bytes <= 1472 else 9000
    return described_host(demand.cpus, demand.names, demand.numa_nodes, mtu)


def _wide_as_the_machine(demand: Demand) -> Iterator[Given]:
    """As wide as the machine is: what the architecture document would start."""
    cpus, several = demand.cpus, demand.interfaces > 1
    if not several:
        yield {"interface": demand.names[0], "num_workers": cpus}
        yield {"strategy": "rule-hash", "interface": demand.names[0], "num_workers": cpus}
        yield {"interfaces": demand.names, "num_workers": 1}
        return
    every: Given = {"interfaces": demand.names}
    yield {**every, "num_workers": 1}
    if cpus > 1:
        yield {**every, "num_workers": cpus}
        yield {"strategy": "rule-hash", **every, "num_workers": cpus}
    yield {"strategy": "fanout-per-interface", **every, "width": "share"}
    if demand.interfaces * cpus <= MOST_WORKERS and cpus > 1:
        yield {"strategy": "full-fanout", **every}
    most = max(1, cpus // demand.interfaces)
    yield {"auto_scale": True, **every, "max_workers_per_interface": most}
    for groups in _group_counts(demand):
        for strategy in ("hybrid", "hybrid-hash"):
            yield {"strategy": strategy, **every, "groups": groups, "num_workers": cpus // groups}


def _group_counts(demand: Demand) -> list[int]:
    """The document's four groups, and one or two for each memory node; groups of two interfaces or more.

    Not fewer than nodes, as a group's interfaces are all of one.
    """
    wanted = {4, demand.numa_nodes, 2 * demand.numa_nodes}
    least = max(2, min(demand.numa_nodes, demand.interfaces))
    most = min(demand.cpus, demand.interfaces // 2)
    return sorted(groups for groups in wanted if least <= groups <= most and demand.cpus % groups == 0)


Narrowed = tuple[Callable[[int], Given], int]
"""From a number of workers in a group to a candidate, and the most of them."""


def _narrowed(demand: Demand) -> Iterator[Narrowed]:
    """Strategies of which fewer workers may do."""
    if demand.interfaces == 1:
        yield lambda workers: {"interface": demand.names[0], "num_workers": workers}, demand.cpus
        return
    every: Given = {"interfaces": demand.names}
    yield lambda workers: {**every, "num_workers": workers}, demand.cpus
    for groups in _group_counts(demand):
        grouped = {"strategy": "hybrid", **every, "groups": groups}
        yield partial(_wide, grouped), demand.cpus // groups


def _wide(given: Given, workers: int) -> Given:
    return {**given, "num_workers": workers}


def _fewest(narrowed: Narrowed, host: Host, demand: Demand, model: CapacityModel) -> Row | None:
    """The fewest workers that meet what is asked with :data:`MARGIN`; ``None`` if all of them do not."""
    make, most = narrowed
    low, high, fewest = 1, most, None
    middle = most
    while low <= high:
        found = planned_candidate(make(middle), host, demand)
        row = None if found is None else evaluate(found, demand.dps, model)
        if row is not None and row.zero_loss_dps.low >= MARGIN * demand.dps:
            fewest, high = row, middle - 1
        elif middle == most:
            return None
        else:
            low = middle + 1
        middle = (low + high) // 2
    return fewest


def planned_candidate(given: Given, host: Host, demand: Demand) -> Candidate | None:
    """What ``given`` comes to; ``None`` where the strategy cannot, or should not, be had in these numbers."""
    if _sockets(given, demand) > MOST_SOCKETS:
        return None
    options = SupervisorOptions.model_validate(
        {**given, **({"skip_host_stack": True} if demand.skip_host_stack else {})}
    )
    try:
        planned = resolve(options, host, ())
    except ProblemsError:
        return None
    full = _at_its_largest(planned, options, host)
    machine, rules = _machine(full, host, demand)
    held = Holding(
        workers=len(full.workers),
        rules=demand.rules,
        rules_per_worker=rules,
        sockets=sum(len(worker.sockets) for worker in full.workers),
    )
    return Candidate(
        strategy=planned.strategy.name,
        options=tuple(_words(given, demand)),
        groups=len(planned.groups),
        workers=len(planned.workers),
        workers_most=len(full.workers),
        machine=machine,
        held=held,
        rings_bytes=sum(worker.ring_bytes + TX_RING.ring_bytes for worker in full.workers),
        why=tuple(_why(full, machine, rules, demand)),
    )


def _sockets(given: Given, demand: Demand) -> int:
    """Of a strategy in which every worker reads every interface."""
    shared = given.get("strategy", "pool") in ("pool", "rule-hash") and not given.get("auto_scale")
    return demand.interfaces * int(given["num_workers"]) if shared and "num_workers" in given else 0


def _at_its_largest(planned: Plan, options: SupervisorOptions, host: Host) -> Plan:
    """With every elastic group as wide as it may become."""
    if all(group.max_workers == group.workers for group in planned.groups):
        return planned
    most = options.max_workers_per_interface
    return resolve(options.model_copy(update={"min_workers_per_interface": most}), host, ())


def _words(given: Given, demand: Demand) -> Iterator[str]:
    for name, value in given.items():
        yield flag(name)
        if value is not True:
            yield ",".join(value) if isinstance(value, tuple) else str(value)
    if demand.skip_host_stack:
        yield flag("skip_host_stack")


def _machine(planned: Plan, host: Host, demand: Demand) -> tuple[Machine, int]:
    """What reaches the busiest processor, and how many rules a worker holds at most."""
    of_cpu: Counter[int] = Counter()
    parts: dict[int, float] = {}
    width: dict[int, int] = {}
    sizes = {group.group_id: group for group in planned.groups}
    for worker in planned.workers:
        group = sizes[worker.group]
        part = len(group.interfaces) / demand.interfaces / group.max_workers
        of_cpu[worker.cpu] += 1
        parts[worker.cpu] = parts.get(worker.cpu, 0.0) + part
        width[worker.cpu] = max(width.get(worker.cpu, 1), group.max_workers)
    busiest = max(part * unevenness(demand.flow_count * part, width[cpu]) for cpu, part in parts.items())
    widest = max(planned.groups, key=lambda group: len(group.interfaces) / group.max_workers)
    share = len(widest.interfaces) / demand.interfaces
    rules = math.ceil(demand.rules * share)
    if planned.strategy.placement is RulePlacement.HASH:
        rules = math.ceil(rules / widest.max_workers)
    elif planned.strategy.placement is RulePlacement.REPLICATE:
        rules = demand.rules
    load = Load(
        payload_bytes=demand.payload_bytes,
        outputs=demand.outputs,
        rules=max(1, rules),
        flows=max(1, math.ceil(demand.flow_count * share / widest.max_workers)),
        interfaces=len(widest.interfaces),
        host_skipped=demand.skip_host_stack,
    )
    machine = Machine(
        load=load,
        cpus=len(parts),
        workers_per_cpu=len(planned.workers) / len(parts),
        busiest_share=min(1.0, busiest),
        crosses_nodes=_crosses(planned, host),
    )
    return machine, rules


def unevenness(flows: float, workers: int) -> float:
    """Flows on the busiest of ``workers`` over the mean of ``flows`` each, when they fall by chance.

    The largest of n Poisson counts of mean m is about ``m + √(2 m ln n)``; no more than all flows.
    """
    if workers <= 1:
        return 1.0
    chance = 1 + math.sqrt(2 * math.log(workers) / flows)
    return min(float(workers), max(chance, 1 / flows))


def _crosses(planned: Plan, host: Host) -> bool:
    if len(host.nodes) < 2:
        return False
    nodes = {interface.name: interface.node for interface in host.interfaces}
    return any(
        nodes[socket.interface] not in (None, worker.node)
        for worker in planned.workers
        for socket in worker.sockets
    )


def _why(planned: Plan, machine: Machine, rules: int, demand: Demand) -> Iterator[str]:
    workers = len(planned.workers)
    if workers > machine.cpus:
        yield f"{workers:,} workers take turns on {machine.cpus:,} processors"
    elif machine.cpus < demand.cpus:
        yield f"workers on {machine.cpus:,} of {demand.cpus:,} processors"
    if planned.strategy.placement is RulePlacement.HASH:
        yield f"each rule in one worker: {rules:,} a worker; datagrams are steered to it by the rule's hash"
    elif planned.strategy.placement is RulePlacement.REPLICATE and workers > 1:
        yield f"all {rules:,} rules in each worker"
    elif workers > 1:
        yield f"a worker holds the {rules:,} rules of its own interfaces"
    if machine.evenness < 1 - ALIKE:
        yield (
            f"the busiest processor has {1 / machine.evenness:.2g} × the mean of {demand.flow_count:,} flows"
        )
    if machine.crosses_nodes:
        yield "some workers are on another memory node than their interface"
    if planned.strategy.name == "dynamic":
        yield "begins with one worker an interface, and is predicted at its widest"


def _conclusion(best: Row, demand: Demand, model: CapacityModel) -> Iterator[str]:
    rate = best.zero_loss_dps
    asked, name = f"{demand.dps:,.0f} datagrams/s", best.candidate.strategy
    rounded = quantity.predicted
    found = f"{rounded(rate.value)} ({rounded(rate.low)} to {rounded(rate.high)}, {rate.basis})"
    if best.verdict == "meets it":
        yield f"{asked} can be forwarded without loss: {name} does {found}."
        return
    if best.verdict in ("likely", "doubtful"):
        yield (
            f"Whether {asked} can be forwarded without loss is not certain: {name} does {found}, "
            f"and {asked} is within that interval."
        )
    else:
        yield f"{asked} cannot be forwarded without loss by any strategy here: {name} does {found}."
    yield from _remedies(best, demand, model)


def _remedies(best: Row, demand: Demand, model: CapacityModel) -> Iterator[str]:
    """What would meet it."""
    need = cpus_for(best, demand, model)
    if need is not None and need > demand.cpus:
        yield f"About {need:,} processors instead of {demand.cpus:,} would do it, by the interval's middle."
    elif need is None:
        yield f"No number of processors up to {MOST_CPUS:,} would do it, by the middle of the interval."
    machines = math.ceil(demand.dps / best.zero_loss_dps.low)
    yield f"So would {machines:,} such machines that share the interfaces, by the lower end of the interval."
    if not demand.skip_host_stack:
        spared = best.cost_ns.value - model.cost.coefficients.get("host_stack", 0.0)
        gain = best.cost_ns.value / spared - 1 if spared > 0 else 0.0
        if gain > ALIKE:
            yield (
                f"--skip-host-stack saves the host's own look at each datagram: {gain:.0%} more, "
                "where no program of this machine receives the groups itself."
            )


def cpus_for(best: Row, demand: Demand, model: CapacityModel) -> int | None:
    """Processors that the best row's strategy would need, up to :data:`MOST_CPUS`."""
    machine = best.candidate.machine

    def does(cpus: int) -> bool:
        mean = demand.flow_count / cpus
        one = best.zero_loss_dps.value / machine.evenness / model.scaling.speedup(machine.cpus).value
        rate = one * model.scaling.speedup(cpus).value / unevenness(mean, cpus)
        return rate >= demand.dps

    low, high, found = 1, MOST_CPUS, None
    while low <= high:
        middle = (low + high) // 2
        if does(middle):
            found, high = middle, middle - 1
        else:
            low = middle + 1
    return found
