"""Which commit the gate measures against, and whether there is anything to measure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from forwarder.problems import Problem
from lab.run.work_trees import HASH_LENGTH, TreeError, git, resolved

AUTO, OFF = "auto", "none"
PACKAGE = "forwarder"
_MAIN = "origin/main"


@dataclass(frozen=True)
class Baseline:
    """``commit`` is ``None`` where there is nothing to measure; ``why`` says what it is, or why none."""

    commit: str | None
    why: str


def choose(wanted: str, environment: Mapping[str, str] = os.environ) -> Baseline:
    """The commit that ``wanted`` stands for.

    Args:
        wanted: a commit as git understands it, or ``auto``: the merge base with the branch that a pull
            request is for (``GITHUB_BASE_REF``), else with ``origin/main`` unless that is this commit, else
            this commit's first parent.

    Raises:
        TreeError: a commit was named and there is none, or it has no forwarder.
    """
    if wanted != AUTO:
        commit = resolved(wanted, "--baseline")
        if _tree(commit) is None:
            allowed = f"a commit with a directory {PACKAGE}/"
            raise TreeError([Problem("--baseline", repr(wanted), allowed)])
        return _compared(commit, wanted if commit.startswith(wanted) else f"{wanted}, {commit}")
    try:
        found = next(_candidates(environment), None)
    except TreeError as error:
        return Baseline(None, f"no baseline: {error}")
    if found is None:
        shallow = git("rev-parse", "--is-shallow-repository").stdout.strip() == "true"
        why = "the clone is shallow (in CI: fetch-depth: 0)" if shallow else "this commit has no parent"
        if git("rev-parse", "--verify", "--quiet", "HEAD").returncode:
            why = "this is no git repository with a commit"
        return Baseline(None, f"no baseline: {why}")
    commit, words = found
    if _tree(commit) is None:
        return Baseline(None, f"no baseline: {commit}, {words}, has no {PACKAGE}/")
    return _compared(commit, f"{commit}, {words}")


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Commits in the order in which they are wanted, each with what it is."""
    head = git("rev-parse", "--verify", "--quiet", "HEAD").stdout.strip()
    target = environment.get("GITHUB_BASE_REF")
    # A checkout in CI has branches of the remote only; a name that git would take for an option is none.
    names = [f"origin/{target}", target] if target and not target.startswith("-") else []
    for name in (*names, _MAIN):
        base = git("merge-base", "HEAD", name)
        commit = base.stdout.strip()
        if not base.returncode and commit and commit != head:
            yield commit[:HASH_LENGTH], f"merge base with {name}"
    parent = git("rev-parse", "--verify", "--quiet", "HEAD^1")
    if not parent.returncode:
        yield parent.stdout.strip()[:HASH_LENGTH], "the parent of this commit"


def _compared(commit: str, words: str) -> Baseline:
    """With nothing to measure where the forwarder is the same, also what has not been committed."""
    if _tree(commit) == _tree("HEAD") and not git("status", "--porcelain", "--", PACKAGE).stdout.strip():
        return Baseline(None, f"{PACKAGE}/ is the same as at {words}: there is nothing to measure")
    return Baseline(commit, words)


def _tree(commit: str) -> str | None:
    """git's name for what the forwarder consists of: kernels and options are in there."""
    found = git("rev-parse", "--verify", "--quiet", f"{commit}:{PACKAGE}")
    return None if found.returncode else found.stdout.strip()
