"""Verdicts, targets and numbers in words: what a reader acts on."""

from __future__ import annotations

import pytest
from paths import GOLDEN
from record_support import comparison_record

from lab.results import Comparison, read_results
from reports import quantity, verdicts
from reports.dataset import sort_records
from reports.page import summary


def compared(
    ratio: float, low: float, high: float, higher: bool = True, target: float | None = None, pairs: int = 8
) -> Comparison:
    metric = "zero-loss rate" if higher else "latency p99"
    made = comparison_record(ratio, scenario="s", case="64 B", metric=metric, higher_is_better=higher)
    return made.model_copy(update={"low": low, "high": high, "pairs": pairs, "target": target})


@pytest.mark.parametrize(
    ("low", "high", "higher", "expected"),
    [
        (1.01, 1.4, True, "better"),
        (0.6, 0.99, True, "worse"),
        (1.01, 1.4, False, "worse"),
        (0.6, 0.99, False, "better"),
        (0.99, 1.01, True, "no difference"),
        (1.0, 1.4, True, "no difference"),
        (0.6, 1.0, False, "no difference"),
    ],
)
def test_verdict_follows_the_interval(low: float, high: float, higher: bool, expected: str) -> None:
    assert verdicts.verdict(compared((low + high) / 2, low, high, higher)) == expected


def test_one_pair_decides_nothing() -> None:
    single = compared(2.0, 2.0, 2.0, pairs=1, target=1.4)
    assert verdicts.verdict(single) == "undecided"
    assert "no interval" in verdicts.measured(single)
    goal = verdicts.target(single)
    assert goal is not None
    assert (goal.met, goal.sure, goal.outcome) == (True, False, "probably met")


@pytest.mark.parametrize(
    ("ratio", "low", "high", "higher", "met", "sure"),
    [
        (1.5, 1.4, 1.6, True, True, True),
        (1.5, 1.39, 1.6, True, True, False),
        (1.3, 1.2, 1.41, True, False, False),
        (1.3, 1.2, 1.39, True, False, True),
        (1.3, 1.2, 1.4, False, True, True),
        (1.3, 1.2, 1.41, False, True, False),
        (1.5, 1.39, 1.6, False, False, False),
        (1.5, 1.41, 1.6, False, False, True),
    ],
)
def test_target_is_met_by_the_estimate_and_sure_by_the_interval(
    ratio: float, low: float, high: float, higher: bool, met: bool, sure: bool
) -> None:
    goal = verdicts.target(compared(ratio, low, high, higher, target=1.4))
    assert goal is not None
    assert (goal.met, goal.sure) == (met, sure)


def test_targets_are_counted_and_the_missed_ones_named() -> None:
    records = read_results(GOLDEN / "reports" / "results.jsonl")
    data = sort_records(records)
    kept = {goal.what: (goal.target.met, goal.target.sure) for goal in verdicts.targets(data)}
    assert kept == {
        "zero-loss rate, 64 B": (True, True),
        "zero-loss rate, 512 B": (True, False),
        "delivered copies/s, 1→8": (False, True),
        "latency p99, 64 B": (True, False),
        "4 workers: private memory of each": (False, True),
        "96 workers: time to ready": (True, True),
        "96 workers: private memory of each": (True, True),
        "zero-loss rate, 20 inputs / 1 input": (True, True),
        "1,920 workers: time to ready": (True, True),
        "1,920 workers: time to stop": (False, True),
        "1,920 workers: private memory of each": (True, True),
        "1,920 workers: idle processor time": (True, True),
    }
    (point,) = summary.target_points(data)
    assert point.text.startswith("9 of 12 targets met.")
    assert "4 workers: private memory of each: missed: 1.04 MB against at most 1.00 MB" in point.items


def test_a_comparison_without_a_target_has_no_outcome() -> None:
    assert verdicts.target(compared(1.5, 1.4, 1.6)) is None
    assert not [*summary.target_points(sort_records([compared(1.5, 1.4, 1.6)]))]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1e-7, "under 0.001 %"),
        (0.00012, "0.012 %"),
        (0.5, "50 %"),
        (0.99999, "99.999 %"),
        (1.0, "100 %"),
    ],
)
def test_only_no_loss_at_all_reads_zero(share: float, text: str) -> None:
    assert quantity.percent(share) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(358_417.3, "358,400"), (1_234_567.0, "1,235,000"), (97.25, "97.25"), (0.0, "0"), (None, "–")],
)
def test_rates_keep_four_digits(per_second: float | None, text: str) -> None:
    assert quantity.rate(per_second) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.6, "1.60"), (12.34, "12.3"), (123.4, "123"), (0.0123, "0.0123"), (0.5, "0.50")]
)
def test_ratios_keep_what_matters(value: float, text: str) -> None:
    assert quantity.ratio(value) == text


def test_shared_doubts_are_said_once() -> None:
    doubts = [("64 B", ["few pairs", "noisy"]), ("512 B", ["few pairs"])]
    assert verdicts.merged(doubts) == ("all: few pairs", "64 B: noisy")
    many = [(str(number), ["noisy"] if number < 5 else []) for number in range(7)]
    assert verdicts.merged(many) == ("5 of 7: noisy",)
    assert verdicts.merged([("64 B", ["noisy"])]) == ("64 B: noisy",)
