"""Scaling strategies: a value on each of four axes, and the named presets.

A strategy says how interfaces, processors and rules map onto worker processes. The seed document's names are
presets, one row each; anything between is a row of one's own. What cannot work is refused by
:func:`strategy_problems`. Two facts are behind it:

* without a fanout group every AF_PACKET socket gets every packet, so several workers on one interface need a
  group or a filter, or each datagram is forwarded once per worker;
* where rules are hashed to workers, the worker that gets a datagram must be the one that holds its rule; any
  other steering drops what reaches the wrong worker. The document accepts that, so it can be had; the plan
  warns of it and the forwarder counts it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from forwarder.problems import Problem


class Grouping(StrEnum):
    """Which interfaces share workers."""

    ONE_INTERFACE = "one-interface"
    PER_INTERFACE = "per-interface"
    INTERFACE_GROUPS = "interface-groups"
    ALL_INTERFACES = "all-interfaces"


class Width(StrEnum):
    """How many workers a group has, when no number is given."""

    ONE = "one"
    PER_CPU = "per-cpu"
    SHARE = "share"
    """The CPUs divided among the groups, at least one worker each."""
    ELASTIC = "elastic"
    """Between a minimum and a maximum, depending on the load."""


class RulePlacement(StrEnum):
    """Which rules a worker holds."""

    REPLICATE = "replicate"
    """Every worker holds all rules."""
    BY_INTERFACE = "by-interface"
    """A worker holds the rules of its group's interfaces."""
    HASH = "hash"
    """A worker holds those of its group's rules that hash to it."""


class Steering(StrEnum):
    """How a datagram finds its worker among those on an interface."""

    NONE = "none"
    """One worker per interface: no choice."""
    CPU = "cpu"
    """PACKET_FANOUT_CPU: by the CPU that received it."""
    HASH = "hash"
    """PACKET_FANOUT_HASH: by the flow's hash. In a group that is elastic, a program does the same, which is
    exchanged when the number of workers changes."""
    LB = "lb"
    """PACKET_FANOUT_LB: in turn (a flow's order is not kept)."""
    RULE_HASH = "rule-hash"
    """PACKET_FANOUT_CBPF: a program computes the owner of the rule."""
    FILTER = "filter"
    """No fanout: every worker gets every packet, and a filter on its socket drops what is not its own."""
    UNGROUPED = "ungrouped"
    """No fanout: every worker gets every packet and forwards it. For demonstration."""


class Hashing(StrEnum):
    """How a rule's owner is chosen among the workers."""

    RENDEZVOUS = "rendezvous"
    MODULO = "modulo"


@dataclass(frozen=True)
class Strategy:
    name: str
    grouping: Grouping
    width: Width
    placement: RulePlacement
    steering: Steering
    hashing: Hashing = Hashing.RENDEZVOUS

    def customised(self, **axes: StrEnum | None) -> Strategy:
        """The strategy with other values on some axes; it keeps its name, the preset's."""
        given: dict[str, Any] = {axis: value for axis, value in axes.items() if value is not None}
        return replace(self, **given)

    @property
    def description(self) -> str:
        hashed = f" ({self.hashing})" if self.placement == RulePlacement.HASH else ""
        return (
            f"{self.name}: {self.grouping} · width {self.width} · rules {self.placement}{hashed} · "
            f"steering {self.steering}"
        )

    @property
    def steers_by_rule(self) -> bool:
        return self.steering in (Steering.RULE_HASH, Steering.FILTER)

    @property
    def leaves_wrong_workers(self) -> bool:
        """Whether a datagram may reach a worker that does not have its rule while another one does."""
        return self.placement is RulePlacement.HASH and not self.steers_by_rule


_G, _W, _R, _S = Grouping, Width, RulePlacement, Steering

PRESETS: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("fanout", _G.ONE_INTERFACE, _W.PER_CPU, _R.REPLICATE, _S.CPU),
        Strategy("fanout-per-interface", _G.PER_INTERFACE, _W.PER_CPU, _R.BY_INTERFACE, _S.CPU),
        Strategy("pool", _G.ALL_INTERFACES, _W.ONE, _R.REPLICATE, _S.NONE),
        Strategy("hybrid", _G.INTERFACE_GROUPS, _W.SHARE, _R.BY_INTERFACE, _S.CPU),
        Strategy("hybrid-hash", _G.INTERFACE_GROUPS, _W.SHARE, _R.HASH, _S.RULE_HASH),
        Strategy("dynamic", _G.PER_INTERFACE, _W.ELASTIC, _R.BY_INTERFACE, _S.HASH),
        Strategy("rule-hash", _G.ALL_INTERFACES, _W.PER_CPU, _R.HASH, _S.RULE_HASH),
        Strategy("full-fanout", _G.PER_INTERFACE, _W.PER_CPU, _R.BY_INTERFACE, _S.CPU),
    )
}


def strategy_problems(strategy: Strategy) -> list[Problem]:
    """Combinations of axes that cannot work."""
    steering, placement, elastic = strategy.steering, strategy.placement, strategy.width is Width.ELASTIC
    problems = []
    if strategy.steers_by_rule and placement is not RulePlacement.HASH:
        others = f"none, cpu, hash, lb or ungrouped where rules are placed {placement.value}"
        problems.append(Problem("steering", steering, f"{others}: steering by rule goes with hashed rules"))
    if elastic and steering is not Steering.HASH:
        why = "by any other, a worker that joins or leaves takes datagrams with it"
        problems.append(Problem("steering", steering, f"hash where the number of workers is elastic: {why}"))
    if elastic and placement is RulePlacement.HASH:
        others = "replicate or by-interface where the number of workers is elastic"
        problems.append(Problem("placement", placement, f"{others}: a worker that joins has all"))
    return problems
