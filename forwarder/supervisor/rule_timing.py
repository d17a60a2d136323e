"""How long rules take: from being asked for to being in force, and to their first datagram. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Timing(NamedTuple):
    """Of one rule; nanoseconds from the arrival of the request, or from the supervisor's start."""

    in_force_after_ns: int | None
    """Until every worker that holds it had it; ``None`` before."""
    first_datagram_after_ns: int | None
    """Until a worker took the first datagram that it matched; ``None`` before."""


class RuleTiming:
    """Keeps when rules were asked for and came into force, on the monotonic clock."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        self._in_force: dict[str, int] = {}

    def ask(self, rule_ids: Iterable[str], now_ns: int) -> None:
        self._asked.update(dict.fromkeys(rule_ids, now_ns))

    def put_in_force(self, rule_ids: Iterable[str], now_ns: int) -> None:
        """Those that were not forgotten meanwhile."""
        self._in_force.update((rule_id, now_ns) for rule_id in rule_ids if rule_id in self._asked)

    def forget(self, rule_id: str) -> None:
        del self._asked[rule_id]
        self._in_force.pop(rule_id, None)

    def of(self, rule_id: str, first_ns: int = 0) -> Timing:
        """``first_ns``: when its first datagram was taken, 0 for not yet."""
        asked, in_force = self._asked[rule_id], self._in_force.get(rule_id)
        return Timing(None if in_force is None else in_force - asked, first_ns - asked if first_ns else None)
