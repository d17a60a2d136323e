"""A load that changes over time, while the forwarder's elastic groups are watched."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.analysis import load_profile
from lab.ledger import expectation
from lab.results import NS_PER_S, Course, ScalingSample, Setting, Trial
from lab.scenario.load_tables import CourseTable
from lab.steps.step import BENCH_START_S, TRIAL_OVERHEAD_S, StepError, TableStep, too_little

if TYPE_CHECKING:
    from lab.peers.base import Operable, Scaling
    from lab.steps.context import Context, Series

SAMPLE_S = 0.1
"""The interval at which the forwarder itself measures."""

LEAST_OFFERED = 0.9
"""Smallest usable share of the datagrams asked for."""

ATTEMPTS = 3
"""Attempts where others than the subject lost something, or too little was offered."""


@dataclass(frozen=True)
class LoadProfileStep(TableStep[CourseTable]):
    """Sends the load profile, records what became of it, and checks what is expected."""

    key = "course"
    records: ClassVar = (Course,)

    @property
    def trials(self) -> int:
        return 1

    @property
    def seconds(self) -> float:
        return self.table.seconds + TRIAL_OVERHEAD_S + BENCH_START_S

    def perform(self, context: Context) -> None:
        context.archive.recall(self.step_id, lambda _trial: False)
        series = context.series(self, self.case, self.subject, self.setting, "course")
        for _attempt in range(ATTEMPTS):
            record, why = _measure(self, series)
            if why is None:
                break
        else:
            raise StepError(f"{ATTEMPTS} trials that nothing can be concluded from, the last: {why}")
        context.archive.write(record)
        for check in load_profile.checks(self.table, record):
            context.check(check)
        context.reporter.outcome(load_profile.describe(record))


class _Watch:
    """Samples the elastic groups of a subject during a trial; times are CLOCK_MONOTONIC."""

    def __init__(self, subject: Operable, seconds: float) -> None:
        self._subject = subject
        self._seconds = seconds
        self.taken: list[tuple[int, tuple[Scaling, ...]]] = []

    def __call__(self) -> None:
        began = time.monotonic()
        number = 0
        while (left := began + self._seconds - time.monotonic()) > 0:
            self.taken.append((time.monotonic_ns(), tuple(self._subject.scaling())))
            number += 1
            time.sleep(max(0.0, min(left, began + number * SAMPLE_S - time.monotonic())))
        self.taken.append((time.monotonic_ns(), tuple(self._subject.scaling())))


def _measure(step: LoadProfileStep, series: Series) -> tuple[Course, str | None]:
    """One trial, and why nothing can be concluded from it, if so."""
    subject = series.operable
    if not subject.scaling():
        raise StepError(f"{step.subject}, {step.case.name}: no elastic group to watch")
    rest(subject)
    table, rates = step.table, tuple(step.table.rates)
    watch = _Watch(subject, table.seconds)
    mean_dps = sum(rate.datagrams for rate in rates) / table.seconds
    trial = series.run(mean_dps, table.seconds, phases=rates, meanwhile=watch)
    last = series.bench.last
    if last is None or not watch.taken:
        raise StepError(f"{trial.trial_id}: nothing was seen of it")
    began_ns = last.sent.started_ns - (time.time_ns() - time.monotonic_ns())
    groups = watch.taken[-1][1]
    hot = groups[load_profile.HOT_GROUP]
    bounds = load_profile.Bounds(hot.min_workers, hot.max_workers, hot.threshold_dps)
    phases = load_profile.offered_phases(rates, last.sent.phases)
    samples = [
        ScalingSample(
            at_ns=at_ns - began_ns, group=one.group, workers=one.workers, offered_dps=round(one.offered_dps)
        )
        for at_ns, each in watch.taken
        for one in each
    ]
    resizes = [
        change.model_copy(update={"at_ns": change.at_ns - began_ns})
        for one in groups
        for change in one.changes
        if change.at_ns >= began_ns
    ]
    streams, share = trial.streams, _share(step.setting, len(groups))
    record = Course(
        scenario=step.scenario.name,
        case=step.case.name,
        subject=step.subject,
        setting=step.setting,
        trial_ids=[trial.trial_id],
        threshold_dps=bounds.threshold_dps,
        min_workers=bounds.min_workers,
        max_workers=bounds.max_workers,
        hot_group=hot.group,
        hot_share=share,
        phases=phases,
        samples=samples,
        resizes=resizes,
        offered=trial.offered,
        expected=trial.expected,
        delivered=trial.delivered,
        duplicated=streams.duplicated if streams else 0,
        reordered=streams.reordered if streams else 0,
        scaled_ns=load_profile.scaled_ns(
            phases, load_profile.sizes(samples, resizes, hot.group), bounds, share
        ),
        scaled_target_ns=None if table.scaled_within_s is None else round(table.scaled_within_s * NS_PER_S),
        warnings=trial.warnings,
    )
    return record, unfit(step, trial)


def _share(setting: Setting, groups: int) -> float:
    """The share of the load that the hot group is offered: all of it if there is one group."""
    return 1.0 if groups == 1 else load_profile.hot_share(setting)


def unfit(step: LoadProfileStep, trial: Trial) -> str | None:
    """Why nothing can be concluded from a trial, if so.

    How soon workers start shows as well with somewhat fewer datagrams. Where nothing may be lost, nothing may
    have been lost outside the subject.
    """
    asked = sum(rate.datagrams for rate in step.table.rates)
    elsewhere = None if step.table.lost is None else expectation.lost_elsewhere(trial)
    return too_little(trial, asked, LEAST_OFFERED) or elsewhere


def rest(subject: Operable) -> None:
    """Resize each group to its minimum: a warm-up or an earlier trial may have left it larger."""
    for one in subject.scaling():
        if one.workers > one.min_workers:
            subject.resize(one.group, one.min_workers)
