"""The gate: its scenario, and when it fails."""

from __future__ import annotations

import pytest
from record_support import comparison_record

from lab.analysis.compare import falls_short
from lab.scenario.files import ScenarioError, load_scenarios, parse_scenario, scenario_text
from lab.scenario.gate import NAME, against
from lab.steps.kinds.calibrate import CalibrateStep
from lab.steps.kinds.compare import CompareStep, is_worse, tolerated
from lab.steps.kinds.search import SearchStep
from lab.steps.plan import steps
from lab.steps.step import StepError

COMMIT = "0123456789ab"


def test_each_case_is_measured_twice_and_each_comparison_is_of_now_with_the_commit() -> None:
    scenario = load_scenarios([NAME])[0]
    made = against(scenario, COMMIT)
    assert made.commits() == [COMMIT]
    planned = steps([made], "quick")
    assert sum(isinstance(step, CalibrateStep) for step in planned) == 1
    commits = [made.settings_of(step.case).commit for step in planned if isinstance(step, SearchStep)]
    assert commits == [None, COMMIT] * len(scenario.case)
    compared = [step for step in planned if isinstance(step, CompareStep)]
    assert {(step.metric, step.a.case.name) for step in compared} == {
        ("delivered copies/s", "1→1"),
        ("delivered copies/s", "1→8"),
        ("CPU per copy", "1→1"),
    }
    for step in compared:
        assert step.compare.tolerance == 0.9
        now, then = (made.settings_of(side.case) for side in (step.a, step.b))
        assert (now.commit, then.commit) == (None, COMMIT)
        assert now.model_copy(update={"commit": COMMIT}) == then, "else they differ in nothing"


def test_the_gate_takes_no_more_than_a_minute_once_the_commit_is_compiled() -> None:
    made = against(load_scenarios([NAME])[0], COMMIT)
    planned = steps([made], "quick")
    assert sum(step.seconds for step in planned if not made.commits() or not _compiles(step)) < 60


def _compiles(step: object) -> bool:
    return isinstance(step, SearchStep) and step.setting.commit is not None


def test_what_a_scenario_file_may_ask_for_beside_is_named() -> None:
    made = against(load_scenarios([NAME])[0], COMMIT)
    text = scenario_text(made)
    assert parse_scenario(text, NAME) == made
    wrong = text.replace('metric = "CPU per copy"', 'metric = "latency p99"')
    with pytest.raises(ScenarioError, match="'CPU per copy'"):
        parse_scenario(wrong, NAME)
    with pytest.raises(ScenarioError, match="at most 1"):
        parse_scenario(text.replace("tolerance = 0.9", "tolerance = 1.5"), NAME)


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "short"),
    [
        (0.80, 0.89, True, True),
        (0.80, 0.91, True, False),  # it may be as good as is tolerated
        (1.05, 1.20, True, False),
        (1.12, 1.30, False, True),
        (1.10, 1.30, False, False),
        (0.70, 0.80, False, False),
    ],
)
def test_only_a_whole_interval_beyond_the_tolerance_falls_short(
    low: float, high: float, higher_is_better: bool, short: bool
) -> None:
    assert falls_short(low, high, 0.9, higher_is_better) is short


def test_it_fails_only_when_both_measurements_were_worse() -> None:
    for more, ratios, passed in (
        (True, [1.0], True),
        (True, [0.8], False),
        (True, [0.8, 0.8], False),
        (True, [0.8, 1.0], True),
        (False, [1.3, 1.3], False),
    ):
        check = tolerated([comparison_record(ratio, higher_is_better=more) for ratio in ratios], 0.9)
        assert check.passed is passed, ratios
        assert all(f"{ratio:.3f}" in check.observed for ratio in ratios)
    assert "wholly below 0.90" in tolerated([comparison_record(1.0)], 0.9).expected
    assert "wholly above 1.11" in tolerated([comparison_record(1.0, higher_is_better=False)], 0.9).expected


def test_few_pairs_are_no_verdict() -> None:
    with pytest.raises(StepError, match="5 pairs"):
        is_worse(comparison_record(0.5, pairs=5), 0.9)
