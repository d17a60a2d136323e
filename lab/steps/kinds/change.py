"""Changes of a running forwarder, each in the middle of a trial of its own, and what each costs.

A change is prepared before its trial begins and undone after it, while nothing is sent: a trial shows one
change only. What is sent is checked to the sequence number, as in any trial.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.analysis import change
from lab.analysis.load_profile import HOT_GROUP
from lab.ledger import expectation
from lab.load.flows import Rule, rules_of, streams_of
from lab.results import NS_PER_S, Change, ChangeKind, Trial
from lab.scenario.load_tables import ChangeTable
from lab.steps.step import BENCH_START_S, TRIAL_OVERHEAD_S, StepError, TableStep, too_little

if TYPE_CHECKING:
    from lab.peers.base import Scaling
    from lab.steps.context import Context, Series

ATTEMPTS = 3
"""Trials for each that is wanted: on a busy machine, others than the subject may lose something."""

LEAST_OFFERED = 0.5
"""Smallest usable share of the datagrams asked for: a busy machine delays the generator."""

BACK_S = 10.0
"""Timeout for a killed worker to run again."""
POLL_S = 0.002

RESTARTED = frozenset[ChangeKind](("crash", "apply"))
"""Kinds of changes before each of which the forwarder is restarted."""
READY_S = 0.1
"""Estimate for preparing a change, usually a resize."""


@dataclass(frozen=True)
class ChangeStep(TableStep[ChangeTable]):
    """Each kind of change as often as the table says; one record for each kind."""

    key = "change"
    records: ClassVar = (Change,)

    @property
    def trials(self) -> int:
        return self.table.trials * len(self.table.kinds)

    @property
    def seconds(self) -> float:
        each = self.table.trial_s + TRIAL_OVERHEAD_S + READY_S
        restarts = sum(kind in RESTARTED for kind in self.table.kinds) * self.table.trials
        return self.trials * each + (1 + restarts) * BENCH_START_S

    def perform(self, context: Context) -> None:
        context.archive.recall(self.step_id, lambda _trial: False)
        series = context.series(self, self.case, self.subject, self.setting, "change")
        lines, broken = [], []
        for kind in self.table.kinds:
            try:
                record = _repeat(self, series, _Changer(self, series, kind))
            except StepError as error:
                broken.append(str(error))
                continue
            context.archive.write(record)
            line = change.describe(record)
            if record.kept is False:
                context.failures.append(f"{self.step_id}: {line}")
            if self.table.blocked_aim_ms is not None:
                context.check(change.aimed(record, self.table.blocked_aim_ms))
            lines.append(line)
        if lines:
            context.reporter.outcome("; ".join(lines))
        if broken:
            raise StepError("; ".join(broken))


@dataclass
class _Done:
    """When a change was requested and complete, and the worker that was killed, if any."""

    asked_ns: int = 0
    ended_ns: int = 0
    worker: int | None = None


class _Changer:
    """Makes one kind of change to the subject of a bench."""

    def __init__(self, step: ChangeStep, series: Series, kind: ChangeKind) -> None:
        self._step = step
        self._series = series
        self.kind = kind
        outputs = [link.sender.interface for link in series.bench.lab.outputs]
        one_more = step.setting.model_copy(update={"rules": step.setting.rules + 1})
        self._rule: Rule = rules_of(one_more, outputs)[-1]
        """The rule to add or remove: nothing is sent to its group."""

    @property
    def sizes(self) -> tuple[int, int]:
        """Workers of an elastic group before and after."""
        many = self._step.table.workers
        hot = self._hot
        few = many if hot is None else min(many, hot.min_workers)
        return {"grow": (few, many), "shrink": (many, few)}.get(self.kind, (many, many))

    def ready(self) -> None:
        """Prepare the state before the change."""
        if self.kind in RESTARTED:
            # Each further death of a worker delays its next start, so only the first is measured.
            # A restart also undoes an apply.
            self._series.operable.restart()
        if (hot := self._hot) is not None:
            if hot.workers != self.sizes[0]:
                self._series.operable.resize(hot.group, self.sizes[0])
        elif self.kind in ("grow", "shrink"):
            raise StepError(f"{self._step.subject}, {self._step.case.name}: no elastic group to resize")
        if self.kind == "remove rule":
            self._series.changing.add(self._rule)

    def moved(self) -> frozenset[int]:
        """The ids of flows that another worker gets after the change."""
        streams = streams_of(self._step.setting)
        if self.kind == "apply":
            return frozenset(stream.stream_id for stream in streams)
        return change.moved(streams, *self.sizes)

    def others_resized(self, since_ns: int) -> str | None:
        """A resize by the forwarder itself since then, if any, which the trial would show, too."""
        hot = self._hot
        made = [] if hot is None else [one for one in hot.changes if one.at_ns >= since_ns]
        if self.kind in ("grow", "shrink"):
            made = made[1:]
        return f"the group was resized otherwise: {made[0].reason}" if made else None

    def undo(self) -> None:
        """Remove the rule that was added."""
        if self.kind == "add rule":
            self._series.changing.remove(self._rule)

    def act(self, done: _Done) -> Callable[[], None]:
        """The function that makes the change during the trial."""
        hot, (_, after) = self._hot, self.sizes
        series, table = self._series, self._step.table

        def meanwhile() -> None:
            time.sleep(table.after_ms / 1000)
            done.asked_ns = time.monotonic_ns()
            match self.kind:
                case "grow" | "shrink":
                    series.operable.resize(0 if hot is None else hot.group, after)
                case "add rule":
                    series.changing.add(self._rule)
                case "remove rule":
                    series.changing.remove(self._rule)
                case "apply":
                    assert table.to is not None
                    series.operable.apply(table.to, table.workers)
                case "crash":
                    done.worker = self._kill()
                case "restart":
                    series.operable.restart()
            done.ended_ns = time.monotonic_ns()

        return meanwhile

    def _kill(self) -> int:
        """Kill a worker and wait for another process in its place; returns the worker's number."""
        from lab.peers.base import PeerError

        running = self._series.operable.workers()
        worker = max(running)
        os.kill(running[worker], signal.SIGKILL)
        deadline = time.monotonic() + BACK_S
        while self._series.operable.workers().get(worker, running[worker]) == running[worker]:
            if time.monotonic() > deadline:
                raise PeerError(f"worker {worker}: not running again {BACK_S:g} s after it was killed")
            time.sleep(POLL_S)
        return worker

    @property
    def _hot(self) -> Scaling | None:
        """The elastic group that is resized, if there is one."""
        groups = self._series.operable.scaling()
        return groups[HOT_GROUP] if groups else None


def _repeat(step: ChangeStep, series: Series, changer: _Changer) -> Change:
    """Perform the changes of one kind that the table asks for, each in a trial that shows its cost."""
    taken: list[tuple[Trial, _Done, int, int]] = []
    left_out, why = 0, ""
    those = changer.moved()
    while len(taken) < step.table.trials and left_out < ATTEMPTS * step.table.trials:
        changer.ready()
        done, began_ns = _Done(), time.monotonic_ns()
        trial = series.run(step.table.dps, step.table.trial_s, meanwhile=changer.act(done))
        changer.undo()
        # What a change loses is exact with somewhat fewer datagrams, too.
        asked = step.table.dps * trial.duration_ns / NS_PER_S
        unfit = (
            expectation.lost_elsewhere(trial)
            or too_little(trial, asked, LEAST_OFFERED)
            or _too_late(trial, done, step)
        )
        unfit = unfit or changer.others_resized(began_ns)
        if unfit is not None:
            left_out, why = left_out + 1, unfit
            continue
        taken.append((trial, done, *_order(step, series, those)))
    if not taken:
        raise StepError(
            f"{changer.kind}: {left_out} trials that nothing can be concluded from, the last: {why}"
        )
    trials = [trial for trial, *_ in taken]
    shares = [1.0 if d.worker is None else change.share_of(d.worker, trial) for trial, d, *_ in taken]
    warnings = [f"{left_out} trials left out, the last: {why}"] if left_out else []
    target_ms = step.table.blocked_target_ms
    return Change(
        scenario=step.scenario.name,
        case=step.case.name,
        subject=step.subject,
        setting=step.setting,
        change=changer.kind,
        to=step.table.to if changer.kind == "apply" else None,
        asked_dps=step.table.dps,
        trial_ids=[trial.trial_id for trial in trials],
        offered=[trial.offered for trial in trials],
        duration_ns=[trial.duration_ns for trial in trials],
        lost=[trial.expected - trial.delivered for trial in trials],
        duplicated=[trial.streams.duplicated if trial.streams else 0 for trial in trials],
        reordered=[stayed for *_, stayed, _ in taken],
        reordered_moved=[count for *_, count in taken],
        share=shares,
        took_ns=[done.ended_ns - done.asked_ns for _, done, *_ in taken],
        flows_moved=len(those),
        left_out=left_out,
        blocked_target_ns=None if target_ms is None else round(target_ms * change.NS_PER_MS),
        warnings=warnings,
    )


def _order(step: ChangeStep, series: Series, those: frozenset[int]) -> tuple[int, int]:
    """Copies out of order in the last trial: of flows that stayed with their worker, and of others."""
    last = series.bench.last
    if last is None:
        raise StepError(f"{step.step_id}: a trial without a report of its receivers")
    outputs = len(series.bench.lab.outputs)
    flows = [stream.stream_id for _ in range(outputs) for stream in streams_of(step.setting)]
    return change.reordered(last.seen.reordered, flows, those)


def _too_late(trial: Trial, done: _Done, step: ChangeStep) -> str | None:
    """Why a change was not wholly under load: it was complete only after the last datagram."""
    ended_ns = step.table.after_ms * change.NS_PER_MS + done.ended_ns - done.asked_ns
    if ended_ns <= trial.duration_ns:
        return None
    return f"the change was complete {(ended_ns - trial.duration_ns) / 1e9:.2f} s after the last datagram"
