"""One trial: arm the receivers, send, take what is on its way, read every counter, book every datagram.

A *bench* is what the trials of one subject in one setting share: namespaces, subject, a sender and a receiver
process. It stays up between trials; :meth:`Bench.measure` is the one seam to everything above.

Order matters: counters are read before the first datagram and after the receivers have seen nothing new for a
while; processor time is read around the sending only, so checking the capture afterwards does not count.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from lab import ledger
from lab.build import Lab, build
from lab.peers import PEERS
from lab.peers.base import Rule, Running
from lab.readings import Busy, DeviceReader, Devices, busy_time
from lab.results import Cpu, Latency, Ledger, Setting, Streams, Trial, Validity, WorkerSample
from lab.search import SHORTFALL_LIMIT
from lab.topology import Topology
from lab.traffic.jobs import Flow, ReceiverJob, ReceiverReport, SenderJob, SenderReport, Stream
from lab.traffic.receiver import start_receiver
from lab.traffic.sender import start_sender

Purpose = Literal["calibration", "search", "fixed", "comparison", "latency", "functional"]
BoundBy = Literal["generator", "forwarder", "receiver", "asked", "unknown"]

FIRST_GROUP = int(IPv4Address("239.1.0.0"))
PORT = 5001
SOURCE = "10.10.0.1"
FIRST_SOURCE_PORT = 10_000
SOURCE_PORTS = 50_000

QUIET_S = 0.1
"""The receivers' silence that ends a trial."""

WARM_UP_DPS, WARM_UP_S = 1000, 0.05
"""The first transfer of a bench loads compiled code and touches memory; it is not recorded."""

SENDER_NICE = -20

FASTEST_DPS = 3_000_000
"""Above what any generator here reaches: bounds the sequence numbers of a trial without a rate."""

NONE = "none"
"""The subject of a calibration: generator straight into the receivers."""


@dataclass(frozen=True)
class BenchPlan:
    """What a bench is built from; equal plans can share one bench."""

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
    """One trial, asked for. ``dps`` is ``None`` for as fast as the generator can."""

    trial_id: str
    scenario: str
    case: str
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


def groups(count: int) -> list[str]:
    """The first ``count`` groups of the range that trials use."""
    return [str(IPv4Address(FIRST_GROUP + number)) for number in range(count)]


def rules_of(setting: Setting, output_interfaces: Sequence[str]) -> list[Rule]:
    """``setting.rules`` rules from in0 to every output, one group each, the group kept."""
    return [
        Rule(f"rule-{number}", group, PORT, SOURCE, "in0", tuple(output_interfaces))
        for number, group in enumerate(groups(setting.rules))
    ]


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
class _Before:
    """The counters before a trial."""

    account: ledger.Account | None
    workers: list[WorkerSample]
    devices: Devices


class Bench:
    """A subject that stands ready in its own namespaces; made by :func:`bench`."""

    def __init__(
        self, plan: BenchPlan, lab: Lab, subject: Running | None, devices: DeviceReader, stack: ExitStack
    ) -> None:
        self.plan = plan
        self._subject = subject
        self._devices = devices
        self._streams = streams_of(plan.setting)
        # A worker beside the generator does its work in user time: then nothing can be left out.
        self._spinning = None if plan.sender_cpu in plan.worker_cpus else plan.sender_cpu
        self._outputs = [link.receiver.interface for link in lab.outputs]
        warm_up = Request("warm-up", "", "", "fixed", WARM_UP_DPS, WARM_UP_S)
        self._sender = stack.enter_context(start_sender(lab.gen, self._sender_job(warm_up)))
        if self._spinning is not None:
            # What else the machine runs must not hold the generator up: a late one offers less than asked.
            os.setpriority(os.PRIO_PROCESS, self._sender.pid, SENDER_NICE)
        self._receiver = stack.enter_context(start_receiver(lab.rcv, self._receiver_job(warm_up)))
        self._transfer()

    @property
    def outputs(self) -> int:
        return len(self._outputs)

    def measure(self, request: Request) -> Trial:
        """Run one trial. Raises TrafficError, PeerError or NetnsError when the bench itself fails."""
        self._receiver.again(self._receiver_job(request))
        self._sender.again(self._sender_job(request))
        before = _Before(self._account(), self._workers(), self._devices.read())
        sent, seen, busy = self._transfer()
        return self._record(request, before, sent, seen, busy)

    def _transfer(self) -> tuple[SenderReport, ReceiverReport, Busy]:
        """Do the jobs that sender and receiver have been given."""
        self._receiver.ready()
        self._sender.ready()
        busy_before = busy_time(self._spinning)
        self._sender.go()
        sent = self._sender.report()
        busy = busy_time(self._spinning).since(busy_before)
        self._receiver.stop({s.stream_id: n for s, n in zip(self._streams, sent.per_stream, strict=True)})
        return sent, self._receiver.report(), busy

    def _record(
        self, request: Request, before: _Before, sent: SenderReport, seen: ReceiverReport, busy: Busy
    ) -> Trial:
        devices = self._devices.read().since(before.devices)
        booked = self._ledger(before, sent, seen, devices)
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
            setting=self.plan.setting,
            purpose=request.purpose,
            asked_dps=request.dps,
            duration_ns=max(1, sent.duration_ns),
            offered=sent.offered,
            delivered=delivered,
            expected=expected,
            validity=validity,
            warnings=[*warnings, *doubts, *_notes(seen)],
            bound_by=_bound_by(request, seen, expected - delivered, short),
            ledger=booked,
            streams=Streams(
                streams=len(self._streams),
                checked=sum(seen.received),
                lost=sum(seen.lost),
                duplicated=sum(seen.duplicated),
                reordered=sum(seen.reordered),
                corrupted=sum(seen.corrupted),
            ),
            latency=_latency(seen),
            cpu=Cpu(
                busy_ns=busy.busy_ns,
                softirq_ns=busy.softirq_ns,
                baseline_ns=None if request.baseline is None else round(request.baseline * sent.duration_ns),
                copies=delivered,
            ),
            workers=_shares(before.workers, self._workers()),
        )

    def _ledger(self, before: _Before, sent: SenderReport, seen: ReceiverReport, devices: Devices) -> Ledger:
        account = self._account()
        receiver_dropped = sum(seen.drops.values())
        if account is None or before.account is None:
            return ledger.direct(sent.offered, devices.input_dropped, receiver_dropped, seen.delivered)
        return ledger.build(
            account.since(before.account),
            ledger.Outside(
                offered=sent.offered,
                input_dropped=devices.input_dropped,
                output_dropped=devices.output_dropped,
                receiver_dropped=receiver_dropped,
                delivered=seen.delivered,
                device_counts_datagrams=self.plan.setting.egress == "wire-like",
            ),
        )

    def _account(self) -> ledger.Account | None:
        return None if self._subject is None else self._subject.account()

    def _workers(self) -> list[WorkerSample]:
        return [] if self._subject is None else self._subject.workers()

    def _sender_job(self, request: Request) -> SenderJob:
        return SenderJob(
            interface="g0",
            streams=self._streams,
            payload_bytes=self.plan.setting.payload_bytes,
            rate_dps=request.dps,
            duration_s=request.seconds,
            cpu=self.plan.sender_cpu,
        )

    def _receiver_job(self, request: Request) -> ReceiverJob:
        sequences = 2 + int((request.dps or FASTEST_DPS) * request.seconds / len(self._streams))
        return ReceiverJob(
            flows=tuple(
                Flow(
                    interface=name,
                    group=stream.group,
                    port=stream.port,
                    stream_id=stream.stream_id,
                    sequences=sequences,
                )
                for name in self._outputs
                for stream in self._streams
            ),
            payload_bytes=self.plan.setting.payload_bytes,
            offload=self.plan.setting.egress == "offload",
            mtu=self.plan.mtu,
            quiet_s=QUIET_S,
        )


@contextmanager
def bench(plan: BenchPlan, run_id: str) -> Iterator[Bench]:
    """Build, start, and take down whatever happens. ``run_id`` must be unique among standing benches."""
    with ExitStack() as stack:
        lab = stack.enter_context(build(plan.topology, run_id))
        subject: Running | None = None
        if plan.subject != NONE:
            rules = rules_of(plan.setting, [link.sender.interface for link in lab.outputs])
            subject = PEERS[plan.subject].start(lab, rules, plan.setting, plan.worker_cpus)
            stack.callback(subject.stop)
        devices = stack.enter_context(DeviceReader(lab))
        yield Bench(plan, lab, subject, devices, stack)


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


def _notes(seen: ReceiverReport) -> list[str]:
    reordered = sum(seen.reordered)
    return [f"{reordered:,} copies arrived out of order"] if reordered else []


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


def _shares(before: Sequence[WorkerSample], after: Sequence[WorkerSample]) -> list[WorkerSample]:
    """Each worker's part in the trial."""
    earlier = {sample.worker_id: sample for sample in before}
    shares = []
    for sample in after:
        first = earlier.get(sample.worker_id)
        received = sample.received - (first.received if first else 0)
        matched = sample.matched - (first.matched if first else 0)
        shares.append(sample.model_copy(update={"received": received, "matched": matched}))
    return shares
