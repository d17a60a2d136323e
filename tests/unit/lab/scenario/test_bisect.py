"""``mcastlab bisect``: what is asked for as a scenario, the steps that it makes, and the answer in words."""

from __future__ import annotations

import pytest
from record_support import comparison_record

from forwarder.problems import ProblemsError
from lab.cli.bisect import conclusion, confirmation, sentences
from lab.results import AnyRecord, Judged, Judgement
from lab.scenario.bisect import NAME, ask
from lab.scenario.files import parse_scenario, scenario_text
from lab.scenario.model import Scenario
from lab.steps.kinds.bisect import BisectStep
from lab.steps.kinds.search import SearchStep
from lab.steps.plan import steps

COMMITS = [f"c{number}" for number in range(1, 65)]


def asked(*base: str, metric: str = "zero-loss", commits: list[str] = COMMITS) -> Scenario:
    return ask("good", commits, base, metric, 12)


def wrong(*base: str, metric: str = "zero-loss", pairs_max: int | None = None) -> set[str]:
    with pytest.raises(ProblemsError) as raised:
        ask("good", COMMITS, base, metric, pairs_max)
    return {problem.field for problem in raised.value.problems}


@pytest.mark.parametrize(
    "metric", ["zero-loss", "delivered", "goodput,share=4", "cpu", "p50", "p99", "p99.9"]
)
def test_only_the_good_commit_is_searched_and_64_commits_take_eight_comparisons(metric: str) -> None:
    made = asked("outputs=8", metric=metric)
    assert parse_scenario(scenario_text(made), NAME) == made
    planned = steps([made], "quick")
    assert [s.setting.commit for s in planned if isinstance(s, SearchStep)] == ["good"]
    assert len([step for step in planned if isinstance(step, BisectStep)]) == 8
    assert len({step.step_id for step in planned}) == len(planned)
    assert made.setting.outputs == 8


def test_everything_wrong_is_said_at_once_and_by_option() -> None:
    assert wrong("outputs=0", "commit=HEAD", "x", pairs_max=5) == {
        *("--case.outputs", "--case.commit", "--case", "--pairs-max")
    }
    assert wrong(metric="speed") == {"--metric"}
    assert wrong(metric="zero-loss,share=1") == {"--metric.share"}
    assert wrong("payload_bytes=8000") == {"--case.payload_bytes"}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('subjects = ["kernel"]\nmeasure = ["zero-loss"]', "bisect.(table)"),
        ('subjects = ["mcrd"]\nmeasure = ["flat-out"]', "bisect.metric"),
    ],
)
def test_a_file_that_cannot_be_bisected_is_refused(text: str, field: str) -> None:
    tables = '[[case]]\nname = "one"\ncommit = "good"\n[bisect]\nmetric = "zero-loss rate"\ncommits = ["bad"]'
    with pytest.raises(ProblemsError) as raised:
        parse_scenario(f'name = "x"\ntitle = "x"\n{text}\n{tables}', "x.toml")
    assert [problem.field for problem in raised.value.problems] == [f"x.toml: {field}"]


def told(verdict: str, **judged: Judgement) -> tuple[dict[str, object], str]:
    scenario = asked("outputs=8", "options=--ring-frames 64", metric="cpu,share=0.1", commits=COMMITS[:4])
    first = comparison_record(1.5, low=1.4, high=1.6, verdict=verdict, detectable=0.04)
    records: list[AnyRecord] = [first.model_copy(update={"scenario": NAME})]
    records += [
        Judged(scenario=NAME, case=commit, commit=commit, judgement=judgement)
        for commit, judgement in judged.items()
    ]
    found = conclusion(scenario, records)
    commits = [{"commit": commit, "subject": f"About {commit}"} for commit in found["commits"]]
    alone = commits[0]["commit"] if len(commits) == 1 else None
    confirm = None if alone is None else confirmation(scenario, alone, "full")
    result = {**found, "commit": alone, "commits": commits, "confirm": confirm}
    return result, "\n".join(sentences(result))


def test_the_commit_is_named_with_its_subject_the_ratio_and_the_command_that_confirms_it() -> None:
    result, text = told("worse", c4="bad", c2="good", c3="bad")
    assert result["commit"] == "c3"
    assert "c4 is worse than good, 1.50 × (1.40 to 1.60)" in text
    assert "changed by c3 About c3" in text
    assert text.endswith(
        "mcastlab compare commit=c3 'commit=c3~1' --metric cpu,share=0.1 --case outputs=8 "
        "--case 'options=--ring-frames 64' --pairs 12 --profile full"
    )


def test_what_stays_undecided_or_cannot_be_measured_makes_a_range() -> None:
    result, text = told("worse", c4="bad", c2="undecided", c3="skipped", c1="good")
    assert result["commit"] is None
    assert "one of 3 commits, from c2 About c2 to c4 About c4" in text
    assert "skipped: c3\nundecided: c2\nmore --pairs-max" in text


def test_no_difference_says_how_large_a_one_would_have_been_seen() -> None:
    result, text = told("no difference", c4="good")
    assert (result["commit"], result["commits"]) == (None, [])
    assert text == "CPU per copy: no difference beyond 4.0% between good and c4"
    assert "could not be compared" in told("worse")[1]
