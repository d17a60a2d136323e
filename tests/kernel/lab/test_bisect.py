"""Bisection of a history of five commits, whose forwarders really run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.results import Comparison, Trial, read_results

ROOT = Path(__file__).resolve().parents[3]
LAB = """
import sys
from pathlib import Path
from lab.run import commits
commits.REPOSITORY = Path(sys.argv.pop(1))
from lab.cli.main import main
main()
"""
PROJECT = '[project]\nscripts = { mcrd = "forwarder.start:main" }\n'
START = f"""
import os, sys
from pathlib import Path

def main():
    before()
    os.environ["PYTHONPATH"] = {str(ROOT)!r}
    os.execv(Path(sys.executable).with_name("mcrd"), ["mcrd", *sys.argv[1:], *MORE])
"""
"""The forwarder of this checkout, as it is compiled already, with what a commit does before."""
NOTHING = "MORE = []\ndef before(): pass\n"
BROKEN = "MORE = []\ndef before(): sys.exit('nothing to start')\n"
SLOW = "MORE = ['--no-coalesce']\ndef before(): pass\n"
"""With eight outputs, a copy costs three times as much when each datagram leaves by itself."""


def git(repository: Path, *arguments: str) -> str:
    names = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ["git", *names, *arguments], cwd=repository, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def committed(repository: Path, subject: str, before: str) -> str:
    """``subject`` makes each forwarder another one."""
    (repository / "forwarder").mkdir(exist_ok=True)
    (repository / "forwarder" / "__init__.py").touch()
    (repository / "forwarder" / "start.py").write_text(f"# {subject}\n{START}\n{before}")
    (repository / "pyproject.toml").write_text(PROJECT)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", subject)
    return git(repository, "rev-parse", "HEAD")[:12]


def bisected(repository: Path, *arguments: str) -> tuple[int, dict[str, object]]:
    lab = subprocess.run(
        [sys.executable, "-P", "-c", LAB, str(repository), "bisect", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert lab.returncode in (0, 1), lab.stderr
    document: dict[str, object] = json.loads(lab.stdout)
    return lab.returncode, document


@pytest.mark.serial
def test_the_commit_that_made_the_forwarder_slower_is_found(tmp_path: Path) -> None:
    repository, out = tmp_path / "repository", tmp_path / "out"
    repository.mkdir()
    git(repository, "init", "--quiet")
    contents = {
        "first": NOTHING, "second": NOTHING, "broken": BROKEN, "third": NOTHING, "slower": SLOW, "last": SLOW
    }  # fmt: skip
    commits = {subject: committed(repository, subject, before) for subject, before in contents.items()}
    asked = ("--good", commits["first"], "--bad", "HEAD", "--metric", "delivered", "--case", "outputs=8")
    status, found = bisected(repository, *asked, "--out", str(out))
    assert (status, found["commit"]) == (0, commits["slower"]), found
    assert found["commits"] == [{"commit": commits["slower"], "subject": "slower"}]
    assert found["skipped"] == [commits["broken"]]
    assert found["undecided"] == found["failures"] == found["inconclusive"] == []
    assert isinstance(found["high"], float)
    assert found["high"] < 0.8
    assert f"compare commit={commits['slower']} 'commit={commits['slower']}~1'" in str(found["confirm"])
    records = list(read_results(out / "results.jsonl"))
    assert sum(isinstance(record, Comparison) for record in records) == 3
    assert not git(repository, "worktree", "list", "--porcelain").count("mcl-tree")

    # Nothing that is done is done again.
    status, again = bisected(repository, "--resume", str(out))
    assert (status, again["commit"], again["high"]) == (0, found["commit"], found["high"])
    repeated = [record for record in read_results(out / "results.jsonl") if isinstance(record, Trial)]
    assert repeated == [record for record in records if isinstance(record, Trial)]
