"""How many pipelines are tried, and trials that begin at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.results import Setting
from lab.scenario.files import ScenarioError, load_scenarios, parse_scenario
from lab.scenario.wires import Wires, misfits
from lab.steps import context
from lab.steps.context import plan_for
from lab.steps.kinds.pipelines import PipelinesStep, counts
from lab.steps.plan import steps
from lab.steps.step import StepError
from lab.trial.bench import measure_together
from lab.trial.plan import BenchPlan, Cpus


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


def test_no_cpu_is_watched_while_pipelines_run(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    @contextmanager
    def told(what: str) -> Iterator[str]:
        events.append(f"{what} begins")
        yield what
        events.append(f"{what} ends")

    monkeypatch.setattr(context, "watched", lambda _cpus: told("watch"))
    monkeypatch.setattr(context, "bench", lambda plan, *_: told(f"bench {plan.setting.pipelines}"))
    cpus = Cpus((0,), (1,))
    with context.BenchPool("r", {}, cpus=cpus) as pool:
        for pipelines in (None, 1, 1, None):
            setting = Setting(payload_bytes=64, pipelines=pipelines)
            for each in cpus.each if pipelines else (cpus,):
                pool.get(BenchPlan("mcrd", setting, 1500, each))
    normal = ["watch begins", "bench None begins", "bench None ends", "watch ends"]
    pipelined = [*["bench 1 begins"] * 2, *["bench 1 ends"] * 2]
    assert events == [*normal, *pipelined, *normal]


def test_pipelines_have_links_of_their_own() -> None:
    wires = Wires(inputs=(("a", "b"),), outputs=(("c", "d"),))
    (problem,) = (
        each for each in misfits(wires, load_scenarios(["pipelines"])) if "outputs" not in each.field
    )
    assert problem.field == "pipelines: pipelines"
    assert problem.allowed == "left out with --wires: each pipeline has links of its own"
