"""The project's own scenarios: what they cover, in which order, and that CI has the time for them."""

from __future__ import annotations

from typing import get_args

from forwarder.plan.strategy import PRESETS
from lab.results import Receive
from lab.scenario.files import DIRECTORY, load_scenarios, parse_scenario, scenario_text
from lab.steps.kinds.calibrate import CalibrateStep
from lab.steps.kinds.compare import CompareStep
from lab.steps.kinds.search import SearchStep
from lab.steps.plan import steps


def test_every_strategy_meets_the_same_load() -> None:
    (scenario,) = load_scenarios(["strategies"])
    assert {case.name for case in scenario.case} == set(PRESETS)
    loads = set()
    for case in scenario.case:
        assert scenario.settings_of(case).strategy == case.name
        setting = scenario.result_setting(case, "mcrd", receive="first")
        loads.add((setting.outputs, setting.flows, setting.rules, setting.payload_bytes, setting.skew))
        assert setting.inputs == (1 if case.name == "fanout" else 4)
    assert len(loads) == 1


def test_every_scenario_of_the_project_loads_and_has_its_own_name() -> None:
    paths = sorted(DIRECTORY.glob("*.toml"))
    scenarios = load_scenarios([str(path) for path in paths])
    assert {scenario.name for scenario in scenarios} == {path.stem for path in paths}
    for scenario in scenarios:
        assert parse_scenario(scenario_text(scenario), scenario.name) == scenario


def test_without_names_the_default_ones_run_and_the_checks_come_first() -> None:
    scenarios = load_scenarios([])
    assert scenarios[0].name == "functional"
    assert not {"bench", "bench-strategies"} & {scenario.name for scenario in scenarios}


def test_the_quick_run_of_everything_fits_into_ci() -> None:
    assert sum(step.seconds for step in steps(load_scenarios([]), "quick")) < 480


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
            if isinstance(step, CalibrateStep):
                calibrated.append(step.setting)
            if isinstance(step, SearchStep):
                searched.add((step.subject, step.case.name, step.receive))
            if isinstance(step, CompareStep) and step.metric != "generator rate":
                for side in (step.a, step.b):
                    tried = [way for way in get_args(Receive) if side.receive in (None, way)]
                    assert any((side.subject, side.case.name, way) in searched for way in tried)
