"""Other commits of this repository: their names, work trees of their forwarders, and the gate's baseline.

``git worktree`` shares the repository, so a tree takes a fraction of a second. Path and file times of a tree
are the same whenever its commit is checked out, so numba's cache holds: only the first start of a commit on a
machine takes half a minute to compile.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from forwarder.problems import Problem, ProblemsError
from lab.netns import ownership

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE_TIME = 1_000_000_000
"""Modification time of every checked-out file, in seconds since 1970."""
HASH_LENGTH = 12
AUTO, OFF = "auto", "none"
PACKAGE = "forwarder"
_MAIN = "origin/main"


class CommitError(ProblemsError):
    """A commit that does not exist, or cannot be checked out."""


def resolved(commit: str, field: str = "commit") -> str:
    """The short hash of a commit as git understands it (``HEAD~3``, a branch, a hash).

    Args:
        field: the commit's name in messages.

    Raises:
        CommitError: there is no such commit, or this is not a repository.
    """
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    if found.returncode:
        why = found.stderr.strip() or f"a commit of {REPOSITORY}"
        raise CommitError([Problem(field, repr(commit), why)])
    return found.stdout.strip()[:HASH_LENGTH]


class WorkTrees(dict[str, Path]):
    """A directory with the files of each commit, made when it is first asked for.

    Raises CommitError for a commit that cannot be checked out.
    """

    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, commit: str) -> Path:
        parent = _new_directory(resolved(commit))
        self._stack.callback(git, "worktree", "prune")
        self._stack.callback(shutil.rmtree, parent, ignore_errors=True)
        parent.chmod(0o755)  # workers run without privileges and import from there
        tree = parent / "tree"
        added = git("worktree", "add", "--detach", "--quiet", str(tree), commit)
        if added.returncode:
            raise CommitError([Problem("commit", repr(commit), added.stderr.strip())])
        for source in tree.rglob("*.py"):
            os.utime(source, (SOURCE_TIME, SOURCE_TIME))
        self[commit] = tree
        return tree


@contextmanager
def work_trees(commits: Iterable[str]) -> Iterator[WorkTrees]:
    """The trees of ``commits``, and of others on demand, removed at the end of the ``with`` block.

    Raises:
        CommitError: one cannot be checked out.
    """
    with ExitStack() as stack:
        git("worktree", "prune")  # forget trees of killed runs, whose directories are gone
        trees = WorkTrees(stack)
        for commit in commits:
            _ = trees[commit]
        yield trees


def _new_directory(commit: str) -> Path:
    """The directory named after the commit, or a unique one if another run uses that."""
    own = Path(tempfile.gettempdir()) / f"mcl-tree-{commit}"
    try:
        own.mkdir(0o700)
    except OSError:
        return ownership.scratch_directory("tree")
    ownership.claim(own)
    return own


@dataclass(frozen=True)
class Baseline:
    """The commit that the gate measures against, and why it was chosen.

    ``commit`` is ``None`` where there is nothing to measure; ``why`` then gives the reason.
    """

    commit: str | None
    why: str


def baseline(wanted: str, environment: Mapping[str, str] = os.environ) -> Baseline:
    """The baseline that ``wanted`` asks for.

    Args:
        wanted: a commit as git understands it, or ``auto``: the merge base with the target branch of a pull
            request (``GITHUB_BASE_REF``), else with ``origin/main`` unless that is this commit, else this
            commit's first parent.

    Raises:
        CommitError: a commit was named that does not exist or has no forwarder.
    """
    if wanted != AUTO:
        commit = resolved(wanted, "--baseline")
        if _forwarder_of(commit) is None:
            allowed = f"a commit with a directory {PACKAGE}/"
            raise CommitError([Problem("--baseline", repr(wanted), allowed)])
        return _if_different(commit, wanted if commit.startswith(wanted) else f"{wanted}, {commit}")
    try:
        found = next(_candidates(environment), None)
    except CommitError as error:
        return Baseline(None, f"no baseline: {error}")
    if found is None:
        shallow = git("rev-parse", "--is-shallow-repository").stdout.strip() == "true"
        why = "the clone is shallow (in CI: fetch-depth: 0)" if shallow else "this commit has no parent"
        if _hash("HEAD") is None:
            why = "this is not a git repository with a commit"
        return Baseline(None, f"no baseline: {why}")
    commit, role = found
    if _forwarder_of(commit) is None:
        return Baseline(None, f"no baseline: {commit}, {role}, has no {PACKAGE}/")
    return _if_different(commit, f"{commit}, {role}")


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Commits in order of preference, each with its role."""
    head = _hash("HEAD")
    target = environment.get("GITHUB_BASE_REF")
    # A checkout in CI has remote branches only. A name that git would take for an option is ignored.
    names = [f"origin/{target}", target] if target and not target.startswith("-") else []
    for name in (*names, _MAIN):
        base = git("merge-base", "HEAD", name)
        commit = base.stdout.strip()
        if not base.returncode and commit and commit != head:
            yield commit[:HASH_LENGTH], f"merge base with {name}"
    if parent := _hash("HEAD^1"):
        yield parent[:HASH_LENGTH], "the parent of this commit"


def _if_different(commit: str, description: str) -> Baseline:
    """``commit``, unless its forwarder is the same as the present one, uncommitted changes included."""
    same = _forwarder_of(commit) == _forwarder_of("HEAD")
    if same and not git("status", "--porcelain", "--", PACKAGE).stdout.strip():
        return Baseline(None, f"{PACKAGE}/ is the same as at {description}: there is nothing to measure")
    return Baseline(commit, description)


def _forwarder_of(commit: str) -> str | None:
    """The hash of the forwarder's directory, which includes its kernels and options."""
    return _hash(f"{commit}:{PACKAGE}")


def _hash(name: str) -> str | None:
    found = git("rev-parse", "--verify", "--quiet", name)
    return None if found.returncode else found.stdout.strip()


def history(good: str, bad: str) -> list[str]:
    """The commits after ``good``, up to ``bad``, that change the forwarder, in order. A merge is one of them.

    Raises:
        CommitError: one does not exist, ``good`` does not come before ``bad``, or their forwarders are equal.
    """
    first, last = resolved(good, "--good"), resolved(bad, "--bad")
    if git("merge-base", "--is-ancestor", first, last).returncode:
        raise CommitError([Problem("--good", repr(good), f"a commit that comes before {bad}")])
    between = f"{first}..{last}"
    changing = git("rev-list", "--first-parent", "--reverse", between, "--", PACKAGE).stdout.split()
    after = set(git("rev-list", "--ancestry-path", between).stdout.split())
    commits = [commit[:HASH_LENGTH] for commit in changing if commit in after]
    if not commits or _forwarder_of(first) == _forwarder_of(last):
        raise CommitError(
            [Problem("--bad", repr(bad), f"a commit whose {PACKAGE}/ differs from that of {good}")]
        )
    return commits


def subject(commit: str) -> str:
    """The first line of a commit's message."""
    return git("log", "-1", "--format=%s", commit).stdout.strip()


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in this repository. Root may run the lab in a checkout that belongs to another user.

    Raises:
        CommitError: git is not installed.
    """
    try:
        return subprocess.run(
            ["git", "-c", f"safe.directory={REPOSITORY}", "-C", str(REPOSITORY), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except FileNotFoundError as error:
        raise CommitError([Problem("commit", "no git", "git installed: apt-get install git")]) from error
