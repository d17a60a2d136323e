"""Warnings of a plan, a sentence each, with the numbers."""

from collections import Counter
from collections.abc import Iterator, Sequence

from forwarder.plan.host import Host
from forwarder.plan.memory import FORWARDER, megabytes
from forwarder.plan.model import GroupPlan, Sizing, WorkerPlan
from forwarder.plan.numa import Nodes
from forwarder.plan.strategy import Grouping, Steering, Strategy
from forwarder.problems import first_of

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
    warnings = [*_unplaced(unplaced_rule_ids), *_interfaces(host, groups), *_steering(host, groups, strategy)]
    warnings += _processors(host, workers)
    if len({*host.nodes, *(found.node for found in host.memory)}) > 1:
        warnings += _straddling(groups, workers)
        warnings += _unknown_nodes(host, groups, sizing, nodes)
        warnings += _elsewhere(host, groups, nodes)
        warnings += _regrouped(groups, strategy, sizing)
        warnings += _crowded(host, groups)
        warnings += _unreached(host, groups, strategy)
        warnings += _memory_of_nodes(host, workers)
    return (*warnings, *_rings(groups, workers, sizing), *_memory(host, workers))


def _memory(host: Host, workers: Sequence[WorkerPlan]) -> Iterator[str]:
    sizes = [node.memory_bytes for node in host.memory]
    there = sum(size for size in sizes if size is not None)
    rings = sum(worker.ring_bytes for worker in workers)
    if sizes and None not in sizes and rings > there:
        yield f"Receive rings take {megabytes(rings)}, and the machine has {megabytes(there)} of memory."


def _unplaced(rule_ids: Sequence[str]) -> Iterator[str]:
    if rule_ids:
        ids = first_of(rule_ids)
        yield f"Rules whose input interface is in no worker group, so that nothing matches them: {ids}."


def _interfaces(host: Host, groups: Sequence[GroupPlan]) -> Iterator[str]:
    found = {name: host.interface(name) for group in groups for name in group.interfaces}
    if absent := [name for name, interface in found.items() if interface is None]:
        yield f"Interfaces that do not exist; their rules wait until they appear: {first_of(absent)}."
    if down := [name for name, interface in found.items() if interface and not interface.up]:
        yield f"Interfaces that are down: {first_of(down)}."


def _steering(host: Host, groups: Sequence[GroupPlan], strategy: Strategy) -> Iterator[str]:
    shared = [group for group in groups if group.max_workers > 1]
    if not shared:
        return
    workers, most = shared[0].workers, max(group.workers for group in shared)
    if strategy.steering is Steering.NONE:
        yield (
            f"{workers} workers on each interface without steering would forward every datagram {workers} "
            f"times: their sockets are put in one fanout group per interface, by CPU."
        )
    if strategy.steering is Steering.UNGROUPED and not strategy.leaves_wrong_workers:
        yield (
            f"Steering ungrouped: {workers} workers on each interface each get every datagram, and "
            f"forward it {workers} times."
        )
    if strategy.leaves_wrong_workers:
        yield (
            f"Steering {strategy.steering.value} with hashed rules: a datagram is forwarded only where it "
            f"reaches the one worker in {most} that has its rule; the others count it as wrong_worker."
        )
    cpus = len(host.cpus)
    short = [group for group in shared if group.workers > cpus]
    if short and strategy.steering in (Steering.NONE, Steering.CPU):
        others = f"; so in {len(shared) - 1} more groups" if len(shared) > 1 else ""
        yield (
            f"Group {short[0].group_id}: {short[0].workers - cpus} of {short[0].workers} workers get no "
            f"datagrams, as the receiving CPU decides which one gets a datagram, and there are {cpus} "
            f"CPUs{others}."
        )
    if strategy.steering is Steering.LB:
        yield "Steering in turn (lb) spreads each flow over all workers: its order is not kept."
    if strategy.steering is Steering.FILTER:
        yield (
            f"Steering by filter: the kernel offers each datagram to every socket of its interface ({most} "
            f"at most), and all but one refuse it."
        )


def _processors(host: Host, workers: Sequence[WorkerPlan]) -> Iterator[str]:
    on = Counter(worker.cpu for worker in workers)
    if (busiest := max(on.values())) > 1:
        yield f"{len(workers):,} workers on {len(host.cpus)} CPUs: up to {busiest:,} share one."
    cores = Counter(cpu.core for cpu in host.cpus if cpu.core is not None and on[cpu.cpu])
    if crowded := sum(count > 1 for count in cores.values()):
        yield (
            f"{crowded} cores have workers on more than one of their threads (SMT): these share a core's "
            f"execution units, and forward less than twice as much."
        )


def _rings(groups: Sequence[GroupPlan], workers: Sequence[WorkerPlan], sizing: Sizing) -> Iterator[str]:
    planned = sum(worker.ring_bytes for worker in workers)
    most_of = {group.group_id: group.max_workers / group.workers for group in groups}
    at_most = int(sum(worker.ring_bytes * most_of[worker.group] for worker in workers))
    if at_most > sizing.ring_budget_bytes:
        when = "" if at_most == planned else f" ({megabytes(planned)} before any group grows)"
        budget = megabytes(sizing.ring_budget_bytes)
        yield f"Receive rings take {megabytes(at_most)}{when}, more than the {budget} meant for them."


def _straddling(groups: Sequence[GroupPlan], workers: Sequence[WorkerPlan]) -> Iterator[str]:
    on: dict[int, set[int]] = {group.group_id: set() for group in groups}
    for worker in workers:
        on[worker.group].add(worker.node)
    across = [
        f"group {group} on nodes {', '.join(map(str, sorted(found)))}"
        for group, found in on.items()
        if len(found) > 1
    ]
    if across:
        listed = first_of(across, 4, "; ")
        yield f"Groups with workers on several memory nodes, as {_STRADDLE} allows: {listed}."


def _unknown_nodes(host: Host, groups: Sequence[GroupPlan], sizing: Sizing, nodes: Nodes) -> Iterator[str]:
    """Groups that are where there was room, because nobody says where their interfaces are."""
    unknown = [
        f"group {group.group_id} on node {group.node}"
        for group in groups
        if group.node is not None
        and (sizing.follow_rules or all(nodes[name] is None for name in group.interfaces))
    ]
    if unknown and len(host.nodes) > 1:
        why = "come with the rules" if sizing.follow_rules else "tell no memory node"
        named = "--interfaces with " if sizing.follow_rules else ""
        yield (
            f"Groups whose interfaces {why} are put where there is room: {first_of(unknown, 4, '; ')}. "
            f"{named}--interface-node IF:NODE says where one is, {_STRADDLE} uses the CPUs of all nodes."
        )


def _elsewhere(host: Host, groups: Sequence[GroupPlan], nodes: Nodes) -> Iterator[str]:
    """Interfaces that are not on the node of their group's workers."""
    for group in groups:
        away: dict[int, list[str]] = {}
        for name in group.interfaces:
            node = nodes[name]
            if node is not None and group.node is not None and node != group.node:
                away.setdefault(node, []).append(name)
        for node, names in sorted(away.items()):
            why = "" if node in host.nodes else ", which has no CPUs for workers"
            yield (
                f"Group {group.group_id}: {first_of(names, 4)} on memory node {node}{why}; its workers are "
                f"on node {group.node}, and what they receive there crosses from node to node."
            )


def _regrouped(groups: Sequence[GroupPlan], strategy: Strategy, sizing: Sizing) -> Iterator[str]:
    made = strategy.grouping is Grouping.INTERFACE_GROUPS and not sizing.groups
    if made and len(groups) > sizing.group_count:
        yield (
            f"{len(groups)} groups instead of {sizing.group_count}: one for the interfaces of each memory "
            f"node and of none, as no group takes them of two ({_STRADDLE} lets it)."
        )


def _crowded(host: Host, groups: Sequence[GroupPlan]) -> Iterator[str]:
    """Nodes whose CPUs are too few for the workers on them, while other nodes have CPUs left."""
    wanted: Counter[int] = Counter()
    for group in groups:
        if group.node is not None:
            wanted[group.node] += group.workers
    room = {node: len(host.cpus_of(node)) for node in host.nodes}
    idle = {node: cpus - wanted[node] for node, cpus in room.items() if cpus > wanted[node]}
    if not wanted or not idle:
        return
    crowded = [(node, workers) for node, workers in sorted(wanted.items()) if workers > room[node]]
    for node, workers in crowded:
        yield (
            f"Memory node {node}: {workers} workers share its {room[node]} CPUs, while "
            f"{sum(idle.values())} CPUs of other nodes have none ({_STRADDLE} takes them)."
        )
    unused = [f"node {node}: {cpus}" for node, cpus in idle.items() if not wanted[node]]
    if unused and not crowded:
        listed = first_of(unused, 4, "; ")
        yield f"CPUs of memory nodes without interfaces that take no part: {listed} ({_STRADDLE} takes them)."


def _unreached(host: Host, groups: Sequence[GroupPlan], strategy: Strategy) -> Iterator[str]:
    """Workers whom steering by CPU passes over when only their node's CPUs receive."""
    short = [
        f"{group.workers - near} of {group.workers} in group {group.group_id}"
        for group in groups
        if group.node is not None and not group.elastic
        if (near := len(host.cpus_of(group.node))) < group.workers <= len(host.cpus)
    ]
    if short and strategy.steering in (Steering.NONE, Steering.CPU):
        yield (
            f"Workers that get no datagrams if only CPUs of their own node receive, as the receiving CPU "
            f"decides which one gets a datagram: {first_of(short, 4, '; ')}. Steering hash reaches all."
        )


def _memory_of_nodes(host: Host, workers: Sequence[WorkerPlan]) -> Iterator[str]:
    placed: Counter[int] = Counter()
    borrowed: dict[int, int] = {}
    for worker in workers:
        if worker.memory_node is not None:
            placed[worker.memory_node] += worker.ring_bytes + FORWARDER.process_bytes
            if worker.memory_node != worker.node:
                borrowed[worker.node] = worker.memory_node
    for node, other in sorted(borrowed.items()):
        nearest = f"node {other}, the nearest that has"
        yield f"Memory node {node} has no memory: its workers get theirs from {nearest}."
    has = {found.node: found.memory_bytes for found in host.memory}
    for node, wanted in sorted(placed.items()):
        if (held := has.get(node)) is not None and wanted > held:
            yield (
                f"Memory node {node}: rings and workers take {megabytes(wanted)}, more than its "
                f"{megabytes(held)}; the rest comes from other nodes."
            )
