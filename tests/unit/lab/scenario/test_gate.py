"""The gate: its scenario, which commit it measures against, and when it fails."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from forwarder.problems import ProblemsError
from lab.analysis.compare import falls_short
from lab.results import Comparison as Record
from lab.results import Setting
from lab.run import baselines as gate_baseline
from lab.run import work_trees as trees
from lab.run.baselines import AUTO, choose
from lab.scenario.files import ScenarioError, load_scenarios, parse_scenario
from lab.scenario.gate import NAME, against
from lab.steps.kinds.calibrate import CalibrateStep
from lab.steps.kinds.compare import CompareStep, is_worse, tolerated
from lab.steps.kinds.search import SearchStep
from lab.steps.plan import steps
from lab.steps.step import StepError

COMMIT = "0123456789ab"


def test_each_case_is_measured_twice_and_each_comparison_is_of_now_with_the_commit() -> None:
    scenario = load_scenarios([NAME])[0]
    made = parse_scenario(against(scenario, COMMIT), NAME)
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
    made = parse_scenario(against(load_scenarios([NAME])[0], COMMIT), NAME)
    planned = steps([made], "quick")
    assert sum(step.seconds for step in planned if not made.commits() or not _compiles(step)) < 60


def _compiles(step: object) -> bool:
    return isinstance(step, SearchStep) and step.setting.commit is not None


def test_what_a_scenario_file_may_ask_for_beside_is_named() -> None:
    text = against(load_scenarios([NAME])[0], COMMIT)
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


def record(ratio: float, *, pairs: int = 8, better: bool = True) -> Record:
    return Record(
        scenario=NAME,
        case="1→1",
        metric="delivered copies/s",
        higher_is_better=better,
        a="mcrd",
        b="mcrd",
        setting=Setting(payload_bytes=64),
        ratio=ratio,
        low=ratio * 0.98,
        high=ratio * 1.02,
        confidence=0.95,
        pairs=pairs,
    )


def test_it_fails_only_when_both_measurements_were_worse() -> None:
    for taken, passed in (
        ([record(1.0)], True),
        ([record(0.8)], False),
        ([record(0.8), record(0.8)], False),
        ([record(0.8), record(1.0)], True),
        ([record(1.3, better=False), record(1.3, better=False)], False),
    ):
        check = tolerated(taken, 0.9)
        assert check.passed is passed, taken
        assert all(f"{each.ratio:.3f}" in check.observed for each in taken)
    assert "wholly below 0.90" in tolerated([record(1.0)], 0.9).expected
    assert "wholly above 1.11" in tolerated([record(1.0, better=False)], 0.9).expected


def test_few_pairs_are_no_verdict() -> None:
    with pytest.raises(StepError, match="5 pairs"):
        is_worse(record(0.5, pairs=5), 0.9)


def git(directory: Path, *arguments: str) -> str:
    names = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        ["git", *names, *arguments], cwd=directory, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def committed(directory: Path, text: str) -> str:
    (directory / "forwarder").mkdir(exist_ok=True)
    (directory / "forwarder" / "code.py").write_text(text)
    git(directory, "add", "forwarder")
    git(directory, "commit", "--quiet", "--allow-empty", "-m", text)
    return git(directory, "rev-parse", "HEAD")[: trees.HASH_LENGTH]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(trees, "REPOSITORY", tmp_path)
    git(tmp_path, "init", "--quiet")
    return tmp_path


def test_auto_is_the_parent_and_the_same_forwarder_is_not_measured(repository: Path) -> None:
    first = committed(repository, "one")
    nothing = choose(AUTO, {})
    assert nothing.commit is None
    assert "no parent" in nothing.why
    committed(repository, "two")
    assert choose(AUTO, {}).commit == first
    second = committed(repository, "two")
    same = choose(AUTO, {})
    assert same.commit is None
    assert second not in same.why
    assert "the same" in same.why
    (repository / "forwarder" / "code.py").write_text("not committed")
    assert choose(AUTO, {}).commit is not None


def test_auto_is_where_the_branch_left_its_target_or_main(repository: Path) -> None:
    base = committed(repository, "one")
    git(repository, "update-ref", "refs/remotes/origin/main", "HEAD")
    committed(repository, "two")
    older = committed(repository, "three")
    git(repository, "update-ref", "refs/remotes/origin/release", "HEAD")
    committed(repository, "four")
    assert choose(AUTO, {}).commit == base
    assert "origin/main" in choose(AUTO, {}).why
    assert choose(AUTO, {"GITHUB_BASE_REF": "release"}).commit == older
    # A target that was not fetched says nothing.
    assert choose(AUTO, {"GITHUB_BASE_REF": "gone"}).commit == base
    assert choose(AUTO, {"GITHUB_BASE_REF": "--all"}).commit == base
    git(repository, "update-ref", "refs/remotes/origin/main", "HEAD")
    assert choose(AUTO, {}).commit == older, "main itself has its parent"


def test_a_shallow_clone_has_no_baseline_and_says_what_to_do(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = committed(repository, "one")
    committed(repository, "two")
    shallow = tmp_path_factory.mktemp("shallow")
    git(shallow, "clone", "--quiet", "--depth", "1", f"file://{repository}", ".")
    git(shallow, "update-ref", "-d", "refs/remotes/origin/main")
    monkeypatch.setattr(trees, "REPOSITORY", shallow)
    assert "fetch-depth: 0" in choose(AUTO, {}).why
    with pytest.raises(ProblemsError, match=f"--baseline.*{first}"):
        choose(first, {})


def test_outside_a_repository_auto_says_so_and_a_name_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "REPOSITORY", tmp_path)
    assert choose(AUTO, {}) == gate_baseline.Baseline(
        None, "no baseline: this is no git repository with a commit"
    )
    with pytest.raises(ProblemsError, match="--baseline"):
        choose("HEAD", {})


def test_without_git_auto_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(repository, "one")
    monkeypatch.setenv("PATH", "")
    assert "git" in choose(AUTO, {}).why
    with pytest.raises(ProblemsError, match="apt-get install git"):
        choose("HEAD", {})


def test_a_named_commit_without_a_forwarder_is_an_error(repository: Path) -> None:
    (repository / "other").write_text("x")
    git(repository, "add", "other")
    git(repository, "commit", "--quiet", "-m", "nothing")
    empty = git(repository, "rev-parse", "HEAD")
    committed(repository, "one")
    with pytest.raises(ProblemsError, match="forwarder/"):
        choose(empty, {})
    assert "has no forwarder/" in choose(AUTO, {}).why


def test_a_tree_is_where_it_was_and_as_old_so_that_what_was_compiled_still_holds(repository: Path) -> None:
    commit = committed(repository, "one")

    def seen() -> Sequence[tuple[Path, float]]:
        with trees.checked_out([commit]) as made:
            return [(path, path.stat().st_mtime) for path in sorted(made[commit].rglob("*.py"))]

    first = seen()
    assert first == seen() != []
    with trees.checked_out([commit]) as one, trees.checked_out([commit]) as another:
        assert one[commit] != another[commit], "two runs at once"
    assert not first[0][0].exists()
