"""What workers counted of each rule, and what is kept of workers that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import NamedTuple

import numpy as np

from forwarder.engines.packet.accounting import Block


class RuleCounts(NamedTuple):
    """What workers counted of one rule."""

    matched: int = 0
    matched_bytes: int = 0
    unsent: int = 0
    """Copies that were not sent."""
    unsent_bytes: int = 0
    first_ns: int = 0
    """When the first datagram was taken, on the monotonic clock; 0 for none."""

    def plus(self, more: RuleCounts) -> RuleCounts:
        """The sum of both, and the earlier first datagram."""
        times = [time_ns for time_ns in (self.first_ns, more.first_ns) if time_ns]
        return RuleCounts._make((*map(add, self[:4], more[:4]), min(times, default=0)))


class RuleCounters(NamedTuple):
    """The counters of workers that hold the same rules."""

    blocks: Sequence[Block]
    slots: Mapping[str, int]
    """The row of each rule, by id."""
    knows_foreign: bool = False
    """Whether the workers also match datagrams that belong to another worker, and count these separately."""

    def counts(self) -> dict[str, RuleCounts]:
        """The sum over all workers, by rule."""
        if not self.slots:
            return {}
        top = max(self.slots.values()) + 1
        matched = np.sum([block.rule_matched[:top] for block in self.blocks], axis=0).tolist()
        unsent = np.sum([block.rule_unsent[:top] for block in self.blocks], axis=0).tolist()
        times = np.array([block.rule_first[:top] for block in self.blocks])  # (workers, slots), 0 for never
        earliest = np.where(times, times, np.iinfo(np.uint64).max).min(axis=0)
        first = np.where(times.any(axis=0), earliest, 0).tolist()
        return {
            rule_id: RuleCounts._make((*matched[slot], *unsent[slot], first[slot]))
            for rule_id, slot in self.slots.items()
        }


def counted(counters: Iterable[RuleCounters], before: Mapping[str, RuleCounts]) -> dict[str, RuleCounts]:
    """What was counted ``before`` of each rule, and what these counters have."""
    counts = dict(before)
    for one in counters:
        for rule_id, more in one.counts().items():
            counts[rule_id] = counts.get(rule_id, RuleCounts()).plus(more)
    return counts


@dataclass
class PastCounts:
    """What workers of earlier plans have counted."""

    rules: dict[str, RuleCounts] = field(default_factory=dict)
    """Counts of rules in force by workers that are gone, by rule id."""
    retiring: list[RuleCounters] = field(default_factory=list)
    """Counters of workers that have been replaced but still forward what their rings hold."""
    wrong_worker: int = 0
    """Datagrams that reached workers that are gone, and belonged to another worker."""

    def counts(self) -> dict[str, RuleCounts]:
        """All of it, by rule id."""
        return counted(self.retiring, self.rules)

    def settle(self) -> None:
        """The retiring workers have ended."""
        self.rules, self.retiring = self.counts(), []

    def forget(self, rule_id: str) -> None:
        self.rules.pop(rule_id, None)
