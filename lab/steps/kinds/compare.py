"""Paired, interleaved comparisons: each side at its best, measured in turn, concluded with an interval.

A comparison with a *tolerance* can fail a run. When its whole interval is beyond it, everything is stopped,
started again and measured once more, since how a process happens to lie in memory is part of its speed: only
a difference that is seen twice counts. :mod:`lab.steps.sides` says what is measured for each metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.analysis.compare import (
    CONFIDENCE,
    FEW_PAIRS,
    Ratio,
    aimed,
    describe,
    detectable,
    falls_short,
    interleaved,
    is_missed,
    paired_ratio,
    verdict,
)
from lab.results import NONE, Check, Comparison, Receive
from lab.scenario.tables import LATENCY_FIELDS, LOWER_IS_BETTER, UNITS, Case, Compare, Metric
from lab.steps.step import LONG, NARROWED_TRIALS, Selection, Step, StepError, search_trials

if TYPE_CHECKING:
    from lab.steps.context import Context
    from lab.steps.sides import MeasuredSide

MORE_PAIRS, PAIRS_MORE = 3, 6
"""Where the interval is wider than wanted: the pairs in all, as a multiple of those of the profile, and how
many are added at a time (an even number, so that the order goes on alternating)."""


@dataclass(frozen=True)
class Side:
    """A subject in a case, and who receives for it; ``None``: what suits it best."""

    subject: str
    case: Case
    receive: Receive | None = None

    @property
    def label(self) -> str:
        """Subject and who receives, where that is fixed, for a step's id."""
        return self.subject + (f"+{self.receive}" if self.receive else "")


@dataclass(frozen=True)
class CompareStep(Step):
    """``a / b`` in one metric, in pairs taken in turn."""

    compare: Compare
    a: Side
    b: Side
    number: int = 1
    """Among the repetitions of the same."""
    reference: Side | None = None
    """Whose zero-loss rate the rates of both sides come from; left out: each side's own."""

    records: ClassVar = (Comparison,)

    @classmethod
    def for_case(cls, selection: Selection, case: Case) -> Iterator[CompareStep]:
        """Comparisons whose sides are both at hand with this case, and were not before."""
        cases = selection.cases
        so_far = cases[: cases.index(case) + 1]
        for compare in selection.scenario.compare:
            if compare.a in selection.absent or compare.b in selection.absent:
                continue
            for a, b in _sides(compare, selection):
                if case in (a.case, b.case) and a.case in so_far and b.case in so_far:
                    for number in range(1, compare.repeat + 1):
                        yield cls(selection.scenario, selection.profile, compare, a, b, number)

    @property
    def metric(self) -> Metric:
        return self.compare.metric

    @property
    def case_name(self) -> str:
        if self.a.case == self.b.case:
            return self.a.case.name
        return f"{self.a.case.name} / {self.b.case.name}"

    @property
    def step_id(self) -> str:
        metric = self.metric.replace(" ", "-").replace("/", "-per-")
        if self.compare.share is not None:
            metric += f"-at-{self.compare.share:g}"
        again = f"/{self.number}" if self.compare.repeat > 1 else ""
        return f"{self.scenario.name}/{self.case_name}/{self.a.label}-{self.b.label}/{metric}{again}"

    @property
    def trials(self) -> int:
        each = search_trials(self.profile, NARROWED_TRIALS) if self.metric == "zero-loss rate" else 1
        # CPU per copy has the generator alone as its baseline, each time.
        return (4 if self.metric == "CPU per copy" else 2) * each * self.profile.pairs

    @property
    def seconds(self) -> float:
        longer = LONG - 1 if self.metric in ("CPU per copy", *LATENCY_FIELDS) else 0
        return super().seconds + self.trials * longer * self.trial_s

    def perform(self, context: Context) -> None:
        record = self._measure(context)
        line = describe(record)
        if is_missed(record):
            context.failures.append(f"{self.step_id}: {line}")
        context.reporter.outcome(line)
        if self.compare.aim is not None:
            context.check(aimed(record, self.compare.aim))
        if self.compare.tolerance is not None:
            self._judge(self.compare.tolerance, record, context)
        if self.compare.repeat == self.number > 1 and self.a == self.b:
            self._judge_repetitions(record, context)

    def _judge(self, tolerance: float, first: Comparison, context: Context) -> None:
        """Check that ``a`` is as good as ``b``, within the tolerance. A worse one is measured once more."""
        taken = [first]
        if is_worse(first, tolerance):
            context.reporter.outcome("beyond what is tolerated: once more, with everything started anew")
            context.benches.close()
            taken.append(self._measure(context))
            context.reporter.outcome(describe(taken[-1]))
        context.check(tolerated(taken, tolerance), self.step_id)

    def _measure(self, context: Context) -> Comparison:
        """As many pairs as the profile says.

        With a wanted width, pairs are added until the interval is as narrow, up to :data:`MORE_PAIRS` times
        as many. What ends it is the width, whatever the ratio, so it does not make a difference likelier.
        """
        asked, within = self.profile.pairs, self.compare.within

        def more(pairs: Pairs, tried: int) -> int:
            if not tried:
                return asked
            wide = within is not None and pairs and ratio_of(pairs).half_width > within
            return min(PAIRS_MORE, MORE_PAIRS * asked - tried) if wide else 0

        return measure(self, context, more)

    def _judge_repetitions(self, last: Comparison, context: Context) -> None:
        """Check that comparisons of a subject with itself see no difference."""
        taken = [
            record
            for record in context.of_kind(Comparison)
            if (record.scenario, record.case, record.figure, record.a, record.b)
            == (last.scenario, last.case, last.figure, last.a, last.b)
        ]
        check = same(taken, self.compare.within)
        context.check(check, self.step_id)
        context.reporter.outcome(check.observed)


def _sides(compare: Compare, selection: Selection) -> Iterator[tuple[Side, Side]]:
    """The pairs of sides that a table asks for, in cases of which something is measured."""
    named = {
        case.name: case
        for case in selection.cases
        if compare.a == NONE or selection.scenario.measured_in(case)
    }
    if compare.a_case and compare.b_case:
        pairs = [(compare.a_case, compare.b_case)]
    else:
        pairs = [(name, name) for name in named if compare.cases is None or name in compare.cases]
    for a, b in pairs:
        # A profile may leave one of two cases out: then there is nothing to compare.
        if a in named and b in named:
            yield Side(compare.a, named[a], compare.a_receive), Side(compare.b, named[b], compare.b_receive)


def is_worse(record: Comparison, tolerance: float) -> bool:
    """Whether the whole interval is beyond ``tolerance``. Raises StepError for too few pairs to tell."""
    if record.pairs < FEW_PAIRS:
        raise StepError(f"{record.metric}: {record.pairs} pairs of values; a verdict takes {FEW_PAIRS}")
    return falls_short(record.low, record.high, tolerance, record.higher_is_better)


def tolerated(taken: Sequence[Comparison], tolerance: float) -> Check:
    """The check of one comparison, or of two of the same: it fails if each of them was worse."""
    last = taken[-1]
    bound = f"below {tolerance:.2f}" if last.higher_is_better else f"above {1 / tolerance:.2f}"
    return Check(
        scenario=last.scenario,
        case=f"{last.case}: {last.metric}",
        passed=not all(is_worse(record, tolerance) for record in taken),
        expected=f"a ratio whose interval is not wholly {bound}",
        observed=" and again ".join(f"{r.ratio:.3f} ({r.low:.3f} to {r.high:.3f})" for r in taken),
    )


def same(taken: Sequence[Comparison], within: float | None) -> Check:
    """The check of comparisons of a subject with itself.

    One in twenty may see a difference: an interval of 95 % leaves out the truth as often.
    """
    allowed = -(-len(taken) // 20)
    different = sum(record.verdict in ("better", "worse") for record in taken)
    widest = max((record.high - record.low) / 2 / record.ratio for record in taken)
    expected = f"no difference in {len(taken) - allowed} of {len(taken)} or more"
    if within is not None:
        expected += f", intervals of ±{within:.1%} at most"
    return Check(
        scenario=taken[0].scenario,
        case=f"{taken[0].case}: {taken[0].a} against itself, {taken[0].metric}",
        passed=different <= allowed and (within is None or widest <= within),
        expected=expected,
        observed=f"no difference in {len(taken) - different} of {len(taken)}, "
        f"intervals of ±{widest:.1%} at most",
    )


Pairs = Sequence[tuple[float, float]]


def measure(step: CompareStep, context: Context, more: Callable[[Pairs, int], int]) -> Comparison:
    """Measure both sides in turn and record the result.

    Args:
        more: how many pairs to add to those that have values, of so many that were tried; 0 for enough.

    Raises:
        StepError: no pair had two values.
    """
    from lab.steps.sides import measured_sides

    a, b = measured_sides(step, context)
    pairs: list[tuple[float, float]] = []
    tried = 0
    while count := more(pairs, tried):
        pairs += _pairs(a, b, count)
        tried += count
    fates = [*a.series.fates, *b.series.fates]
    warnings = list(dict.fromkeys([*fates, *a.warnings, *b.warnings]))
    if not pairs:
        text = f"{step.metric}: none of {tried} pairs had two values{''.join(f'; {w}' for w in warnings)}"
        raise StepError(text)
    if len(pairs) < tried:
        warnings.append(f"{tried - len(pairs)} of {tried} pairs had no value")
    a_values, b_values = [x for x, _ in pairs], [y for _, y in pairs]
    ratio = ratio_of(pairs)
    higher_is_better = step.metric not in LOWER_IS_BETTER
    # A search ends with its bounds this far apart: it cannot tell smaller differences.
    resolution = step.profile.search_width if step.metric == "zero-loss rate" else 0.0
    record = Comparison(
        scenario=step.scenario.name,
        case=step.case_name,
        metric=step.metric,
        share=step.compare.share,
        higher_is_better=higher_is_better,
        a=step.a.subject,
        b=step.b.subject,
        setting=a.series.setting,
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        confidence=CONFIDENCE,
        pairs=ratio.pairs,
        a_values=a_values,
        b_values=b_values,
        unit=UNITS[step.metric],
        target=step.compare.target,
        verdict=verdict(ratio, higher_is_better, resolution),
        detectable=detectable(a_values, b_values, resolution),
        bound_by="generator" if "generator" in a.bounds else "forwarder" if a.bounds else "unknown",
        trial_ids=[*a.series.trial_ids, *b.series.trial_ids],
        warnings=[*warnings, *ratio.warnings],
    )
    context.archive.write(record)
    return record


def _pairs(a: MeasuredSide, b: MeasuredSide, count: int) -> list[tuple[float, float]]:
    """``count`` pairs of values, without those in which one side has none."""
    values: dict[str, list[float | None]] = {"a": [], "b": []}
    for side in interleaved(count):
        values[side].append((a if side == "a" else b).measure())
    return [(x, y) for x, y in zip(values["a"], values["b"], strict=True) if x and y and min(x, y) > 0]


def ratio_of(pairs: Pairs) -> Ratio:
    return paired_ratio([a for a, _ in pairs], [b for _, b in pairs])
