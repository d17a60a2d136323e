"""A job of several phases: one rate after another, by any generator.

Each phase is a schedule of its own and continues the streams where the last one ended. It begins at its time,
however long the last one took: what a delayed generator could not send in a phase is missing there, and is
not made up in the next.
"""

import time

from lab.load.jobs import Phase, PhaseReport, SenderJob
from lab.traffic.compiled import NS_PER_S
from lab.traffic.send.schedule import Generator, Outcome, Schedule, slack_ns
from lab.traffic.service import Control


def phase_schedule(job: SenderJob, phase: Phase, first: int, duration_ns: int) -> Schedule:
    """The schedule of a phase for a generator that has sent ``first`` frames, in the time that is left."""
    frames = -(-phase.datagrams // job.segments)
    slack = slack_ns(phase.dps)
    return Schedule(job.segments * NS_PER_S, phase.dps, frames, duration_ns, job.batch, slack, first)


def send_phases(
    generator: Generator, job: SenderJob, control: Control
) -> tuple[Outcome, tuple[PhaseReport, ...]]:
    """Send all phases, or those before "stop"; returns the outcome of the whole and a report of each."""
    began_ns, started_ns = time.monotonic_ns(), time.time_ns()
    done: list[tuple[int, Outcome | None]] = []
    ends_ns = 0
    for phase in job.phases:
        if control.stop_flag[0]:
            break
        at_ns = time.monotonic_ns() - began_ns
        ends_ns += round(phase.seconds * NS_PER_S)
        outcome = None
        if phase.datagrams and ends_ns > at_ns:
            first = sum(one.frames for _, one in done if one)
            outcome = generator.send(phase_schedule(job, phase, first, ends_ns - at_ns), control.stop_flag)
        done.append((at_ns, outcome))
        left_ns = ends_ns - (time.monotonic_ns() - began_ns)
        if left_ns > 0:
            control.wait_for_stop(left_ns / NS_PER_S)
    duration_ns = time.monotonic_ns() - began_ns
    sent = [one for _, one in done if one]
    frames = sum(one.frames for one in sent)
    whole = Outcome(
        frames=frames,
        duration_ns=duration_ns,
        started_ns=started_ns,
        late_ns_mean=sum(one.late_ns_mean * one.frames for one in sent) // max(1, frames),
        late_ns_max=max((one.late_ns_max for one in sent), default=0),
        slipped_ns=sum(one.slipped_ns for one in sent),
        refused=sum(one.refused for one in sent),
    )
    starts = [at_ns for at_ns, _ in done]
    reports = tuple(
        PhaseReport(
            started_ns=at_ns,
            duration_ns=following_ns - at_ns,
            offered=outcome.frames * job.segments if outcome else 0,
        )
        for (at_ns, outcome), following_ns in zip(done, [*starts[1:], duration_ns], strict=True)
    )
    return whole, reports
