"""One trial: arm, read counters, transfer and settle, read counters again, record.

A *bench* is what the trials of one subject in one setting share: namespaces, subject, a sender and a receiver
process. It stays up between trials. Everything above uses one method, :meth:`Bench.measure`.

Order matters. Counters are read before the first datagram, and again after the receivers have seen nothing
new for a while. Processor time is read around the sending only, so the later check of the capture does not
count.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from threading import Barrier, BrokenBarrierError

from lab.load.flows import Request, rules_of, streams_of
from lab.load.jobs import Flow
from lab.measure.cpu import read_cpus
from lab.measure.network import Devices, device_reader, read_received, read_waiting, routed_reader
from lab.measure.processes import processor_ns
from lab.measure.watch import Watch, WatchError, watching
from lab.netns.build import Lab, build
from lab.peers import PEERS
from lab.peers.base import Peer, Running
from lab.results import NONE, Setting, Trial
from lab.scenario.layout import receivers_of
from lab.scenario.wires import Wires
from lab.traffic.process import Receiver, Sender, start_receiver, start_sender
from lab.trial.plan import BenchPlan, Cpus
from lab.trial.record import Counters, Evidence, Transfer, Usage, frame_datagrams, record
from lab.trial.subject import Subject

SETTLE_S = 2.0
"""Timeout for a subject to account for every datagram after the last one was sent."""

FIRST_COPY_S = 10.0
"""Timeout for the first copy of a subject that cannot say when it is ready."""

TOGETHER_S = 60.0
"""Timeout for benches that are to begin at the same time: some may have to start their subject again."""

SENDER_NICE, SENDER_REALTIME = -20, 1
"""Priority of the sender: among ordinary processes, or before them all, after receiving threads."""


class Bench:
    """A subject that is ready in its own namespaces; made by :func:`bench`."""

    def __init__(
        self,
        plan: BenchPlan,
        lab: Lab,
        subject: Subject | None,
        devices: Callable[[], Devices],
        sender: Sender,
        receiver: Receiver,
        watch: Watch | None,
    ) -> None:
        self.plan = plan
        self.lab = lab
        self.sender = sender
        """Idle between two calls of :meth:`measure`; whoever gives it a job reads the report, too."""
        self.receiver = receiver
        """Like :attr:`sender`."""
        self.last: Transfer | None = None
        """Reports of sender and receivers about the last trial."""
        self._subject = subject
        self._routed: Callable[[], int] | None = None
        self._stack = ExitStack()
        self._devices = devices
        self._watch = watch
        self._warm_up()

    def measure(
        self,
        request: Request,
        meanwhile: Callable[[], None] | None = None,
        ready: Callable[[], object] | None = None,
    ) -> Trial:
        """Run one trial. Raises TrafficError, PeerError or NetnsError when the bench itself fails.

        A subject that ends is a result. It is started again for the next trial.

        Args:
            meanwhile: called as soon as the sender has begun; the trial does not end before it returns.
            ready: called when all is ready, before the sender begins.
        """
        self._revive()
        for threads in self.lab.receivers:
            if threads.lost():
                threads.start()
        flows = self._arm(request)
        before = self._count()
        transfer = self.last = self._transfer(request, before, meanwhile, ready)
        after = self._count()
        subject = self._subject
        evidence = Evidence(
            flows=flows,
            before=before,
            transfer=transfer,
            after=after,
            ended=None if subject is None else subject.fate,
            sends_bursts=subject is not None and subject.peer.sends_bursts,
            threads_lost=[name for threads in self.lab.receivers for name in threads.lost()],
            instead_of_threads=[threads.instead for threads in self.lab.receivers if threads.instead],
        )
        return record(self.plan, request, evidence)

    @property
    def subject(self) -> Running | None:
        """The running subject, for changes of its rules; ``None`` when it has ended."""
        return None if self._subject is None else self._subject.running

    def close(self) -> None:
        """Close what the bench itself opened."""
        self._stack.close()

    def _revive(self) -> None:
        """Start a subject again that has ended."""
        if self._subject is not None and self._subject.start():
            self._arm(self.plan.warm_up)
            self._warm_up()

    def _arm(self, request: Request) -> tuple[Flow, ...]:
        """Give sender and receivers their jobs; returns the flows that the receivers expect."""
        capture = self.plan.receiver_job(request)
        self.receiver.again(capture)
        self.sender.again(self.plan.sender_job(request))
        if request.setting.unicast_percent and self._routed is None:
            self._routed = self._stack.enter_context(routed_reader(self.lab.fwd))
        return capture.flows

    def _warm_up(self) -> None:
        """The first transfer; repeated for a subject that does not say when it is ready."""
        deadline = time.monotonic() + FIRST_COPY_S
        while not self._transfer(self.plan.warm_up).seen.delivered:
            subject = self._subject
            if subject is None or subject.fate or subject.peer.says_when_ready:
                return
            if time.monotonic() > deadline:
                return
            self._arm(self.plan.warm_up)

    def _transfer(
        self,
        request: Request,
        before: Counters | None = None,
        meanwhile: Callable[[], None] | None = None,
        ready: Callable[[], object] | None = None,
    ) -> Transfer:
        """Let sender and receiver do the jobs that they were given."""
        with on(self.plan.cpus.bench):
            return self._transferred(request, before, meanwhile, ready)

    def _transferred(
        self,
        request: Request,
        before: Counters | None,
        meanwhile: Callable[[], None] | None,
        ready: Callable[[], object] | None,
    ) -> Transfer:
        self.receiver.ready()
        self.sender.ready()
        if ready is not None:
            ready()
        begun = self._usage()
        with self._sender_first(request.setting, lab_waits=meanwhile is None):
            self.sender.go()
            if meanwhile is not None:
                meanwhile()
            sent = self.sender.report()
        used = self._usage().since(begun)
        if before is not None:
            self._settle(request.setting, before, sent.offered)
        streams = streams_of(request.setting)
        self.receiver.stop({s.stream_id: n for s, n in zip(streams, sent.per_stream, strict=True)})
        return Transfer(sent, self.receiver.report(), used)

    @contextmanager
    def _sender_first(self, setting: Setting, lab_waits: bool) -> Iterator[None]:
        """Keep other work on the machine from delaying the generator: a late one offers less than asked.

        At real-time priority nothing else runs on its CPU, so nobody may have to work there meanwhile: not
        the lab, and no receiver that empties rings.
        """
        cpus, pid = self.plan.cpus, self.sender.pid
        counted = setting.egress == "wire-like" or cpus.receivers != cpus.bench
        before = cpus.apart and lab_waits and counted
        if before:
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(SENDER_REALTIME))
        try:
            yield
        finally:
            if before:
                with suppress(ProcessLookupError):
                    os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))

    def _settle(self, setting: Setting, before: Counters, offered: int) -> None:
        """Wait until the subject has accounted for what it was sent, has ended, or the time is up."""
        if before.subject is None:
            return
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            now = self._count()
            account = now.account_since(before)
            lost = now.devices.since(before.devices).input_dropped * frame_datagrams(setting)
            due = (offered - lost) * receivers_of(self.plan.setting)
            if account is None or account.accounts_for(due):
                break
            time.sleep(0.005)
        # On a busy machine a copy may wait in a backlog for longer than the receivers wait for another one.
        while read_waiting() and time.monotonic() < deadline:
            time.sleep(0.001)

    def _usage(self) -> Usage:
        taken = {} if self._watch is None else self._watch.taken_ns()
        napi = {}
        for cpu, pids in self.lab.threads.items():
            with suppress(ProcessLookupError):  # a thread that has gone marks the trial
                napi[cpu] = processor_ns(pids)
        return Usage(read_cpus(), taken, read_received(), napi)

    def _count(self) -> Counters:
        routed = None if self._routed is None else self._routed()
        sample = None if self._subject is None else self._subject.sample()
        return Counters(sample, self._devices(), routed)


def measure_together(asked: Sequence[tuple[Bench, Request]]) -> list[Trial]:
    """One trial on each bench, all begun at the same moment. Raises what the first that failed raised."""
    barrier = Barrier(len(asked))

    def measure(bench: Bench, request: Request) -> Trial:
        try:
            return bench.measure(request, ready=partial(barrier.wait, TOGETHER_S))
        except BaseException:
            barrier.abort()  # the others must not wait for it
            raise

    with ThreadPoolExecutor(len(asked)) as pool:
        made = [pool.submit(measure, *each) for each in asked]
    failed = [error for each in made if (error := each.exception()) is not None]
    for error in sorted(failed, key=lambda error: isinstance(error, BrokenBarrierError)):
        raise error
    return [each.result() for each in made]


@contextmanager
def watched(cpus: Cpus) -> Iterator[Watch | None]:
    """Watch the forwarder's CPUs; ``None`` where they are the bench's, too, or cannot be watched."""
    with ExitStack() as stack:
        watch = None
        if cpus.apart:
            with suppress(WatchError):
                watch = stack.enter_context(watching(cpus.forwarder))
        yield watch


@contextmanager
def on(cpus: Collection[int]) -> Iterator[None]:
    """Keep this thread on some CPUs for the length of a ``with`` block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def bench(
    plan: BenchPlan,
    run_id: str,
    peers: Mapping[str, Peer] = PEERS,
    wires: Wires | None = None,
    watch: Watch | None = None,
) -> Iterator[Bench]:
    """Build and start a bench, and take it down whatever happens.

    Args:
        run_id: unique among the benches that stand at the same time.
        peers: the available subjects; a run's own where the user chose a program.
        wires: existing interfaces to use instead of veth pairs.
        watch: of the forwarder's CPUs, from :func:`watched`.
    """
    topology = plan.topology if wires is None else wires.under(plan.topology)
    with ExitStack() as stack:
        lab = stack.enter_context(build(topology, run_id))
        # Sender, receiver and subject take time to load: all at once.
        sender = stack.enter_context(start_sender(lab.gen, plan.sender_job(plan.warm_up), plan.cpus.bench))
        receiver = stack.enter_context(
            start_receiver(lab.rcv, plan.receiver_job(plan.warm_up), plan.cpus.bench)
        )
        subject: Subject | None = None
        if plan.subject != NONE:
            peer = peers[plan.subject]
            rules = rules_of(plan.setting, [link.sender.interface for link in lab.outputs])
            subject = Subject(peer, partial(peer.start, lab, rules, plan.setting, plan.worker_cpus))
            stack.callback(subject.stop)
        devices = stack.enter_context(device_reader(lab))
        ready = Bench(plan, lab, subject, devices, sender, receiver, watch)
        stack.callback(ready.close)
        if plan.cpus.apart:
            os.setpriority(os.PRIO_PROCESS, sender.pid, SENDER_NICE)
        yield ready
