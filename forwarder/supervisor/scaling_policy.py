"""Decides when an elastic group gets more workers or fewer: a pure function of the measured load.

The same measurements give the same decisions, so a recorded trace can be replayed (:func:`replay`). A group
*grows* when its load exceeds the threshold of its workers, or when a ring fills or overflows, for a while. It
*shrinks* by one worker when fewer would do, for longer. Three rules keep its size stable under a noisy load:

* it shrinks to ``n`` workers only when the rate is well below their threshold (:attr:`Limits.hysteresis`);
* if ``n`` workers did not keep up with a lower rate, the rate must be well below *that*. This is remembered
  for a minute at first, and twice as long on each repeat; not for good, as the machine may have stood still;
* a cool-down separates two changes, unless the worker that was removed last turns out to be needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

MS = 1_000_000
"""Nanoseconds."""


@dataclass(frozen=True)
class Limits:
    """Bounds and thresholds of a group; times in nanoseconds, rates in datagrams/s."""

    min_workers: int
    max_workers: int
    threshold_dps: int
    """Rate that one worker is meant for."""
    hysteresis: float = 0.7
    """A rate below this share of the rate that made the group grow lets it shrink."""
    ring_share: float = 0.5
    """A ring that is fuller than this shows that its worker does not keep up."""
    grow_after_ns: int = 300 * MS
    shrink_after_ns: int = 3000 * MS
    overload_ns: int = 60_000 * MS
    """How long an overload is remembered, doubled on each repeat, up to 64 times."""
    cool_down_ns: int = 1000 * MS

    def __post_init__(self) -> None:
        if not 1 <= self.min_workers <= self.max_workers:
            raise ValueError(f"{self.min_workers} to {self.max_workers} workers: at least 1, in this order")
        if self.threshold_dps < 1:
            raise ValueError(f"threshold_dps {self.threshold_dps}: at least 1")


@dataclass(frozen=True)
class Load:
    """Load of a group's workers since the previous measurement."""

    at_ns: int
    offered_dps: float
    """Datagrams that reached the group's sockets, including those that found a full ring."""
    ring_fill: float = 0.0
    """Share of occupied slots in the fullest ring."""
    ring_drops: int = 0


@dataclass(frozen=True)
class Decision:
    before: int
    after: int
    reason: str


@dataclass(frozen=True)
class Overload:
    """A rate with which so many workers did not keep up."""

    offered_dps: float
    until_ns: int
    """When it is forgotten."""
    times: int

    def again(self, load: Load, limits: Limits) -> Overload:
        """The overload after a repeat; former ones count unless forgotten for as long as they counted."""
        times = self.times if load.at_ns - self.until_ns <= _memorable_ns(self.times - 1, limits) else 0
        dps = load.offered_dps
        if load.at_ns < self.until_ns:
            dps = min(dps, self.offered_dps)
        return Overload(dps, load.at_ns + _memorable_ns(times, limits), times + 1)


def _memorable_ns(times: int, limits: Limits) -> int:
    return limits.overload_ns << min(max(times, 0), 6)


@dataclass(frozen=True)
class Memory:
    """The part of the past that a decision depends on."""

    workers: int
    changed_ns: int | None = None
    hot_since_ns: int | None = None
    idle_since_ns: int | None = None
    overloads: dict[int, Overload] = field(default_factory=dict)
    """By number of workers."""
    overloads_before: dict[int, Overload] = field(default_factory=dict)
    """Overloads before the last decision."""
    shrank: bool = False
    """Whether the last change removed a worker."""


def decide(memory: Memory, load: Load, limits: Limits) -> tuple[Memory, Decision | None]:
    """What to do now, and the memory after it; :func:`settled` corrects this if it was not done."""
    workers = memory.workers
    hot = _why_hot(workers, load, limits)
    idle = None if hot else _why_idle(memory, load, limits)
    memory = replace(
        memory,
        hot_since_ns=_since(memory.hot_since_ns, hot, load.at_ns),
        idle_since_ns=_since(memory.idle_since_ns, idle, load.at_ns),
    )
    cooling = memory.changed_ns is not None and load.at_ns - memory.changed_ns < limits.cool_down_ns
    if cooling and not (hot and memory.shrank):  # a worker that was removed too early comes back at once
        return memory, None
    if hot and _lasted(memory.hot_since_ns, load.at_ns, limits.grow_after_ns):
        needed = -(-int(load.offered_dps) // limits.threshold_dps)
        after = min(limits.max_workers, max(workers + 1, needed))
        if after > workers:
            memory = replace(memory, overloads_before=memory.overloads)
            if load.offered_dps <= workers * limits.threshold_dps:
                overload = memory.overloads.get(workers, Overload(0.0, 0, 0)).again(load, limits)
                memory = replace(memory, overloads={**memory.overloads, workers: overload})
            return _changed(memory, after, load.at_ns), Decision(workers, after, hot)
    if idle and _lasted(memory.idle_since_ns, load.at_ns, limits.shrink_after_ns):
        memory = _changed(memory, workers - 1, load.at_ns)
        memory = replace(memory, shrank=True, overloads_before=memory.overloads)
        return memory, Decision(workers, workers - 1, idle)
    return memory, None


def settled(memory: Memory, workers: int, at_ns: int) -> Memory:
    """The memory after a decision, or another change, was carried out: there are now ``workers``."""
    after = _changed(memory, workers, at_ns)
    if workers != memory.workers:  # not as decided, so it says nothing about an overload
        return replace(after, overloads=memory.overloads_before)
    return replace(after, overloads_before=memory.overloads, shrank=memory.shrank)


def replay(loads: Iterable[Load], limits: Limits) -> Iterator[tuple[Load, Decision]]:
    """The decisions for a recorded trace."""
    memory = Memory(limits.min_workers)
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
    if (overload := memory.overloads.get(fewer)) and load.at_ns < overload.until_ns:
        bearable = min(bearable, overload.offered_dps)
    bound = limits.hysteresis * bearable
    if load.offered_dps >= bound:
        return None
    return f"{load.offered_dps:,.0f} datagrams/s, less than the {bound:,.0f} that {fewer} can be left with"


def _since(before_ns: int | None, reason: str | None, now_ns: int) -> int | None:
    if reason is None:
        return None
    return now_ns if before_ns is None else before_ns


def _lasted(since_ns: int | None, now_ns: int, least_ns: int) -> bool:
    return since_ns is not None and now_ns - since_ns >= least_ns


def _changed(memory: Memory, workers: int, at_ns: int) -> Memory:
    memory = replace(memory, workers=workers, changed_ns=at_ns, shrank=False)
    return replace(memory, hot_since_ns=None, idle_since_ns=None)
