"""The planner: one function for every strategy. Pure.

A dry run is the plan itself: workers are started exactly as it says. Its parts are in
:mod:`forwarder.plan.model`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from forwarder.plan.host import ETHERNET_MTU, Cpu, Host, HostError
from forwarder.plan.memory import FORWARDER, Holding, estimate
from forwarder.plan.model import (
    RINGS_FORESEEN,
    FanoutMode,
    FanoutPlan,
    Figures,
    FilterPlan,
    GroupPlan,
    InterfaceGroup,
    Movement,
    NodePlan,
    Partition,
    Plan,
    PlanError,
    Sizing,
    SocketPlan,
    WorkerPlan,
)
from forwarder.plan.numa import Nodes, homes, interface_nodes, runs_by_node
from forwarder.plan.placement import MAX_MEMBERS, imbalance, moved, owners
from forwarder.plan.resources import RingPlan, cpu_slots, pick_cpus, ring_for, shares
from forwarder.plan.strategy import Grouping, Hashing, RulePlacement, Steering, Strategy, Width
from forwarder.plan.validate import binding_problems, group_problems, plan_problems
from forwarder.plan.warnings import plan_warnings
from forwarder.rules.model import ForwardingRule

_MODES: dict[Steering, FanoutMode] = {
    Steering.NONE: "cpu",
    Steering.CPU: "cpu",
    Steering.HASH: "hash",
    Steering.LB: "lb",
    Steering.RULE_HASH: "cbpf",
}


def plan(
    host: Host,
    interfaces: Sequence[str],
    rules: Sequence[ForwardingRule],
    strategy: Strategy,
    sizing: Sizing | None = None,
) -> Plan:
    """Apply ``strategy`` to ``host``.

    ``interfaces`` need not exist yet; they are ignored when ``sizing.groups`` names them. ``rules`` are taken
    to go together (:class:`~forwarder.rules.model.RuleBook`). Raises :class:`PlanError` with every problem.
    """
    sizing = sizing or Sizing()
    if sizing.groups:
        interfaces = [name for group in sizing.groups for name in group.interfaces]
    elif sizing.follow_rules:
        interfaces = list(dict.fromkeys(rule.input_interface for rule in rules))
    if problems := [*plan_problems(strategy, interfaces, sizing), *binding_problems(host, sizing)]:
        raise PlanError(problems)
    nodes = interface_nodes(host, interfaces, dict(sizing.interface_nodes))
    groups = _groups(host, interfaces, nodes, rules, strategy, sizing)
    if problems := [*group_problems(groups, strategy)]:
        raise PlanError(problems)
    partitions, of_worker, movements = _partitions(groups, rules, strategy)
    workers = _workers(host, groups, strategy, sizing, of_worker)
    covered = set(interfaces)
    unplaced = tuple(rule.rule_id for rule in rules if rule.input_interface not in covered)
    return Plan(
        strategy=strategy,
        cpus=len(host.cpus),
        rules=len(rules),
        groups=groups,
        workers=workers,
        partitions=partitions,
        unplaced_rule_ids=unplaced,
        movements=movements,
        figures=_figures(groups, workers, partitions, rules, sizing),
        warnings=plan_warnings(host, groups, workers, strategy, sizing, unplaced, nodes),
        follows_rules=sizing.follow_rules,
        nodes=_nodes(host, nodes),
    )


def _groups(
    host: Host,
    interfaces: Sequence[str],
    nodes: Nodes,
    rules: Sequence[ForwardingRule],
    strategy: Strategy,
    sizing: Sizing,
) -> tuple[GroupPlan, ...]:
    asked = sizing.groups or tuple(
        InterfaceGroup(group_id, members)
        for group_id, members in enumerate(_grouped(interfaces, nodes, strategy.grouping, sizing))
    )
    rules_on = Counter(rule.input_interface for rule in rules)
    at_home = _at_home(host, asked, nodes, sizing)
    of_node = {node: len(host.cpus_of(node)) for node in set(at_home)}
    left = {node: iter(shares(cpus, at_home.count(node))) for node, cpus in of_node.items()}
    sizes = dict(sizing.sizes)
    groups = []
    for group, node in zip(asked, at_home, strict=True):
        cpus, share = of_node[node], next(left[node])
        least = None
        if strategy.width is Width.ELASTIC:
            least = sizing.min_workers
            most = sizing.max_workers or max(min(cpus, MAX_MEMBERS), least)
            workers = min(max(least, sizes.get(group.group_id, least)), most)
        else:
            width = {Width.ONE: 1, Width.PER_CPU: cpus, Width.SHARE: share}
            workers = most = group.workers or sizing.workers or width[strategy.width]
        count = sum(rules_on[name] for name in group.interfaces)
        groups.append(GroupPlan(group.group_id, group.interfaces, workers, most, count, least, node))
    return tuple(groups)


def _at_home(host: Host, groups: Sequence[InterfaceGroup], nodes: Nodes, sizing: Sizing) -> list[int | None]:
    """The memory node of each group's workers; ``None`` if they may be on several."""
    if sizing.straddle:
        return [None] * len(groups)
    # Workers stay where they are when rules bring other interfaces: where that is must not depend on these.
    members = [() if sizing.follow_rules else group.interfaces for group in groups]
    settled = {group_id: node for group_id, node in sizing.homes if node in host.nodes}
    found = homes(host, members, nodes)
    return [settled.get(group.group_id, node) for group, node in zip(groups, found, strict=True)]


def _nodes(host: Host, nodes: Nodes) -> tuple[NodePlan, ...]:
    memory = {found.node: found.memory_bytes for found in host.memory}
    return tuple(
        NodePlan(
            node,
            len(host.cpus_of(node)),
            memory.get(node),
            tuple(name for name, found in nodes.items() if found == node),
        )
        for node in sorted({*memory, *host.nodes})
    )


def _grouped(
    interfaces: Sequence[str], nodes: Nodes, grouping: Grouping, sizing: Sizing
) -> list[tuple[str, ...]]:
    if grouping is Grouping.PER_INTERFACE:
        return [(name,) for name in interfaces]
    if grouping is not Grouping.INTERFACE_GROUPS:
        return [tuple(interfaces)]  # also when there are none yet
    nodes = dict.fromkeys(interfaces) if sizing.straddle else nodes
    return runs_by_node(interfaces, nodes, sizing.group_count)


def _partitions(
    groups: Sequence[GroupPlan], rules: Sequence[ForwardingRule], strategy: Strategy
) -> tuple[tuple[Partition, ...], dict[tuple[int, int], int], tuple[Movement, ...]]:
    """The rule tables, the table of the worker at (group, place in group), and the moves of a resize."""
    group_of = {name: group.group_id for group in groups for name in group.interfaces}
    rules_of: dict[int, list[ForwardingRule]] = {group.group_id: [] for group in groups}
    for rule in rules:
        if rule.input_interface in group_of:
            rules_of[group_of[rule.input_interface]].append(rule)
    everything = tuple(rule.rule_id for rule in rules if rule.input_interface in group_of)
    partitions: list[Partition] = []
    of_worker: dict[tuple[int, int], int] = {}
    movements = []
    for group in groups:
        own, width = rules_of[group.group_id], group.workers
        if strategy.placement is RulePlacement.HASH:
            keys = [(int(rule.input_group), rule.input_port) for rule in own]
            tables: list[list[str]] = [[] for _ in range(width)]
            for rule, slot in zip(own, owners(keys, width, strategy.hashing), strict=True):
                tables[slot].append(rule.rule_id)
            hashings = (Hashing.RENDEZVOUS, Hashing.MODULO)
            more, modulo_more = (moved(keys, width, width + 1, hashing) for hashing in hashings)
            less, modulo_less = (
                moved(keys, width, width - 1, hashing) if width > 1 else None for hashing in hashings
            )
            uneven = imbalance([len(table) for table in tables])
            moves = Movement(group.group_id, len(own), width, more, modulo_more, less, modulo_less, uneven)
            movements.append(moves)
            for place, table in enumerate(tables):
                of_worker[group.group_id, place] = len(partitions)
                partitions.append(Partition(len(partitions), tuple(table)))
        else:
            replicated = strategy.placement is RulePlacement.REPLICATE
            ids = everything if replicated else tuple(rule.rule_id for rule in own)
            of_worker.update({(group.group_id, place): len(partitions) for place in range(width)})
            partitions.append(Partition(len(partitions), ids))
    return tuple(partitions), of_worker, tuple(movements)


def _workers(
    host: Host,
    groups: Sequence[GroupPlan],
    strategy: Strategy,
    sizing: Sizing,
    of_worker: dict[tuple[int, int], int],
) -> tuple[WorkerPlan, ...]:
    # Rings must fit the budget when elastic groups are at their largest.
    foreseen = RINGS_FORESEEN if sizing.follow_rules else 0
    in_all = sum(group.max_workers * max(foreseen, len(group.interfaces)) for group in groups)
    rings: dict[str, RingPlan] = {}
    for name in (name for group in groups for name in group.interfaces):
        found = host.interface(name)
        mtu = found.mtu if found else ETHERNET_MTU
        rings[name] = ring_for(mtu, in_all, sizing.ring_budget_bytes, sizing.ring_frames)
    keys = {name: key for key, name in enumerate(rings)}
    load: Counter[int] = Counter()
    workers: list[WorkerPlan] = []
    for group in groups:
        cpus = pick_cpus(host.cpus_of(group.node), load, group.workers, _preferred(host, group))
        by_cpu = _MODES.get(strategy.steering) == "cpu" and not group.elastic
        slots, order = list(range(group.workers)), tuple[int, ...]()
        if by_cpu:
            picked, numbers = ([cpu.cpu for cpu in some] for some in (cpus, host.cpus_of(group.node)))
            members = {number % group.workers for number in numbers}  # those that PACKET_FANOUT_CPU picks
            if len(members) < min(group.workers, len(numbers)):
                order = tuple(dict.fromkeys((*picked, *numbers)))  # those of the workers first
            else:
                slots = cpu_slots(picked)
        for place, (cpu, slot) in enumerate(zip(cpus, slots, strict=True)):
            sockets = tuple(
                SocketPlan(name, *_membership(group, strategy.steering, slot, order, keys[name]), rings[name])
                for name in group.interfaces
            )
            partition = of_worker[group.group_id, place]
            workers.append(_worker(host, group, len(workers), cpu, partition, sockets))
    return tuple(workers)


def _worker(
    host: Host, group: GroupPlan, worker_id: int, cpu: Cpu, partition: int, sockets: tuple[SocketPlan, ...]
) -> WorkerPlan:
    memory_node = host.memory_node(cpu.node)
    return WorkerPlan(worker_id, group.group_id, cpu.cpu, cpu.node, partition, sockets, memory_node)


def one_more(
    host: Host, group: GroupPlan, members: Sequence[WorkerPlan], others: Sequence[WorkerPlan], worker_id: int
) -> WorkerPlan:
    """The next worker of an elastic group, given its ``members`` and the workers of other groups.

    Raises HostError: there is no CPU for it.
    """
    load = Counter(worker.cpu for worker in (*members, *others))
    cpus = host.cpus_of(group.node)
    if not cpus:
        raise HostError(f"memory node {group.node} has no CPU left that workers may use")
    (cpu,) = pick_cpus(cpus, load, 1, _preferred(host, group))
    place = len(members)
    sockets = tuple(
        replace(one, fanout=replace(one.fanout, slot=place, members=place + 1) if one.fanout else None)
        for one in members[0].sockets
    )
    return _worker(host, group, worker_id, cpu, members[0].partition, sockets)


def _preferred(host: Host, group: GroupPlan) -> int | None:
    """The memory node whose CPUs a group uses first."""
    if group.node is not None:
        return group.node
    found = (host.interface(name) for name in group.interfaces)
    nodes = {interface.node for interface in found if interface and interface.node is not None}
    return nodes.pop() if len(nodes) == 1 else None


def _membership(
    group: GroupPlan, steering: Steering, slot: int, cpus: tuple[int, ...], key: int
) -> tuple[FanoutPlan | None, FilterPlan | None]:
    if group.max_workers == 1 or steering is Steering.UNGROUPED:
        return None, None
    if steering is Steering.FILTER:
        return None, FilterPlan(slot, group.workers)
    mode: FanoutMode = "flow" if group.elastic else "cpu-map" if cpus else _MODES[steering]
    return FanoutPlan(key, mode, slot, group.workers, group.max_workers, cpus), None


def _figures(
    groups: Sequence[GroupPlan],
    workers: Sequence[WorkerPlan],
    partitions: Sequence[Partition],
    rules: Sequence[ForwardingRule],
    sizing: Sizing,
) -> Figures:
    outputs_of = {rule.rule_id: len(rule.outputs) for rule in rules}
    outputs = [sum(outputs_of[rule_id] for rule_id in partition.rule_ids) for partition in partitions]
    most_of = {group.group_id: group for group in groups}
    holdings, at_most = [], []
    for worker in workers:
        table = partitions[worker.partition]
        held = Holding(1, len(table.rule_ids), outputs[worker.partition], worker.ring_bytes)
        holdings.append(held)
        group = most_of.pop(worker.group, None)  # each group's first worker stands for those still to come
        extra = group.max_workers - group.workers if group else 0
        at_most.append(replace(held, workers=1 + extra))
    modelled = estimate(holdings, sizing.assumptions, rings=False)
    largest = estimate(at_most, sizing.assumptions, rings=False)
    return Figures(
        modelled=modelled,
        projected=estimate(holdings, FORWARDER, rings=True),
        modelled_at_most=largest if largest.workers != modelled.workers else None,
    )
