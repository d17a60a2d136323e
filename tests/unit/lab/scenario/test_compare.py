"""``mcastlab compare A B``: two texts to a scenario, and everything wrong with them at once."""

from __future__ import annotations

import pytest

from forwarder.problems import Problem, ProblemsError
from lab.run.commits import CommitError
from lab.scenario.compare import DEFAULT_METRICS, METRICS, NAME, ask
from lab.scenario.files import parse_scenario, scenario_text
from lab.scenario.model import Scenario
from lab.steps.kinds.calibrate import CalibrateStep
from lab.steps.kinds.compare import CompareStep
from lab.steps.kinds.search import SearchStep
from lab.steps.plan import steps


def asked(a: str, b: str, *base: str, metrics: tuple[str, ...] = (), pairs: int | None = None) -> Scenario:
    return ask(a, b, base, metrics, pairs, "quick", lambda commit: f"hash-of-{commit}")


def wrong(
    a: str, b: str, *base: str, metrics: tuple[str, ...] = (), profile: str = "quick"
) -> dict[str, str]:
    """What is wrong, by field."""

    def unknown(commit: str) -> str:
        raise CommitError([Problem("commit", repr(commit), "a commit")])

    with pytest.raises(ProblemsError) as raised:
        ask(a, b, base, metrics, None, profile, unknown)
    return {problem.field: problem.allowed for problem in raised.value.problems}


def test_each_side_is_searched_as_itself_only_and_both_are_compared_in_every_metric() -> None:
    made = asked("mcrd,options=--skip-host-stack", "kernel,receive=softirq", "outputs=8", "flows=16", pairs=3)
    planned = steps([made], "quick")
    searches = [(s.subject, s.receive) for s in planned if isinstance(s, SearchStep)]
    assert searches == [("mcrd", "first"), ("kernel", "softirq")]
    assert sum(isinstance(step, CalibrateStep) for step in planned) == 1
    compared = [step for step in planned if isinstance(step, CompareStep)]
    assert [step.metric for step in compared] == [METRICS[name] for name in DEFAULT_METRICS]
    assert {step.profile.pairs for step in compared} == {3}
    assert {(step.a.subject, step.b.subject, step.b.receive) for step in compared} == {
        ("mcrd", "kernel", "softirq")
    }
    ours, theirs = (
        made.result_setting(side.case, side.subject, receive="first")
        for side in (compared[0].a, compared[0].b)
    )
    assert (ours.options, ours.outputs, ours.flows) == (("--skip-host-stack",), 8, 16)
    assert (theirs.options, theirs.outputs) == ((), 8)


def test_a_side_without_a_subject_is_ours_and_values_have_their_types() -> None:
    made = asked("strategy=pool,workers=2", "strategy=fanout,workers=2", metrics=("zero-loss", "cpu"))
    first, second = (made.settings_of(case) for case in made.case)
    assert (first.strategy, first.workers) == ("pool", 2)
    assert (second.strategy, second.workers) == ("fanout", 2)
    assert [compare.metric for compare in made.compare] == ["zero-loss rate", "CPU per copy"]


def test_every_metric_that_is_offered_is_measured_at_the_share_that_is_asked_for() -> None:
    made = asked("mcrd", "kernel", metrics=(*METRICS, "latency p99", "goodput,share=4", "cpu, share=0.01"))
    compared = [step for step in steps([made], "quick") if isinstance(step, CompareStep)]
    plain, shared = compared[: len(METRICS)], compared[len(METRICS) :]
    assert [step.metric for step in plain] == list(METRICS.values())
    assert [(step.metric, step.compare.share) for step in shared] == [("goodput", 4), ("CPU per copy", 0.01)]
    assert len({step.step_id for step in compared}) == len(compared)


@pytest.mark.parametrize("metric", ["goodput,4", "goodput,dps=4", "goodput,", "p98"])
def test_a_metric_that_is_none_is_refused_with_those_there_are(metric: str) -> None:
    assert "p99.9" in wrong("mcrd", "kernel", metrics=(metric,))["--metric"]


@pytest.mark.parametrize("metric", ["goodput,share=no", "goodput,share=11", "zero-loss,share=0.5"])
def test_a_share_is_a_number_of_a_metric_that_has_one(metric: str) -> None:
    assert wrong("mcrd", "kernel", metrics=(metric,)).keys() == {"--metric.share"}


def test_options_are_words_and_a_part_in_quotes_may_hold_a_comma() -> None:
    made = asked('mcrd,commit=HEAD,"options=--worker-cpus 0,1 --skip-host-stack"', "mcrd")
    options = made.settings_of(made.case[0]).options
    assert options == ["--worker-cpus", "0,1", "--skip-host-stack"]


def test_one_thing_may_be_compared_with_itself() -> None:
    made = asked("mcrd", "mcrd")
    names = [case.name for case in made.case]
    assert len(set(names)) == 2
    assert {(c.a_case, c.b_case) for c in made.compare} == {tuple(names)}


def test_a_commit_is_recorded_by_its_name_for_good() -> None:
    made = asked("mcrd", "commit=HEAD~3")
    assert made.commits() == ["hash-of-HEAD~3"]
    setting = made.result_setting(made.case[1], "mcrd", receive="first")
    assert setting.commit == "hash-of-HEAD~3"


def test_everything_wrong_is_said_at_once_and_by_side() -> None:
    found = wrong(
        "kernle,receive=maybe",
        "strategy=poool,workers=0,colour=red,commit=none",
        "outputs=many",
        "flows",
        metrics=("speed",),
        profile="slow",
    )
    assert set(found) == {
        *("A", "A.receive", "B.strategy", "B.workers", "B.colour", "B.commit"),
        *("--case.outputs", "--case", "--metric", "--profile"),
    }
    assert "kernel" in found["A"]
    assert "workers" in found["B.colour"]
    assert "'full'" in found["--profile"]


def test_what_the_sides_ask_for_together_is_checked_too() -> None:
    # Kernel routing has room for 32 interfaces; mcrd beside it for more.
    assert wrong("kernel,outputs=40", "mcrd,outputs=40").keys() == {"A.outputs"}
    assert wrong("mcrd,payload_bytes=8000", "mcrd").keys() == {"A.payload_bytes"}
    assert wrong("mcrd,kernel", "mcrd").keys() == {"A"}
    assert wrong("mcrd,workers=1,workers=2", "mcrd").keys() == {"A.workers"}
    assert wrong("", "mcrd").keys() == {"A"}
    assert wrong("options='x", "mcrd") == {"A.options": "words as in a shell: No closing quotation"}


def test_the_file_that_a_run_keeps_has_the_same_scenario() -> None:
    made = asked(
        'mcrd,"options=--skip-host-stack",receive=first', "kernel", "outputs=8", metrics=("cpu",), pairs=3
    )
    assert parse_scenario(scenario_text(made), NAME) == made
