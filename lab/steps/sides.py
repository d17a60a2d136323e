"""How each side of a comparison is measured, on the bench whose packet steering suits it best.

A value, by metric:

* *zero-loss rate*: a search around what the side's own search found, datagrams/s offered.
* *delivered copies/s*: one trial at the offered rate at which the side delivered most in its search, or at a
  rate that the scenario gives. An unpaced trial would be unfair to a subject that collapses under overload.
* *CPU per copy*: both sides at the same rate, half of the lower zero-loss rate, or one that the scenario
  gives. The time of generator and receivers, measured without a subject at that rate, is subtracted.
* *latency p99*: each side at half its own zero-loss rate: loaded, not overloaded.
* *generator rate*: what arrives from the generator, unpaced, without a subject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.analysis.search import Goal, find_zero_loss
from lab.results import NONE, Purpose, Trial, ZeroLoss
from lab.steps.context import Context, Series
from lab.steps.step import HALF, LONG, NoFigureError, StepError

if TYPE_CHECKING:
    from lab.steps.kinds.compare import CompareStep, Side

NARROW = (0.6, 1.6)
"""The range of a repeated search, as shares of what the first one found."""
LEAST_CPU_NS = 20_000_000
"""Two ticks: less than that above the baseline cannot be told from it."""


@dataclass
class MeasuredSide:
    """One side of a comparison."""

    series: Series
    value: Callable[[], float | None]
    """Measures once; ``None`` when nothing comparable came out."""
    warnings: list[str] = field(default_factory=list)
    bounds: list[str] = field(default_factory=list)
    """What limited each measurement."""


def measured_sides(step: CompareStep, context: Context) -> tuple[MeasuredSide, MeasuredSide]:
    """Both sides of a comparison. Raises StepError where a rate to measure at is not known."""
    if step.metric == "generator rate":
        return _by_generator(step, step.a, context), _by_generator(step, step.b, context)
    if step.metric == "delivered copies/s":
        return _by_delivery(step, step.a, context), _by_delivery(step, step.b, context)
    if step.compare.dps is not None:
        fixed = float(step.compare.dps)
        a, b = (_steered(step, side) for side in (step.a, step.b))
        return _by_cpu(step, step.a, a, context, fixed), _by_cpu(step, step.b, b, context, fixed)
    known_a, known_b = _best(step, step.a, context), _best(step, step.b, context)
    if step.metric == "zero-loss rate":
        return _by_search(step, step.a, known_a, context), _by_search(step, step.b, known_b, context)
    if step.metric == "latency p99":
        return _by_latency(step, step.a, known_a, context), _by_latency(step, step.b, known_b, context)
    dps = min(_lower(known_a), _lower(known_b)) * HALF
    return (
        _by_cpu(step, step.a, known_a.setting.rps, context, dps),
        _by_cpu(step, step.b, known_b.setting.rps, context, dps),
    )


def _best(step: CompareStep, side: Side, context: Context) -> ZeroLoss:
    """The search with the highest zero-loss rate: the packet steering that suits this side."""
    known = context.best_rate(step.scenario.name, side.case.name, side.subject, side.rps)
    if known is None:
        ends = dict.fromkeys(trial.ended for trial in _tried(step, side, context) if trial.ended)
        text = f"{side.subject}, {side.case.name}: no zero-loss rate was found to compare at"
        raise NoFigureError(f"{text}: {'; '.join(ends)}") if ends else StepError(text)
    return known


def _lower(known: ZeroLoss) -> float:
    return known.lower_dps or 0.0


def _steered(step: CompareStep, side: Side) -> bool:
    """The first packet steering that a side may have, where no search says which is best."""
    return step.scenario.rps_of(side.subject)[0] if side.rps is None else side.rps


def _tried(step: CompareStep, side: Side, context: Context) -> list[Trial]:
    """The trials of one side's searches, and the unpaced ones."""
    return [
        trial
        for trial in context.of_kind(Trial)
        if (trial.scenario, trial.case, trial.subject) == (step.scenario.name, side.case.name, side.subject)
        and trial.purpose in ("search", "fixed")
        and side.rps in (None, trial.setting.rps)
    ]


def _series(step: CompareStep, side: Side, rps: bool, context: Context, purpose: Purpose) -> Series:
    setting = step.scenario.result_setting(side.case, side.subject, rps)
    return context.series(step, side.case, side.subject, setting, purpose)


def _by_generator(step: CompareStep, side: Side, context: Context) -> MeasuredSide:
    setting = step.scenario.generator_setting(side.case)
    series = context.series(step, side.case, NONE, setting, "calibration")
    return MeasuredSide(series, lambda: series.run(None, step.trial_s).delivered_dps)


def _by_search(step: CompareStep, side: Side, known: ZeroLoss, context: Context) -> MeasuredSide:
    ceiling = context.ceiling(step.scenario.generator_setting(side.case))
    series = _series(step, side, known.setting.rps, context, "comparison")
    within = (_lower(known) * NARROW[0], _lower(known) * NARROW[1])

    def value() -> float | None:
        found = find_zero_loss(series.observe, ceiling, Goal.of(step.profile), within)
        made.bounds.append(found.bound_by)
        made.warnings += [f"{side.subject}: {text}" for text in found.warnings]
        return found.lower_dps

    made = MeasuredSide(series, value)
    return made


def _by_delivery(step: CompareStep, side: Side, context: Context) -> MeasuredSide:
    rps, dps = _steered(step, side), step.compare.dps
    if dps is None:
        rps, dps = _best_delivery(step, side, context)
    series = _series(step, side, rps, context, "comparison")

    def value() -> float | None:
        trial = series.run(dps, step.trial_s)
        made.bounds.append(trial.bound_by)
        return trial.delivered_dps

    made = MeasuredSide(series, value)
    return made


def _best_delivery(step: CompareStep, side: Side, context: Context) -> tuple[bool, int | None]:
    """The packet steering and the offered rate at which a side delivered most."""
    trials = _tried(step, side, context)
    if not trials:
        raise StepError(f"{side.subject}, {side.case.name}: no trial says at which rate it delivers most")
    best = max(trials, key=lambda trial: trial.delivered_dps)
    if not best.delivered:
        why = best.ended or "it runs and forwards nothing"
        raise NoFigureError(f"{side.subject}, {side.case.name}: delivered nothing at any rate: {why}")
    return best.setting.rps, best.asked_dps


def _by_latency(step: CompareStep, side: Side, known: ZeroLoss, context: Context) -> MeasuredSide:
    series = _series(step, side, known.setting.rps, context, "latency")
    dps, seconds = _lower(known) * HALF, step.trial_s * LONG

    def value() -> float | None:
        trial = series.run(dps, seconds)
        _note(made, side, trial, dps)
        return float(trial.latency.p99) if trial.latency else None

    made = MeasuredSide(series, value)
    return made


def _by_cpu(step: CompareStep, side: Side, rps: bool, context: Context, dps: float) -> MeasuredSide:
    series = _series(step, side, rps, context, "comparison")
    seconds = step.trial_s * LONG

    def value() -> float | None:
        # Right before each trial, so that other work on the machine affects both alike.
        baseline = context.baseline(step, side.case, dps, seconds)
        trial = series.run(dps, seconds, baseline)
        _note(made, side, trial, dps)
        cpu = trial.cpu
        if cpu is None or cpu.busy_ns - (cpu.baseline_ns or 0) < LEAST_CPU_NS:
            return None
        return cpu.ns_per_copy

    made = MeasuredSide(series, value)
    return made


def _note(made: MeasuredSide, side: Side, trial: Trial, dps: float) -> None:
    made.bounds.append(trial.bound_by)
    if trial.delivered < trial.expected:
        lost = trial.expected - trial.delivered
        made.warnings.append(f"{side.subject}: {lost:,} copies lost at {dps:,.0f} dps")
