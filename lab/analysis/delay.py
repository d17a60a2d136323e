"""How long a change of the rules takes to show, from when it was asked for and what arrived when. Pure.

Times are nanoseconds of one clock (CLOCK_REALTIME). A repetition is an addition and the removal after it:

* *join delay*: from the request to the first datagram of the group on an output;
* *leave delay*: from the request to the last one. A datagram may have left the generator up to one interval
  before or after the change took hold, so neither is known to less than that interval;
* *missed*: nothing came before the rule was removed, or nothing any more when it was, or it came on until
  the rule was added again.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["add", "remove"]

STOPPED_INTERVALS = 3
"""A stream whose last datagram came so long before the next addition has stopped."""


@dataclass(frozen=True, slots=True)
class Change:
    """One request: when it was sent, and when it was answered."""

    kind: Kind
    asked_ns: int
    answered_ns: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A datagram of the group, on one output."""

    time_ns: int
    sequence: int
    sent_ns: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of all repetitions on one output; delays in nanoseconds."""

    joins: tuple[int, ...]
    leaves: tuple[int, ...]
    joins_missed: int
    leaves_missed: int
    gaps: int
    """Datagrams that did not come between the first and the last of a repetition."""
    held_back: int
    """Datagrams sent before the addition: kernel routing keeps a few of a group that it has no route for."""


def delays(changes: Sequence[Change], arrivals: Sequence[Arrival], interval_ns: int) -> Seen:
    """Args: ``changes``: add, remove, add, remove …; ``arrivals``: in order of time; ``interval_ns``: between
    two datagrams of the stream."""
    times = [arrival.time_ns for arrival in arrivals]
    joins: list[int] = []
    leaves: list[int] = []
    joins_missed = leaves_missed = gaps = held_back = 0
    for number in range(0, len(changes), 2):
        added, removed = changes[number], changes[number + 1]
        last = number + 2 == len(changes)
        end_ns = None if last else changes[number + 2].asked_ns
        start = bisect_left(times, added.asked_ns)
        stop = len(times) if end_ns is None else bisect_left(times, end_ns)
        if start == stop or times[start] >= removed.asked_ns:
            joins_missed += 1
            leaves_missed += 1
            continue
        joins.append(times[start] - added.asked_ns)
        if end_ns is not None and end_ns - times[stop - 1] < STOPPED_INTERVALS * interval_ns:
            leaves_missed += 1
            continue
        if removed.asked_ns - times[stop - 1] > STOPPED_INTERVALS * interval_ns:
            leaves_missed += 1  # the generator was held up: nothing was there to be forwarded
            continue
        leaves.append(max(0, times[stop - 1] - removed.asked_ns))
        fresh = {each.sequence for each in arrivals[start:stop] if each.sent_ns >= added.asked_ns}
        held_back += sum(each.sent_ns < added.asked_ns for each in arrivals[start:stop])
        if fresh:
            gaps += max(fresh) - min(fresh) + 1 - len(fresh)
    return Seen(tuple(joins), tuple(leaves), joins_missed, leaves_missed, gaps, held_back)


def reported(
    changes: Sequence[Change], reports: Sequence[tuple[int, Literal["join", "leave"]]], kind: Kind
) -> tuple[tuple[int, ...], int]:
    """From each request of a kind to the first report that says so before the next request, and how many had
    none. ``reports``: when, and what, in order of time."""
    word = "join" if kind == "add" else "leave"
    said = [time_ns for time_ns, what in reports if what == word]
    found: list[int] = []
    missed = 0
    for number, change in enumerate(changes):
        if change.kind != kind:
            continue
        at = bisect_left(said, change.asked_ns)
        until = changes[number + 1].asked_ns if number + 1 < len(changes) else None
        if at == len(said) or (until is not None and said[at] >= until):
            missed += 1
        else:
            found.append(said[at] - change.asked_ns)
    return tuple(found), missed
