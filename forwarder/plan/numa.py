"""The memory node of each worker group. Pure.

The rules, and why, are in docs/decisions/0042-numa.md:

* A group's workers are all on one node (its *home*) unless ``straddle`` says otherwise: workers of a group
  share interfaces, so those on another node would fetch every frame across the link between nodes.
* The home is the node of the group's interfaces. Where these are on several, it is the one with most of
  them; where none says, the one with fewest groups for its CPUs. A node without CPUs for workers is replaced
  by the nearest that has some.
* Groups that are made, not given, are made of interfaces of one node.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from forwarder.plan.host import Host
from forwarder.plan.resources import shares

Nodes = Mapping[str, int | None]
"""The node of each interface by name; ``None`` if unknown."""


def interface_nodes(host: Host, names: Sequence[str], bound: Mapping[str, int]) -> dict[str, int | None]:
    """The node of each interface: from ``bound``, otherwise from the machine."""
    found = {name: host.interface(name) for name in names}
    return {name: bound.get(name, interface.node if interface else None) for name, interface in found.items()}


def homes(host: Host, groups: Sequence[Sequence[str]], nodes: Nodes) -> list[int]:
    """The node that each group of interfaces is served on."""
    found: list[int | None] = []
    taken: Counter[int] = Counter()
    for names in groups:
        votes = Counter(node for name in names if (node := nodes[name]) is not None)
        home = None
        if votes:
            home = host.nearest(min(votes, key=lambda node: (-votes[node], node)), host.nodes)
            taken[home] += 1
        found.append(home)
    room = Counter(cpu.node for cpu in host.cpus)
    chosen = []
    for home in found:
        if home is None:
            home = min(host.nodes, key=lambda node: (taken[node] / room[node], -room[node], node))
            taken[home] += 1
        chosen.append(home)
    return chosen


def runs_by_node(names: Sequence[str], nodes: Nodes, group_count: int) -> list[tuple[str, ...]]:
    """Interfaces in ``group_count`` runs of neighbours, each of one node; more runs if there are more nodes.

    Interfaces of no known node are a kind of their own.
    """
    kinds: dict[int | None, list[str]] = {}
    for name in names:
        kinds.setdefault(nodes[name], []).append(name)
    parts = dict.fromkeys(kinds, 1)
    for _ in range(min(group_count, len(names)) - len(kinds)):
        # The kind with most interfaces to a group is cut once more; the first of equals.
        fullest = max(kinds, key=lambda kind: len(kinds[kind]) / parts[kind])
        parts[fullest] += 1
    runs: list[tuple[str, ...]] = []
    for kind, members in kinds.items():
        rest = iter(members)
        runs += [tuple(islice(rest, size)) for size in shares(len(members), parts[kind])]
    return runs
