"""What a supervisor's workers are made of, and what is kept of those that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forwarder.engines.packet.memory import Block
from forwarder.plan.model import Plan
from forwarder.rules.model import ForwardingRule

RETIRED: Final = -1
"""The group and the partition of a slot whose worker's plan is no longer in force."""


@dataclass(frozen=True)
class Setup:
    """What workers are made of."""

    plan: Plan
    replan: Callable[[Sequence[ForwardingRule], Mapping[int, int]], Plan]
    """The plan for the rules that it is given, and for so many workers of elastic groups, otherwise as
    ``plan`` was made."""
    scale_threshold_dps: int
    """Datagrams/s of an elastic group that call for one more worker."""
    busy_poll_us: int = 0
    realtime_priority: int = 0
    """0 for none."""


class RuleCounts(NamedTuple):
    """What workers counted of one rule."""

    matched: int = 0
    matched_bytes: int = 0
    unsent: int = 0
    """Copies."""
    unsent_bytes: int = 0
    first_ns: int = 0
    """When the first datagram was taken, 0 for none."""

    def plus(self, more: RuleCounts) -> RuleCounts:
        """Both together."""
        times = [time_ns for time_ns in (self.first_ns, more.first_ns) if time_ns]
        return RuleCounts(
            self.matched + more.matched,
            self.matched_bytes + more.matched_bytes,
            self.unsent + more.unsent,
            self.unsent_bytes + more.unsent_bytes,
            min(times, default=0),
        )


class Holders(NamedTuple):
    """Workers that hold the same rules."""

    blocks: Sequence[Block]
    slots: Mapping[str, int]
    """Where they count the rules in force, by id."""
    tells_wrong: bool = False
    """They count datagrams that are another worker's as if they had a rule for them."""

    def counts(self) -> dict[str, RuleCounts]:
        """What all of them have counted, by rule."""
        if not self.slots:
            return {}
        top = max(self.slots.values()) + 1
        matched = np.sum([block.rule_matched[:top] for block in self.blocks], axis=0).tolist()
        unsent = np.sum([block.rule_unsent[:top] for block in self.blocks], axis=0).tolist()
        first = _earliest(self.blocks, top).tolist()
        return {
            rule_id: RuleCounts._make((*matched[slot], *unsent[slot], first[slot]))
            for rule_id, slot in self.slots.items()
        }


def counted(workers: Iterable[Holders], before: Mapping[str, RuleCounts]) -> dict[str, RuleCounts]:
    """What these workers have counted of each rule, and what was counted before."""
    counts = dict(before)
    for holders in workers:
        for rule_id, more in holders.counts().items():
            counts[rule_id] = counts.get(rule_id, RuleCounts()).plus(more)
    return counts


def _earliest(blocks: Sequence[Block], slots: int) -> NDArray[np.uint64]:
    """When the first of the workers took each rule's first datagram; 0 where none has."""
    times = np.array([block.rule_first[:slots] for block in blocks])  # (workers, slots)
    found: NDArray[np.uint64] = np.where(times, times, np.iinfo(np.uint64).max).min(axis=0)
    return np.where(times.any(axis=0), found, np.uint64(0))
