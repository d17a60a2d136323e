"""What the steps of a run share: running benches, trials numbered and recorded, earlier results."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lab.analysis.search import Observation
from lab.journal.archive import Archive
from lab.journal.interrupt import Interrupt
from lab.journal.progress import Reporter
from lab.ledger import expectation
from lab.load.flows import Request, standing
from lab.load.jobs import Phase, TrafficError
from lab.measure.watch import Watch
from lab.netns.namespaces import NetnsError
from lab.peers.base import Changing, Operable, Peer, PeerError
from lab.results import NONE, AnyRecord, Check, Frames, Purpose, Receive, Setting, Trial, ZeroLoss
from lab.scenario.layout import workers_in_all
from lab.scenario.model import Scenario
from lab.scenario.tables import Case
from lab.scenario.wires import Wires
from lab.steps import evidence
from lab.steps.step import Step, StepError, TableStep
from lab.trial.bench import Bench, bench, watched
from lab.trial.plan import BenchPlan, Cpus, divide

Recorded = TypeVar("Recorded", bound=AnyRecord)

OURS = "mcrd"

STANDING_BENCHES = 8
"""Benches that run at a time: an idle one takes some 300 MB of memory, starting one takes seconds."""


class BenchPool:
    """Running benches by plan; the least recently used are stopped when there are too many."""

    def __init__(
        self, run_id: str, peers: Mapping[str, Peer], wires: Wires | None = None, cpus: Cpus | None = None
    ) -> None:
        self.cpus = divide(os.sched_getaffinity(0)) if cpus is None else cpus
        self._run_id = run_id
        self._peers = peers
        self._wires = wires
        # Interfaces that exist already can be in one place only.
        self._most = STANDING_BENCHES if wires is None else 1
        self._made = 0
        self._standing: OrderedDict[BenchPlan, tuple[Bench, ExitStack]] = OrderedDict()
        self._apart = ExitStack()
        self._watch: Watch | None = None
        self._watching: bool | None = None

    def get(self, plan: BenchPlan) -> Bench:
        if plan in self._standing:
            self._standing.move_to_end(plan)
            return self._standing[plan][0]
        pipelines = plan.setting.pipelines is not None
        self._arrange(watch=not pipelines)
        while len(self._standing) >= (max(self._most, len(self.cpus.each)) if pipelines else self._most):
            _, (_, oldest) = self._standing.popitem(last=False)
            oldest.close()
        self._made += 1
        run_id = f"{self._run_id}-{self._made}"
        stack = ExitStack()
        made = stack.enter_context(bench(plan, run_id, self._peers, self._wires, self._watch))
        self._standing[plan] = (made, stack)
        return made

    def _arrange(self, *, watch: bool) -> None:
        """Watch the forwarder's CPUs, or not: beside a pipeline that has one to itself a watch is a load."""
        if watch != self._watching:
            self.close()
            self._apart.close()
            self._watch = self._apart.enter_context(watched(self.cpus)) if watch else None
            self._watching = watch

    def close(self) -> None:
        while self._standing:
            _, (_, stack) = self._standing.popitem()
            stack.close()

    def alone(self) -> AbstractContextManager[None]:
        """No bench, and no watch of a CPU, for the length of a ``with`` block."""
        self.close()
        return nullcontext() if self._watch is None else self._watch.paused()

    def __enter__(self) -> BenchPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._apart.close()


@dataclass
class Context:
    """What one step is performed with: earlier records, the reporter, the benches."""

    archive: Archive
    reporter: Reporter
    run_id: str
    benches: BenchPool
    interrupt: Interrupt
    failures: list[str] = field(default_factory=list)
    trials: int = 0
    """Number of trials that this step has run so far."""

    def check(self, check: Check, where: str | None = None) -> None:
        """Record a check; one that did not pass fails the run, unless it is an aim, which is only told.

        Args:
            where: the check's own case if left out.
        """
        self.archive.write(check)
        if check.aim:
            outcome = "reached" if check.passed else "not reached"
            self.reporter.outcome(f"aim: {check.expected}, {outcome}: {check.observed}")
        elif not check.passed:
            where = where or f"{check.scenario}: {check.case}"
            self.failures.append(f"{where}: {check.outcome}")

    def series(
        self,
        step: Step,
        case: Case,
        subject: str,
        setting: Setting,
        purpose: Purpose,
        cpus: Cpus | None = None,
    ) -> Series:
        """Trials of ``step`` on the bench of ``subject`` in ``case``; ``cpus``: not those of the run."""
        return Series(self, step, case, subject, setting, purpose, cpus)

    def of_kind(self, kind: type[Recorded]) -> Iterator[Recorded]:
        return (record for record in self.archive.records if isinstance(record, kind))

    def ceiling(self, setting: Setting) -> float:
        """The rate that the generator held when it was calibrated for ``setting``.

        On a shared machine it may have held none: then the highest that it reached.
        """
        paced = [
            trial
            for trial in self.of_kind(Trial)
            if trial.purpose == "calibration" and trial.asked_dps is not None and trial.setting == setting
        ]
        if not paced:
            load = f"{setting.payload_bytes} B, {setting.flows} flows, {setting.inputs} inputs"
            raise StepError(f"generator not calibrated for {load}")
        held = [trial for trial in paced if trial.validity != "invalid"]
        return max(trial.offered_dps for trial in held or paced)

    def best_rate(
        self, scenario: str, case: str, subject: str, receive: Receive | None = None
    ) -> ZeroLoss | None:
        """The highest zero-loss rate that a search found, whoever received.

        Args:
            receive: only where this was who received.
        """
        found = [
            known
            for known in self.of_kind(ZeroLoss)
            if (known.scenario, known.case, known.subject) == (scenario, case, subject)
            and known.goal_loss_ratio == 0
            and known.lower_dps is not None
            and receive in (None, known.setting.receive)
        ]
        return max(found, key=lambda known: known.lower_dps or 0.0, default=None)

    def zero_loss_of(self, step: TableStep[Any]) -> ZeroLoss:
        """The zero-loss rate that a step takes shares of. Raises StepError if none was found."""
        best = self.best_rate(step.scenario.name, step.case.name, step.subject)
        if best is None:
            raise StepError(
                f"{step.subject}, {step.case.name}: no zero-loss rate was found to take a share of"
            )
        return best

    def baseline(self, step: Step, case: Case, dps: float, seconds: float) -> float:
        """CPUs busy with the generator and the receivers alone at ``dps``, measured now."""
        setting = step.scenario.generator_setting(case)
        trial = self.series(step, case, NONE, setting, "comparison").run(dps, seconds)
        if trial.cpu is None:
            raise StepError(f"no processor time was read at {dps:,.0f} dps without a subject")
        return trial.cpu.busy_ns / trial.duration_ns


@dataclass
class Series:
    """Trials of one step on one bench, numbered and recorded."""

    context: Context
    step: Step
    case: Case
    subject: str
    setting: Setting
    purpose: Purpose
    cpus: Cpus | None = None
    trial_ids: list[str] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)
    """How the subject ended, if it did, as the trials say."""
    last: Request | None = None
    """The latest trial, unless it cannot be repeated: the subject was changed while it ran."""

    def __post_init__(self) -> None:
        # Both sides of a comparison run before the first trial, unless that has been recorded already.
        if self.step.step_id not in self.context.archive.unfinished:
            _ = self.bench

    @property
    def bench(self) -> Bench:
        pool = self.context.benches
        cpus = self.cpus or pool.cpus
        return pool.get(plan_for(self.step.scenario, self.case, self.subject, self.setting, cpus))

    @property
    def operable(self) -> Operable:
        """The subject, whose workers can be changed while it runs. Raises StepError if it has none."""
        subject: object = self.bench.subject
        if not isinstance(subject, Operable):
            raise StepError(f"{self.subject}: it has no workers that can be changed while it runs")
        return subject

    @property
    def changing(self) -> Changing:
        """The subject, whose rules can be changed while it runs. Raises StepError if they cannot."""
        running: object = self.bench.subject
        if not isinstance(running, Changing):
            raise StepError(f"{self.subject}: its rules cannot be changed while it runs")
        return running

    def run(
        self,
        dps: float | None,
        seconds: float,
        baseline: float | None = None,
        load_share: float | None = None,
        phases: tuple[Phase, ...] = (),
        meanwhile: Callable[[], None] | None = None,
    ) -> Trial:
        """One trial, or the same one as it was recorded before the run was cut short.

        Args:
            load_share: ``dps`` over the subject's zero-loss rate, to be recorded, where it was chosen so.
            phases: rates one after another; ``dps`` is then their mean, ``seconds`` their sum.
            meanwhile: as for :meth:`lab.trial.bench.Bench.measure`.
        """
        request = self.request(dps, seconds, baseline, phases)
        self.last = request if meanwhile is None else None
        trial = self.context.archive.recall(self.step.step_id, lambda recorded: _answers(recorded, request))
        if trial is None:
            trial = self._measured(request, meanwhile).model_copy(update={"load_share": load_share})
            if not trial.ledger.balanced and self.setting.commit is None:
                frames = self.frames(trial, lambda again: not again.ledger.balanced)
                trial = trial.model_copy(update={"frames": frames})
        return self.keep(trial)

    def request(
        self,
        dps: float | None,
        seconds: float,
        baseline: float | None = None,
        phases: tuple[Phase, ...] = (),
    ) -> Request:
        """The next trial. Raises KeyboardInterrupt where the run is to end."""
        self.context.interrupt.check()
        self.context.trials += 1
        return Request(
            trial_id=f"{self.step.step_id}/{self.subject}-{self.context.trials}",
            scenario=self.step.scenario.name,
            case=self.case.name,
            setting=self.setting,
            purpose=self.purpose,
            dps=None if dps is None else max(1, round(dps)),
            seconds=seconds,
            baseline=baseline,
            phases=phases,
        )

    def keep(self, trial: Trial) -> Trial:
        """Record a trial."""
        frames = "" if trial.frames is None else f"; {trial.frames.text}"
        self.trial_ids.append(trial.trial_id)
        self.context.archive.write(trial)
        self.context.reporter.trial(trial)
        if trial.ended is not None and trial.ended not in self.fates:
            self.fates.append(trial.ended)
            # The end of a peer, or of another commit's forwarder, is a result; that of this one is a fault.
            if self.subject == OURS and self.setting.commit is None:
                self.context.failures.append(f"{trial.trial_id}: {trial.ended}")
        elif (why := expectation.miscounted(trial)) and self.setting.commit is None:
            self.context.failures.append(f"{trial.trial_id}: {why}")
        if not trial.ledger.balanced:
            why = f"{trial.trial_id}: the ledger does not balance: {'; '.join(trial.warnings)}{frames}"
            if self.setting.commit is None:
                self.context.failures.append(why)
            elif why not in self.fates:
                self.fates.append(why)
        return trial

    def _measured(self, request: Request, meanwhile: Callable[[], None] | None) -> Trial:
        """A failure of another commit's forwarder is no fault of this one: it raises StepError.

        Any other subject raises PeerError.
        """
        try:
            return self.bench.measure(request, meanwhile)
        except PeerError as error:
            if self.setting.commit is None:
                raise
            raise StepError(f"the forwarder of {self.setting.commit}: {error}") from error

    def frames(self, trial: Trial, failed: Callable[[Trial], bool]) -> Frames:
        """Repeat ``trial``, the latest one, and keep its frames; ``failed``: whether the repeat did, too."""
        if self.last is None:
            return Frames(file=None, what="the trial changed its subject, and cannot be repeated")
        directory = self.context.archive.directory
        try:
            return evidence.of_repeat(directory, self.bench, self.last, trial.offered_dps, failed)
        except (PeerError, TrafficError, NetnsError) as error:
            self.context.benches.close()  # a bench that failed once cannot be trusted
            return Frames(file=None, what=f"the trial could not be repeated: {error}")

    def observe(self, seconds: float, dps: float) -> Observation:
        """A trial as a search needs it. What the receivers' own rings lost is not the subject's loss."""
        trial = self.run(dps, seconds)
        own = sum(drop.count for drop in trial.ledger.egress.drops if drop.place == "receiver")
        return Observation(
            asked=round((trial.asked_dps or 0) * seconds),
            offered=trial.offered,
            expected=trial.expected,
            delivered=trial.delivered + own,
            kept_up=trial.kept_up,
            late=round(trial.delivered * trial.drain_ns / (trial.duration_ns + trial.drain_ns)),
        )


def _answers(trial: Trial, request: Request) -> bool:
    """Whether a recorded trial is the requested one."""
    asked = (request.trial_id, request.case, request.setting, request.purpose, request.dps)
    return (trial.trial_id, trial.case, trial.setting, trial.purpose, trial.asked_dps) == asked


def plan_for(scenario: Scenario, case: Case, subject: str, setting: Setting, cpus: Cpus) -> BenchPlan:
    """The bench of one subject in one case: CPUs of workers and sender, MTU of the case.

    Without a subject, the worker CPUs only say whether the sender would have a CPU to itself.
    """
    values = scenario.settings_of(case)
    # The kernel gets the CPUs that mcrd's workers would have.
    workers = workers_in_all(scenario.result_setting(case, "mcrd", setting.receive))
    chosen = {"apart": cpus, "one": cpus.one, "all": cpus.shared}[values.cpus]
    return BenchPlan(subject, standing(setting), values.mtu, chosen, workers)
