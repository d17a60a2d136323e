"""The generator, as the lab uses it: one process for all input interfaces, sending stamped datagrams.

For example::

    with start_sender(lab.gen, SenderJob(interface="g0", streams=…, rate_dps=50_000, duration_s=1)) as sender:
        sender.ready()
        sender.go()
        report = sender.report()
        sender.again(SenderJob(…))  # the next trial, without another process: ready, go, report
"""

from __future__ import annotations

from lab.load.jobs import SenderJob, SenderReport, Stream, TrafficError
from lab.traffic.process import Process

__all__ = ["Sender", "SenderJob", "SenderReport", "Stream", "TrafficError", "start_sender"]


class Sender(Process[SenderReport]):
    """A sender that has been started: ``ready()``, ``go()``, ``report()``, then perhaps ``again(job)``."""

    def go(self) -> None:
        self._tell("go")

    def stop(self) -> None:
        """End it before its count or duration; the report tells what was sent."""
        self._tell("stop")


def start_sender(namespace: str, job: SenderJob) -> Sender:
    """Start the sender of ``job`` inside ``namespace``; use it as a context manager."""
    return Sender(namespace, "lab.traffic.send.send", job, SenderReport)
