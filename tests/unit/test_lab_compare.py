"""Order, ratio and interval of paired comparisons."""

from __future__ import annotations

import pytest

from lab.compare import interleaved, meets, paired_ratio


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
