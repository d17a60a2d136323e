"""The receivers, as the lab uses them: one process for all outputs, checking every datagram that arrives.

For example::

    with start_receiver(lab.rcv, ReceiverJob(flows=…, payload_bytes=64)) as receiver:
        receiver.ready()
        …  # send
        receiver.stop({stream_id: offered})
        report = receiver.report()
        receiver.again(ReceiverJob(…))  # the next trial, without another process: ready, stop, report
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.load.jobs import Flow, Frame, LatencyReport, ReceiverJob, ReceiverReport, TrafficError
from lab.traffic.process import Process

__all__ = [
    "Flow",
    "Frame",
    "LatencyReport",
    "Receiver",
    "ReceiverJob",
    "ReceiverReport",
    "TrafficError",
    "start_receiver",
]


class Receiver(Process[ReceiverReport]):
    """A receiver that has been started: ``ready()`` (it captures from then on), ``stop()``, ``report()``."""

    def stop(self, offered: Mapping[int, int] | None = None) -> None:
        """Take what is still on its way, then check.

        ``offered``: datagrams sent by stream, which ``lost`` in the report refers to; a stream left out, or
        all without it, counts with the ``sequences`` of its flow.
        """
        self._tell("stop", offered={str(stream): count for stream, count in (offered or {}).items()})


def start_receiver(namespace: str, job: ReceiverJob) -> Receiver:
    """Start the receiver of ``job`` inside ``namespace``; use it as a context manager."""
    return Receiver(namespace, "lab.traffic.receive.receive", job, ReceiverReport)
