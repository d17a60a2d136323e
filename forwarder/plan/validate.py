"""Whether a plan can be made at all: problems of a strategy, its sizing and the groups it yields."""

from collections import Counter
from collections.abc import Iterator, Sequence

from forwarder.plan.host import Host
from forwarder.plan.model import MAX_FANOUT_MEMBERS, MAX_INTERFACES, MAX_WORKERS, GroupPlan, Sizing
from forwarder.plan.placement import MAX_MEMBERS
from forwarder.plan.strategy import PRESETS, Grouping, Hashing, Strategy, Width, strategy_problems
from forwarder.problems import Problem


def plan_problems(strategy: Strategy, interfaces: Sequence[str], sizing: Sizing) -> list[Problem]:
    """Problems on any host; fields are those of :class:`Strategy` and :class:`Sizing`."""
    return [*strategy_problems(strategy), *_sizing_problems(strategy, interfaces, sizing)]


def _sizing_problems(strategy: Strategy, interfaces: Sequence[str], sizing: Sizing) -> Iterator[Problem]:
    counts, name, grouping = Counter(interfaces), strategy.name, strategy.grouping
    for interface, count in counts.items():
        if count > 1:
            yield Problem("interfaces", repr(interface), f"each interface once: it is there {count} times")
    if sizing.follow_rules:
        if grouping is not Grouping.ALL_INTERFACES:
            one = grouping is Grouping.ONE_INTERFACE
            wanted = f"{'one interface' if one else 'interfaces or interface groups'} with strategy {name}"
            following = [one for one, preset in PRESETS.items() if preset.grouping is Grouping.ALL_INTERFACES]
            only = f"only {' and '.join(following)} take them from the rules"
            yield Problem("interfaces", "none", f"{wanted}: {only}")
        elif strategy.width is Width.ELASTIC:
            allowed = f"interfaces with strategy {name}: a group that grows does not take them from the rules"
            yield Problem("interfaces", "none", allowed)
    elif not interfaces:
        yield Problem("interfaces", "none", "at least one interface")
    if grouping is Grouping.ONE_INTERFACE and len(counts) > 1:
        preset = PRESETS[name].grouping is grouping
        which = f"strategy {name}" if preset else f"grouping {grouping.value}"
        yield Problem("interfaces", ",".join(counts), f"one interface with {which}")
    if sizing.groups and grouping not in (Grouping.PER_INTERFACE, Grouping.INTERFACE_GROUPS):
        yield Problem("interface_group", name, "a strategy that works in interface groups")
    for group_id, count in Counter(group.group_id for group in sizing.groups).items():
        if count > 1:
            yield Problem("interface_group", str(group_id), f"each group id once: it is there {count} times")
    for group in sizing.groups:
        if grouping is Grouping.PER_INTERFACE and len(group.interfaces) > 1:
            value = f"{group.group_id}:{','.join(group.interfaces)}"
            yield Problem("interface_group", value, f"one interface in each group with strategy {name}")
    if sizing.max_workers is not None and sizing.max_workers < sizing.min_workers:
        allowed = f"the least, {sizing.min_workers}, or more"
        yield Problem("max_workers", str(sizing.max_workers), allowed)


def binding_problems(host: Host, sizing: Sizing) -> list[Problem]:
    known = sorted({*host.nodes, *(found.node for found in host.memory)})
    allowed = f"a memory node of this machine: {', '.join(map(str, known))}"
    return [
        Problem("--interface-node", f"{name}:{node}", allowed)
        for name, node in sizing.interface_nodes
        if node not in known
    ]


def group_problems(groups: Sequence[GroupPlan], strategy: Strategy) -> Iterator[Problem]:
    """Groups that are too large for the kernel or for a worker."""
    if (total := sum(group.workers for group in groups)) > MAX_WORKERS:
        yield Problem("workers", f"{total:,} in all groups", f"up to {MAX_WORKERS:,}")
    for group in groups:
        most, why = MAX_FANOUT_MEMBERS, "in a fanout group"
        # Longer programs than these are not taken (BPF_MAXINSNS).
        if strategy.steers_by_rule and strategy.hashing is Hashing.RENDEZVOUS:
            most, why = MAX_MEMBERS, "in a group that steers by rendezvous hash (modulo has no such limit)"
        if group.elastic:
            most, why = MAX_MEMBERS, "in an elastic group"
        if group.max_workers > most:
            yield Problem("workers", f"{group.max_workers:,}", f"up to {most:,} {why}")
        if len(group.interfaces) > MAX_INTERFACES:
            value = f"{len(group.interfaces):,} of group {group.group_id}"
            yield Problem("interfaces", value, f"up to {MAX_INTERFACES} interfaces in a group")
