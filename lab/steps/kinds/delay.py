"""Join and leave delay: a rule is added and removed over and over while datagrams for it arrive.

The bench's generator sends at a steady rate all the time, and the receivers keep the arrivals. If the subject
joins groups upstream, its input link is watched for membership reports, too. Requests and arrivals are
stamped by one clock (CLOCK_REALTIME).
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from statistics import median
from typing import TYPE_CHECKING, ClassVar, Literal

from lab.analysis.delay import Arrival, Change, Kind, delays, reported
from lab.analysis.igmp import Word, membership
from lab.load import mixed_traffic as mixed
from lab.load.flows import FIRST_SOURCE_PORT, Rule, rules_of
from lab.load.jobs import Flow, Frame, ReceiverJob, SenderJob, Stream
from lab.load.stamp import HEADER_BYTES, STAMP_BYTES
from lab.results import NS_PER_S, Delay, Setting
from lab.scenario.rfc3918_tables import DelayTable
from lab.steps.step import BENCH_START_S, TableStep

if TYPE_CHECKING:
    from lab.peers.base import Changing
    from lab.steps.context import Context
    from lab.traffic.process import Receiver
    from lab.trial.bench import Bench

BATCH = 20
"""Repetitions in one transfer: the receivers empty their rings between transfers."""
SENDING_S = 30.0
"""Longest transfer; the sender is told to stop earlier."""
WATCHED_FRAMES = 100_000
"""IGMP reports to keep, at most; far fewer come."""
CHANGE_S = 0.01
"""Estimate for one change of the rules, without the wait between two."""


@dataclass(frozen=True)
class DelayStep(TableStep[DelayTable]):
    """Adds and removes a rule as often as the profile says; a record for each change, sign and interface."""

    key = "delay"
    records: ClassVar = (Delay,)

    @property
    def seconds(self) -> float:
        each = 2 * (self.table.hold_ms / 1000 + CHANGE_S)
        return 2 * BENCH_START_S + self.profile.repetitions * each

    def perform(self, context: Context) -> None:
        from lab.steps.context import changing, plan_for

        bench = context.benches.get(plan_for(self.scenario, self.case, self.subject, self.setting))
        subject = changing(self.subject, bench)
        transfers = _Transfers(bench, subject, self.setting, self.table.dps, self.table.hold_ms / 1000)
        evidence = _Evidence()
        with ExitStack() as stack:
            watcher = stack.enter_context(transfers.watch()) if subject.joins_upstream else None
            left = self.profile.repetitions
            while left:
                context.interrupt.check()
                transfers.repeat(min(left, BATCH), evidence)
                left -= min(left, BATCH)
            if watcher is not None:
                evidence.reports = transfers.reports(watcher)
        made = list(_records(self, evidence, transfers.outputs, transfers.interval_ns))
        if watcher is not None:
            made += _report_records(self, evidence, transfers.rule.input_interface)
        for record in made:
            context.archive.write(record)
        context.reporter.outcome("; ".join(map(_describe, made)))


@dataclass
class _Evidence:
    """What was seen in all transfers."""

    changes: list[Change] = field(default_factory=list)
    arrivals: dict[str, list[Arrival]] = field(default_factory=dict)
    reports: list[tuple[int, Word]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class _Transfers:
    """The rule that comes and goes, and who sends, receives and watches what it forwards."""

    def __init__(self, bench: Bench, subject: Changing, setting: Setting, dps: int, hold_s: float) -> None:
        self._bench = bench
        self._subject = subject
        self._hold_s = hold_s
        self.outputs = [link.receiver.interface for link in bench.lab.outputs]
        forwarding = [link.sender.interface for link in bench.lab.outputs]
        # One more than those that stand: a group of its own.
        one_more = setting.model_copy(update={"rules": setting.rules + 1})
        self.rule: Rule = rules_of(one_more, forwarding)[-1]
        self.interval_ns = NS_PER_S // dps
        self._input = next(
            link for link in bench.lab.inputs if link.receiver.interface == self.rule.input_interface
        )
        self._sender_job = self._sending(setting, dps)
        self._receiver_job = ReceiverJob(
            flows=tuple(
                Flow(
                    interface=name,
                    group=IPv4Address(self.rule.group),
                    port=self.rule.port,
                    stream_id=0,
                    sequences=round(dps * SENDING_S),
                )
                for name in self.outputs
            ),
            payload_bytes=setting.payload_bytes,
            mtu=bench.plan.mtu,
            keep_frames=round(dps * SENDING_S) * len(self.outputs),
        )

    def _sending(self, setting: Setting, dps: int) -> SenderJob:
        one = setting.model_copy(update={"flows": 1})
        stream = Stream(
            stream_id=0,
            group=IPv4Address(self.rule.group),
            port=self.rule.port,
            source=IPv4Address(self.rule.source),
            source_port=FIRST_SOURCE_PORT,
            share=mixed.shares(setting.unicast_percent, 1, setting.outputs)[0],
        )
        return SenderJob(
            interface=self._input.sender.interface,
            streams=(stream, *mixed.unicast_streams(one, stream)),
            payload_bytes=setting.payload_bytes,
            rate_dps=mixed.with_unicast(dps, setting.unicast_percent),
            duration_s=SENDING_S,
            cpu=self._bench.plan.sender_cpu,
        )

    def watch(self) -> Receiver:
        """A receiver that keeps every frame that the forwarder sends on its input."""
        from lab.traffic.process import start_receiver

        interface = self._input.sender.interface
        job = ReceiverJob(interfaces=(interface,), everything=True, keep_frames=WATCHED_FRAMES)
        watcher = start_receiver(self._bench.lab.gen, job)
        watcher.ready()
        return watcher

    def reports(self, watcher: Receiver) -> list[tuple[int, Word]]:
        """The times at which the rule's group was joined and left."""
        watcher.stop()
        return [
            (frame.time_ns, word)
            for frame in watcher.report().captured
            for word, group in membership(bytes.fromhex(frame.data))
            if group == IPv4Address(self.rule.group)
        ]

    def repeat(self, times: int, evidence: _Evidence) -> None:
        """Add and remove the rule ``times`` times while datagrams flow."""
        sender, receiver = self._bench.sender, self._bench.receiver
        receiver.again(self._receiver_job)
        sender.again(self._sender_job)
        receiver.ready()
        sender.ready()
        sender.go()
        for _ in range(times):
            self._wait()
            evidence.changes.append(self._change("add"))
            self._wait()
            evidence.changes.append(self._change("remove"))
        self._wait()
        sender.stop()
        sent = sender.report()
        receiver.stop()
        seen = receiver.report()
        from lab.analysis.search import SHORTFALL_LIMIT

        asked = (self._sender_job.rate_dps or 0) * sent.duration_ns / NS_PER_S
        if sent.offered < asked * (1 - SHORTFALL_LIMIT):
            evidence.warnings.append(f"offered {sent.offered:,} of {asked:,.0f} datagrams asked for")
        if dropped := sum(seen.drops.values()):
            evidence.warnings.append(f"the receivers' own rings dropped {dropped:,} frames")
        if len(seen.captured) != seen.frames:
            evidence.warnings.append(f"kept {len(seen.captured):,} of {seen.frames:,} frames that arrived")
        for frame in seen.captured:
            evidence.arrivals.setdefault(frame.interface, []).append(_arrival(frame))

    def _wait(self) -> None:
        """Wait at random, so that a request comes at any moment between two datagrams."""
        time.sleep(self._hold_s + random.uniform(0, 2 * self.interval_ns / NS_PER_S))

    def _change(self, kind: Kind) -> Change:
        asked_ns = time.time_ns()
        if kind == "add":
            self._subject.add(self.rule)
        else:
            self._subject.remove(self.rule)
        return Change(kind, asked_ns, time.time_ns())


def _arrival(frame: Frame) -> Arrival:
    """Its time, and what its stamp says (``lab/load/stamp.py``)."""
    stamp = bytes.fromhex(frame.data[2 * HEADER_BYTES : 2 * (HEADER_BYTES + STAMP_BYTES)])
    return Arrival(frame.time_ns, int.from_bytes(stamp[4:8], "big"), int.from_bytes(stamp[8:16], "big"))


def _records(
    step: DelayStep, evidence: _Evidence, outputs: Sequence[str], interval_ns: int
) -> Sequence[Delay]:
    made = []
    for interface in outputs:
        seen = delays(evidence.changes, evidence.arrivals.get(interface, []), interval_ns)
        joining = _record(step, evidence, "add", "datagram", interface, seen.joins, seen.joins_missed)
        made.append(joining.model_copy(update={"held_back": seen.held_back}))
        leaving = _record(step, evidence, "remove", "datagram", interface, seen.leaves, seen.leaves_missed)
        made.append(leaving.model_copy(update={"gaps": seen.gaps}))
    return made


def _report_records(step: DelayStep, evidence: _Evidence, interface: str) -> Sequence[Delay]:
    kinds: tuple[Kind, ...] = ("add", "remove")
    return [
        _record(
            step,
            evidence,
            kind,
            "membership report",
            interface,
            *reported(evidence.changes, evidence.reports, kind),
        )
        for kind in kinds
    ]


def _record(
    step: DelayStep,
    evidence: _Evidence,
    kind: Kind,
    sign: Literal["datagram", "membership report"],
    interface: str,
    values: Sequence[int],
    missed: int,
) -> Delay:
    return Delay(
        scenario=step.scenario.name,
        case=step.case.name,
        subject=step.subject,
        setting=step.setting,
        change=kind,
        sign=sign,
        interface=interface,
        offered_dps=step.table.dps,
        values_ns=list(values),
        answered_ns=[each.answered_ns - each.asked_ns for each in evidence.changes if each.kind == kind],
        missed=missed,
        warnings=evidence.warnings,
    )


def _describe(record: Delay) -> str:
    what = "join" if record.change == "add" else "leave"
    if record.sign != "datagram":
        what += " report"
    if not record.values_ns:
        return f"{what} never seen on {record.interface}"
    missed = f", {record.missed} missed" if record.missed else ""
    values = record.values_ns
    return f"{what} {median(values) / 1e6:.2f} ms, at most {max(values) / 1e6:.2f}{missed}"
