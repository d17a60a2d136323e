"""When a generator sends how much, and what came of it: the same for every kind of generator."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lab.load.jobs import GeneratorName, SenderJob
from lab.traffic.compiled import NS_PER_S, Integers

FOREVER_NS = 1 << 62

CATCH_UP_NS, CATCH_UP_DATAGRAMS = 1_000_000, 256
"""A late sender catches up by at most this time or this many datagrams, whichever is less.

That is a quarter of the backlog (``net.core.netdev_max_backlog``, 1,000) of a veth's receiving side.
"""


class Schedule(NamedTuple):
    """When to send how much, in frames; ``interval_num / interval_den`` ns between two (0/1: no pacing).

    A sender that falls more than ``slack_ns`` behind does not catch up: its schedule moves.
    """

    interval_num: int
    interval_den: int
    frames: int
    duration_ns: int
    batch: int
    slack_ns: int
    first: int = 0
    """Frames sent before: streams and sequence numbers continue from there."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a generator did. ``frames``: bursts where it sends those; lateness as in a sender's report."""

    frames: int
    duration_ns: int
    started_ns: int
    """CLOCK_REALTIME."""
    late_ns_mean: int
    late_ns_max: int
    slipped_ns: int
    refused: int = 0


class Generator(Protocol):
    """A way to send: prepared for a job, then told when to send how much."""

    @property
    def name(self) -> GeneratorName: ...

    def prepare(self, job: SenderJob) -> Integers:
        """Prepare for a job; returns each slot's stream, by its place in the job.

        Raises OSError and TrafficError.
        """
        ...

    def send(self, schedule: Schedule, stop: Integers) -> Outcome:
        """Send until the schedule is done or ``stop[0]`` is not 0."""
        ...


def schedule_of(job: SenderJob) -> Schedule:
    frames = FOREVER_NS if job.asked is None else -(-job.asked // job.segments)
    duration_ns = FOREVER_NS if job.duration_s is None else round(job.duration_s * NS_PER_S)
    if job.duration_s is not None and job.rate_dps is not None:
        duration_ns += grace_ns(duration_ns)  # time for the last frames to leave, not to catch up
    if job.rate_dps is None:
        return Schedule(0, 1, frames, duration_ns, job.batch, 0)
    slack = slack_ns(job.rate_dps)
    return Schedule(job.segments * NS_PER_S, job.rate_dps, frames, duration_ns, job.batch, slack)


def slack_ns(rate_dps: int) -> int:
    """How far a sender at this rate may fall behind and still catch up."""
    return min(CATCH_UP_NS, CATCH_UP_DATAGRAMS * NS_PER_S // rate_dps)


def grace_ns(duration_ns: int) -> int:
    """How much longer than asked a sender may take and still have reached its rate."""
    return max(10_000_000, duration_ns // 100)
