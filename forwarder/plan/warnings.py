"""What whoever reads a plan should know before it is carried out: a sentence each, with the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from forwarder.plan.host import Host
from forwarder.plan.memory import megabytes
from forwarder.plan.model import GroupPlan, Sizing, WorkerPlan
from forwarder.plan.numa import Nodes
from forwarder.plan.numa_warnings import node_warnings
from forwarder.plan.strategy import Steering, Strategy


def plan_warnings(
    host: Host,
    groups: Sequence[GroupPlan],
    workers: Sequence[WorkerPlan],
    strategy: Strategy,
    sizing: Sizing,
    unplaced_rule_ids: Sequence[str],
    nodes: Nodes,
) -> tuple[str, ...]:
    """All warnings of a plan, the ones about lost datagrams first."""
    return (
        *_unplaced(unplaced_rule_ids),
        *_interfaces(host, groups),
        *_steering(host, groups, strategy),
        *_processors(host, workers),
        *node_warnings(host, groups, workers, strategy, sizing, nodes),
        *_rings(groups, workers, sizing),
        *_memory(host, workers),
    )


def _memory(host: Host, workers: Sequence[WorkerPlan]) -> list[str]:
    sizes = [node.memory_bytes for node in host.memory]
    there = sum(size for size in sizes if size is not None)
    rings = sum(worker.ring_bytes for worker in workers)
    if not sizes or None in sizes or rings <= there:
        return []
    return [f"Receive rings take {megabytes(rings)}, and the machine has {megabytes(there)} of memory."]


def _unplaced(rule_ids: Sequence[str]) -> list[str]:
    if not rule_ids:
        return []
    return [
        f"Rules whose input interface is in no worker group, so that nothing matches them: {_some(rule_ids)}."
    ]


def _interfaces(host: Host, groups: Sequence[GroupPlan]) -> list[str]:
    names = [name for group in groups for name in group.interfaces]
    found = {name: host.interface(name) for name in names}
    absent = [name for name, interface in found.items() if interface is None]
    down = [name for name, interface in found.items() if interface and not interface.up]
    warnings = []
    if absent:
        warnings.append(f"Interfaces that do not exist; their rules wait until they appear: {_some(absent)}.")
    if down:
        warnings.append(f"Interfaces that are down: {_some(down)}.")
    return warnings


def _steering(host: Host, groups: Sequence[GroupPlan], strategy: Strategy) -> list[str]:
    shared = [group for group in groups if group.max_workers > 1]
    if not shared:
        return []
    warnings = []
    if strategy.steering is Steering.NONE:
        warnings.append(
            f"{shared[0].workers} workers on each interface without steering would forward every datagram "
            f"{shared[0].workers} times: their sockets are put in one fanout group per interface, by CPU."
        )
    if strategy.steering is Steering.UNGROUPED and not strategy.leaves_wrong_workers:
        warnings.append(
            f"Steering ungrouped: {shared[0].workers} workers on each interface each get every datagram, and "
            f"forward it {shared[0].workers} times."
        )
    if strategy.leaves_wrong_workers:
        most = max(group.workers for group in shared)
        warnings.append(
            f"Steering {strategy.steering.value} with hashed rules: a datagram is forwarded only where it "
            f"reaches the one worker in {most} that has its rule; the others count it as wrong_worker."
        )
    if strategy.steering in (Steering.NONE, Steering.CPU):
        for group in shared:
            if len(host.cpus) < group.workers:
                others = f"; so in {len(shared) - 1} more groups" if len(shared) > 1 else ""
                warnings.append(
                    f"Group {group.group_id}: {group.workers - len(host.cpus)} of {group.workers} workers "
                    f"get no datagrams, as the receiving CPU decides which one gets a datagram, and there "
                    f"are {len(host.cpus)} CPUs{others}."
                )
                break
    if strategy.steering is Steering.LB:
        warnings.append("Steering in turn (lb) spreads each flow over all workers: its order is not kept.")
    if strategy.steering is Steering.FILTER:
        most = max(group.workers for group in shared)
        warnings.append(
            f"Steering by filter: the kernel offers each datagram to every socket of its interface ({most} "
            f"at most), and all but one refuse it."
        )
    return warnings


def _processors(host: Host, workers: Sequence[WorkerPlan]) -> list[str]:
    on = Counter(worker.cpu for worker in workers)
    busiest = max(on.values())
    warnings = []
    if busiest > 1:
        warnings.append(f"{len(workers):,} workers on {len(host.cpus)} CPUs: up to {busiest:,} share one.")
    cores = Counter(cpu.core for cpu in host.cpus if cpu.core is not None and on[cpu.cpu])
    crowded = sum(count > 1 for count in cores.values())
    if crowded:
        warnings.append(
            f"{crowded} cores have workers on more than one of their threads (SMT): these share a core's "
            f"execution units, and forward less than twice as much."
        )
    return warnings


def _rings(groups: Sequence[GroupPlan], workers: Sequence[WorkerPlan], sizing: Sizing) -> list[str]:
    planned = sum(worker.ring_bytes for worker in workers)
    most_of = {group.group_id: group.max_workers / group.workers for group in groups}
    at_most = int(sum(worker.ring_bytes * most_of[worker.group] for worker in workers))
    if at_most <= sizing.ring_budget_bytes:
        return []
    when = "" if at_most == planned else f" ({megabytes(planned)} before any group grows)"
    budget = megabytes(sizing.ring_budget_bytes)
    return [f"Receive rings take {megabytes(at_most)}{when}, more than the {budget} meant for them."]


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
