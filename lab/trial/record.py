"""What was read and reported in one trial, and the record made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.analysis.search import SHORTFALL_LIMIT
from lab.ledger import ledger, observe
from lab.load import mixed_traffic as mixed
from lab.load.flows import Request
from lab.load.jobs import MAX_SEGMENTS, Flow, ReceiverReport, SenderReport
from lab.measure import since
from lab.measure.cpu import CpuTime, total
from lab.measure.network import Devices
from lab.results import NONE, Cpu, CpuUse, Generated, Ledger, Setting, Trial, Validity, keeps_up
from lab.scenario.layout import receivers_of
from lab.trial.plan import BenchPlan, Cpus


@dataclass(frozen=True)
class Counters:
    """What subject and devices have counted by a moment; ``subject`` is ``None`` without one.

    ``routed``: unicast datagrams that the kernel routed, ``None`` where the load is multicast only.
    """

    subject: ledger.Sample | None
    devices: Devices
    routed: int | None = None

    def account_since(self, earlier: Counters) -> ledger.Account | None:
        """What the subject, and the kernel beside it, have done since ``earlier``."""
        if self.subject is None or earlier.subject is None:
            return None
        account = self.subject.account.since(earlier.subject.account)
        if self.routed is None or earlier.routed is None:
            return account
        return ledger.mixed(account, self.routed - earlier.routed)


@dataclass(frozen=True)
class Usage:
    """What CPUs have done by a moment, or between two: by CPU.

    ``taken_ns``: of a watched CPU, used by anybody; ``received``: frames that the network stack took in;
    ``napi_ns``: used by the threads that receive for interfaces.
    """

    times: Mapping[int, CpuTime]
    taken_ns: Mapping[int, int]
    received: Mapping[int, int]
    napi_ns: Mapping[int, int] = field(default_factory=dict)

    def since(self, earlier: Usage) -> Usage:
        return Usage(
            since(self.times, earlier.times),
            {cpu: taken - earlier.taken_ns[cpu] for cpu, taken in self.taken_ns.items()},
            {cpu: frames - earlier.received[cpu] for cpu, frames in self.received.items()},
            {
                cpu: used - earlier.napi_ns[cpu]
                for cpu, used in self.napi_ns.items()
                if cpu in earlier.napi_ns
            },
        )

    def by_cpu(self, cpus: Cpus) -> list[CpuUse]:
        """What each CPU has done."""
        used = []
        for cpu in sorted({*cpus.bench, *cpus.forwarder}):
            times, busy_ns = self.times[cpu], self.times[cpu].busy_ns
            if cpu in self.taken_ns:
                # What the hypervisor took looks like use.
                busy_ns = max(0, self.taken_ns[cpu] - times.steal_ns)
            used.append(
                CpuUse(
                    cpu=cpu,
                    role=cpus.role(cpu),
                    busy_ns=busy_ns,
                    softirq_ns=times.softirq_ns,
                    steal_ns=times.steal_ns,
                    received=self.received[cpu],
                    napi_ns=self.napi_ns.get(cpu),
                )
            )
        return used


@dataclass(frozen=True)
class Transfer:
    """What sender, receivers and CPUs report about one transfer."""

    sent: SenderReport
    seen: ReceiverReport
    used: Usage


@dataclass(frozen=True)
class Evidence:
    """Everything known about one trial when it is over."""

    flows: Sequence[Flow]
    """Flows that the receivers were told of, in their order."""
    before: Counters
    transfer: Transfer
    after: Counters
    ended: str | None
    """How the subject ended; ``None`` while it runs, and without one."""
    sends_bursts: bool
    """Whether the subject hands over frames of several datagrams."""
    threads_lost: Sequence[str] = ()
    """Interfaces whose NAPI threads went away."""
    instead_of_threads: Sequence[str] = ()
    """What receives where there are none, and why."""


def record(plan: BenchPlan, request: Request, evidence: Evidence) -> Trial:
    """The record of one trial."""
    sent, seen = evidence.transfer.sent, evidence.transfer.seen
    booked = _book(plan, request.setting, evidence)
    used = evidence.transfer.used
    by_cpu = used.by_cpu(plan.cpus)
    forwarder = [use for use in by_cpu if use.role != "bench"]
    delivered, expected = seen.delivered, mixed.due(request.setting, sent.per_stream, plan.copies)
    drain_ns = observe.drain_ns(sent, seen)
    kept_up = keeps_up(drain_ns, sent.duration_ns)
    short = request.asked is not None and sent.offered < request.asked * (1 - SHORTFALL_LIMIT)

    warnings = [f"offered {sent.offered:,} of {request.asked:,} datagrams asked for"] if short else []
    if evidence.ended is not None:
        warnings.append(evidence.ended)
    elif not delivered:
        warnings.append("nothing was delivered")
    doubts = [*ledger.doubts(booked), *observe.doubts(seen, request)]
    if evidence.threads_lost:
        doubts.append(f"NAPI threads went away during the trial: {', '.join(evidence.threads_lost)}")
    if plan.cpus.apart and plan.subject != NONE and request.setting.receive != "sender":
        devices = evidence.after.devices.since(evidence.before.devices)
        doubts += observe.strays(sent.offered - devices.input_dropped, sum(use.received for use in forwarder))
    steal_share = total(used.times).steal_share
    notes = observe.notes(sent, seen, request, plan.worker_cpus, steal_share)
    notes += evidence.instead_of_threads
    if not kept_up:
        notes.append(f"what piled up was still being forwarded {drain_ns / 1e6:,.0f} ms later")
    validity: Validity = "invalid" if short else "doubtful" if doubts else "valid"

    return Trial(
        trial_id=request.trial_id,
        scenario=request.scenario,
        case=request.case,
        subject=plan.subject,
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
        bound_by=observe.bound_by(request, seen, expected - delivered, short, kept_up),
        ended=evidence.ended,
        ledger=booked,
        generated=Generated.model_validate(sent, from_attributes=True),
        streams=observe.streams(seen, request),
        latency=observe.latency(seen),
        cpu=Cpu(
            busy_ns=sum(use.busy_ns for use in forwarder),
            softirq_ns=sum(use.softirq_ns for use in forwarder),
            steal_ns=sum(use.steal_ns for use in forwarder),
            baseline_ns=None if request.baseline is None else round(request.baseline * sent.duration_ns),
            copies=delivered,
            by_cpu=by_cpu,
        ),
        workers=observe.shares(evidence.before.subject, evidence.after.subject),
        inputs=observe.inputs(request, sent, seen, evidence.flows, plan.copies),
        outputs=observe.outputs(request, sent, seen, evidence.flows),
    )


def _book(plan: BenchPlan, setting: Setting, evidence: Evidence) -> Ledger:
    """The ledger of a trial."""
    sent, seen = evidence.transfer.sent, evidence.transfer.seen
    devices = evidence.after.devices.since(evidence.before.devices)
    outside = ledger.Outside(
        offered=sent.offered,
        input_dropped=devices.input_dropped,
        output_dropped=devices.output_dropped,
        receiver_dropped=sum(seen.drops.values()),
        arrived=sum(seen.received),
        receivers=receivers_of(plan.setting),
        # Where no subject hands over whole bursts, one frame is one datagram.
        device_counts_datagrams=setting.egress == "wire-like" or not evidence.sends_bursts,
        frame_datagrams=frame_datagrams(setting),
        frame_datagrams_max=MAX_SEGMENTS if setting.egress == "offload" else 1,
    )
    account = evidence.after.account_since(evidence.before)
    if account is not None:
        return ledger.build(account, outside)
    topology = plan.topology
    if topology.direct:
        return ledger.direct(outside)
    return ledger.ended(outside, topology.outputs, plan.subject)


def frame_datagrams(setting: Setting) -> int:
    """Datagrams in each frame of the generator: with offloads, a burst of packet sockets stays one frame."""
    return setting.burst if setting.egress == "offload" and setting.generator == "packet" else 1
