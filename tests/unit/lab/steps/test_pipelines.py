"""How many pipelines are tried, and trials that begin at the same moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lab.results import Setting
from lab.scenario.files import ScenarioError, load_scenarios, parse_scenario
from lab.steps.context import plan_for
from lab.steps.kinds.pipelines import PipelinesStep, counts
from lab.steps.plan import steps
from lab.steps.step import StepError
from lab.trial.bench import measure_together
from lab.trial.plan import Cpus


@pytest.mark.parametrize(
    ("cpus", "tried"), [(2, [2]), (3, [2, 3]), (4, [2, 4]), (8, [2, 4, 8]), (96, [2, 4, 8, 16, 32, 64, 96])]
)
def test_numbers_of_pipelines_double_up_to_the_machines(cpus: int, tried: list[int]) -> None:
    assert counts(cpus) == tried


def test_one_cpu_has_no_other() -> None:
    with pytest.raises(StepError, match="one CPU"):
        counts(1)


def test_all_pipelines_of_a_cpu_share_one_bench_whatever_runs_beside() -> None:
    (scenario,) = load_scenarios(["pipelines"])
    found = [step for step in steps([scenario], "quick") if isinstance(step, PipelinesStep)]
    assert len(found) == len(scenario.case)
    for step in found:
        assert step.setting.receive == "sender"
        for cpus in Cpus((0,), (1, 2)).each:
            two, one = (
                plan_for(scenario, step.case, "mcrd", _pipelines(step.setting, number), cpus)
                for number in (2, 1)
            )
            assert two == one
            assert two.worker_cpus == two.cpus.bench == cpus.bench


def _pipelines(setting: Setting, number: int) -> Setting:
    return setting.model_copy(update={"pipelines": number})


def test_a_generator_in_the_kernel_cannot_share_its_cpu() -> None:
    text = """
name = "p"
title = "p"
subjects = ["mcrd"]
[[case]]
name = "c"
generator = "xdp"
[[pipelines]]
"""
    with pytest.raises(
        ScenarioError, match=r"pipelines\[0\].cases: 'c'; allowed: cases with generator = 'packet'"
    ):
        parse_scenario(text, "p.toml")


class Stub:
    """A bench whose trial is its request."""

    def measure(self, request: Any, ready: Callable[[], object]) -> Any:
        if request == "broken":
            raise OSError("broken")
        ready()
        return request


def test_trials_begin_when_all_are_ready_and_come_back_in_order() -> None:
    asked: Any = [(Stub(), number) for number in range(5)]
    assert measure_together(asked) == [0, 1, 2, 3, 4]


def test_nobody_waits_for_a_bench_that_failed() -> None:
    asked: Any = [(Stub(), 1), (Stub(), "broken"), (Stub(), 2)]
    with pytest.raises(OSError, match="broken"):
        measure_together(asked)
