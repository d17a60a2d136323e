"""A load that changes over time, sent, and the forwarder's elastic groups watched meanwhile."""

from __future__ import annotations

import time

from lab.analysis import load_profile as course
from lab.ledger import expectation
from lab.peers.base import Operable, Scaling
from lab.results import NS_PER_S, Course, ScalingSample, Setting, Trial
from lab.scenario import steps as matrix
from lab.steps.context import Context, Series, StepError

SAMPLE_S = 0.1
"""As often as the forwarder itself measures."""

LEAST_OFFERED = 0.9
"""Of what was asked for."""

ATTEMPTS = 3
"""Of a course that others than the subject lost something of, or that was not offered whole."""


class _Watch:
    """Looks at the elastic groups of a subject while a trial lasts; times are CLOCK_MONOTONIC."""

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


def measure(step: matrix.Course, context: Context) -> None:
    """Send the course, record what became of it, check what is expected.

    Raises:
        StepError: the subject has no elastic group, or nothing can be concluded from the trials.
    """
    context.archive.recall(step.step_id, lambda _trial: False)
    series = Series(context, step, step.case, step.subject, step.setting, "course")
    for _attempt in range(ATTEMPTS):
        record, why = _once(step, series)
        if why is None:
            break
    else:
        raise StepError(f"{ATTEMPTS} trials that nothing can be concluded from, the last: {why}")
    context.archive.write(record)
    for check in course.checks(step.table, record):
        context.archive.write(check)
        if not check.passed:
            where = f"{check.scenario}: {check.case}"
            context.failures.append(f"{where}: expected {check.expected}, observed {check.observed}")
    context.reporter.outcome(course.describe(record))


def _once(step: matrix.Course, series: Series) -> tuple[Course, str | None]:
    """One trial, and why nothing can be concluded from it, if so."""
    subject: object = series.bench.subject
    if not isinstance(subject, Operable) or not subject.scaling():
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
    hot = groups[course.HOT_GROUP]
    bounds = course.Bounds(hot.min_workers, hot.max_workers, hot.threshold_dps)
    phases = course.offered_phases(rates, last.sent.phases)
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
        scaled_ns=course.scaled_ns(phases, course.sizes(samples, resizes, hot.group), bounds, share),
        scaled_target_ns=None if table.scaled_within_s is None else round(table.scaled_within_s * NS_PER_S),
        warnings=trial.warnings,
    )
    return record, unfit(step, trial)


def _share(setting: Setting, groups: int) -> float:
    """Of the load, what the hot group is offered: one group may have all inputs."""
    return 1.0 if groups == 1 else course.hot_share(setting)


def unfit(step: matrix.Course, trial: Trial) -> str | None:
    """Why nothing can be concluded from a trial, if so. How soon workers come can be seen as well when
    somewhat less was offered; where nothing may be lost, nobody else may have lost it."""
    asked = sum(rate.datagrams for rate in step.table.rates)
    if trial.offered < asked * LEAST_OFFERED:
        return f"offered {trial.offered:,} of {asked:,} datagrams asked for"
    return None if step.table.lost is None else expectation.lost_elsewhere(trial)


def rest(subject: Operable) -> None:
    """Each group as small as it may be: a warm-up, or a trial before, may have left it larger."""
    for one in subject.scaling():
        if one.workers > one.min_workers:
            subject.resize(one.group, one.min_workers)
