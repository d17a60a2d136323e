"""Paired, interleaved comparison of two subjects: order, ratio, interval. Pure.

The machines this runs on are noisy and drift, so an absolute figure proves little. The two subjects are
measured in turn, A B B A A B B A …, so that a linear drift cancels; each pair gives one ratio; their
geometric mean is the result, and a bootstrap over the pairs its interval.

A plain percentile bootstrap of few pairs is too narrow: with 8 it holds the truth 89 times in 100, not 95, so
that equal subjects would differ twice as often as said. The interval here is the *expanded percentile* one of
Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015, section
3.4.1: quantiles further out, by what Student's t and the n of a bootstrap's variance cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lab.results import Check, Comparison

if TYPE_CHECKING:
    # numpy and scipy are imported where they are used: planning, and most commands, need neither.
    import numpy as np
    from numpy.typing import NDArray

Side = Literal["a", "b"]
Verdict = Literal["better", "worse", "no difference"]

CONFIDENCE = 0.95
POWER = 0.8
"""How surely a difference as large as the detectable one would have been seen."""
_RESAMPLES = 9999
FEW_PAIRS = 6
"""Below this the bootstrap has too few distinct resamples: its interval is at most as wide as the values are
apart, which of 2 pairs of equal subjects leaves 1 out every other time (of 5 pairs, once in 16)."""


@dataclass(frozen=True)
class Ratio:
    """``a / b`` with its interval; ``low == high == value`` for a single pair."""

    value: float
    low: float
    high: float
    pairs: int
    warnings: tuple[str, ...] = ()

    @property
    def half_width(self) -> float:
        """Half-width of the interval as a share of the ratio; infinite if there are too few pairs."""
        return (self.high - self.low) / 2 / self.value if self.pairs >= FEW_PAIRS else math.inf


def interleaved(pairs: int) -> Iterator[Side]:
    """The order of measurements for ``pairs`` pairs: a b, b a, a b, …"""
    for pair in range(pairs):
        yield from ("a", "b") if pair % 2 == 0 else ("b", "a")


def paired_ratio(a_values: Sequence[float], b_values: Sequence[float]) -> Ratio:
    """The geometric mean of ``a[i] / b[i]`` and its bootstrap interval.

    Raises :class:`ValueError` when the sides differ in length, are empty, or a value is not positive:
    a ratio of such values has no meaning and must not be reported.
    """
    if len(a_values) != len(b_values) or not a_values:
        raise ValueError(f"{len(a_values)} and {len(b_values)} values: want pairs, at least one")
    if not all(math.isfinite(value) and value > 0 for value in (*a_values, *b_values)):
        raise ValueError(f"values {list(a_values)} and {list(b_values)}: want finite numbers above 0")
    import numpy as np
    import scipy

    logs = _log_ratios(a_values, b_values)
    value = float(np.exp(logs.mean()))
    pairs = len(logs)
    if pairs == 1:
        return Ratio(value, value, value, pairs, ("one pair: no interval",))
    warnings = (f"{pairs} pairs: the interval is a rough guide",) if pairs < FEW_PAIRS else ()
    if float(np.ptp(logs)) == 0.0:
        return Ratio(value, value, value, pairs, warnings)
    result = scipy.stats.bootstrap(
        (logs,),
        np.mean,
        confidence_level=_expanded(pairs),
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = np.exp(result.confidence_interval.low), np.exp(result.confidence_interval.high)
    return Ratio(value, float(min(low, value)), float(max(high, value)), pairs, warnings)


def _log_ratios(a_values: Sequence[float], b_values: Sequence[float]) -> NDArray[np.float64]:
    import numpy as np

    return np.log(np.asarray(a_values, dtype=np.float64)) - np.log(np.asarray(b_values, dtype=np.float64))


def _expanded(pairs: int) -> float:
    """The level of a percentile interval of ``pairs`` values that covers :data:`CONFIDENCE`."""
    import scipy

    outside = scipy.stats.norm.cdf(
        -math.sqrt(pairs / (pairs - 1)) * scipy.stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1)
    )
    return float(1 - 2 * max(outside, 1 / _RESAMPLES))


def verdict(ratio: Ratio, higher_is_better: bool, resolution: float = 0.0) -> Verdict | None:
    """What an interval says of ``a`` against ``b``; ``None`` where there are too few pairs to trust it.

    ``resolution``: the relative difference below which a single measurement cannot tell two values apart
    (0.02 is 2 %), such as the width at which a search ends. What is smaller is no difference.
    """
    if ratio.pairs < FEW_PAIRS:
        return None
    if ratio.low <= 1 <= ratio.high or abs(math.log(ratio.value)) < math.log1p(resolution):
        return "no difference"
    return "better" if (ratio.value > 1) == higher_is_better else "worse"


def detectable(a_values: Sequence[float], b_values: Sequence[float], resolution: float = 0.0) -> float | None:
    """The smallest relative difference that these pairs could have shown: 0.03 is 3 %. ``None`` of one pair.

    The minimum detectable effect of Bloom, "Minimum Detectable Effects", Evaluation Review 19(5), 1995, on
    the paired log ratios: their standard error times the sum of Student's t at :data:`CONFIDENCE` (both
    sides) and at :data:`POWER`; never below ``resolution``. It depends on their spread, not on what they say.
    """
    pairs = len(a_values)
    if pairs < 2:
        return None
    import scipy

    logs = _log_ratios(a_values, b_values)
    multiplier = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1) + scipy.stats.t.ppf(POWER, pairs - 1)
    return max(resolution, math.expm1(float(multiplier * logs.std(ddof=1) / math.sqrt(pairs))))


KEPT, MISSED = "kept", "missed"
REACHED, NOT_REACHED = "reached", "not reached"
"""Verdicts on an aim."""


def falls_short(low: float, high: float, tolerance: float, higher_is_better: bool) -> bool:
    """Whether a whole interval is worse than ``tolerance``: 0.9 is nine tenths of the speed, or ten ninths of
    the time."""
    return high < tolerance if higher_is_better else low > 1 / tolerance


def meets(ratio: float, target: float, higher_is_better: bool) -> bool:
    """Whether a ratio keeps what is promised."""
    return ratio >= target if higher_is_better else ratio <= target


def promise(record: Comparison) -> str:
    """What became of a promised ratio: kept or missed beyond doubt, or probably."""
    assert record.target is not None
    return _outcome(record, record.target, (MISSED, KEPT))


def aimed(record: Comparison, aim: float) -> Check:
    """What became of a ratio that is hoped for."""
    outcome = _outcome(record, aim, (NOT_REACHED, REACHED))
    return Check(
        scenario=record.scenario,
        case=f"{record.case}: {record.metric}, {record.a} / {record.b}",
        passed=meets(record.ratio, aim, record.higher_is_better),
        expected=f"{'at least' if record.higher_is_better else 'at most'} {aim:g}",
        observed=f"{record.ratio:.2f} ({record.low:.2f} to {record.high:.2f}), {outcome}",
        aim=True,
    )


def _outcome(record: Comparison, goal: float, words: tuple[str, str]) -> str:
    """One of ``words``, for a goal that is missed or met, with *probably* where the interval has both."""
    low, ratio, high = (
        meets(value, goal, record.higher_is_better) for value in (record.low, record.ratio, record.high)
    )
    sure = record.pairs >= FEW_PAIRS and low == high
    return words[low] if sure else f"probably {words[ratio]}"


def is_missed(record: Comparison) -> bool:
    """Whether a promise was missed beyond doubt."""
    return record.target is not None and promise(record) == MISSED


def describe(record: Comparison) -> str:
    """A comparison in one line."""
    line = f"{record.figure}: {record.a} / {record.b} = {record.ratio:.2f}"
    line += f" ({record.low:.2f} to {record.high:.2f})"
    if record.verdict is None:
        line += f", undecided: {FEW_PAIRS} pairs are the least for a verdict"
    elif record.detectable is not None:
        line += f", {record.verdict}; {record.detectable:.1%} could have been seen"
    if record.target is not None:
        bound = "at least" if record.higher_is_better else "at most"
        line += f", {bound} {record.target:g} promised: {promise(record)}"
    if record.bound_by == "generator":
        line += f"; the generator bound {record.a}"
    return line
