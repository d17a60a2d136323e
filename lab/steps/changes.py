"""Changes of a running forwarder, each in the middle of a trial of its own, and what each cost.

A change is made ready before its trial begins and undone after it, while nothing is sent: a trial shows one
change only. What is sent is checked to the sequence number, as in any trial.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from lab.analysis import change
from lab.analysis.load_profile import HOT_GROUP
from lab.ledger import expectation
from lab.load.flows import Rule, rules_of, streams_of
from lab.peers.base import Changing, Operable, PeerError, Scaling
from lab.results import NS_PER_S, Change, ChangeKind, Trial
from lab.scenario import steps as matrix
from lab.scenario.load_tables import STARTED_ANEW
from lab.steps.context import Context, Series, StepError

ATTEMPTS = 3
"""Trials for each that is wanted: others than the subject may lose something, on a busy machine."""

LEAST_OFFERED = 0.5
"""Of what was asked for: a generator that the machine holds up offers less."""

BACK_S = 10.0
"""So long a worker that was killed may take to run again."""
POLL_S = 0.002


@dataclass
class _Done:
    """One change: when it was asked for and complete, and whom it was about. ``worker``: the one killed."""

    asked_ns: int = 0
    ended_ns: int = 0
    worker: int | None = None


class _Hands:
    """Makes one kind of change to the subject of a bench."""

    def __init__(self, step: matrix.Change, series: Series, kind: ChangeKind) -> None:
        self._step = step
        self._series = series
        self.kind = kind
        outputs = [link.sender.interface for link in series.bench.lab.outputs]
        one_more = step.setting.model_copy(update={"rules": step.setting.rules + 1})
        self._rule: Rule = rules_of(one_more, outputs)[-1]
        """Of a group that nothing is sent to."""

    @property
    def sizes(self) -> tuple[int, int]:
        """Workers of an elastic group before and after."""
        many = self._step.table.workers
        hot = self._hot
        few = many if hot is None else min(many, hot.min_workers)
        return {"grow": (few, many), "shrink": (many, few)}.get(self.kind, (many, many))

    def ready(self) -> None:
        """Everything as it is to be before the change."""
        if self.kind in STARTED_ANEW:
            # A worker that died lately is started again later each time: only the first death is looked at.
            # What an apply changed is as it was after a start.
            self._subject.restart()
        if (hot := self._hot) is not None:
            if hot.workers != self.sizes[0]:
                self._subject.resize(hot.group, self.sizes[0])
        elif self.kind in ("grow", "shrink"):
            raise StepError(f"{self._step.subject}, {self._step.case.name}: no elastic group to resize")
        if self.kind == "remove rule":
            self._changing.add(self._rule)

    def moved(self) -> frozenset[int]:
        """The flows, by their ids, that another worker gets after the change."""
        streams = streams_of(self._step.setting)
        if self.kind == "apply":
            return frozenset(stream.stream_id for stream in streams)
        return change.moved(streams, *self.sizes)

    def others_resized(self, since_ns: int) -> str | None:
        """What the forwarder itself did to the group since then, if anything: the trial shows that, too."""
        hot = self._hot
        made = [] if hot is None else [one for one in hot.changes if one.at_ns >= since_ns]
        if self.kind in ("grow", "shrink"):
            made = made[1:]
        return f"the group was resized otherwise: {made[0].reason}" if made else None

    def undo(self) -> None:
        """What a change of the rules leaves."""
        if self.kind == "add rule":
            self._changing.remove(self._rule)

    def act(self, done: _Done) -> Callable[[], None]:
        """What is to happen during the trial."""

        hot, (_, after) = self._hot, self.sizes
        group = 0 if hot is None else hot.group

        def meanwhile() -> None:
            time.sleep(self._step.table.after_ms / 1000)
            done.asked_ns = time.monotonic_ns()
            if self.kind in ("grow", "shrink"):
                self._subject.resize(group, after)
            elif self.kind == "add rule":
                self._changing.add(self._rule)
            elif self.kind == "remove rule":
                self._changing.remove(self._rule)
            elif self.kind == "apply":
                assert self._step.table.to is not None
                self._subject.apply(self._step.table.to, self._step.table.workers)
            elif self.kind == "crash":
                done.worker = self._kill()
            else:
                self._subject.restart()
            done.ended_ns = time.monotonic_ns()

        return meanwhile

    def _kill(self) -> int:
        """Kill a worker; its number, once another process is in its place."""
        running = self._subject.workers()
        worker = max(running)
        os.kill(running[worker], signal.SIGKILL)
        deadline = time.monotonic() + BACK_S
        while self._subject.workers().get(worker, running[worker]) == running[worker]:
            if time.monotonic() > deadline:
                raise PeerError(f"worker {worker}: not running again {BACK_S:g} s after it was killed")
            time.sleep(POLL_S)
        return worker

    @property
    def _hot(self) -> Scaling | None:
        """The group that is resized, where there are elastic ones."""
        groups = self._subject.scaling()
        return groups[HOT_GROUP] if groups else None

    @property
    def _subject(self) -> Operable:
        subject: object = self._series.bench.subject
        if not isinstance(subject, Operable):
            raise StepError(f"{self._step.subject}: it has no workers that can be changed while it runs")
        return subject

    @property
    def _changing(self) -> Changing:
        subject: object = self._series.bench.subject
        if not isinstance(subject, Changing):
            raise StepError(f"{self._step.subject}: its rules cannot be changed while it runs")
        return subject


def measure(step: matrix.Change, context: Context) -> None:
    """Each kind of change as often as the table says; one record for each kind.

    Raises:
        StepError: the subject cannot be changed so, or no trial shows what the change cost.
    """
    context.archive.recall(step.step_id, lambda _trial: False)
    series = Series(context, step, step.case, step.subject, step.setting, "change")
    lines, broken = [], []
    for kind in step.table.kinds:
        try:
            record = _repeat(step, series, _Hands(step, series, kind))
        except StepError as error:
            broken.append(str(error))
            continue
        context.archive.write(record)
        line = change.describe(record)
        if step.profile.demand_targets and record.kept is False:
            context.failures.append(f"{step.step_id}: {line}")
        lines.append(line)
    if lines:
        context.reporter.outcome("; ".join(lines))
    if broken:
        raise StepError("; ".join(broken))


def _repeat(step: matrix.Change, series: Series, hands: _Hands) -> Change:
    """So many changes of one kind as are wanted, each in a trial that shows what it cost."""
    taken: list[tuple[Trial, _Done, int, int]] = []
    left_out, why = 0, ""
    those = hands.moved()
    while len(taken) < step.table.trials and left_out < ATTEMPTS * step.table.trials:
        hands.ready()
        done, began_ns = _Done(), time.monotonic_ns()
        trial = series.run(step.table.dps, step.table.trial_s, meanwhile=hands.act(done))
        hands.undo()
        unfit = expectation.lost_elsewhere(trial) or _too_little(trial) or _too_late(trial, done, step)
        unfit = unfit or hands.others_resized(began_ns)
        if unfit is not None:
            left_out, why = left_out + 1, unfit
            continue
        taken.append((trial, done, *_order(step, series, those)))
    if not taken:
        raise StepError(
            f"{hands.kind}: {left_out} trials that nothing can be concluded from, the last: {why}"
        )
    trials = [trial for trial, *_ in taken]
    shares = [1.0 if d.worker is None else change.share_of(d.worker, trial) for trial, d, *_ in taken]
    warnings = [f"{left_out} trials left out, the last: {why}"] if left_out else []
    return Change(
        scenario=step.scenario.name,
        case=step.case.name,
        subject=step.subject,
        setting=step.setting,
        change=hands.kind,
        to=step.table.to if hands.kind == "apply" else None,
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
        blocked_target_ns=_nanoseconds(step.table.blocked_target_ms),
        warnings=warnings,
    )


def _order(step: matrix.Change, series: Series, those: frozenset[int]) -> tuple[int, int]:
    """Copies out of order in the last trial: of flows that stayed with their worker, of flows that moved."""
    last = series.bench.last
    if last is None:
        raise StepError(f"{step.step_id}: a trial without a report of its receivers")
    outputs = len(series.bench.lab.outputs)
    flows = [stream.stream_id for _ in range(outputs) for stream in streams_of(step.setting)]
    return change.reordered(last.seen.reordered, flows, those)


def _too_little(trial: Trial) -> str | None:
    """What a change loses is known to the datagram also when somewhat less was offered than asked for."""
    asked = (trial.asked_dps or 0) * trial.duration_ns / NS_PER_S
    if trial.offered >= asked * LEAST_OFFERED:
        return None
    return f"offered {trial.offered:,} of {asked:,.0f} datagrams asked for"


def _too_late(trial: Trial, done: _Done, step: matrix.Change) -> str | None:
    """A change that was complete only after the last datagram was not wholly under load."""
    ended_ns = step.table.after_ms * change.NS_PER_MS + done.ended_ns - done.asked_ns
    if ended_ns <= trial.duration_ns:
        return None
    return f"the change was complete {(ended_ns - trial.duration_ns) / 1e9:.2f} s after the last datagram"


def _nanoseconds(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * change.NS_PER_MS)
