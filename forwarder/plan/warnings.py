"""Warnings of a plan, a sentence each, with the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from forwarder.plan.host import Host
from forwarder.plan.memory import FORWARDER, megabytes
from forwarder.plan.model import GroupPlan, Sizing, WorkerPlan
from forwarder.plan.numa import Nodes
from forwarder.plan.strategy import Grouping, Steering, Strategy

_STRADDLE = "--numa-straddle"


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
        *_memory_nodes(host, groups, workers, strategy, sizing, nodes),
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


def _some(names: Sequence[str], most: int = 8, separator: str = ", ") -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def _memory_nodes(
    host: Host,
    groups: Sequence[GroupPlan],
    workers: Sequence[WorkerPlan],
    strategy: Strategy,
    sizing: Sizing,
    nodes: Nodes,
) -> tuple[str, ...]:
    if len({*host.nodes, *(found.node for found in host.memory)}) < 2:
        return ()
    return (
        *_straddling(groups, workers),
        *_unknown_nodes(host, groups, sizing, nodes),
        *_elsewhere(host, groups, nodes),
        *_regrouped(groups, strategy, sizing),
        *_crowded(host, groups),
        *_unreached(host, groups, strategy),
        *_memory_of_nodes(host, workers),
    )


def _straddling(groups: Sequence[GroupPlan], workers: Sequence[WorkerPlan]) -> list[str]:
    on: dict[int, set[int]] = {}
    for worker in workers:
        on.setdefault(worker.group, set()).add(worker.node)
    across = {group.group_id: on[group.group_id] for group in groups if len(on[group.group_id]) > 1}
    if not across:
        return []
    numbers = {group: ", ".join(map(str, sorted(found))) for group, found in across.items()}
    listed = _some([f"group {group} on nodes {found}" for group, found in numbers.items()], 4, "; ")
    return [f"Groups with workers on several memory nodes, as {_STRADDLE} allows: {listed}."]


def _unknown_nodes(host: Host, groups: Sequence[GroupPlan], sizing: Sizing, nodes: Nodes) -> list[str]:
    """Groups that are where there was room, because nobody says where their interfaces are."""
    if len(host.nodes) < 2:
        return []
    unknown = {
        group.group_id: group.node
        for group in groups
        if group.node is not None
        and (sizing.follow_rules or all(nodes[name] is None for name in group.interfaces))
    }
    if not unknown:
        return []
    listed = _some([f"group {group} on node {node}" for group, node in unknown.items()], 4, "; ")
    why = "come with the rules" if sizing.follow_rules else "tell no memory node"
    tell = "--interfaces with --interface-node IF:NODE" if sizing.follow_rules else "--interface-node IF:NODE"
    sentence = (
        f"Groups whose interfaces {why} are put where there is room: {listed}. "
        f"{tell} says where one is, {_STRADDLE} uses the CPUs of all nodes."
    )
    return [sentence]


def _elsewhere(host: Host, groups: Sequence[GroupPlan], nodes: Nodes) -> list[str]:
    """Interfaces that are not on the node of their group's workers."""
    warnings = []
    for group in groups:
        away: dict[int, list[str]] = {}
        for name in group.interfaces:
            node = nodes[name]
            if node is not None and group.node is not None and node != group.node:
                away.setdefault(node, []).append(name)
        for node, names in sorted(away.items()):
            why = "" if node in host.nodes else ", which has no CPUs for workers"
            warnings.append(
                f"Group {group.group_id}: {_some(names, 4)} on memory node {node}{why}; its workers are on "
                f"node {group.node}, and what they receive there crosses from node to node."
            )
    return warnings


def _regrouped(groups: Sequence[GroupPlan], strategy: Strategy, sizing: Sizing) -> list[str]:
    if strategy.grouping is not Grouping.INTERFACE_GROUPS or sizing.groups:
        return []
    if len(groups) <= sizing.group_count:
        return []
    sentence = (
        f"{len(groups)} groups instead of {sizing.group_count}: one for the interfaces of each memory node "
        f"and of none, as no group takes them of two ({_STRADDLE} lets it)."
    )
    return [sentence]


def _crowded(host: Host, groups: Sequence[GroupPlan]) -> list[str]:
    """Nodes whose CPUs are too few for the workers on them, while other nodes have CPUs left."""
    wanted: Counter[int] = Counter()
    for group in groups:
        if group.node is not None:
            wanted[group.node] += group.workers
    room = {node: len(host.cpus_of(node)) for node in host.nodes}
    idle = {node: cpus - wanted[node] for node, cpus in room.items() if cpus > wanted[node]}
    warnings = []
    if not wanted or not idle:
        return []
    for node, workers in sorted(wanted.items()):
        if workers > room[node]:
            warnings.append(
                f"Memory node {node}: {workers} workers share its {room[node]} CPUs, while "
                f"{sum(idle.values())} CPUs of other nodes have none ({_STRADDLE} takes them)."
            )
    unused = {node: cpus for node, cpus in idle.items() if not wanted[node]}
    if unused and not warnings:
        listed = _some([f"node {node}: {cpus}" for node, cpus in unused.items()], 4, "; ")
        warnings.append(
            f"CPUs of memory nodes without interfaces that take no part: {listed} ({_STRADDLE} takes them)."
        )
    return warnings


def _unreached(host: Host, groups: Sequence[GroupPlan], strategy: Strategy) -> list[str]:
    """Workers whom steering by CPU passes over when only their node's CPUs receive."""
    if strategy.steering not in (Steering.NONE, Steering.CPU):
        return []
    short = []
    for group in groups:
        if group.node is None or group.elastic:
            continue
        near = len(host.cpus_of(group.node))
        if near < group.workers <= len(host.cpus):
            short.append(f"{group.workers - near} of {group.workers} in group {group.group_id}")
    if not short:
        return []
    sentence = (
        f"Workers that get no datagrams if only CPUs of their own node receive, as the receiving CPU decides "
        f"which one gets a datagram: {_some(short, 4, '; ')}. Steering hash reaches all."
    )
    return [sentence]


def _memory_of_nodes(host: Host, workers: Sequence[WorkerPlan]) -> list[str]:
    has = {found.node: found.memory_bytes for found in host.memory}
    placed: Counter[int] = Counter()
    borrowed: dict[int, int] = {}
    for worker in workers:
        if worker.memory_node is None:
            continue
        placed[worker.memory_node] += worker.ring_bytes + FORWARDER.process_bytes
        if worker.memory_node != worker.node:
            borrowed[worker.node] = worker.memory_node
    warnings = [
        f"Memory node {node} has no memory: its workers get theirs from node {other}, the nearest that has."
        for node, other in sorted(borrowed.items())
    ]
    for node, wanted in sorted(placed.items()):
        held = has.get(node)
        if held is not None and wanted > held:
            warnings.append(
                f"Memory node {node}: rings and workers take {megabytes(wanted)}, more than its "
                f"{megabytes(held)}; the rest comes from other nodes."
            )
    return warnings
