"""What is done with this project, each in an environment of its own: ``nox -s NAME [-- ARGUMENTS]``.

``scenarios`` alone is the default. Arguments after ``--`` go to the program that the session is about.
"""

from __future__ import annotations

from datetime import UTC, datetime

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["scenarios"]

PROJECT = nox.project.load_toml("pyproject.toml")

MODEL = ("capacity", "pipelines", "strategies", "table-row")
"""Scenarios that the shipped capacity model is fitted to."""

PACKET_TESTS = ("tests/unit/forwarder/engines", "tests/property/forwarder/engines")
PACKET_COVERAGE_PERCENT = 85


def install(session: nox.Session, *groups: str) -> None:
    """The project, so that edits count at once, and what these dependency groups name."""
    # pip compiles what it installs, uv only when told to. Every process of the lab starts from these files,
    # and where PYTHONDONTWRITEBYTECODE is set, each of them would compile numba and scipy anew: two seconds.
    session.install(
        "-e", ".", *nox.project.dependency_groups(PROJECT, *groups), env={"UV_COMPILE_BYTECODE": "1"}
    )


@nox.session
def scenarios(session: nox.Session) -> None:
    """Run the quick scenarios to a report, and the gate; arguments go to ``mcastlab run``."""
    install(session)
    session.run("mcastlab", "doctor")
    # A resumed run has its gate from its beginning. Of two baselines the last one counts: what is asked for.
    resumed = any(argument.partition("=")[0] == "--resume" for argument in session.posargs)
    gate = () if resumed else ("--baseline", "auto")
    session.run("mcastlab", "run", *gate, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Print speed and memory as ratios within one run; arguments go to ``mcastlab run``."""
    install(session)
    session.run("mcastlab", "doctor")
    session.run("mcastlab", "run", "bench", "bench-strategies", "instrument", *session.posargs)


@nox.session
def model(session: nox.Session) -> None:
    """Measure costs, contention and memory, and fit the shipped capacity model to them.

    Arguments go to ``mcastlab run``.
    """
    install(session)
    directory = f"reports/out/model-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    # A promise that was missed on the way is no reason not to fit what was measured.
    session.run(
        "mcastlab", "run", *MODEL, "--out", directory, *session.posargs, success_codes=[0, 1]
    )  # fmt: skip
    session.run("mcastlab", "model", directory, "--out", "reports/capacity/models/default.json")


@nox.session
def tests(session: nox.Session) -> None:
    """Tests in parallel, but for kernel tests that need the machine; packet kernels interpreted for coverage.

    With arguments, just ``pytest`` with these.
    """
    install(session, "test")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.run("pytest", "-n", "logical", "--dist", "worksteal", "--ignore", "tests/kernel")
    session.run("pytest", "-n", "3", "--dist", "worksteal", "-m", "not serial", "tests/kernel")
    session.run("pytest", "-m", "serial", "tests/kernel")
    # numba's machine code is invisible to coverage, so the same tests run the same functions as Python.
    session.run(
        "coverage", "run", "-m", "pytest", "-n", "logical", "--dist", "worksteal", *PACKET_TESTS,
        env={"NUMBA_DISABLE_JIT": "1"},
    )  # fmt: skip
    session.run("coverage", "combine", "--quiet")
    session.run(
        "coverage",
        "report",
        "--include",
        "forwarder/engines/packet/*",
        "--fail-under",
        str(PACKET_COVERAGE_PERCENT),
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format, and who imports whom."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    install(session, "types")
    session.run("mypy", *session.posargs)
