"""The forwarder of other commits: a work tree for each, beside this one, for as long as it is wanted.

``git worktree`` shares the repository, so a tree takes a fraction of a second. What is compiled in it is
known by the path and the time of each file, which are the same whenever a commit is checked out: only its
very first start on a machine takes the half minute to compile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from forwarder.problems import Problem, ProblemsError
from lab.netns import ownership

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE_TIME = 1_000_000_000
"""Of every file, seconds since 1970: the commit says what is in it."""
HASH_LENGTH = 12
"""Of a commit's name: enough to be unique, and short enough to read."""


class TreeError(ProblemsError):
    """Commits that there are none of, or that cannot be checked out."""


def resolved(commit: str, field: str = "commit") -> str:
    """The name of a commit as git understands it (``HEAD~3``, a branch, a hash), shortened.

    ``field`` names it in messages.

    Raises:
        TreeError: there is no such commit, or this is no repository.
    """
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    if found.returncode:
        why = found.stderr.strip() or f"a commit of {REPOSITORY}"
        raise TreeError([Problem(field, repr(commit), why)])
    return found.stdout.strip()[:HASH_LENGTH]


@contextmanager
def checked_out(commits: Iterable[str]) -> Iterator[Mapping[str, Path]]:
    """A directory for each commit, removed again whatever happens in the ``with`` block.

    Raises:
        TreeError: one cannot be checked out.
    """
    trees: dict[str, Path] = {}
    with ExitStack() as stack:
        git("worktree", "prune")  # of a killed run whose directory is gone
        for commit in dict.fromkeys(commits):
            parent = _parent(resolved(commit))
            stack.callback(_remove, parent)
            parent.chmod(0o755)  # workers are nobody in particular, and import from there
            tree = parent / "tree"
            added = git("worktree", "add", "--detach", "--quiet", str(tree), commit)
            if added.returncode:
                raise TreeError([Problem("commit", repr(commit), added.stderr.strip())])
            for source in tree.rglob("*.py"):
                os.utime(source, (SOURCE_TIME, SOURCE_TIME))
            trees[commit] = tree
        yield trees


def _parent(commit: str) -> Path:
    """A new directory: the commit's own one, unless something is there, such as another run's."""
    own = Path(tempfile.gettempdir()) / f"mcl-tree-{commit}"
    try:
        own.mkdir(0o700)
    except OSError:
        return ownership.scratch_directory("tree")
    ownership.claim(own)
    return own


def _remove(parent: Path) -> None:
    shutil.rmtree(parent, ignore_errors=True)
    git("worktree", "prune")


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """git in this repository, whoever owns it: root may run the lab in a checkout of someone else.

    Raises:
        TreeError: there is no git here.
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
        raise TreeError([Problem("commit", "no git", "git installed: apt-get install git")]) from error
