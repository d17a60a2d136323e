"""When a generator sends how much, and what came of it: the same for every kind of generator."""

from __future__ import annotations

from dataclasses import dataclass

from lab.load.jobs import SenderJob
from lab.traffic.send.kernels import Schedule

FOREVER_NS = 1 << 62

CATCH_UP_NS, CATCH_UP_DATAGRAMS = 1_000_000, 256
"""A sender that was held up makes good for so long, or so many datagrams, whichever is less: a quarter of the
backlog (``net.core.netdev_max_backlog``, 1,000) that a veth's receiving side has by default."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a generator did. ``frames``: bursts, where it sends such; lateness as in a sender's report."""

    frames: int
    duration_ns: int
    started_ns: int
    """CLOCK_REALTIME."""
    late_ns_mean: int
    late_ns_max: int
    slipped_ns: int
    refused: int = 0


def schedule_of(job: SenderJob) -> Schedule:
    frames = FOREVER_NS if job.asked is None else -(-job.asked // job.segments)
    duration_ns = FOREVER_NS if job.duration_s is None else round(job.duration_s * 1e9)
    if job.duration_s is not None and job.rate_dps is not None:
        duration_ns += grace_ns(duration_ns)  # time for the last frames to leave, not to catch up
    if job.rate_dps is None:
        return Schedule(0, 1, frames, duration_ns, job.batch, 0)
    interval_ns = job.segments * 1_000_000_000
    return Schedule(interval_ns, job.rate_dps, frames, duration_ns, job.batch, slack_ns(job.rate_dps))


def slack_ns(rate_dps: int) -> int:
    """How far a sender at this rate may fall behind and catch up again."""
    return min(CATCH_UP_NS, CATCH_UP_DATAGRAMS * 1_000_000_000 // rate_dps)


def grace_ns(duration_ns: int) -> int:
    """How much longer than asked a sender may take and still have reached its rate."""
    return max(10_000_000, duration_ns // 100)
