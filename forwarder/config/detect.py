"""``mcrd plan --detect``: interfaces and a strategy for a machine, as the document recommends. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import tomli_w

from forwarder.plan.host import Host
from forwarder.plan.model import InterfaceGroup
from forwarder.plan.numa import homes, interface_nodes, runs_by_node
from forwarder.problems import first_of
from forwarder.rules.model import ForwardingRule

_FEW: Final = 4
"""Up to this many interfaces are few in the document's sense: each gets its own workers."""
_GROUPS: Final = 4
"""Groups that the document divides many interfaces into."""
_MANY_RULES: Final = 5000


@dataclass(frozen=True)
class Proposal:
    """Options of ``mcrd supervisor`` by field name, and the reasons for them."""

    options: dict[str, Any]
    reasons: tuple[str, ...]

    def text(self) -> str:
        """The reasons, and the configuration file."""
        reasons = "\n".join(f"- {reason}" for reason in self.reasons)
        return f"{reasons}\n\n# mcrd.toml\n{as_toml(self.options)}\n"


def propose(host: Host, rules: Sequence[ForwardingRule]) -> Proposal:
    """The strategy that the document recommends for this machine and these rules."""
    names, reasons = _inputs(host, rules)
    cpus, count = len(host.cpus), len(names)
    options: dict[str, Any]
    if not names:
        options = {"strategy": "pool"}
        reasons.append("One worker, whose input interfaces come with the rules.")
    elif count == 1:
        options = {"strategy": "fanout", "interface": names[0]}
        [home] = homes(host, [names], interface_nodes(host, names, {}))
        here = f" of memory node {home}" if len(host.nodes) > 1 else ""
        near = len(host.cpus_of(home))
        reasons.append(
            f"One interface: a fanout group with a worker on each of {near} CPUs{here} (use case 1)."
        )
    elif count > cpus:
        options = {"strategy": "pool", "interfaces": names, "num_workers": cpus}
        reasons.append(f"More interfaces than the {cpus} CPUs: one pool of {cpus} for all (use case 3).")
    elif count <= _FEW:
        options = {"strategy": "fanout-per-interface", "interfaces": names, "width": "share"}
        reasons.append(f"Few interfaces: each has its share of {cpus} CPUs (use case 2).")
    else:
        groups, why = _groups(host, names)
        hashed = len(rules) >= _MANY_RULES
        options = {"strategy": "hybrid-hash" if hashed else "hybrid", "interface_group": groups}
        reasons.append(f"Many interfaces and {cpus} CPUs: {len(groups)} groups {why} (use case 4).")
        if hashed:
            reasons.append(f"{len(rules):,} rules: hashed to the workers of a group, to hold each once.")
    return Proposal(options, tuple(reasons))


def as_toml(options: dict[str, Any]) -> str:
    groups = options.get("interface_group", ())
    tables = [{"id": group.group_id, "interfaces": group.interfaces} for group in groups]
    return tomli_w.dumps({**options, **({"interface_group": tables} if tables else {})}).rstrip()


def _inputs(host: Host, rules: Sequence[ForwardingRule]) -> tuple[tuple[str, ...], list[str]]:
    if on := tuple(dict.fromkeys(rule.input_interface for rule in rules)):
        reasons = [f"{len(on)} interfaces have rules: {first_of(on)}."]
        if absent := [name for name in on if host.interface(name) is None]:
            reasons.append(f"Of these do not exist yet: {first_of(absent)}.")
        return on, reasons
    if cards := host.cards:
        return cards, [f"No rules given: the network cards that are up, {first_of(cards)}."]
    return (), ["No rules given, and no network card is up."]


def _groups(host: Host, names: Sequence[str]) -> tuple[tuple[InterfaceGroup, ...], str]:
    """Groups of neighbouring interfaces on one memory node, and words for how they were made."""
    nodes = interface_nodes(host, names, {})
    parts = runs_by_node(names, nodes, _GROUPS)
    why = "of neighbours" if len(set(nodes.values())) == 1 else "by memory node"
    return tuple(InterfaceGroup(number, part) for number, part in enumerate(parts)), why
