"""Other commits: their names, their work trees, and the baseline of the gate."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from forwarder.problems import ProblemsError
from lab.netns.clean import remove_directories
from lab.run import commits
from lab.run.commits import AUTO, baseline


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
    return git(directory, "rev-parse", "HEAD")[: commits.HASH_LENGTH]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(commits, "REPOSITORY", tmp_path)
    git(tmp_path, "init", "--quiet")
    return tmp_path


def test_auto_is_the_parent_and_the_same_forwarder_is_not_measured(repository: Path) -> None:
    first = committed(repository, "one")
    nothing = baseline(AUTO, {})
    assert nothing.commit is None
    assert "no parent" in nothing.why
    committed(repository, "two")
    assert baseline(AUTO, {}).commit == first
    second = committed(repository, "two")
    same = baseline(AUTO, {})
    assert same.commit is None
    assert second not in same.why
    assert "the same" in same.why
    (repository / "forwarder" / "code.py").write_text("not committed")
    assert baseline(AUTO, {}).commit is not None


def test_auto_is_where_the_branch_left_its_target_or_main(repository: Path) -> None:
    base = committed(repository, "one")
    git(repository, "update-ref", "refs/remotes/origin/main", "HEAD")
    committed(repository, "two")
    older = committed(repository, "three")
    git(repository, "update-ref", "refs/remotes/origin/release", "HEAD")
    committed(repository, "four")
    assert baseline(AUTO, {}).commit == base
    assert "origin/main" in baseline(AUTO, {}).why
    assert baseline(AUTO, {"GITHUB_BASE_REF": "release"}).commit == older
    # A target that was not fetched says nothing.
    assert baseline(AUTO, {"GITHUB_BASE_REF": "gone"}).commit == base
    assert baseline(AUTO, {"GITHUB_BASE_REF": "--all"}).commit == base
    git(repository, "update-ref", "refs/remotes/origin/main", "HEAD")
    assert baseline(AUTO, {}).commit == older, "main itself has its parent"


def test_a_shallow_clone_has_no_baseline_and_says_what_to_do(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = committed(repository, "one")
    committed(repository, "two")
    shallow = tmp_path_factory.mktemp("shallow")
    git(shallow, "clone", "--quiet", "--depth", "1", f"file://{repository}", ".")
    git(shallow, "update-ref", "-d", "refs/remotes/origin/main")
    monkeypatch.setattr(commits, "REPOSITORY", shallow)
    assert "fetch-depth: 0" in baseline(AUTO, {}).why
    with pytest.raises(ProblemsError, match=f"--baseline.*{first}"):
        baseline(first, {})


def test_outside_a_repository_auto_says_so_and_a_name_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "REPOSITORY", tmp_path)
    assert baseline(AUTO, {}) == commits.Baseline(
        None, "no baseline: this is not a git repository with a commit"
    )
    with pytest.raises(ProblemsError, match="--baseline"):
        baseline("HEAD", {})


def test_without_git_auto_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(repository, "one")
    monkeypatch.setenv("PATH", "")
    assert "git" in baseline(AUTO, {}).why
    with pytest.raises(ProblemsError, match="apt-get install git"):
        baseline("HEAD", {})


def test_a_named_commit_without_a_forwarder_is_an_error(repository: Path) -> None:
    (repository / "other").write_text("x")
    git(repository, "add", "other")
    git(repository, "commit", "--quiet", "-m", "nothing")
    empty = git(repository, "rev-parse", "HEAD")
    committed(repository, "one")
    with pytest.raises(ProblemsError, match="forwarder/"):
        baseline(empty, {})
    assert "has no forwarder/" in baseline(AUTO, {}).why


def test_a_tree_is_where_it_was_and_as_old_so_that_what_was_compiled_still_holds(repository: Path) -> None:
    commit = committed(repository, "one")

    def seen() -> Sequence[tuple[Path, float]]:
        with commits.work_trees([commit]) as made:
            return [(path, path.stat().st_mtime) for path in sorted(made[commit].rglob("*.py"))]

    first = seen()
    assert first == seen() != []
    with commits.work_trees([commit]) as one, commits.work_trees([commit]) as another:
        assert one[commit] != another[commit], "two runs at once"
    assert not first[0][0].exists()


@pytest.fixture
def two_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits of one file."""
    root = tmp_path / "repository"
    root.mkdir()
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for text in ("first", "second"):
        (root / "file").write_text(text)
        subprocess.run([*git, "add", "file"], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", text], check=True)
    monkeypatch.setattr(commits, "REPOSITORY", root)
    return root


def test_commits_are_checked_out_beside_each_other_and_removed_whatever_happens(two_commits: Path) -> None:
    old, new = commits.resolved("HEAD~1"), commits.resolved("HEAD")
    kept: list[Path] = []

    def interrupted() -> None:
        with commits.work_trees([old, new, old]) as made:
            texts = {commit: (tree / "file").read_text() for commit, tree in made.items()}
            assert texts == {old: "first", new: "second"}
            kept.extend(made.values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert kept
    assert not any(tree.parent.exists() for tree in kept)
    listed = subprocess.run(
        ["git", "-C", str(two_commits), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == 1


@pytest.mark.usefixtures("two_commits")
@pytest.mark.parametrize("commit", ["HEAD~1", "HEAD^", "HEAD@{0}"])
def test_a_commit_may_be_written_in_any_way_that_git_knows(commit: str) -> None:
    with commits.work_trees([commit]) as made:
        assert (made[commit] / "file").is_file()


def test_a_commit_whose_tree_a_killed_run_left_and_clean_removed_can_be_checked_out(
    two_commits: Path,
) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from lab.run import commits\n"
        "commits.REPOSITORY = Path(sys.argv[1])\n"
        "with commits.work_trees(['HEAD']) as made:\n"
        "    print(made['HEAD'].parent, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(two_commits)], capture_output=True, text=True, check=False
    )
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    assert left in remove_directories()
    with commits.work_trees(["HEAD"]) as made:
        assert made["HEAD"].parent == left, "compiled code is known by it"


@pytest.mark.usefixtures("two_commits")
@pytest.mark.parametrize("commit", ["HEAD~9", "nonsense", "--all"])
def test_a_commit_that_there_is_none_of_is_named(commit: str) -> None:
    with pytest.raises(commits.CommitError, match=commit):
        commits.resolved(commit)


def test_a_history_has_what_changes_the_forwarder_and_a_merge_once(repository: Path) -> None:
    first = committed(repository, "one")
    second = committed(repository, "two")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "something else")
    git(repository, "checkout", "--quiet", "-b", "branch", first)
    (repository / "forwarder" / "more.py").write_text("more")
    git(repository, "add", "forwarder")
    git(repository, "commit", "--quiet", "-m", "on a branch")
    aside = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "--quiet", "-")
    git(repository, "merge", "--quiet", "--no-edit", "branch")
    merge = git(repository, "rev-parse", "HEAD")[: commits.HASH_LENGTH]
    last = committed(repository, "three")
    assert commits.history(first, "HEAD") == [second, merge, last]
    assert commits.history(aside, "HEAD") == [merge, last]
    assert commits.subject(last) == "three"


@pytest.mark.parametrize(
    ("good", "bad", "field", "allowed"),
    [
        ("HEAD", "HEAD", "--bad", "differs"),
        ("HEAD", "HEAD~1", "--good", "comes before"),
        ("HEAD~1", "HEAD~0", "--bad", "differs"),
        ("gone", "HEAD", "--good", "a commit of"),
        ("HEAD", "gone", "--bad", "a commit of"),
    ],
)
def test_commits_between_which_nothing_can_be_found_are_refused(
    repository: Path, good: str, bad: str, field: str, allowed: str
) -> None:
    committed(repository, "one")
    committed(repository, "one")
    with pytest.raises(ProblemsError) as raised:
        commits.history(good, bad)
    ((problem,),) = (raised.value.problems,)
    assert problem.field == field
    assert allowed in problem.allowed


def test_a_tree_is_made_when_it_is_first_asked_for_and_removed_with_the_others(repository: Path) -> None:
    first, second = committed(repository, "one"), committed(repository, "two")
    with commits.work_trees([second]) as trees:
        assert dict(trees).keys() == {second}
        assert (trees[first] / "forwarder" / "code.py").read_text() == "one"
        kept = [path.parent for path in trees.values()]
    assert len(kept) == 2
    assert not any(path.exists() for path in kept)
