"""The lab's side of a sender or receiver: start it in a namespace and exchange JSON lines with it.

One sender serves all input interfaces, one receiver all outputs; each does one job after another. A process
is ready when it says so, and has failed when it says that or ends. For example::

    with (
        start_sender(lab.gen, SenderJob(interface="g0", streams=…, rate_dps=50_000, duration_s=1)) as sender,
        start_receiver(lab.rcv, ReceiverJob(flows=…, payload_bytes=64)) as receiver,
    ):
        receiver.ready()
        sender.ready()
        sender.go()
        sent = sender.report()
        receiver.stop({stream_id: offered})
        seen = receiver.report()
        receiver.again(ReceiverJob(…))  # the next trial, in the same process
"""

import json
import os
import select
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from lab.load.jobs import Message, ReceiverJob, ReceiverReport, SenderJob, SenderReport, TrafficError
from lab.traffic.fork_server import fork_server

Report = TypeVar("Report", bound=Message)


class Process(Generic[Report]):
    """A running sender or receiver, given one job after another; leaving its ``with`` block ends it."""

    def __init__(
        self, namespace: str, program: str, job: Message, report: type[Report], cpus: Sequence[int]
    ) -> None:
        self._name = f"lab.traffic.{program} in {namespace}"
        self._report_type = report
        self._report: Report | None = None
        self._failed = False
        self._buffer = b""
        self._process = fork_server().fork(namespace, program, cpus or sorted(os.sched_getaffinity(0)))
        self._ask(job)

    @property
    def pid(self) -> int:
        return self._process.pid

    def again(self, job: Message) -> None:
        """Another job for a process that has reported or failed: ready in milliseconds."""
        self._report, self._failed = None, False
        self._ask(job)

    def ready(self, timeout_s: float = 60) -> None:
        """Return once the process has compiled, opened its sockets and can start at once."""
        answer = self._read(timeout_s)
        if answer.get("ready") is not True:
            raise TrafficError(f"{self._name}: expected to be ready, said {answer}")

    def report(self, timeout_s: float = 120) -> Report:
        """The report of the job; waits for its end."""
        if self._report is None:
            self._report = self._report_type.model_validate(self._read(timeout_s))
        return self._report

    def finish(self) -> None:
        """Wait for the end of a job, even of one that never became ready; raises as :meth:`report` does."""
        while self._report is None and not self._failed:
            answer = self._read(120)
            if "ready" not in answer:
                self._report = self._report_type.model_validate(answer)

    def close(self) -> None:
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, job: Message) -> None:
        self._tell("job", job=job.model_dump(mode="json"))

    def _tell(self, word: str, **arguments: Any) -> None:
        """Send a request. If the process has ended, reading its answer says why."""
        line = json.dumps({"do": word, **arguments}).encode() + b"\n"
        with suppress(BrokenPipeError):
            while line:
                line = line[self._process.stdin.write(line) :]

    def _read(self, timeout_s: float) -> dict[str, Any]:
        """The next line of the process, which must not be an error."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TrafficError(f"{self._name}: no answer within {timeout_s:g} s")
            received = self._process.stdout.read(1 << 20)
            if not received:
                said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
                raise TrafficError(f"{self._name} has ended: {said[-1] if said else 'it said nothing'}")
            self._buffer += received
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self._failed = True
            raise TrafficError(f"{self._name}: {answer['error']}")
        return answer


class Sender(Process[SenderReport]):
    """The generator, for all input interfaces: ``ready()``, ``go()``, ``report()``, then ``again(job)``."""

    def go(self) -> None:
        self._tell("go")

    def stop(self) -> None:
        """Stop before the count or duration; the report tells what was sent."""
        self._tell("stop")


class Receiver(Process[ReceiverReport]):
    """The receiver, for all outputs: ``ready()`` (it captures from then on), ``stop()``, ``report()``."""

    def stop(self, offered: Mapping[int, int] | None = None) -> None:
        """Take what is still on its way, then check.

        ``offered``: datagrams sent by stream, from which the report derives ``lost``. A stream that is left
        out (or all, without the argument) counts with the ``sequences`` of its flow.
        """
        self._tell("stop", offered={str(stream): count for stream, count in (offered or {}).items()})


def start_sender(namespace: str, job: SenderJob, cpus: Sequence[int] = ()) -> Sender:
    """A sender that may run on ``cpus``, on all when empty."""
    return Sender(namespace, "send", job, SenderReport, cpus)


def start_receiver(namespace: str, job: ReceiverJob, cpus: Sequence[int] = ()) -> Receiver:
    """A receiver that may run on ``cpus``, on all when empty."""
    return Receiver(namespace, "receive", job, ReceiverReport, cpus)
