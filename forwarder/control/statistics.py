"""Statistics: counters of all workers, as JSON and for Prometheus. They are read while workers run."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from forwarder.engines.packet import schema
from forwarder.engines.packet.accounting import Block, Snapshot, read
from forwarder.engines.xdp.layout import RuleCount
from forwarder.rules.model import ForwardingRule
from forwarder.supervisor.supervisor import Supervisor
from forwarder.workers.handle import State, WorkerHandle
from forwarder.workers.pool import RETIRED
from forwarder.workers.rule_counts import RuleCounters, RuleCounts, counted
from forwarder.workers.rule_index import FOREIGN

SCHEMA: Final = "mcrd.stats/1"


def collect(supervisor: Supervisor, *, with_rules: bool = True) -> dict[str, Any]:
    """Everything counted so far.

    Exact at any moment, worker by worker: received = matched + the ingress reasons, and copies owed by the
    matches = sent + the egress reasons + pending (copies of a batch that is under way); frames of a socket:
    arrived = received + kernel_drops + waiting, those waiting being abandoned when no worker will take them.
    What was dropped early (``early_drops``) never arrived at a socket.
    Where rules are hashed to workers without steering by rule, ``wrong_worker`` is the ingress reason of
    datagrams whose rule another worker of the group holds.

    What XDP forwards is in the totals, and by itself in ``xdp``; what it leaves to workers these count.

    ``with_rules``: include rules (thousands of them take time); an empty list otherwise.
    """
    state, kernel = supervisor.state, supervisor.state.kernel.report()
    wrong_workers = state.pool.index.knows_foreign
    totals = np.zeros(schema.COUNTERS, np.uint64)
    pending, astray = 0, state.past.wrong_worker
    workers = []
    # Also those that were served once, or still are, by workers of a former plan: what they dropped counts.
    drops: Counter[str] = Counter(dict.fromkeys(state.plan.interfaces, 0))
    arrivals: Counter[str] = Counter()
    abandoned, early = Counter(state.pool.past_abandoned), state.early.drops()
    retiring = {id(block) for one in state.past.retiring if one.knows_foreign for block in one.blocks}
    for handle in state.pool.workers:
        live = wrong_workers and handle not in state.pool.spare  # what others knew of rules is settled
        live = live or id(handle.block) in retiring
        snapshot, wrong = _read(handle) if live else (read(handle.block), None)
        totals += snapshot.counters
        pending += snapshot.pending
        astray += 0 if wrong is None else wrong
        entry = {**_identity(supervisor, handle), **_counted(handle, snapshot, wrong)}
        for socket in entry["sockets"]:
            drops[socket["interface"]] += socket["kernel_drops"]
            arrivals[socket["interface"]] += socket["arrived_frames"]
            if handle.state is State.STOPPED and handle.pid is None:
                abandoned[socket["interface"]] += socket["waiting_frames"]
        workers.append(entry)
    for name, count in state.pool.past_drops.items():
        drops[name] += count
    arrivals.update(state.pool.past_arrivals)
    return {
        "schema": SCHEMA,
        "time_ns": time.monotonic_ns(),
        "totals": _with_kernel(
            counters(totals, pending, astray if wrong_workers or astray else None), kernel
        ),
        "xdp": kernel,
        "workers": workers,
        "early_drop": {"inputs": state.early.inputs, "refused": state.early.refused},
        "interfaces": [
            {
                "name": name,
                "state": _presence(supervisor, name),
                "served": name in state.plan.interfaces,
                "arrived_frames": arrivals[name],
                "kernel_drops": count,
                "early_drops": early[name],
                "abandoned_frames": abandoned[name],
            }
            for name, count in drops.items()
        ],
        "distribution": distributions(supervisor),
        "scaling": supervisor.autoscaler.report(),
        "rules": rules(supervisor) if with_rules else [],
        "memberships": len(state.memberships),
    }


def _read(handle: WorkerHandle, attempts: int = 100) -> tuple[Snapshot, int]:
    """A worker's counters without the datagrams that came to it and were another's, and how many those were.

    It knows the rules of others as keys without outputs, and matches them like its own.
    """
    block = handle.block
    for _ in range(attempts):
        began = int(block.journal[schema.JOURNAL_SEQUENCE])
        snapshot = read(block)
        datagrams, payload = block.rule_matched[FOREIGN].tolist()
        if began == int(block.journal[schema.JOURNAL_SEQUENCE]):
            break
    snapshot.counters[schema.MATCHED] -= np.uint64(datagrams)
    snapshot.counters[schema.MATCHED_BYTES] -= np.uint64(payload)
    return snapshot, datagrams


def counters(values: NDArray[np.uint64], pending: int, wrong_worker: int | None = None) -> dict[str, Any]:
    """``uint64[COUNTERS]`` by name."""
    named = dict(zip((*schema.REASONS, *schema.FLOWS), values.tolist(), strict=True))
    dropped = {reason: named.pop(reason) for reason in schema.REASONS}
    if wrong_worker is not None:
        dropped["wrong_worker"] = wrong_worker
    return {**named, "pending": pending, "dropped": dropped}


def _with_kernel(totals: dict[str, Any], kernel: Mapping[str, Any] | None) -> dict[str, Any]:
    """The counters of workers, and of the copies that XDP took before them."""
    if kernel is None:
        return totals
    more, named = kernel["counters"], {"received": "matched", "received_bytes": "matched_bytes"}
    named |= {name: name for name in ("matched", "matched_bytes", "sent")}
    named["sent_bytes"] = "handed_over_bytes"
    sums = {name: totals[name] + more[source] for name, source in named.items()}
    dropped = {reason: count + more["dropped"].get(reason, 0) for reason, count in totals["dropped"].items()}
    return {**totals, **sums, "dropped": dropped}


def _identity(supervisor: Supervisor, handle: WorkerHandle) -> dict[str, Any]:
    return {
        "worker_id": handle.plan.worker_id,
        "group": None if handle.plan.group == RETIRED else handle.plan.group,
        "pid": handle.pid,
        "cpu": handle.plan.cpu,
        "node": handle.plan.node,
        "state": str(handle.state),
        "restarts": handle.restarts,
        "rules": supervisor.state.pool.index.held(handle.plan.partition),
    }


def _counted(handle: WorkerHandle, snapshot: Snapshot, wrong_worker: int | None) -> dict[str, Any]:
    return {
        "counters": counters(snapshot.counters, snapshot.pending, wrong_worker),
        "sockets": [
            {
                "interface": receiver.interface,
                "fanout_slot": receiver.fanout_slot,
                "received_frames": (claimed := handle.claimed(row)),
                "kernel_drops": receiver.count_drops(),
                "arrived_frames": receiver.came,
                "waiting_frames": receiver.waiting(claimed),
                "ring_bytes": receiver.ring.ring_bytes,
                "ring_fill": receiver.fill(claimed),
            }
            for row, receiver in sorted(handle.receivers.items())
        ],
    }


def distributions(supervisor: Supervisor) -> list[dict[str, Any]]:
    """How evenly the rules of each worker group are distributed over its workers."""
    sizes = supervisor.autoscaler.sizes()
    found = []
    for one in supervisor.state.pool.index.distributions():
        if (size := sizes.get(one.group)) is not None:  # its workers hold all of its rules, however many
            one = replace(one, workers=size, moved_by_one_less=None if size == 1 else 0)
        found.append(asdict(one))
    return found


def worker_list(supervisor: Supervisor) -> list[dict[str, Any]]:
    """All workers, but for those of former plans that have ended."""
    return [
        {
            **_identity(supervisor, handle),
            "interfaces": [receiver.interface for receiver in handle.receivers.values()],
        }
        for handle in supervisor.state.pool.workers
        if handle.pid is not None or handle not in supervisor.state.pool.spare
    ]


def condition(supervisor: Supervisor, rule: ForwardingRule) -> dict[str, Any]:
    """Whether a rule is running, or what it waits for."""
    trouble = supervisor.interfaces.trouble(rule)
    engine, why = supervisor.state.kernel.engine_of(rule)
    return {
        "rule_id": rule.rule_id,
        "state": "waiting" if trouble else "running",
        "reason": trouble,
        "engine": str(engine),
        "engine_reason": why,
    }


def rules(supervisor: Supervisor) -> list[dict[str, Any]]:
    """Each rule's state and counters, over all workers that hold it."""
    blocks: dict[int, list[Block]] = {}
    for handle in supervisor.state.pool.in_plan:
        blocks.setdefault(handle.plan.partition, []).append(handle.block)
    slots: dict[int, dict[str, int]] = {}
    for rule in supervisor.state.book:
        partition, slot = supervisor.state.pool.index.place(rule)
        slots.setdefault(partition, {})[rule.rule_id] = slot
    # While code is being compiled there are rules, and no workers yet.
    holders = (RuleCounters(blocks[partition], of) for partition, of in slots.items() if partition in blocks)
    counts = counted(holders, supervisor.state.past.counts())
    by_kernel = supervisor.state.kernel.rule_counts()
    found = []
    for rule in supervisor.state.book:
        rule_counts = counts.get(rule.rule_id, RuleCounts())
        if (one := by_kernel.get(rule.node)) is not None:
            rule_counts = rule_counts.plus(_of_kernel(rule, one))
        found.append(
            {
                **condition(supervisor, rule),
                "matched": rule_counts.matched,
                "matched_bytes": rule_counts.matched_bytes,
                "sent": rule_counts.matched * len(rule.outputs) - rule_counts.unsent,
                "sent_bytes": rule_counts.matched_bytes * len(rule.outputs) - rule_counts.unsent_bytes,
                **supervisor.rules.timing.of(rule.rule_id, rule_counts.first_ns)._asdict(),
            }
        )
    return found


def _of_kernel(rule: ForwardingRule, counts: RuleCount) -> RuleCounts:
    """What XDP counted of a rule; a copy that was handed to its driver counts as sent."""
    unsent = max(0, counts.matched * len(rule.outputs) - counts.handed_over)
    unsent_bytes = max(0, counts.matched_bytes * len(rule.outputs) - counts.handed_over_bytes)
    return RuleCounts(counts.matched, counts.matched_bytes, unsent, unsent_bytes, counts.first_ns)


def _presence(supervisor: Supervisor, name: str) -> str:
    state = supervisor.state.links.find(name)
    if state is None:
        return "absent"
    return "up" if state.up else "down"


def _family(
    kind: type[Metric], name: str, about: str, labels: str, samples: Iterable[Sequence[Any]]
) -> Metric:
    """A metric; ``labels``: their names, with spaces between; a sample: their values, then the number."""
    family: Any = kind(name, about, labels=labels.split())  # type: ignore[call-arg]
    for *values, number in samples:
        family.add_metric([str(value) for value in values], number)
    return family  # type: ignore[no-any-return]


_counter, _gauge = partial(_family, CounterMetricFamily), partial(_family, GaugeMetricFamily)


@dataclass(frozen=True, eq=False)
class _Exposition:
    """A Prometheus collector for one snapshot."""

    stats: dict[str, Any]

    def collect(self) -> Iterator[Metric]:
        workers = [(worker["worker_id"], worker) for worker in self.stats["workers"]]
        counters = [(name, worker["counters"]) for name, worker in workers]
        about = "Datagrams and copies of the XDP engine, by what became of them."
        kernel = self.stats["xdp"]["counters"] if self.stats["xdp"] else {"dropped": {}}
        flows = ((what, kernel[what]) for what in ("matched", "due", "sent") if what in kernel)
        yield _counter("mcrd_xdp", about, "what", flows)
        about = "Copies that the XDP engine did not forward."
        yield _counter("mcrd_xdp_dropped", about, "reason", kernel["dropped"].items())
        interfaces = [(interface["name"], interface) for interface in self.stats["interfaces"]]
        shares = [(entry["group"], entry) for entry in self.stats["distribution"]]
        states = [rule["state"] for rule in self.stats["rules"]]
        about = "Datagrams, copies, frames and bytes, by what became of them."
        worked = ((name, what, found[what]) for name, found in counters for what in schema.FLOWS)
        yield _counter("mcrd", about, "worker what", worked)
        failed = ((name, why, count) for name, found in counters for why, count in found["dropped"].items())
        yield _counter("mcrd_dropped", "Datagrams and copies not forwarded.", "worker reason", failed)
        restarts = ((name, worker["restarts"]) for name, worker in workers)
        yield _counter("mcrd_worker_restarts", "Workers replaced.", "worker", restarts)
        lost = ((name, interface["kernel_drops"]) for name, interface in interfaces)
        yield _counter("mcrd_kernel_drops", "Frames that found no free ring slot.", "interface", lost)
        about = "Datagrams that the driver dropped, as a ring was nearly full."
        early = ((name, interface["early_drops"]) for name, interface in interfaces)
        yield _counter("mcrd_early_drops", about, "interface", early)
        about = "Frames left in the rings of workers that died and were not replaced."
        abandoned = ((name, interface["abandoned_frames"]) for name, interface in interfaces)
        yield _counter("mcrd_abandoned_frames", about, "interface", abandoned)
        held = ((state, states.count(state)) for state in ("running", "waiting"))
        yield _gauge("mcrd_rules", "Rules in force, by state.", "state", held)
        on_workers = ((name, worker["rules"]) for name, worker in workers)
        yield _gauge("mcrd_worker_rules", "Rules that a worker holds.", "worker", on_workers)
        about = "Most rules of a worker over the mean, by group."
        yield _gauge("mcrd_rules_imbalance", about, "group", ((n, one["imbalance"]) for n, one in shares))
        moved = ((n, by, one[f"moved_by_{by}"]) for n, one in shares for by in ("one_more", "one_less"))
        about = "Rules that a resize of a group would move."
        yield _gauge("mcrd_rules_moved", about, "group by", (row for row in moved if row[-1] is not None))
        yield from self._load()

    def _load(self) -> Iterator[Metric]:
        """Metrics of elastic groups: the load that they follow, and their sizes."""
        stats = self.stats
        about = "Share of a receive ring's slots that wait for their worker."
        fill = (
            (worker["worker_id"], socket["interface"], socket["ring_fill"])
            for worker in stats["workers"]
            for socket in worker["sockets"]
        )
        yield _gauge("mcrd_ring_fill_ratio", about, "worker interface", fill)
        about = "Frames for an interface's rings, those included that found no free slot."
        arrived = ((interface["name"], interface["arrived_frames"]) for interface in stats["interfaces"])
        yield _counter("mcrd_arrived_frames", about, "interface", arrived)
        about = "Workers of an elastic group, and their bounds."
        bounds = ("workers", "min_workers", "max_workers")
        sizes = ((group["group"], what, group[what]) for group in stats["scaling"] for what in bounds)
        yield _gauge("mcrd_group_workers", about, "group what", sizes)
        about = "Datagrams/s that reach an elastic group's sockets."
        offered = ((group["group"], group["offered_dps"]) for group in stats["scaling"])
        yield _gauge("mcrd_group_offered_dps", about, "group", offered)
        about = "Resizes of an elastic group, which goes by its interfaces, by outcome."
        resizes = (
            (",".join(group["interfaces"]), outcome, group[f"resizes_{outcome}"])
            for group in stats["scaling"]
            for outcome in ("done", "failed")
        )
        yield _counter("mcrd_resizes", about, "interfaces outcome", resizes)


def exposition(stats: dict[str, Any]) -> str:
    """Prometheus text exposition of one :func:`collect`."""
    registry = CollectorRegistry()
    registry.register(_Exposition(stats))
    return generate_latest(registry).decode()
