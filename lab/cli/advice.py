"""Which strategy suits a machine and a workload: plan, predict and rank every candidate. Pure.

Each candidate is a set of options for ``mcrd supervisor``, planned by the forwarder's own planner, so what is
predicted is what would be started. The predictions are conservative where the workload leaves something open:
the kernel's part of receiving runs on the workers' CPUs, and flows fall on workers at random, as with a
network card's hash.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from forwarder.config.options import SupervisorOptions, resolve
from forwarder.plan.host import Host, described_host
from forwarder.plan.model import Plan
from forwarder.plan.resources import TX_RING
from forwarder.plan.strategy import RulePlacement
from forwarder.problems import ProblemsError, flag
from lab.cli.workload import Workload
from reports import quantity
from reports.capacity.cost import Load
from reports.capacity.memory import Holding
from reports.capacity.model import CapacityModel
from reports.capacity.predict import Machine
from reports.capacity.rank import ALIKE, Candidate, Row, evaluate, ranked

MARGIN = 1.25
"""Fewer workers than CPUs are offered only if they do at least this many times what is asked."""
MOST_CPUS = 4096
MOST_SOCKETS = 16_384
"""Sockets of a pool. More take gigabytes for rings of 64 frames, which hold no burst."""
MOST_WORKERS = 4096
"""Workers of a candidate. More take minutes to start, and no row of the architecture document has them."""


@dataclass(frozen=True, slots=True)
class Advice:
    workload: Workload
    rows: tuple[Row, ...]
    """Best first."""
    met: bool
    """Whether the whole interval of the first row is above what is asked."""
    conclusion: tuple[str, ...]


def advise(workload: Workload, model: CapacityModel, host: Host | None = None) -> Advice:
    """Rank every strategy that can be planned for ``workload``.

    Args:
        host: the machine with the workload's interfaces. ``None``: one that the workload describes.
    """
    rows = {row.candidate.options: row for row in _rows(workload, model, host or host_of(workload))}
    best, *others = ranked(rows.values())
    met = best.verdict == "meets it"
    return Advice(workload, (best, *others), met, tuple(_conclusion(best, workload, model)))


def _rows(workload: Workload, model: CapacityModel, host: Host) -> Iterator[Row]:
    for found in candidates(workload, host):
        yield evaluate(found, workload.dps, model)
    for given, most in _narrowed(workload):
        row = _fewest(given, most, host, workload, model)
        if row is not None:
            yield row


def candidates(workload: Workload, host: Host) -> Iterator[Candidate]:
    """All that can be planned with as many workers as the machine has CPUs."""
    for given in _wide_as_the_machine(workload):
        if (found := planned_candidate(given, host, workload)) is not None:
            yield found


Given = dict[str, Any]


def host_of(workload: Workload) -> Host:
    mtu = 1500 if workload.payload_bytes <= 1472 else 9000
    return described_host(workload.cpus, workload.names, workload.numa_nodes, mtu)


def _wide_as_the_machine(workload: Workload) -> Iterator[Given]:
    """Options with as many workers as the machine has CPUs, as the architecture document has them."""
    cpus = workload.cpus
    if workload.interfaces == 1:
        yield {"interface": workload.names[0], "num_workers": cpus}
        yield {"strategy": "rule-hash", "interface": workload.names[0], "num_workers": cpus}
        yield {"interfaces": workload.names, "num_workers": 1}
        return
    every: Given = {"interfaces": workload.names}
    yield {**every, "num_workers": 1}
    if cpus > 1:
        yield {**every, "num_workers": cpus}
        yield {"strategy": "rule-hash", **every, "num_workers": cpus}
    yield {"strategy": "fanout-per-interface", **every, "width": "share"}
    if workload.interfaces * cpus <= MOST_WORKERS and cpus > 1:
        yield {"strategy": "full-fanout", **every}
    most = max(1, cpus // workload.interfaces)
    yield {"auto_scale": True, **every, "max_workers_per_interface": most}
    for groups in _group_counts(workload):
        for strategy in ("hybrid", "hybrid-hash"):
            yield {"strategy": strategy, **every, "groups": groups, "num_workers": cpus // groups}


def _group_counts(workload: Workload) -> list[int]:
    """Numbers of groups to try: the document's four, and one or two for each memory node.

    A group has at least two interfaces, all of one memory node.
    """
    wanted = {4, workload.numa_nodes, 2 * workload.numa_nodes}
    least = max(2, min(workload.numa_nodes, workload.interfaces))
    most = min(workload.cpus, workload.interfaces // 2)
    return sorted(groups for groups in wanted if least <= groups <= most and workload.cpus % groups == 0)


def _narrowed(workload: Workload) -> Iterator[tuple[Given, int]]:
    """Strategies that may need fewer workers than the machine has CPUs, and the most for a group of each."""
    if workload.interfaces == 1:
        yield {"interface": workload.names[0]}, workload.cpus
        return
    every: Given = {"interfaces": workload.names}
    yield every, workload.cpus
    for groups in _group_counts(workload):
        yield {"strategy": "hybrid", **every, "groups": groups}, workload.cpus // groups


def _fewest(given: Given, most: int, host: Host, workload: Workload, model: CapacityModel) -> Row | None:
    """The row with the fewest workers that exceed what is asked by :data:`MARGIN`; ``None`` if none do."""

    @cache
    def enough(workers: int) -> Row | None:
        found = planned_candidate({**given, "num_workers": workers}, host, workload)
        row = None if found is None else evaluate(found, workload.dps, model)
        return row if row is not None and row.zero_loss_dps.low >= MARGIN * workload.dps else None

    if enough(most) is None:
        return None
    return enough(_first(lambda workers: enough(workers) is not None, most))


def _first(does: Callable[[int], bool], most: int) -> int:
    """The least number from 1 for which ``does`` is true, as for all above it; ``most + 1`` without any."""
    return 1 + bisect_left(range(1, most + 1), True, key=does)


def planned_candidate(given: Given, host: Host, workload: Workload) -> Candidate | None:
    """Plan the options ``given``; ``None`` if they are not possible, or take too many sockets."""
    if _sockets(given, workload) > MOST_SOCKETS:
        return None
    if workload.skip_host_stack:
        given = {**given, "skip_host_stack": True}
    options = SupervisorOptions.model_validate(given)
    try:
        planned = resolve(options, host, ())
    except ProblemsError:
        return None
    full = _at_its_largest(planned, options, host)
    machine, rules = _machine(full, host, workload)
    sockets = sum(len(worker.sockets) for worker in full.workers)
    return Candidate(
        strategy=planned.strategy.name,
        options=tuple(_words(given)),
        groups=len(planned.groups),
        workers=len(planned.workers),
        workers_most=len(full.workers),
        machine=machine,
        held=Holding(len(full.workers), workload.rules, rules_per_worker=rules, sockets=sockets),
        rings_bytes=sum(worker.ring_bytes + TX_RING.ring_bytes for worker in full.workers),
        why=tuple(_why(full, machine, rules, workload)),
    )


def _sockets(given: Given, workload: Workload) -> int:
    """Sockets of a strategy in which every worker reads every interface; 0 for others."""
    shared = given.get("strategy", "pool") in ("pool", "rule-hash") and not given.get("auto_scale")
    return workload.interfaces * int(given["num_workers"]) if shared and "num_workers" in given else 0


def _at_its_largest(planned: Plan, options: SupervisorOptions, host: Host) -> Plan:
    """The plan with every elastic group at its maximum."""
    if all(group.max_workers == group.workers for group in planned.groups):
        return planned
    most = options.max_workers_per_interface
    return resolve(options.model_copy(update={"min_workers_per_interface": most}), host, ())


def _words(given: Given) -> Iterator[str]:
    for name, value in given.items():
        yield flag(name)
        if value is not True:
            yield ",".join(value) if isinstance(value, tuple) else str(value)


def _machine(planned: Plan, host: Host, workload: Workload) -> tuple[Machine, int]:
    """The load of the busiest CPU, and the number of rules in the fullest worker."""
    parts: defaultdict[int, float] = defaultdict(float)
    width: defaultdict[int, int] = defaultdict(lambda: 1)
    sizes = {group.group_id: group for group in planned.groups}
    for worker in planned.workers:
        group = sizes[worker.group]
        parts[worker.cpu] += len(group.interfaces) / workload.interfaces / group.max_workers
        width[worker.cpu] = max(width[worker.cpu], group.max_workers)
    busiest = max(part * unevenness(workload.flow_count * part, width[cpu]) for cpu, part in parts.items())
    widest = max(planned.groups, key=lambda group: len(group.interfaces) / group.max_workers)
    share = len(widest.interfaces) / workload.interfaces
    rules = math.ceil(workload.rules * share)
    if planned.strategy.placement is RulePlacement.HASH:
        rules = math.ceil(rules / widest.max_workers)
    elif planned.strategy.placement is RulePlacement.REPLICATE:
        rules = workload.rules
    load = Load(
        payload_bytes=workload.payload_bytes,
        outputs=workload.outputs,
        rules=max(1, rules),
        flows=max(1, math.ceil(workload.flow_count * share / widest.max_workers)),
        interfaces=len(widest.interfaces),
        host_skipped=workload.skip_host_stack,
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
    """Flows on the busiest of ``workers``, over the mean of ``flows`` for each, if spread at random.

    The largest of n Poisson counts with mean m is about ``m + √(2 m ln n)``, and at most all flows.
    """
    if workers <= 1:
        return 1.0
    chance = 1 + math.sqrt(2 * math.log(workers) / flows)
    return min(float(workers), max(chance, 1 / flows))


def _crosses(planned: Plan, host: Host) -> bool:
    nodes = {interface.name: interface.node for interface in host.interfaces}
    read = ((nodes[socket.interface], worker.node) for worker in planned.workers for socket in worker.sockets)
    return len(host.nodes) > 1 and any(near not in (None, node) for near, node in read)


def _why(planned: Plan, machine: Machine, rules: int, workload: Workload) -> Iterator[str]:
    workers = len(planned.workers)
    if workers > machine.cpus:
        yield f"{workers:,} workers share {machine.cpus:,} CPUs"
    elif machine.cpus < workload.cpus:
        yield f"workers on {machine.cpus:,} of {workload.cpus:,} CPUs"
    if planned.strategy.placement is RulePlacement.HASH:
        yield f"each rule in one worker, {rules:,} a worker; datagrams are steered by the rule's hash"
    elif planned.strategy.placement is RulePlacement.REPLICATE and workers > 1:
        yield f"all {rules:,} rules in each worker"
    elif workers > 1:
        yield f"a worker holds the {rules:,} rules of its own interfaces"
    if machine.evenness < 1 - ALIKE:
        yield f"the busiest CPU has {1 / machine.evenness:.2g} × the mean of {workload.flow_count:,} flows"
    if machine.crosses_nodes:
        yield "some workers are on another memory node than their interface"
    if planned.strategy.name == "dynamic":
        yield "starts with one worker an interface; predicted with as many as it may start"


def _conclusion(best: Row, workload: Workload, model: CapacityModel) -> Iterator[str]:
    rate = best.zero_loss_dps
    asked, name = f"{workload.dps:,.0f} datagrams/s", best.candidate.strategy
    rounded = quantity.predicted
    found = f"{rounded(rate.value)} ({rounded(rate.low)} to {rounded(rate.high)}, {rate.basis})"
    if best.verdict == "meets it":
        yield f"{asked} can be forwarded without loss: {name} does {found}."
        return
    if best.verdict in ("likely", "doubtful"):
        yield f"It is uncertain whether {asked} can be forwarded without loss: {name} does {found}."
    else:
        yield f"{asked} cannot be forwarded without loss by any strategy here: {name} does {found}."
    yield from _remedies(best, workload, model)


def _remedies(best: Row, workload: Workload, model: CapacityModel) -> Iterator[str]:
    """What would make the load possible."""
    need = cpus_for(best, workload, model)
    if need is not None and need > workload.cpus:
        yield f"About {need:,} CPUs instead of {workload.cpus:,} would do, by the middle of the interval."
    elif need is None:
        yield f"No number of CPUs up to {MOST_CPUS:,} would do, by the middle of the interval."
    machines = f"{math.ceil(workload.dps / best.zero_loss_dps.low):,} such machines"
    yield f"{machines} that share the interfaces would do, by the lower end of the interval."
    if not workload.skip_host_stack:
        spared = best.cost_ns.value - model.cost.coefficients.get("host_stack", 0.0)
        gain = best.cost_ns.value / spared - 1 if spared > 0 else 0.0
        if gain > ALIKE:
            yield (
                f"--skip-host-stack keeps datagrams from the host's own network stack: {gain:.0%} more. Use "
                "it where no other program of the machine receives the groups."
            )


def cpus_for(best: Row, workload: Workload, model: CapacityModel) -> int | None:
    """CPUs that the strategy of ``best`` would need; ``None`` if :data:`MOST_CPUS` are not enough."""
    machine = best.candidate.machine

    def does(cpus: int) -> bool:
        mean = workload.flow_count / cpus
        one = best.zero_loss_dps.value / machine.evenness / model.scaling.speedup(machine.cpus).value
        rate = one * model.scaling.speedup(cpus).value / unevenness(mean, cpus)
        return rate >= workload.dps

    needed = _first(does, MOST_CPUS)
    return needed if needed <= MOST_CPUS else None
