"""One trial: arm the receivers, send, take what is on its way, read every counter, book every datagram.

A *bench* is what the trials of one subject in one setting share: namespaces, subject, a sender and a receiver
process. It stays up between trials; :meth:`Bench.measure` is the one seam to everything above.

Order matters: counters are read before the first datagram and after the receivers have seen nothing new for a
while; processor time is read around the sending only, so checking the capture afterwards does not count.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Literal

from lab import ledger
from lab.build import Lab, build
from lab.measure.cpu import CpuTime, busy, read_cpus, since, total
from lab.measure.interfaces import DeviceReader, Devices
from lab.peers import PEERS
from lab.peers.base import Rule, Running, Sample
from lab.results import Cpu, Latency, Ledger, Setting, Streams, Trial, Validity, WorkerSample
from lab.search import SHORTFALL_LIMIT
from lab.topology import Topology
from lab.traffic.jobs import Flow, ReceiverJob, ReceiverReport, SenderJob, SenderReport, Stream
from lab.traffic.receiver import Receiver, start_receiver
from lab.traffic.sender import Sender, start_sender

Purpose = Literal["calibration", "search", "fixed", "comparison", "latency", "functional"]
BoundBy = Literal["generator", "forwarder", "receiver", "asked", "unknown"]

FIRST_GROUP = int(IPv4Address("239.1.0.0"))
PORT = 5001
SOURCE = "10.10.0.1"
FIRST_SOURCE_PORT = 10_000
SOURCE_PORTS = 50_000

SETTLE_S = 2.0
"""So long a subject may take, after the last datagram was sent, to account for all of them."""

QUIET_S = 0.05
"""The receivers' silence that ends a trial: what the subject has sent by then crosses one queue."""

WARM_UP_DPS, WARM_UP_S = 1000, 0.05
"""The first transfer of a bench loads compiled code and touches memory; it is not recorded."""

SENDER_NICE = -20

FASTEST_DPS = 3_000_000
"""Above what any generator here reaches: bounds the sequence numbers of a trial without a rate."""

FASTEST_COPIES_DPS = 1_500_000
"""Above what any subject here delivers, all outputs together, when each copy is a frame."""

STEAL_LIMIT = 0.02
"""A share of the processor time that the hypervisor may take without a word about it."""

NONE = "none"
"""The subject of a calibration: generator straight into the receivers."""


@dataclass(frozen=True)
class BenchPlan:
    """What a bench is built from; equal plans share one bench.

    ``setting``: payload, flows and bursts are each trial's own matter; see :func:`standing`.
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
        )


@dataclass(frozen=True)
class Request:
    """One trial, asked for. ``dps`` is ``None`` for as fast as the generator can.

    ``setting`` may differ from the bench's in payload, flows and bursts.
    """

    trial_id: str
    scenario: str
    case: str
    setting: Setting
    purpose: Purpose
    dps: int | None
    seconds: float
    baseline: float | None = None
    """CPUs busy with generator and receivers alone at this rate (1.0 is one CPU), when known."""


def place(workers: int) -> tuple[int, tuple[int, ...]]:
    """CPUs of the sender and of the workers: the sender takes the first, workers the others when they fit.

    As many workers as CPUs, or more, take them all: the sender then shares, which the report says.
    """
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    return cpus[0], cpus[1 : 1 + workers] if workers < len(cpus) else cpus


def standing(setting: Setting) -> Setting:
    """``setting`` without what can change from trial to trial on one bench."""
    return setting.model_copy(update={"payload_bytes": 64, "flows": 1, "burst": 1})


def groups(count: int) -> list[str]:
    """The first ``count`` groups of the range that trials use."""
    return [str(IPv4Address(FIRST_GROUP + number)) for number in range(count)]


def rules_of(setting: Setting, output_interfaces: Sequence[str]) -> list[Rule]:
    """``setting.rules`` rules from in0 to every output, one group each, the group kept."""
    return [
        Rule(f"rule-{number}", group, PORT, SOURCE, "in0", tuple(output_interfaces))
        for number, group in enumerate(groups(setting.rules))
    ]


@lru_cache(maxsize=8)
def streams_of(setting: Setting) -> tuple[Stream, ...]:
    """``setting.flows`` flows, spread evenly over the rules, told apart by their source ports."""
    names = groups(setting.rules)
    return tuple(
        Stream(
            stream_id=flow,
            group=IPv4Address(names[flow * setting.rules // setting.flows % setting.rules]),
            port=PORT,
            source=IPv4Address(SOURCE),
            source_port=FIRST_SOURCE_PORT + flow % SOURCE_PORTS,
        )
        for flow in range(setting.flows)
    )


@dataclass(frozen=True)
class _Counters:
    """What subject and devices have counted by a moment; ``subject`` is ``None`` without one."""

    subject: Sample | None
    devices: Devices


@dataclass(frozen=True)
class _Transfer:
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
        subject: Running | None,
        devices: DeviceReader,
        sender: Sender,
        receiver: Receiver,
    ) -> None:
        self.plan = plan
        self._subject = subject
        self._devices = devices
        self._sender = sender
        self._receiver = receiver
        # A worker beside the generator does its work in user time: then nothing can be left out.
        self._spinning = None if plan.sender_cpu in plan.worker_cpus else plan.sender_cpu
        self._outputs = [link.receiver.interface for link in lab.outputs]
        self._transfer(streams_of(plan.setting))

    @property
    def outputs(self) -> int:
        return len(self._outputs)

    def measure(self, request: Request) -> Trial:
        """Run one trial. Raises TrafficError, PeerError or NetnsError when the bench itself fails."""
        self._receiver.again(receiver_job(request, self._outputs, self.plan.mtu))
        self._sender.again(sender_job(request, self.plan.sender_cpu))
        before = self._count()
        transfer = self._transfer(streams_of(request.setting), before)
        return self._record(request, before, transfer)

    def _transfer(self, streams: Sequence[Stream], before: _Counters | None = None) -> _Transfer:
        """Do the jobs that sender and receiver have been given."""
        self._receiver.ready()
        self._sender.ready()
        cpus_before = read_cpus()
        self._sender.go()
        sent = self._sender.report()
        cpus = since(read_cpus(), cpus_before)
        if before is not None:
            self._settle(before, sent.offered)
        self._receiver.stop({s.stream_id: n for s, n in zip(streams, sent.per_stream, strict=True)})
        return _Transfer(sent, self._receiver.report(), cpus)

    def _settle(self, before: _Counters, offered: int) -> None:
        """Wait until the subject has done with what it was sent, or until it is not worth waiting for."""
        if self._subject is None or before.subject is None:
            return
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            account = self._subject.sample().account.since(before.subject.account)
            if account.accounts_for(offered - self._devices.read().since(before.devices).input_dropped):
                return
            time.sleep(0.005)

    def _record(self, request: Request, before: _Counters, transfer: _Transfer) -> Trial:
        sent, seen = transfer.sent, transfer.seen
        after = self._count()
        booked = _booked(before, after, sent, seen, self._device_counts_datagrams)
        spent = busy(transfer.cpus, self._spinning)
        delivered, expected = seen.delivered, sent.offered * self.outputs
        asked = None if request.dps is None else round(request.dps * request.seconds)
        short = asked is not None and sent.offered < asked * (1 - SHORTFALL_LIMIT)
        doubts = [*ledger.doubts(booked), *_doubts(seen)]
        warnings = [f"offered {sent.offered:,} of {asked:,} datagrams asked for"] if short else []
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
            offered=sent.offered,
            delivered=delivered,
            expected=expected,
            validity=validity,
            warnings=[*warnings, *doubts, *_notes(seen, transfer.cpus)],
            bound_by=_bound_by(request, seen, expected - delivered, short),
            ledger=booked,
            streams=Streams(
                streams=request.setting.flows,
                checked=sum(seen.received),
                lost=sum(seen.lost),
                duplicated=sum(seen.duplicated),
                reordered=sum(seen.reordered),
                corrupted=sum(seen.corrupted),
            ),
            latency=_latency(seen),
            cpu=Cpu(
                busy_ns=spent.busy_ns,
                softirq_ns=spent.softirq_ns,
                steal_ns=spent.steal_ns,
                baseline_ns=None if request.baseline is None else round(request.baseline * sent.duration_ns),
                copies=delivered,
            ),
            workers=_shares(before.subject, after.subject),
        )

    @property
    def _device_counts_datagrams(self) -> bool:
        """Where no subject hands over whole bursts, one frame is one datagram."""
        subject = self.plan.subject
        return self.plan.setting.egress == "wire-like" or not (
            subject in PEERS and PEERS[subject].sends_bursts
        )

    def _count(self) -> _Counters:
        return _Counters(None if self._subject is None else self._subject.sample(), self._devices.read())


def sender_job(request: Request, cpu: int) -> SenderJob:
    return SenderJob(
        interface="g0",
        streams=streams_of(request.setting),
        payload_bytes=request.setting.payload_bytes,
        segments=request.setting.burst,
        rate_dps=request.dps,
        duration_s=request.seconds,
        cpu=cpu,
    )


def receiver_job(request: Request, outputs: Sequence[str], mtu: int) -> ReceiverJob:
    """The capture of one trial, with room for what can arrive at ``outputs``."""
    setting = request.setting
    # What is asked for is rounded, and so is a flow's part: up to whole bursts.
    sequences = 2 * setting.burst + int((request.dps or FASTEST_DPS) * request.seconds / setting.flows)
    return ReceiverJob(
        flows=tuple(
            Flow(
                interface=name,
                group=stream.group,
                port=stream.port,
                stream_id=stream.stream_id,
                sequences=sequences,
            )
            for name in outputs
            for stream in streams_of(setting)
        ),
        payload_bytes=setting.payload_bytes,
        offload=setting.egress == "offload",
        mtu=mtu,
        frames_max=max(1, round(FASTEST_COPIES_DPS * request.seconds)),
        quiet_s=QUIET_S,
    )


@contextmanager
def bench(plan: BenchPlan, run_id: str) -> Iterator[Bench]:
    """Build, start, and take down whatever happens. ``run_id`` must be unique among standing benches."""
    warm_up = Request("warm-up", "", "", plan.setting, "fixed", WARM_UP_DPS, WARM_UP_S)
    with ExitStack() as stack:
        lab = stack.enter_context(build(plan.topology, run_id))
        outputs = [link.receiver.interface for link in lab.outputs]
        # Sender, receiver and subject take their time to load: all at once.
        sender = stack.enter_context(start_sender(lab.gen, sender_job(warm_up, plan.sender_cpu)))
        receiver = stack.enter_context(start_receiver(lab.rcv, receiver_job(warm_up, outputs, plan.mtu)))
        subject: Running | None = None
        if plan.subject != NONE:
            rules = rules_of(plan.setting, [link.sender.interface for link in lab.outputs])
            subject = PEERS[plan.subject].start(lab, rules, plan.setting, plan.worker_cpus)
            stack.callback(subject.stop)
        devices = stack.enter_context(DeviceReader(lab))
        made = Bench(plan, lab, subject, devices, sender, receiver)
        if plan.sender_cpu not in plan.worker_cpus:
            # What else the machine runs must not hold the generator up: a late one offers less than asked.
            os.setpriority(os.PRIO_PROCESS, sender.pid, SENDER_NICE)
        yield made


def _booked(
    before: _Counters, after: _Counters, sent: SenderReport, seen: ReceiverReport, exact: bool
) -> Ledger:
    devices = after.devices.since(before.devices)
    receiver_dropped = sum(seen.drops.values())
    if after.subject is None or before.subject is None:
        return ledger.direct(sent.offered, devices.input_dropped, receiver_dropped, seen.delivered)
    return ledger.build(
        after.subject.account.since(before.subject.account),
        ledger.Outside(
            offered=sent.offered,
            input_dropped=devices.input_dropped,
            output_dropped=devices.output_dropped,
            receiver_dropped=receiver_dropped,
            delivered=seen.delivered,
            device_counts_datagrams=exact,
        ),
    )


def _doubts(seen: ReceiverReport) -> list[str]:
    """Why a trial's figures may not be the subject's."""
    found = []
    if dropped := sum(seen.drops.values()):
        found.append(f"the receivers' own rings dropped {dropped:,} frames")
    if duplicated := sum(seen.duplicated):
        found.append(f"{duplicated:,} copies were delivered more than once")
    if corrupted := sum(seen.corrupted):
        found.append(f"{corrupted:,} copies arrived damaged")
    if strange := seen.unexpected + seen.malformed:
        found.append(f"{strange:,} frames arrived that nobody sent")
    if seen.latency and seen.latency.negative:
        found.append(f"{seen.latency.negative:,} latencies are negative: the clock was set")
    return found


def _notes(seen: ReceiverReport, cpus: dict[int, CpuTime]) -> list[str]:
    found = []
    if reordered := sum(seen.reordered):
        found.append(f"{reordered:,} copies arrived out of order")
    spent = total(cpus)
    elapsed_ns = spent.busy_ns + spent.steal_ns + spent.idle_ns
    if spent.steal_ns > elapsed_ns * STEAL_LIMIT:
        found.append(f"the hypervisor took {spent.steal_ns / elapsed_ns:.0%} of the processor time")
    return found


def _bound_by(request: Request, seen: ReceiverReport, missing: int, short: bool) -> BoundBy:
    if short:
        return "generator"
    if missing > 0:
        return "receiver" if sum(seen.drops.values()) >= missing else "forwarder"
    return "generator" if request.dps is None else "asked"


def _latency(seen: ReceiverReport) -> Latency | None:
    report = seen.latency
    if report is None or not report.count:
        return None
    return Latency(
        count=report.count,
        p50=report.p50,
        p90=report.p90,
        p99=report.p99,
        p999=report.p999,
        max=report.max,
    )


def _shares(before: Sample | None, after: Sample | None) -> list[WorkerSample]:
    """Each worker's part in the trial."""
    earlier = {sample.worker_id: sample for sample in before.workers} if before else {}
    shares = []
    for sample in after.workers if after else ():
        first = earlier.get(sample.worker_id)
        received = sample.received - (first.received if first else 0)
        matched = sample.matched - (first.matched if first else 0)
        shares.append(sample.model_copy(update={"received": received, "matched": matched}))
    return shares
