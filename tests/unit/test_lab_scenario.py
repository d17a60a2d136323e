"""Scenario files: what is accepted, and that everything wrong is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.matrix import Calibrate, Comparison, Footprint, Search, steps
from lab.scenario import DIRECTORY, PROFILES, ScenarioError, load_scenarios, parse_scenario

GOOD = """
name = "good"
title = "A scenario"
seed = "the line it covers"
subjects = ["mcrd", "kernel"]
measure = ["zero-loss"]

[setting]
flows = 4

[[case]]
name = "small"
payload_bytes = 64

[[case]]
name = "large"
payload_bytes = 1400
flows = 8

[[compare]]
metric = "zero-loss rate"
a = "mcrd"
b = "kernel"

[profile.quick]
cases = ["small"]
pairs = 1
"""


def problems(text: str) -> dict[str, str]:
    """What is wrong with a file: allowed values by key."""
    with pytest.raises(ScenarioError) as raised:
        parse_scenario(text, "x.toml")
    return {problem.field.removeprefix("x.toml: "): problem.allowed for problem in raised.value.problems}


def test_a_case_takes_what_it_does_not_say_from_setting() -> None:
    scenario = parse_scenario(GOOD, "x.toml")
    small, large = scenario.case
    assert scenario.settings_of(small).flows == 4
    assert scenario.settings_of(large).flows == 8
    assert scenario.settings_of(large).payload_bytes == 1400


def test_a_profile_overrides_single_keys() -> None:
    scenario = parse_scenario(GOOD, "x.toml")
    assert scenario.profile_named("quick").pairs == 1
    assert scenario.profile_named("quick").trial_ms == PROFILES["quick"].trial_ms
    assert scenario.profile_named("full").pairs > 1


def test_every_problem_is_reported_at_once() -> None:
    found = problems(
        """
        name = "Bad Name"
        seed = "s"
        colour = "red"
        subjects = ["mcrd", "socat"]
        [setting]
        payload_bytes = 4
        mtu = "1500"
        strategy = "magic"
        [[case]]
        name = "a"
        outputs = 0
        """
    )
    assert set(found) == {
        "name",
        "title",
        "colour",
        "subjects[1]",
        "setting.payload_bytes",
        "setting.mtu",
        "setting.strategy",
        "case[0].outputs",
    }
    assert found["subjects[1]"] == "'mcrd' or 'kernel'"
    assert found["setting.payload_bytes"] == "at least 18"
    assert "rule-hash" in found["setting.strategy"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("payload_bytes = 1400", "payload_bytes = 1473"), "case[1].payload_bytes"),
        (('name = "large"', 'name = "small"'), "case[1].name"),
        (('cases = ["small"]', 'cases = ["tiny"]'), "profile.quick.cases"),
        (('b = "kernel"', 'b = "mcrd"'), "compare[0].b"),
        (('b = "kernel"', 'b = "kernel"\na_case = "small"'), "compare[0].a_case"),
        (("flows = 8", "outputs = 32"), "case[1].outputs"),
        (("payload_bytes = 1400", "payload_bytes = 1400\nburst = 60"), "case[1].burst"),
        (('subjects = ["mcrd", "kernel"]', "subjects = []"), "subjects"),
        (('b = "kernel"', 'b = "kernel"\nb_rps = true\n[rps]\nkernel = [false]'), "compare[0].b_rps"),
    ],
)
def test_what_makes_no_sense_is_refused(change: tuple[str, str], key: str) -> None:
    assert key in problems(GOOD.replace(*change))


def test_text_that_is_not_toml_is_refused() -> None:
    assert "x.toml" in problems("name = ")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match="functional"):
        load_scenarios(["no-such-scenario"])


def test_problems_of_several_files_are_reported_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text("name = 1")
    with pytest.raises(ScenarioError) as raised:
        load_scenarios([str(tmp_path / "a.toml"), str(tmp_path / "b.toml")])
    assert {problem.field.partition(":")[0] for problem in raised.value.problems} == {
        str(tmp_path / "a.toml"),
        str(tmp_path / "b.toml"),
    }


def test_every_scenario_of_the_project_loads_and_has_its_own_name() -> None:
    paths = sorted(DIRECTORY.glob("*.toml"))
    scenarios = load_scenarios([str(path) for path in paths])
    assert {scenario.name for scenario in scenarios} == {path.stem for path in paths}


def test_without_names_the_default_ones_run_and_the_checks_come_first() -> None:
    scenarios = load_scenarios([])
    assert scenarios[0].name == "functional"
    assert "bench" not in {scenario.name for scenario in scenarios}


def test_step_ids_are_unique_in_every_profile() -> None:
    everything = load_scenarios([str(path) for path in DIRECTORY.glob("*.toml")])
    for profile in ("quick", "full"):
        ids = [step.step_id for step in steps(everything, profile)]
        assert len(ids) == len(set(ids))


def test_a_comparison_follows_the_searches_of_both_its_sides() -> None:
    for scenario in load_scenarios([str(path) for path in DIRECTORY.glob("*.toml")]):
        searched: set[tuple[str, str, bool]] = set()
        calibrated = []
        for step in steps([scenario], "full"):
            if isinstance(step, Calibrate):
                calibrated.append(step.setting)
            if isinstance(step, Search):
                searched.add((step.subject, step.case.name, step.rps))
            if isinstance(step, Comparison):
                for side in (step.a, step.b):
                    steerings = [rps for rps in (False, True) if side.rps in (None, rps)]
                    assert any((side.subject, side.case.name, rps) in searched for rps in steerings)


def test_cases_with_equal_load_share_a_calibration() -> None:
    planned = steps([parse_scenario(GOOD.replace("payload_bytes = 1400\nflows = 8", ""), "x.toml")], "full")
    assert sum(isinstance(step, Calibrate) for step in planned) == 1


def test_a_profile_leaves_cases_out_with_all_their_steps() -> None:
    planned = steps([parse_scenario(GOOD, "x.toml")], "quick")
    assert planned
    assert not [step for step in planned if "large" in step.step_id]


def test_footprints_of_the_workers_scenario_start_what_the_table_says() -> None:
    planned = steps(load_scenarios(["fanout-workers"]), "quick")
    started = {step.footprint.workers for step in planned if isinstance(step, Footprint)}
    assert started == {4, 96}
