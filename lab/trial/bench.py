"""One trial: arm the receivers, send, take what is on its way, read every counter, book every datagram.

A *bench* is what the trials of one subject in one setting share: namespaces, subject, a sender and a receiver
process. It stays up between trials; :meth:`Bench.measure` is the one seam to everything above.

Order matters: counters are read before the first datagram and after the receivers have seen nothing new for a
while; processor time is read around the sending only, so checking the capture afterwards does not count.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from lab.analysis.search import SHORTFALL_LIMIT
from lab.ledger import ledger
from lab.ledger import observe as observed
from lab.ledger.ledger import Sample
from lab.load import mixed_traffic as mixed
from lab.load.flows import Request, receiver_job, rules_of, sender_job, standing, streams_of
from lab.load.jobs import MAX_SEGMENTS, ReceiverJob, ReceiverReport, SenderReport
from lab.load.topology import Topology
from lab.measure import since
from lab.measure.cpu import CpuTime, busy, read_cpus, total
from lab.measure.network import DeviceReader, Devices, RoutedReader, read_waiting
from lab.netns.build import Lab, build
from lab.peers import PEERS
from lab.peers.base import Peer, Running
from lab.results import NONE, Cpu, Ledger, Setting, Trial, Validity, keeps_up
from lab.scenario.layout import receivers_of
from lab.scenario.wires import Wires
from lab.traffic.process import Receiver, Sender, start_receiver, start_sender
from lab.trial.subject import Subject

SETTLE_S = 2.0
"""So long a subject may take, after the last datagram was sent, to account for all of them."""

WARM_UP_DPS, WARM_UP_S = 1000, 0.05
"""The first transfer of a bench loads compiled code and touches memory; it is not recorded."""

FIRST_COPY_S = 10.0
"""So long a subject that cannot say when it is ready may take to forward its first datagram."""

SENDER_NICE = -20


@dataclass(frozen=True)
class BenchPlan:
    """What a bench is built from; equal plans share one bench.

    ``setting``: payload, flows, bursts and skew are each trial's own matter; see
    :func:`lab.load.flows.standing`.
    """

    subject: str
    setting: Setting
    mtu: int
    sender_cpu: int
    worker_cpus: tuple[int, ...]

    @property
    def topology(self) -> Topology:
        setting = self.setting
        direct = self.subject == NONE
        return Topology(
            inputs=setting.inputs,
            outputs=setting.inputs if direct else setting.outputs,
            mtu=self.mtu,
            rps=setting.rps and not direct,
            egress=setting.egress,
            direct=direct,
            rps_cpus=self.worker_cpus,
            napi=setting.generator == "xdp",
        )


def place(workers: int, *, apart: bool = False) -> tuple[int, tuple[int, ...]]:
    """CPUs of the sender and of the workers: the sender takes the first, workers the others when they fit.

    As many workers as CPUs, or more, take them all: the sender then shares, which the report says. ``apart``:
    it never does where there is another CPU; workers that do not fit share theirs.
    """
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    if workers < len(cpus) or (apart and len(cpus) > 1):
        return cpus[0], cpus[1 : 1 + workers]
    return cpus[0], cpus


@dataclass(frozen=True)
class _Counters:
    """What subject and devices have counted by a moment; ``subject`` is ``None`` without one.

    ``routed``: unicast datagrams that the kernel routed, ``None`` where there are none beside the multicast.
    """

    subject: Sample | None
    devices: Devices
    routed: int | None = None

    def account_since(self, earlier: _Counters) -> ledger.Account | None:
        """What the subject, and the kernel beside it, have done from ``earlier`` to this."""
        if self.subject is None or earlier.subject is None:
            return None
        account = self.subject.account.since(earlier.subject.account)
        if self.routed is None or earlier.routed is None:
            return account
        return ledger.mixed(account, self.routed - earlier.routed)


@dataclass(frozen=True)
class Transfer:
    """What sender, receivers and CPUs say of one transfer."""

    sent: SenderReport
    seen: ReceiverReport
    cpus: dict[int, CpuTime]


class Bench:
    """A subject that stands ready in its own namespaces; made by :func:`bench`."""

    def __init__(
        self,
        plan: BenchPlan,
        lab: Lab,
        subject: Subject | None,
        devices: DeviceReader,
        sender: Sender,
        receiver: Receiver,
    ) -> None:
        self.plan = plan
        self.lab = lab
        self._subject = subject
        self._routed: RoutedReader | None = None
        self._devices = devices
        self._sender = sender
        self._receiver = receiver
        # A worker beside the generator does its work in user time: then nothing can be left out.
        self._spinning = None if plan.sender_cpu in plan.worker_cpus else plan.sender_cpu
        self._outputs = [link.receiver.interface for link in lab.outputs]
        self.last: Transfer | None = None
        """What sender and receivers reported of the last trial."""
        self._warm_up()

    def measure(self, request: Request, meanwhile: Callable[[], None] | None = None) -> Trial:
        """Run one trial. Raises TrafficError, PeerError or NetnsError when the bench itself fails.

        That the subject ends is a result. It is started again for the next trial.

        Args:
            meanwhile: called as soon as the sender has begun; the trial does not end before it returns.
        """
        if self._subject is not None and self._subject.start():
            self._arm(_warm_up(self.plan))
            self._warm_up()
        capture = self._arm(request)
        if request.setting.unicast_percent and self._routed is None:
            self._routed = RoutedReader(self.lab.fwd)
        before = self._count()
        transfer = self.last = self._transfer(request, before, meanwhile)
        return self._record(request, capture, before, transfer)

    @property
    def subject(self) -> Running | None:
        """The running subject, for who changes its rules; ``None`` when it has ended."""
        return None if self._subject is None else self._subject.running

    @property
    def sender(self) -> Sender:
        """Idle between two calls of :meth:`measure`: whoever gives it a job takes its report, too."""
        return self._sender

    @property
    def receiver(self) -> Receiver:
        """As :attr:`sender`."""
        return self._receiver

    def close(self) -> None:
        """Close what the bench opened by itself."""
        if self._routed is not None:
            self._routed.close()

    def _arm(self, request: Request) -> ReceiverJob:
        """Give sender and receivers their jobs."""
        capture = capture_of(self.plan, request, self._outputs)
        self._receiver.again(capture)
        self._sender.again(sender_job(request, self.plan.sender_cpu))
        return capture

    def _warm_up(self) -> None:
        """The first transfer; more of them for a subject that does not say when it is ready."""
        request = _warm_up(self.plan)
        deadline = time.monotonic() + FIRST_COPY_S
        while not self._transfer(request).seen.delivered:
            subject = self._subject
            if subject is None or subject.fate or subject.peer.says_when_ready:
                return
            if time.monotonic() > deadline:
                return
            self._arm(request)

    def _transfer(
        self,
        request: Request,
        before: _Counters | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Transfer:
        """Do the jobs that sender and receiver have been given."""
        self._receiver.ready()
        self._sender.ready()
        cpus_before = read_cpus()
        self._sender.go()
        if meanwhile is not None:
            meanwhile()
        sent = self._sender.report()
        cpus = since(read_cpus(), cpus_before)
        if before is not None:
            self._settle(request.setting, before, sent.offered)
        streams = streams_of(request.setting)
        self._receiver.stop({s.stream_id: n for s, n in zip(streams, sent.per_stream, strict=True)})
        return Transfer(sent, self._receiver.report(), cpus)

    def _settle(self, setting: Setting, before: _Counters, offered: int) -> None:
        """Wait until the subject has done with what it was sent, or until it is not worth waiting for."""
        if self._subject is None or before.subject is None:
            return
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            now = self._count()
            account = now.account_since(before)
            lost = now.devices.since(before.devices).input_dropped * frame_datagrams(setting)
            arrived = offered - lost
            if account is None or account.accounts_for(arrived * receivers_of(self.plan.setting)):
                break
            time.sleep(0.005)
        # On a busy machine a copy may wait longer in a backlog than the receivers for another one.
        while read_waiting() and time.monotonic() < deadline:
            time.sleep(0.001)

    def _record(self, request: Request, capture: ReceiverJob, before: _Counters, transfer: Transfer) -> Trial:
        sent, seen = transfer.sent, transfer.seen
        after = self._count()
        fate = None if self._subject is None else self._subject.fate
        booked = self._booked(request.setting, before, after, sent, seen)
        spent = busy(transfer.cpus, self._spinning)
        copies = 1 if self.plan.topology.direct else len(self._outputs)
        delivered, expected = seen.delivered, mixed.due(request.setting, sent.per_stream, copies)
        asked = request.asked
        short = asked is not None and sent.offered < asked * (1 - SHORTFALL_LIMIT)
        doubts = [*ledger.doubts(booked), *observed.doubts(seen, request)]
        warnings = [f"offered {sent.offered:,} of {asked:,} datagrams asked for"] if short else []
        if fate is not None:
            warnings.append(fate)
        elif not delivered:
            warnings.append("nothing was delivered")
        notes = observed.notes(sent, seen, request, self.plan.worker_cpus, total(transfer.cpus).steal_share)
        drain_ns = observed.drain_ns(sent, seen)
        kept_up = keeps_up(drain_ns, sent.duration_ns)
        if not kept_up:
            notes.append(f"what piled up was still being forwarded {drain_ns / 1e6:,.0f} ms later")
        validity: Validity = "invalid" if short else "doubtful" if doubts else "valid"
        return Trial(
            trial_id=request.trial_id,
            scenario=request.scenario,
            case=request.case,
            subject=self.plan.subject,
            setting=request.setting,
            purpose=request.purpose,
            asked_dps=request.dps,
            duration_ns=max(1, sent.duration_ns),
            drain_ns=drain_ns,
            offered=sent.offered,
            delivered=delivered,
            expected=expected,
            validity=validity,
            warnings=[*warnings, *doubts, *notes],
            bound_by=observed.bound_by(request, seen, expected - delivered, short, kept_up),
            ended=fate,
            ledger=booked,
            generated=observed.generated(sent),
            streams=observed.streams(seen, request),
            latency=observed.latency(seen),
            cpu=Cpu(
                busy_ns=spent.busy_ns,
                softirq_ns=spent.softirq_ns,
                steal_ns=spent.steal_ns,
                baseline_ns=None if request.baseline is None else round(request.baseline * sent.duration_ns),
                copies=delivered,
            ),
            workers=observed.shares(before.subject, after.subject),
            inputs=observed.inputs(request, sent, seen, capture.flows, copies),
            outputs=observed.outputs(request, sent, seen, capture.flows),
        )

    def _booked(
        self,
        setting: Setting,
        before: _Counters,
        after: _Counters,
        sent: SenderReport,
        seen: ReceiverReport,
    ) -> Ledger:
        devices = after.devices.since(before.devices)
        outside = ledger.Outside(
            offered=sent.offered,
            input_dropped=devices.input_dropped,
            output_dropped=devices.output_dropped,
            receiver_dropped=sum(seen.drops.values()),
            arrived=sum(seen.received),
            receivers=receivers_of(self.plan.setting),
            device_counts_datagrams=self._device_counts_datagrams,
            frame_datagrams=frame_datagrams(setting),
            frame_datagrams_max=MAX_SEGMENTS if setting.egress == "offload" else 1,
        )
        account = after.account_since(before)
        if account is None and self._subject is not None:
            return ledger.ended(outside, len(self._outputs), self.plan.subject)
        return ledger.direct(outside) if account is None else ledger.build(account, outside)

    @property
    def _device_counts_datagrams(self) -> bool:
        """Where no subject hands over whole bursts, one frame is one datagram."""
        subject = self._subject
        return self.plan.setting.egress == "wire-like" or subject is None or not subject.peer.sends_bursts

    def _count(self) -> _Counters:
        routed = None if self._routed is None else self._routed.read()
        sample = None if self._subject is None else self._subject.sample()
        return _Counters(sample, self._devices.read(), routed)


def frame_datagrams(setting: Setting) -> int:
    """In each frame of the generator: with offloads on, a burst of packet sockets' crosses a link as one."""
    return setting.burst if setting.egress == "offload" and setting.generator == "packet" else 1


def capture_of(plan: BenchPlan, request: Request, outputs: Sequence[str]) -> ReceiverJob:
    return receiver_job(request, outputs, plan.mtu, direct=plan.topology.direct)


def _warm_up(plan: BenchPlan) -> Request:
    return Request("warm-up", "", "", standing(plan.setting), "fixed", WARM_UP_DPS, WARM_UP_S)


@contextmanager
def bench(
    plan: BenchPlan, run_id: str, peers: Mapping[str, Peer] = PEERS, wires: Wires | None = None
) -> Iterator[Bench]:
    """Build, start, and take down whatever happens. ``run_id`` must be unique among standing benches.

    Args:
        peers: the subjects that there are; a run's own where the user chose a program.
        wires: existing interfaces to take instead of making veth pairs.
    """
    topology = plan.topology if wires is None else wires.under(plan.topology)
    warm_up = _warm_up(plan)
    with ExitStack() as stack:
        lab = stack.enter_context(build(topology, run_id))
        outputs = [link.receiver.interface for link in lab.outputs]
        # Sender, receiver and subject take their time to load: all at once.
        sender = stack.enter_context(start_sender(lab.gen, sender_job(warm_up, plan.sender_cpu)))
        receiver = stack.enter_context(start_receiver(lab.rcv, capture_of(plan, warm_up, outputs)))
        subject: Subject | None = None
        if plan.subject != NONE:
            peer = peers[plan.subject]
            rules = rules_of(plan.setting, [link.sender.interface for link in lab.outputs])
            subject = Subject(peer, partial(peer.start, lab, rules, plan.setting, plan.worker_cpus))
            stack.callback(subject.stop)
        devices = stack.enter_context(DeviceReader(lab))
        made = Bench(plan, lab, subject, devices, sender, receiver)
        stack.callback(made.close)
        if plan.sender_cpu not in plan.worker_cpus:
            # What else the machine runs must not hold the generator up: a late one offers less than asked.
            os.setpriority(os.PRIO_PROCESS, sender.pid, SENDER_NICE)
        yield made
