"""When an elastic group gets more workers, and when fewer: a pure function of what was measured.

No clock, no process: the same measurements give the same decisions, so a recorded trace can be replayed
(:func:`replay`). A group *grows* when what it is offered exceeds what its workers are meant for, or when a
ring fills or overflows, for a while. It *shrinks* by one worker when fewer would do, for longer. What keeps
it from going back and forth on a noisy load:

* it does not go back to ``n`` workers before the rate is well below what these are meant for
  (:attr:`Limits.hysteresis`);
* where ``n`` did not keep up with a lower rate, as their rings showed, well below *that* for a while: a
  minute at first, twice as long each time that it happens again. Not for good, as it may have been the
  machine that stood still, whatever the rate was;
* between two changes lies a cool-down, unless the last worker that went turns out to be needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

MS = 1_000_000
"""Nanoseconds."""


@dataclass(frozen=True)
class Limits:
    """What a group may do; times are nanoseconds, rates datagrams/s."""

    min_workers: int
    max_workers: int
    threshold_dps: int
    """What one worker is meant for."""
    hysteresis: float = 0.7
    """A rate below this share of what made the group grow lets it shrink."""
    ring_share: float = 0.5
    """A ring that is fuller than this has a worker that does not keep up."""
    grow_after_ns: int = 300 * MS
    shrink_after_ns: int = 3000 * MS
    strain_ns: int = 60_000 * MS
    """So long it is remembered that workers did not keep up; twice as long each time, up to 64 times."""
    cool_down_ns: int = 1000 * MS

    def __post_init__(self) -> None:
        if not 1 <= self.min_workers <= self.max_workers:
            raise ValueError(f"{self.min_workers} to {self.max_workers} workers: at least 1, in this order")
        if self.threshold_dps < 1:
            raise ValueError(f"threshold_dps {self.threshold_dps}: at least 1")


@dataclass(frozen=True)
class Load:
    """What a group's workers had to do since the measurement before."""

    at_ns: int
    offered_dps: float
    """Datagrams that reached the group's sockets, those included that found a full ring."""
    ring_fill: float = 0.0
    """Share of the fullest ring's slots that wait for their worker."""
    ring_drops: int = 0


@dataclass(frozen=True)
class Decision:
    before: int
    after: int
    reason: str

    @property
    def grows(self) -> bool:
        return self.after > self.before


@dataclass(frozen=True)
class Strain:
    """Rings filled, and the group grew."""

    offered_dps: float
    until_ns: int
    """So long it counts."""
    times: int

    def again(self, load: Load, limits: Limits) -> Strain:
        """Once more; that it happened before is forgotten when that has not counted for as long as it had."""
        times = self.times if load.at_ns - self.until_ns <= _memorable_ns(self.times - 1, limits) else 0
        dps = load.offered_dps
        if load.at_ns < self.until_ns:
            dps = min(dps, self.offered_dps)
        return Strain(dps, load.at_ns + _memorable_ns(times, limits), times + 1)


def _memorable_ns(times: int, limits: Limits) -> int:
    return limits.strain_ns << min(max(times, 0), 6)


@dataclass(frozen=True)
class Memory:
    """What of the past a decision needs. Begin with :func:`begin`."""

    workers: int
    changed_ns: int | None = None
    hot_since_ns: int | None = None
    idle_since_ns: int | None = None
    strains: dict[int, Strain] = field(default_factory=dict)
    """By number of workers that did not keep up."""
    strains_before: dict[int, Strain] = field(default_factory=dict)
    """As they were before the last decision."""
    shrank: bool = False
    """The last change was one worker less."""


def begin(limits: Limits) -> Memory:
    return Memory(limits.min_workers)


def decide(memory: Memory, load: Load, limits: Limits) -> tuple[Memory, Decision | None]:
    """What to do now, and what to remember as if it was done; see :func:`settled` for when it was not."""
    workers = memory.workers
    hot = _why_hot(workers, load, limits)
    idle = None if hot else _why_idle(memory, load, limits)
    memory = replace(
        memory,
        hot_since_ns=_since(memory.hot_since_ns, hot, load.at_ns),
        idle_since_ns=_since(memory.idle_since_ns, idle, load.at_ns),
    )
    cooling = memory.changed_ns is not None and load.at_ns - memory.changed_ns < limits.cool_down_ns
    if cooling and not (hot and memory.shrank):  # what turns out to have been one too many comes back at once
        return memory, None
    if hot and _lasted(memory.hot_since_ns, load.at_ns, limits.grow_after_ns):
        needed = -(-int(load.offered_dps) // limits.threshold_dps)
        after = min(limits.max_workers, max(workers + 1, needed))
        if after > workers:
            memory = replace(memory, strains_before=memory.strains)
            if load.offered_dps <= workers * limits.threshold_dps:
                strain = memory.strains.get(workers, Strain(0.0, 0, 0)).again(load, limits)
                memory = replace(memory, strains={**memory.strains, workers: strain})
            return _changed(memory, after, load.at_ns), Decision(workers, after, hot)
    if idle and _lasted(memory.idle_since_ns, load.at_ns, limits.shrink_after_ns):
        memory = _changed(memory, workers - 1, load.at_ns)
        memory = replace(memory, shrank=True, strains_before=memory.strains)
        return memory, Decision(workers, workers - 1, idle)
    return memory, None


def settled(memory: Memory, workers: int, at_ns: int) -> Memory:
    """What became of a decision, or of somebody else's change: there are so many ``workers`` now."""
    after = _changed(memory, workers, at_ns)
    if workers != memory.workers:  # not what was decided, so it says nothing of who keeps up
        return replace(after, strains=memory.strains_before)
    return replace(after, strains_before=memory.strains, shrank=memory.shrank)


def replay(loads: Iterable[Load], limits: Limits) -> Iterator[tuple[Load, Decision]]:
    """The decisions that a recorded trace would have led to."""
    memory = begin(limits)
    for load in loads:
        memory, decision = decide(memory, load, limits)
        if decision:
            yield load, decision


def _why_hot(workers: int, load: Load, limits: Limits) -> str | None:
    meant_for = workers * limits.threshold_dps
    if load.offered_dps > meant_for:
        return f"{load.offered_dps:,.0f} datagrams/s, more than {workers} × {limits.threshold_dps:,}"
    if load.ring_drops:
        return f"a full ring lost {load.ring_drops:,} datagrams"
    if load.ring_fill > limits.ring_share:
        return f"a ring is {load.ring_fill:.0%} full"
    return None


def _why_idle(memory: Memory, load: Load, limits: Limits) -> str | None:
    fewer = memory.workers - 1
    if fewer < limits.min_workers:
        return None
    bearable = float(fewer * limits.threshold_dps)
    if (strain := memory.strains.get(fewer)) and load.at_ns < strain.until_ns:
        bearable = min(bearable, strain.offered_dps)
    bound = limits.hysteresis * bearable
    if load.offered_dps < bound:
        return (
            f"{load.offered_dps:,.0f} datagrams/s, less than the {bound:,.0f} that {fewer} can be left with"
        )
    return None


def _since(before_ns: int | None, reason: str | None, now_ns: int) -> int | None:
    if reason is None:
        return None
    return now_ns if before_ns is None else before_ns


def _lasted(since_ns: int | None, now_ns: int, least_ns: int) -> bool:
    return since_ns is not None and now_ns - since_ns >= least_ns


def _changed(memory: Memory, workers: int, at_ns: int) -> Memory:
    memory = replace(memory, workers=workers, changed_ns=at_ns, shrank=False)
    return replace(memory, hot_since_ns=None, idle_since_ns=None)
