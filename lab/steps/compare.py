"""Paired, interleaved comparisons: each side at its best, measured in turn, concluded with an interval.

What a value is, by metric:

* *zero-loss rate*: a search around what the side's own search found, datagrams/s offered.
* *delivered copies/s*: one trial at the offered rate at which the side delivered most in its search. Flat out
  would be unfair to a subject that collapses under overload. A scenario may give the rate.
* *CPU per copy*: both sides at the same rate, half of the lower zero-loss rate; the generator's and the
  receivers' own time, measured without a subject at that rate, is taken off.
* *latency p99*: each side at half its own zero-loss rate.

Latency and CPU are compared at half a rate: loaded, not overloaded; CPU per copy also at a rate that the
scenario gives, without any search.

A comparison with a *tolerance* can fail a run. When its interval is wholly beyond it, everything is stopped,
started anew and measured once more, as how a process came to lie in memory is part of its speed: only what
is seen twice counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lab.analysis.compare import (
    FEW_PAIRS,
    Ratio,
    detectable,
    falls_short,
    interleaved,
    meets,
    paired_ratio,
    verdict,
)
from lab.analysis.search import Goal, find_zero_loss
from lab.results import NONE, Check, Comparison, Purpose, Trial, ZeroLoss
from lab.scenario import steps as matrix
from lab.scenario.tables import HIGHER_IS_BETTER, UNITS, Case
from lab.steps.context import Context, NoFigureError, Series, StepError

NARROW = (0.6, 1.6)
"""Where a repeated search looks, around what the first one found."""

MORE_PAIRS, PAIRS_MORE = 3, 6
"""A comparison whose interval is wider than wanted takes so many times its pairs at most; so many at a time
(an even number, so that the order goes on alternating)."""

LEAST_CPU_NS = 20_000_000
"""Two ticks: what is less than that above the baseline cannot be told from it."""


@dataclass
class Contender:
    """One side of a comparison, on the bench whose steering suits it best."""

    series: Series
    value: Callable[[], float | None]
    """Measure once; ``None`` when nothing comparable came out."""
    warnings: list[str] = field(default_factory=list)
    bounds: list[str] = field(default_factory=list)
    """What limited each measurement."""


def compare(step: matrix.Comparison, context: Context) -> None:
    """Conclude a comparison, with what is demanded of it."""
    record = _concluded(step, context)
    line = describe(record)
    if step.profile.demand_targets and not is_kept(record):
        context.failures.append(f"{step.step_id}: {line}")
    context.reporter.outcome(line)
    if step.compare.tolerance is not None:
        _tolerate(step, step.compare.tolerance, record, context)
    if step.compare.repeat == step.number > 1 and step.a == step.b:
        _against_itself(step, record, context)


def _tolerate(step: matrix.Comparison, tolerance: float, first: Comparison, context: Context) -> None:
    """Whether ``a`` is as good as ``b``, but for what is tolerated. A worse one is measured once more."""
    taken = [first]
    if is_worse(first, tolerance):
        context.reporter.outcome("beyond what is tolerated: once more, with everything started anew")
        context.benches.close()
        taken.append(_concluded(step, context))
        context.reporter.outcome(describe(taken[-1]))
    check = tolerated(taken, tolerance)
    context.archive.write(check)
    if not check.passed:
        context.failures.append(f"{step.step_id}: expected {check.expected}, observed {check.observed}")


def is_worse(record: Comparison, tolerance: float) -> bool:
    """Whether the whole interval is beyond ``tolerance``. Raises StepError for too few pairs to tell."""
    if record.pairs < FEW_PAIRS:
        raise StepError(f"{record.metric}: {record.pairs} pairs of values; a verdict takes {FEW_PAIRS}")
    return falls_short(record.low, record.high, tolerance, record.higher_is_better)


def tolerated(taken: Sequence[Comparison], tolerance: float) -> Check:
    """What one comparison, or two of the same, come to: each of them must have been worse to fail."""
    last = taken[-1]
    bound = f"above {1 / tolerance:.2f}"
    if last.higher_is_better:
        bound = f"below {tolerance:.2f}"
    ratios = " and again ".join(f"{r.ratio:.3f} ({r.low:.3f} to {r.high:.3f})" for r in taken)
    return Check(
        scenario=last.scenario,
        case=f"{last.case}: {last.metric}",
        passed=not all(is_worse(record, tolerance) for record in taken),
        expected=f"a ratio whose interval is not wholly {bound}",
        observed=ratios,
    )


def _concluded(step: matrix.Comparison, context: Context) -> Comparison:
    """Take both sides in turn, as many pairs as the profile says, and record what they come to.

    With a wanted width, more pairs until the interval is as narrow, up to :data:`MORE_PAIRS` times as many.
    What ends it is the width, whatever the ratio, so it does not make a difference likelier.
    """
    a, b = _contenders(step, context)
    asked = step.profile.pairs
    tried, pairs = asked, _pairs(a, b, asked)
    within = step.compare.within
    while within and pairs and tried < MORE_PAIRS * asked and _ratio(pairs).half_width > within:
        pairs += _pairs(a, b, min(PAIRS_MORE, MORE_PAIRS * asked - tried))
        tried += PAIRS_MORE
    fates = [*a.series.fates, *b.series.fates]
    warnings = list(dict.fromkeys([*fates, *a.warnings, *b.warnings]))
    if not pairs:
        text = f"{step.metric}: none of {tried} pairs had two values{''.join(f'; {w}' for w in warnings)}"
        raise NoFigureError(text) if fates else StepError(text)
    if len(pairs) < tried:
        warnings.append(f"{tried - len(pairs)} of {tried} pairs had no value")
    a_values, b_values = [x for x, _ in pairs], [y for _, y in pairs]
    ratio = _ratio(pairs)
    # A search ends with its bounds so far apart: what is less than that, it does not tell.
    resolution = step.profile.search_width if step.metric == "zero-loss rate" else 0.0
    record = Comparison(
        scenario=step.scenario.name,
        case=step.case_name,
        metric=step.metric,
        higher_is_better=HIGHER_IS_BETTER[step.metric],
        a=step.a.subject,
        b=step.b.subject,
        setting=a.series.setting,
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        confidence=ratio.confidence,
        pairs=ratio.pairs,
        a_values=a_values,
        b_values=b_values,
        unit=UNITS[step.metric],
        target=step.compare.target,
        verdict=verdict(ratio, HIGHER_IS_BETTER[step.metric], resolution),
        detectable=detectable(a_values, b_values, resolution),
        bound_by="generator" if "generator" in a.bounds else "forwarder" if a.bounds else "unknown",
        trial_ids=[*a.series.trial_ids, *b.series.trial_ids],
        warnings=[*warnings, *ratio.warnings],
    )
    context.archive.write(record)
    return record


def _pairs(a: Contender, b: Contender, count: int) -> list[tuple[float, float]]:
    """So many pairs, without those that one side has no value for."""
    values: dict[str, list[float | None]] = {"a": [], "b": []}
    for side in interleaved(count):
        values[side].append((a if side == "a" else b).value())
    return [(x, y) for x, y in zip(values["a"], values["b"], strict=True) if x and y and min(x, y) > 0]


def _ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    return paired_ratio([a for a, _ in pairs], [b for _, b in pairs])


def _against_itself(step: matrix.Comparison, last: Comparison, context: Context) -> None:
    """Whether the instrument sees differences where there are none."""
    taken = [
        record
        for record in context.of_kind(Comparison)
        if (record.scenario, record.case, record.metric, record.a, record.b)
        == (last.scenario, last.case, last.metric, last.a, last.b)
    ]
    check = same(taken, step.compare.within)
    context.archive.write(check)
    if not check.passed:
        context.failures.append(f"{step.step_id}: expected {check.expected}, observed {check.observed}")
    context.reporter.outcome(check.observed)


def same(taken: Sequence[Comparison], within: float | None) -> Check:
    """What comparisons of a subject with itself come to. One in twenty may see a difference: an interval of
    95 % leaves out the truth as often."""
    allowed = -(-len(taken) // 20)
    different = sum(record.verdict in ("better", "worse") for record in taken)
    widest = max((record.high - record.low) / 2 / record.ratio for record in taken)
    words = "no difference in {} of {}, intervals of ±{:.1%} at most"
    expected = f"no difference in {len(taken) - allowed} of {len(taken)} or more"
    if within is not None:
        expected += f", intervals of ±{within:.1%} at most"
    return Check(
        scenario=taken[0].scenario,
        case=f"{taken[0].case}: {taken[0].a} against itself, {taken[0].metric}",
        passed=different <= allowed and (within is None or widest <= within),
        expected=expected,
        observed=words.format(len(taken) - different, len(taken), widest),
    )


def is_kept(record: Comparison) -> bool:
    """Whether the target is met; true without one."""
    return record.target is None or meets(record.ratio, record.target, record.higher_is_better)


def describe(record: Comparison) -> str:
    """A comparison in one line."""
    line = f"{record.metric}: {record.a} / {record.b} = {record.ratio:.2f}"
    line += f" ({record.low:.2f} to {record.high:.2f})"
    if record.verdict is None:
        line += f", undecided: {FEW_PAIRS} pairs are the least for a verdict"
    elif record.detectable is not None:
        line += f", {record.verdict}; {record.detectable:.1%} could have been seen"
    if record.target is not None:
        promise = "at least" if record.higher_is_better else "at most"
        line += f", {promise} {record.target:g} promised: {'kept' if is_kept(record) else 'missed'}"
    if record.bound_by == "generator":
        line += f"; the generator bound {record.a}"
    return line


def goal_of(step: matrix.Search | matrix.Comparison) -> Goal:
    profile = step.profile
    return Goal(
        trial_s=profile.trial_ms / 1000,
        width=profile.search_width,
        trials=profile.search_trials,
        trials_max=profile.search_trials_max,
        exceed_ratio=profile.search_exceed,
        initial_s=None if profile.search_initial_ms is None else profile.search_initial_ms / 1000,
    )


def _contenders(step: matrix.Comparison, context: Context) -> tuple[Contender, Contender]:
    if step.metric == "generator rate":
        return _by_generator(step, step.a, context), _by_generator(step, step.b, context)
    if step.metric == "delivered copies/s":
        return _by_delivery(step, step.a, context), _by_delivery(step, step.b, context)
    if step.compare.dps is not None:
        fixed = float(step.compare.dps)
        rps_a, rps_b = (_steered(step, side) for side in (step.a, step.b))
        return (
            _by_trial(step, step.a, rps_a, context, fixed, "comparison", _cpu_per_copy),
            _by_trial(step, step.b, rps_b, context, fixed, "comparison", _cpu_per_copy),
        )
    known_a, known_b = _best(step, step.a, context), _best(step, step.b, context)
    if step.metric == "zero-loss rate":
        return _by_search(step, step.a, known_a, context), _by_search(step, step.b, known_b, context)
    rates = {side: _lower(known) * matrix.HALF for side, known in (("a", known_a), ("b", known_b))}
    if step.metric == "latency p99":
        return (
            _by_trial(step, step.a, known_a.setting.rps, context, rates["a"], "latency", _p99),
            _by_trial(step, step.b, known_b.setting.rps, context, rates["b"], "latency", _p99),
        )
    rate = min(rates.values())
    return (
        _by_trial(step, step.a, known_a.setting.rps, context, rate, "comparison", _cpu_per_copy),
        _by_trial(step, step.b, known_b.setting.rps, context, rate, "comparison", _cpu_per_copy),
    )


def _by_generator(step: matrix.Comparison, side: matrix.Side, context: Context) -> Contender:
    """What arrives of all that the generator can make, and is checked: nothing in between."""
    setting = matrix.calibration_setting(step.scenario, side.case)
    series = Series(context, step, side.case, NONE, setting, "calibration")
    return Contender(series, lambda: series.run(None, step.profile.trial_ms / 1000).delivered_dps)


def _best(step: matrix.Comparison, side: matrix.Side, context: Context) -> ZeroLoss:
    """The search with the highest zero-loss rate: the steering that suits this side."""
    known = context.best_rate(step.scenario.name, side)
    if known is None:
        fates = dict.fromkeys(trial.ended for trial in _tried(step, side, context) if trial.ended)
        text = f"{side.subject}, {side.case.name}: no zero-loss rate was found to compare at"
        raise NoFigureError(f"{text}: {'; '.join(fates)}") if fates else StepError(text)
    return known


def _steered(step: matrix.Comparison, side: matrix.Side) -> bool:
    """The first steering that a side may have: for what is compared without a search."""
    return step.scenario.rps_of(side.subject)[0] if side.rps is None else side.rps


def _tried(step: matrix.Comparison, side: matrix.Side, context: Context) -> list[Trial]:
    """The trials of one side's searches, and those flat out."""
    return [
        trial
        for trial in context.of_kind(Trial)
        if (trial.scenario, trial.case, trial.subject) == (step.scenario.name, side.case.name, side.subject)
        and trial.purpose in ("search", "fixed")
        and side.rps in (None, trial.setting.rps)
    ]


def _lower(known: ZeroLoss) -> float:
    return known.lower_dps or 0.0


def _series(
    step: matrix.Comparison, side: matrix.Side, rps: bool, context: Context, purpose: Purpose
) -> Series:
    setting = step.scenario.result_setting(side.case, side.subject, rps)
    return Series(context, step, side.case, side.subject, setting, purpose)


def _by_search(step: matrix.Comparison, side: matrix.Side, known: ZeroLoss, context: Context) -> Contender:
    ceiling = context.ceiling(matrix.calibration_setting(step.scenario, side.case))
    series = _series(step, side, known.setting.rps, context, "comparison")
    within = (_lower(known) * NARROW[0], _lower(known) * NARROW[1])

    def value() -> float | None:
        found = find_zero_loss(series.observe, ceiling, goal_of(step), within)
        contender.bounds.append(found.bound_by)
        contender.warnings += [f"{side.subject}: {text}" for text in found.warnings]
        return found.lower_dps

    contender = Contender(series, value)
    return contender


def _by_delivery(step: matrix.Comparison, side: matrix.Side, context: Context) -> Contender:
    """At the rate that is given; else at the one at which the side delivered most so far, under its best
    steering."""
    if step.compare.dps is None:
        rps, dps = _best_delivery(step, side, context)
    else:
        rps, dps = _steered(step, side), step.compare.dps
    series = _series(step, side, rps, context, "comparison")

    def value() -> float | None:
        trial = series.run(dps, step.profile.trial_ms / 1000)
        contender.bounds.append(trial.bound_by)
        return trial.delivered_dps

    contender = Contender(series, value)
    return contender


def _best_delivery(step: matrix.Comparison, side: matrix.Side, context: Context) -> tuple[bool, int | None]:
    """The steering and the offered rate at which a side delivered most."""
    trials = _tried(step, side, context)
    if not trials:
        raise StepError(f"{side.subject}, {side.case.name}: no trial says at which rate it delivers most")
    best = max(trials, key=lambda trial: trial.delivered_dps)
    if not best.delivered:
        why = best.ended or "it runs and forwards nothing"
        raise NoFigureError(f"{side.subject}, {side.case.name}: delivered nothing at any rate: {why}")
    return best.setting.rps, best.asked_dps


def _by_trial(
    step: matrix.Comparison,
    side: matrix.Side,
    rps: bool,
    context: Context,
    dps: float,
    purpose: Purpose,
    read: Callable[[Trial], float | None],
) -> Contender:
    seconds = step.profile.trial_ms / 1000 * matrix.LONG
    series = _series(step, side, rps, context, purpose)

    def value() -> float | None:
        # Right before each trial, so that what else the machine does weighs on both alike.
        alone = baseline(step, side.case, context, dps, seconds) if read is _cpu_per_copy else None
        trial = series.run(dps, seconds, alone)
        contender.bounds.append(trial.bound_by)
        if trial.delivered < trial.expected:
            text = f"{side.subject}: {trial.expected - trial.delivered:,} copies lost at {dps:,.0f} dps"
            contender.warnings.append(text)
        return read(trial)

    contender = Contender(series, value)
    return contender


def baseline(
    step: matrix.Search | matrix.Comparison, case: Case, context: Context, dps: float, seconds: float
) -> float:
    """CPUs busy with the generator and the receivers alone at ``dps``."""
    setting = matrix.calibration_setting(step.scenario, case)
    series = Series(context, step, case, NONE, setting, "comparison")
    trial = series.run(dps, seconds)
    if trial.cpu is None:
        raise StepError(f"no processor time was read at {dps:,.0f} dps without a subject")
    return trial.cpu.busy_ns / trial.duration_ns


def _p99(trial: Trial) -> float | None:
    return float(trial.latency.p99) if trial.latency else None


def _cpu_per_copy(trial: Trial) -> float | None:
    cpu = trial.cpu
    if cpu is None or cpu.busy_ns - (cpu.baseline_ns or 0) < LEAST_CPU_NS:
        return None
    return cpu.ns_per_copy
