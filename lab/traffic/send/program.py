"""The generator's process inside its namespace; see ``jobs.py`` and ``fork_server.py``."""

import os
import time
from dataclasses import asdict

from lab.load.jobs import GeneratorName, PhaseReport, SenderJob, SenderReport
from lab.load.stream_order import Integers, per_stream
from lab.traffic.send.live import LiveGenerator
from lab.traffic.send.packets import PacketGenerator
from lab.traffic.send.phases import send_phases
from lab.traffic.send.schedule import Generator, Outcome, grace_ns, schedule_of
from lab.traffic.service import Control, serve


class Work:
    """Does one job after another: prepare, wait for "go", send, report."""

    def __init__(self) -> None:
        self._packets, self._live = PacketGenerator(), LiveGenerator()

    def __call__(self, job: SenderJob, control: Control) -> SenderReport:
        if job.cpu is not None:
            os.sched_setaffinity(0, {job.cpu})
        generator, turn, instead = self._prepared(job)
        control.say_ready()
        control.wait_for_go()
        cpu_before = time.thread_time_ns()
        phases: tuple[PhaseReport, ...] = ()
        if job.phases:
            outcome, phases = send_phases(generator, job, control)
        else:
            outcome = generator.send(schedule_of(job), control.stop_flag)
        cpu_ns = time.thread_time_ns() - cpu_before
        return report_of(job, outcome, turn, cpu_ns, generator.name, instead, phases)

    def _prepared(self, job: SenderJob) -> tuple[Generator, Integers, str | None]:
        """The generator that was asked for, or packets instead, and why."""
        instead = None
        if job.generator == "xdp":
            try:
                return self._live, self._live.prepare(job), None
            except OSError as error:
                instead = f"no live frames: {error.strerror or error}"
        return self._packets, self._packets.prepare(job), instead


def report_of(
    job: SenderJob,
    outcome: Outcome,
    turn: Integers,
    cpu_ns: int,
    generator: GeneratorName = "packet",
    instead: str | None = None,
    phases: tuple[PhaseReport, ...] = (),
) -> SenderReport:
    """``turn``: the stream of each slot, as :meth:`Generator.prepare` gives it."""
    shared = asdict(outcome)
    sent, duration_ns, asked = shared.pop("frames"), outcome.duration_ns, job.asked
    complete = asked is not None and sent * job.segments >= asked
    planned_ns = None
    if job.phases:
        planned_ns = round(sum(phase.seconds for phase in job.phases) * 1e9)
    elif job.rate_dps is not None and asked is not None:
        planned_ns = round(asked * 1e9 / job.mean_dps)
    in_time = planned_ns is None or duration_ns <= planned_ns + grace_ns(planned_ns)
    timed_out = job.duration_s is not None and duration_ns >= job.duration_s * 1e9
    return SenderReport(
        **shared,
        offered=sent * job.segments,
        per_stream=tuple((per_stream(turn, sent) * job.segments).tolist()) if job.streams else (),
        reached=in_time and (complete or asked is None),
        ended="count" if complete else "duration" if timed_out else "stopped",
        cpu_ns=cpu_ns,
        generator=generator,
        instead=instead,
        phases=phases,
    )


def main() -> int:
    return serve(SenderJob, Work())
