"""Join and leave delay: a rule is added and removed over and over while datagrams for it arrive.

The bench's generator sends at a steady rate all the time, and the receivers keep the arrivals. If the subject
joins groups upstream, its input link is watched for membership reports, too. Requests and arrivals are
stamped by one clock (CLOCK_REALTIME).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from statistics import median
from typing import TYPE_CHECKING, ClassVar

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
        series = context.series(self, self.case, self.subject, self.setting, "fixed")
        subject = series.changing
        transfers = _Transfers(series.bench, subject, self.setting, self.table.dps, self.table.hold_ms / 1000)
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
        made = list(_records(self, evidence, transfers))
        for record in made:
            context.archive.write(record)
        context.reporter.outcome("; ".join(map(_describe, made)))


@dataclass
class _Evidence:
    """What was seen in all transfers."""

    changes: list[Change] = field(default_factory=list)
    arrivals: dict[str, list[Arrival]] = field(default_factory=dict)
    reports: list[tuple[int, Word]] | None = None
    """``None`` where the subject does not join groups upstream."""
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
        group = IPv4Address(self.rule.group)
        stream = Stream(
            stream_id=0,
            group=group,
            port=self.rule.port,
            source=IPv4Address(self.rule.source),
            source_port=FIRST_SOURCE_PORT,
            share=mixed.shares(setting.unicast_percent, 1, setting.outputs)[0],
        )
        one = setting.model_copy(update={"flows": 1})
        self._sender_job = SenderJob(
            interface=self._input.sender.interface,
            streams=(stream, *mixed.unicast_streams(one, stream)),
            payload_bytes=setting.payload_bytes,
            rate_dps=mixed.with_unicast(dps, setting.unicast_percent),
            duration_s=SENDING_S,
            cpu=bench.plan.cpus.sender,
        )
        most = round(dps * SENDING_S)
        self._receiver_job = ReceiverJob(
            flows=tuple(
                Flow(interface=name, group=group, port=stream.port, stream_id=0, sequences=most)
                for name in self.outputs
            ),
            payload_bytes=setting.payload_bytes,
            mtu=bench.plan.mtu,
            keep_frames=most * len(self.outputs),
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
        from lab.analysis.search import SHORTFALL_LIMIT

        sender, receiver = self._bench.sender, self._bench.receiver
        receiver.again(self._receiver_job)
        sender.again(self._sender_job)
        receiver.ready()
        sender.ready()
        sender.go()
        kinds: tuple[Kind, ...] = ("add", "remove")
        for kind in kinds * times:
            self._wait()
            evidence.changes.append(self._change(kind))
        self._wait()
        sender.stop()
        sent = sender.report()
        receiver.stop()
        seen = receiver.report()
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


def _records(step: DelayStep, evidence: _Evidence, transfers: _Transfers) -> Iterator[Delay]:
    """A record for each output and change by its datagrams, and by membership reports if there are any."""
    made = partial(
        Delay,
        scenario=step.scenario.name,
        case=step.case.name,
        subject=step.subject,
        setting=step.setting,
        offered_dps=step.table.dps,
        warnings=evidence.warnings,
    )
    answered: dict[Kind, list[int]] = {"add": [], "remove": []}
    for each in evidence.changes:
        answered[each.kind].append(each.answered_ns - each.asked_ns)
    for interface in transfers.outputs:
        seen = delays(evidence.changes, evidence.arrivals.get(interface, []), transfers.interval_ns)
        on = partial(made, sign="datagram", interface=interface)
        yield on(
            change="add",
            values_ns=list(seen.joins),
            answered_ns=answered["add"],
            missed=seen.joins_missed,
            held_back=seen.held_back,
        )
        yield on(
            change="remove",
            values_ns=list(seen.leaves),
            answered_ns=answered["remove"],
            missed=seen.leaves_missed,
            gaps=seen.gaps,
        )
    for kind in answered if evidence.reports is not None else ():
        values, missed = reported(evidence.changes, evidence.reports or (), kind)
        yield made(
            change=kind,
            sign="membership report",
            interface=transfers.rule.input_interface,
            values_ns=list(values),
            answered_ns=answered[kind],
            missed=missed,
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
