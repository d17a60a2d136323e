"""A lab whose sender and receiver processes serve one test after another, and the traffic that tests send."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Address
from typing import Any

from lab.load.jobs import Flow, ReceiverJob, ReceiverReport, SenderJob, SenderReport, Stream, TrafficError
from lab.load.topology import Side, Topology
from lab.netns.build import Lab, build
from lab.traffic.fork_server import fork_server
from lab.traffic.process import Receiver, Sender, start_receiver, start_sender

SETTLE_S = 2.0


def streams(count: int, first: int = 0, *, group: str = "239.1.0.0") -> tuple[Stream, ...]:
    """``count`` streams, each to a group and from a port of its own, counted on from ``group``."""
    return tuple(
        Stream(
            stream_id=number,
            group=IPv4Address(group) + number,
            port=5001,
            source="10.10.0.1",
            source_port=4000 + number,
        )
        for number in range(first, first + count)
    )


def flows(of: Sequence[Stream], sequences: int, interface: str = "r0") -> tuple[Flow, ...]:
    """``of`` as they arrive, group and port unchanged."""
    return tuple(
        Flow(
            interface=interface, group=stream.group, port=stream.port, stream_id=stream.stream_id,
            sequences=sequences,
        )
        for stream in of
    )  # fmt: skip


class Bench:
    """A lab and its traffic processes: started when first asked for, kept for the next job.

    A process belongs to a namespace and is told apart by ``number`` when several are to work at once.
    """

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self.lab = lab
        self._stack = stack
        self._senders: dict[tuple[Side, int], Sender] = {}
        self._receivers: dict[tuple[Side, int], Receiver] = {}
        self.settled: list[Callable[[], bool]] = []
        """Asked when all is sent: a receiver hears nothing of a datagram whose forwarder waits for a CPU."""

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in (*self._senders.values(), *self._receivers.values()))

    def sender(self, job: SenderJob, side: Side = "gen", number: int = 0) -> Sender:
        key = (side, number)
        if key in self._senders:
            self._senders[key].again(job)
        else:
            self._senders[key] = self._stack.enter_context(start_sender(self.lab.namespace(side), job))
        return self._senders[key]

    def receiver(self, job: ReceiverJob, side: Side = "rcv", number: int = 0) -> Receiver:
        key = (side, number)
        if key in self._receivers:
            self._receivers[key].again(job)
        else:
            self._receivers[key] = self._stack.enter_context(start_receiver(self.lab.namespace(side), job))
        return self._receivers[key]

    def carry(
        self, of: Sequence[Stream], expected: int, receive: Mapping[str, Any] | None = None, **send: Any
    ) -> tuple[SenderReport, ReceiverReport]:
        """Send ``of`` from g0 to r0, at most ``expected`` of each; the others are fields of the jobs."""
        job = SenderJob(interface="g0", streams=of, **send)
        receiving = {"payload_bytes": job.payload_bytes, **(receive or {})}
        return self.transfer(job, ReceiverJob(flows=flows(of, expected), **receiving))

    def transfer(
        self, sender_job: SenderJob, receiver_job: ReceiverJob
    ) -> tuple[SenderReport, ReceiverReport]:
        """Send, receive, and report both; ``lost`` refers to what was offered."""
        (sent,), seen = self.transfer_all([sender_job], receiver_job)
        return sent, seen

    def transfer_all(
        self, sender_jobs: Sequence[SenderJob], receiver_job: ReceiverJob
    ) -> tuple[list[SenderReport], ReceiverReport]:
        """The same with several senders at once."""
        with self.transferring(sender_jobs, receiver_job) as transfer:
            pass
        return transfer.sent, transfer.seen

    @contextmanager
    def transferring(self, sender_jobs: Sequence[SenderJob], receiver_job: ReceiverJob) -> Iterator[Transfer]:
        """Traffic that flows while the ``with`` block runs; afterwards the transfer has its reports."""
        receiver = self.receiver(receiver_job)
        senders = [self.sender(job, number=number) for number, job in enumerate(sender_jobs)]
        transfer = Transfer(senders)
        try:
            for process in (receiver, *senders):
                process.ready()
            for sender in senders:
                sender.go()
            yield transfer
            transfer.sent = [sender.report() for sender in senders]
            self._settle()
            offered = {
                stream.stream_id: count
                for job, report in zip(sender_jobs, transfer.sent, strict=True)
                for stream, count in zip(job.streams, report.per_stream, strict=True)
            }
            receiver.stop(offered)
            transfer.seen = receiver.report()
        except BaseException:
            # They serve the tests that follow, too.
            for sender in senders:
                sender.stop()
            receiver.stop()
            for process in (*senders, receiver):
                with suppress(TrafficError):
                    process.finish()
            raise

    def _settle(self) -> None:
        """Until nothing is on its way any more; not for ever, as some forwarders are stopped."""
        deadline = time.monotonic() + SETTLE_S
        while not all(settled() for settled in self.settled) and time.monotonic() < deadline:
            time.sleep(0.005)


class Transfer:
    """What a transfer came to, once it is over."""

    def __init__(self, senders: Sequence[Sender]) -> None:
        self._senders = senders

    def stop(self) -> None:
        """End the sending early: what it was for has been seen."""
        for sender in self._senders:
            sender.stop()

    sent: list[SenderReport]
    """In the order of the jobs."""
    seen: ReceiverReport

    @property
    def offered(self) -> int:
        return sum(report.offered for report in self.sent)


@contextmanager
def other_fork_server() -> Iterator[None]:
    """Senders and receivers that a ``with`` block starts are forks of another process than those before."""
    fork_server.cache_clear()
    try:
        yield
    finally:
        fork_server().close()
        fork_server.cache_clear()


@contextmanager
def bench(topology: Topology, name: str) -> Iterator[Bench]:
    with build(topology, name) as lab, ExitStack() as stack:
        yield Bench(lab, stack)


def assert_perfect(sent: SenderReport, seen: ReceiverReport, payload_bytes: int) -> None:
    """Each stream arrived as it was sent, whole and in order, and nothing else did."""
    assert seen.received == sent.per_stream
    assert sum(seen.received) == sent.offered
    assert seen.received_bytes == tuple(count * payload_bytes for count in sent.per_stream)
    for fault in (seen.lost, seen.duplicated, seen.reordered, seen.corrupted):
        assert sum(fault) == 0
    assert (seen.unexpected, seen.malformed, sum(seen.drops.values())) == (0, 0, 0)
