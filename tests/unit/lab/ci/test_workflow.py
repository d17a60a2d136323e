"""The workflow file: what it runs is what the README and ``.ci/run`` run, with what that needs."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from paths import ROOT
from typer.main import get_command

from lab.cli.main import app

FILE = ROOT / ".github" / "workflows" / "ci.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return document


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_it_may_change_nothing_ends_in_time_and_pins_the_actions_it_uses(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 45
        assert all(step["uses"].partition("@")[2] for step in job["steps"] if "uses" in step)


def test_it_runs_what_the_readme_says(workflow: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text()
    run = [command for job in workflow["jobs"].values() for command in commands(job)]
    for session in ("lint types", "tests", "scenarios"):
        assert f"nox -s {session}" in readme
        assert any(f"-s {session}" in command and "nox" in command for command in run), session
    (line,) = (line for line in readme.splitlines() if line.startswith("apt-get install -y "))
    # Of Ubuntu there is no such package, and the machines of GitHub have Google Chrome.
    prerequisites = set(line.split()) - {"chromium"}
    for job in workflow["jobs"].values():
        (install,) = (command for command in commands(job) if "apt-get install" in command)
        assert prerequisites <= set(install.split())


def test_the_gate_can_see_the_base_and_its_outcome_is_kept(workflow: dict[str, Any]) -> None:
    job = workflow["jobs"]["scenarios"]
    checkout, *_ = job["steps"]
    assert checkout["with"]["fetch-depth"] == 0
    (scenarios,) = (command for command in commands(job) if "-s scenarios" in command)
    for variable in ("GITHUB_BASE_REF", "GITHUB_STEP_SUMMARY"):
        assert variable in scenarios.partition("nox")[0], "sudo hands on what is named only"
    known = {name for parameter in get_command(app).commands["run"].params for name in parameter.opts}
    words = scenarios.partition(" -- ")[2].split()
    options = [word for word in words if word.startswith("--")]
    assert options == ["--out", "--junit"]
    assert set(options) <= known
    (upload,) = (step for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    assert upload["if"] == "${{ !cancelled() }}", "a failed run's report is the one that is wanted"
    for option in options:
        assert words[words.index(option) + 1] in upload["with"]["path"].split()
