"""How each side of a comparison is measured, received for in the way that suits it best.

A value, by metric:

* *zero-loss rate*: a search around what the side's own search found, datagrams/s offered.
* *delivered copies/s*: one trial at the offered rate at which the side delivered most in its search, or at a
  rate that the scenario gives. An unpaced trial would be unfair to a subject that collapses under overload.
* *goodput*: one trial at a multiple of the side's zero-loss rate; what it delivers, as a share of that rate.
* *CPU per copy*: both sides at the same rate, a share of the lower zero-loss rate, or one that the scenario
  gives. What the forwarder's CPUs use without a subject at that rate is subtracted.
* *latency*: each side at a share of its own zero-loss rate, half of it: loaded, not overloaded.
* *generator rate*: what arrives from the generator, unpaced, without a subject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.analysis.search import find_zero_loss
from lab.results import NONE, Purpose, Receive, Trial, ZeroLoss
from lab.scenario.tables import LATENCY_FIELDS, SHARED_METRICS, Metric
from lab.steps.context import Context, Series
from lab.steps.step import LONG, StepError

if TYPE_CHECKING:
    from lab.steps.kinds.compare import CompareStep, Side

NARROW = (0.6, 1.6)
"""The range of a repeated search, as shares of what the first one found."""
LEAST_OVERLOAD = 0.8
"""The least part of an asked overload that counts as one."""
LEAST_CPU_NS = 1_000_000
"""Less than that above the baseline cannot be told from it: a watch is good to microseconds."""


@dataclass
class MeasuredSide:
    """One side of a comparison."""

    series: Series
    value: Callable[[MeasuredSide], float | None]
    """Measures once; ``None`` when nothing comparable came out."""
    warnings: list[str] = field(default_factory=list)
    bounds: list[str] = field(default_factory=list)
    """What limited each measurement."""

    def measure(self) -> float | None:
        return self.value(self)

    def trial(self, dps: float, seconds: float, baseline: float | None = None) -> Trial:
        """A trial at a rate that the side should hold: what it loses there is a warning."""
        trial = self.series.run(dps, seconds, baseline)
        self.bounds.append(trial.bound_by)
        if lost := max(0, trial.expected - trial.delivered):
            self.warnings.append(f"{self.series.subject}: {lost:,} copies lost at {dps:,.0f} dps")
        return trial


def measured_sides(step: CompareStep, context: Context) -> tuple[MeasuredSide, MeasuredSide]:
    """Both sides of a comparison. Raises StepError where a rate to measure at is not known."""
    measured = _MEASURED[step.metric]
    return measured(step, step.a, context), measured(step, step.b, context)


def _best(step: CompareStep, side: Side, context: Context) -> ZeroLoss:
    """The search with the highest zero-loss rate: the way to receive that suits this side."""
    side = step.reference or side
    known = context.best_rate(step.scenario.name, side.case.name, side.subject, side.receive)
    if known is None:
        ends = dict.fromkeys(trial.ended for trial in _tried(step, side, context) if trial.ended)
        text = f"{side.subject}, {side.case.name}: no zero-loss rate was found to compare at"
        raise StepError(": ".join(filter(None, (text, "; ".join(ends)))))
    return known


def _lower(known: ZeroLoss) -> float:
    return known.lower_dps or 0.0


def _receive(step: CompareStep, side: Side) -> Receive:
    """The first way to receive that a side may have, where no search says which is best."""
    return step.scenario.receive_of(side.subject)[0] if side.receive is None else side.receive


def _tried(step: CompareStep, side: Side, context: Context) -> list[Trial]:
    """The trials of one side's searches, and the unpaced ones."""
    side = step.reference or side
    return [
        trial
        for trial in context.of_kind(Trial)
        if (trial.scenario, trial.case, trial.subject) == (step.scenario.name, side.case.name, side.subject)
        and trial.purpose in ("search", "fixed")
        and side.receive in (None, trial.setting.receive)
    ]


def _series(
    step: CompareStep, side: Side, receive: Receive, context: Context, purpose: Purpose = "comparison"
) -> Series:
    setting = step.scenario.result_setting(side.case, side.subject, receive)
    return context.series(step, side.case, side.subject, setting, purpose)


def _by_generator(step: CompareStep, side: Side, context: Context) -> MeasuredSide:
    setting = step.scenario.generator_setting(side.case)
    series = context.series(step, side.case, NONE, setting, "calibration")
    return MeasuredSide(series, lambda _: series.run(None, step.trial_s).delivered_dps)


def _by_search(step: CompareStep, side: Side, context: Context) -> MeasuredSide:
    known = _best(step, side, context)
    ceiling = context.ceiling(step.scenario.generator_setting(side.case))
    within = (_lower(known) * NARROW[0], _lower(known) * NARROW[1])

    def value(made: MeasuredSide) -> float | None:
        found = find_zero_loss(made.series.observe, ceiling, step.profile, within)
        made.bounds.append(found.bound_by)
        made.warnings += [f"{side.subject}: {text}" for text in found.warnings]
        return found.lower_dps

    return MeasuredSide(_series(step, side, known.setting.receive, context), value)


def _by_delivery(step: CompareStep, side: Side, context: Context) -> MeasuredSide:
    receive, dps = _receive(step, side), step.compare.dps
    if dps is None:
        receive, dps = _best_delivery(step, side, context)

    def value(made: MeasuredSide) -> float | None:
        trial = made.series.run(dps, step.trial_s)
        made.bounds.append(trial.bound_by)
        return trial.delivered_dps

    return MeasuredSide(_series(step, side, receive, context), value)


def _best_delivery(step: CompareStep, side: Side, context: Context) -> tuple[Receive, int | None]:
    """The way to receive and the offered rate at which a side delivered most."""
    trials = _tried(step, side, context)
    if not trials:
        raise StepError(f"{side.subject}, {side.case.name}: no trial says at which rate it delivers most")
    best = max(trials, key=lambda trial: trial.delivered_dps)
    if not best.delivered:
        why = best.ended or "it runs and forwards nothing"
        raise StepError(f"{side.subject}, {side.case.name}: delivered nothing at any rate: {why}")
    return best.setting.receive, best.asked_dps


def _share(step: CompareStep) -> float:
    return step.compare.share or SHARED_METRICS[step.metric]


def _by_latency(step: CompareStep, side: Side, context: Context) -> MeasuredSide:
    known, name = _best(step, side, context), LATENCY_FIELDS[step.metric]

    def value(made: MeasuredSide) -> float | None:
        trial = made.trial(_lower(known) * _share(step), step.trial_s * LONG)
        return float(getattr(trial.latency, name)) if trial.latency else None

    return MeasuredSide(_series(step, side, known.setting.receive, context, "latency"), value)


def _by_goodput(step: CompareStep, side: Side, context: Context) -> MeasuredSide:
    known, share = _best(step, side, context), _share(step)

    def value(made: MeasuredSide) -> float | None:
        trial = made.series.run(_lower(known) * share, step.trial_s)
        made.bounds.append("forwarder")
        if trial.validity == "invalid":
            reached = trial.offered_dps / _lower(known)
            made.warnings.append(f"{side.subject}: the generator reached {reached:.2f} × the zero-loss rate")
            if reached < share * LEAST_OVERLOAD:
                return None
        return trial.goodput(_lower(known))

    return MeasuredSide(_series(step, side, known.setting.receive, context), value)


def _by_cpu(step: CompareStep, side: Side, context: Context) -> MeasuredSide:
    if step.compare.dps is None:
        receive = _best(step, side, context).setting.receive
        dps = min(_lower(_best(step, each, context)) for each in (step.a, step.b)) * _share(step)
    else:
        receive, dps = _receive(step, side), float(step.compare.dps)
    seconds = step.trial_s * LONG

    def value(made: MeasuredSide) -> float | None:
        # Right before each trial, so that other work on the machine affects both alike.
        baseline = context.baseline(step, side.case, dps, step.trial_s)
        cpu = made.trial(dps, seconds, baseline).cpu
        if cpu is None or cpu.busy_ns - (cpu.baseline_ns or 0) < LEAST_CPU_NS:
            return None
        return cpu.ns_per_copy

    return MeasuredSide(_series(step, side, receive, context), value)


_MEASURED: Mapping[Metric, Callable[[CompareStep, Side, Context], MeasuredSide]] = {
    "zero-loss rate": _by_search,
    "delivered copies/s": _by_delivery,
    "goodput": _by_goodput,
    "CPU per copy": _by_cpu,
    **dict.fromkeys(LATENCY_FIELDS, _by_latency),
    "generator rate": _by_generator,
}
