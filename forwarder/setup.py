"""What a supervisor's workers are made of, and what is kept of those that are gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from forwarder.packet.memory import Block
from forwarder.planned import Plan
from forwarder.rules import ForwardingRule

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

    def plus(self, block: Block, slot: int) -> RuleCounts:
        """With what stands in a row of a worker's block."""
        matched, matched_bytes = block.rule_matched[slot].tolist()
        unsent, unsent_bytes = block.rule_unsent[slot].tolist()
        times = [time_ns for time_ns in (self.first_ns, int(block.rule_first[slot])) if time_ns]
        return RuleCounts(
            self.matched + matched,
            self.matched_bytes + matched_bytes,
            self.unsent + unsent,
            self.unsent_bytes + unsent_bytes,
            min(times, default=0),
        )
