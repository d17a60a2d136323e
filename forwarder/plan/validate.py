"""Whether a plan can be made at all: problems of a strategy, its sizing and the groups it yields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from forwarder.plan.host import Host
from forwarder.plan.model import MAX_FANOUT_MEMBERS, MAX_INTERFACES, MAX_WORKERS, GroupPlan, Sizing
from forwarder.plan.placement import MAX_MEMBERS
from forwarder.plan.strategy import PRESETS, Grouping, Hashing, Strategy, Width, strategy_problems
from forwarder.problems import Problem


def plan_problems(strategy: Strategy, interfaces: Sequence[str], sizing: Sizing) -> list[Problem]:
    """Problems on any host; fields are those of :class:`Strategy` and :class:`Sizing`."""
    problems = strategy_problems(strategy)
    counts = Counter(interfaces)
    problems += [
        Problem("interfaces", repr(name), f"each interface once: it is there {count} times")
        for name, count in counts.items()
        if count > 1
    ]
    name, grouping = strategy.name, strategy.grouping
    if sizing.follow_rules:
        if grouping is not Grouping.ALL_INTERFACES:
            wanted = (
                "one interface" if grouping is Grouping.ONE_INTERFACE else "interfaces or interface groups"
            )
            following = [one for one, preset in PRESETS.items() if preset.grouping is Grouping.ALL_INTERFACES]
            allowed = (
                f"{wanted} with strategy {name}: only {' and '.join(following)} take them from the rules"
            )
            problems.append(Problem("interfaces", "none", allowed))
        elif strategy.width is Width.ELASTIC:
            allowed = f"interfaces with strategy {name}: a group that grows does not take them from the rules"
            problems.append(Problem("interfaces", "none", allowed))
    elif not interfaces:
        problems.append(Problem("interfaces", "none", "at least one interface"))
    if grouping is Grouping.ONE_INTERFACE and len(counts) > 1:
        problems.append(Problem("interfaces", ",".join(counts), f"one interface with {_which(strategy)}"))
    if sizing.groups and grouping not in (Grouping.PER_INTERFACE, Grouping.INTERFACE_GROUPS):
        problems.append(Problem("interface_group", name, "a strategy that works in interface groups"))
    ids = Counter(group.group_id for group in sizing.groups)
    problems += [
        Problem("interface_group", str(group_id), f"each group id once: it is there {count} times")
        for group_id, count in ids.items()
        if count > 1
    ]
    if grouping is Grouping.PER_INTERFACE:
        problems += [
            Problem(
                "interface_group",
                f"{group.group_id}:{','.join(group.interfaces)}",
                f"one interface in each group with strategy {name}",
            )
            for group in sizing.groups
            if len(group.interfaces) > 1
        ]
    if sizing.max_workers is not None and sizing.max_workers < sizing.min_workers:
        allowed = f"the least, {sizing.min_workers}, or more"
        problems.append(Problem("max_workers", str(sizing.max_workers), allowed))
    return problems


def _which(strategy: Strategy) -> str:
    """The preset or the axis that decides which interfaces share workers, for messages."""
    preset = PRESETS[strategy.name].grouping is strategy.grouping
    return f"strategy {strategy.name}" if preset else f"grouping {strategy.grouping.value}"


def binding_problems(host: Host, sizing: Sizing) -> list[Problem]:
    known = sorted({*host.nodes, *(found.node for found in host.memory)})
    allowed = f"a memory node of this machine: {', '.join(map(str, known))}"
    return [
        Problem("--interface-node", f"{name}:{node}", allowed)
        for name, node in sizing.interface_nodes
        if node not in known
    ]


def group_problems(groups: Sequence[GroupPlan], strategy: Strategy) -> list[Problem]:
    """Groups that are too large for the kernel or for a worker."""
    problems = []
    if (total := sum(group.workers for group in groups)) > MAX_WORKERS:
        problems.append(Problem("workers", f"{total:,} in all groups", f"up to {MAX_WORKERS:,}"))
    for group in groups:
        most, why = MAX_FANOUT_MEMBERS, "in a fanout group"
        # Longer programs than these are not taken (BPF_MAXINSNS).
        if strategy.steers_by_rule and strategy.hashing is Hashing.RENDEZVOUS:
            most, why = MAX_MEMBERS, "in a group that steers by rendezvous hash (modulo has no such limit)"
        if group.elastic:
            most, why = MAX_MEMBERS, "in an elastic group"
        if group.max_workers > most:
            problems.append(Problem("workers", f"{group.max_workers:,}", f"up to {most:,} {why}"))
        if len(group.interfaces) > MAX_INTERFACES:
            allowed = f"up to {MAX_INTERFACES} interfaces in a group"
            problems.append(
                Problem("interfaces", f"{len(group.interfaces):,} of group {group.group_id}", allowed)
            )
    return problems
