"""Order, ratio and interval of paired comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest
from record_support import comparison_record

from lab.analysis.compare import (
    Ratio,
    aimed,
    detectable,
    interleaved,
    is_missed,
    meets,
    paired_ratio,
    promise,
    verdict,
)


def test_sides_take_turns_so_that_a_drift_cancels() -> None:
    assert "".join(interleaved(4)) == "abbaabba"
    # A machine that gets slower with every measurement, and two equal subjects:
    speed = {"a": 0.0, "b": 0.0}
    for position, side in enumerate(interleaved(4)):
        speed[side] += 100 - position
    assert speed["a"] == speed["b"]


def test_the_ratio_is_the_geometric_mean_of_the_pairs() -> None:
    ratio = paired_ratio([2.0, 8.0], [1.0, 1.0])
    assert ratio.value == pytest.approx(4.0)
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.pairs == 2
    assert "rough" in ratio.warnings[0]


def test_more_pairs_of_the_same_scatter_make_a_narrower_interval_and_few_make_none() -> None:
    rng = np.random.default_rng(1)
    values = np.exp(rng.normal(0, 0.05, 90)).tolist()
    ones = [1.0] * 90
    assert paired_ratio(values[:5], ones[:5]).half_width == math.inf
    thirty, ninety = (paired_ratio(values[:count], ones[:count]).half_width for count in (30, 90))
    assert 0.005 < ninety < thirty < 0.04


def test_swapping_the_sides_inverts_ratio_and_interval() -> None:
    a, b = [3.1, 2.9, 3.3, 3.0, 2.8, 3.2], [1.0, 1.1, 0.9, 1.0, 1.05, 0.95]
    forward, back = paired_ratio(a, b), paired_ratio(b, a)
    assert forward.value == pytest.approx(1 / back.value)
    assert forward.low == pytest.approx(1 / back.high, rel=0.02)
    assert not forward.warnings


def test_a_wider_scatter_gives_a_wider_interval() -> None:
    b = [1.0] * 8
    calm = paired_ratio([2.0, 2.1, 1.9, 2.0, 2.05, 1.95, 2.0, 2.0], b)
    wild = paired_ratio([1.0, 4.0, 1.2, 3.5, 2.0, 2.2, 1.1, 3.8], b)
    assert wild.high / wild.low > calm.high / calm.low > 1


def test_one_pair_has_no_interval_and_says_so() -> None:
    ratio = paired_ratio([3.0], [2.0])
    assert ratio.low == ratio.value == ratio.high == pytest.approx(1.5)
    assert ratio.warnings == ("one pair: no interval",)


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([1.0], []), ([0.0], [1.0]), ([1.0], [-1.0]), ([float("nan")], [1.0])]
)
def test_values_without_a_meaningful_ratio_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="values"):
        paired_ratio(a, b)


def test_a_promise_is_kept_on_its_own_side() -> None:
    assert meets(1.4, 1.4, higher_is_better=True)
    assert not meets(1.39, 1.4, higher_is_better=True)
    assert meets(1.9, 2.0, higher_is_better=False)
    assert not meets(2.1, 2.0, higher_is_better=False)


@pytest.mark.parametrize(
    ("low", "high", "pairs", "higher", "expected"),
    [
        (1.41, 1.6, 8, True, "kept"),
        (1.2, 1.39, 8, True, "missed"),
        (1.2, 1.39, 2, True, "probably missed"),
        (1.3, 1.6, 8, True, "probably kept"),
        (1.2, 1.39, 8, False, "kept"),
        (1.41, 1.6, 8, False, "missed"),
    ],
)
def test_a_promise_is_missed_only_beyond_doubt(
    low: float, high: float, pairs: int, higher: bool, expected: str
) -> None:
    interval = {"low": low, "high": high, "pairs": pairs}
    record = comparison_record((low + high) / 2, **interval, higher_is_better=higher, target=1.4)
    assert promise(record) == expected
    assert is_missed(record) == (expected == "missed")


@pytest.mark.parametrize(
    ("low", "high", "reached", "outcome"),
    [
        (1.41, 1.6, True, "reached"),
        (1.2, 1.39, False, "not reached"),
        (1.3, 1.4, False, "probably not reached"),
    ],
)
def test_an_aim_is_a_check_that_says_how_sure_it_is(
    low: float, high: float, reached: bool, outcome: str
) -> None:
    check = aimed(comparison_record((low + high) / 2, low=low, high=high, pairs=8), 1.4)
    assert (check.aim, check.passed, check.expected) == (True, reached, "at least 1.4")
    assert check.observed.endswith(f"), {outcome}")


@pytest.mark.parametrize(
    ("low", "high", "higher", "expected"),
    [
        (1.01, 1.4, True, "better"),
        (0.6, 0.99, True, "worse"),
        (1.01, 1.4, False, "worse"),
        (0.6, 0.99, False, "better"),
        (1.0, 1.4, True, "no difference"),
        (0.6, 1.0, False, "no difference"),
    ],
)
def test_a_verdict_follows_the_interval(low: float, high: float, higher: bool, expected: str) -> None:
    ratio = Ratio(math.sqrt(low * high), low, high, 8)
    assert verdict(ratio, higher) == expected


def test_a_difference_below_what_one_measurement_resolves_is_none() -> None:
    ratio = paired_ratio([1.010, 1.011, 1.009, 1.010, 1.012, 1.008], [1.0] * 6)
    assert verdict(ratio, higher_is_better=True) == "better"
    assert verdict(ratio, higher_is_better=True, resolution=0.02) == "no difference"
    assert detectable([1.010, 1.011, 1.009, 1.010, 1.012, 1.008], [1.0] * 6, resolution=0.02) == 0.02


def test_few_pairs_have_no_verdict_and_one_shows_no_difference_of_any_size() -> None:
    assert verdict(paired_ratio([3.0], [2.0]), higher_is_better=True) is None
    assert verdict(paired_ratio([3.0] * 5, [2.0] * 5), higher_is_better=True) is None
    assert detectable([3.0], [2.0]) is None


@pytest.mark.parametrize("pairs", [2, 5, 6, 8, 16])
def test_equal_subjects_differ_no_more_often_than_the_interval_says(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    wrong = 0
    for _ in range(300):
        logs = rng.normal(0, 0.05, size=(2, pairs))
        ratio = paired_ratio(np.exp(logs[0]).tolist(), np.exp(logs[1]).tolist())
        wrong += verdict(ratio, higher_is_better=True) in ("better", "worse")
    # 15 expected of 300; more than 27 of them once in a thousand times (binomial).
    assert wrong <= 27


@pytest.mark.parametrize("pairs", [6, 12])
def test_a_difference_of_the_detectable_size_is_seen_four_times_in_five(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    true = detectable_of_spread(0.05, pairs)
    seen = 0
    for _ in range(200):
        b = np.exp(rng.normal(0, 0.05, pairs))
        ratio = paired_ratio((b * np.exp(rng.normal(math.log1p(true), 0.05, pairs))).tolist(), b.tolist())
        seen += verdict(ratio, higher_is_better=True) == "better"
    assert 0.68 <= seen / 200 <= 0.92


def detectable_of_spread(spread: float, pairs: int) -> float:
    """Of log ratios whose standard deviation is exactly ``spread``."""
    logs = np.resize([1.0, -1.0], pairs) * spread / math.sqrt(pairs / (pairs - 1))
    found = detectable(np.exp(logs).tolist(), [1.0] * pairs)
    assert found is not None
    return found
