"""Shared by all tests: interpreted arithmetic, and skips that nobody expected.

In CI a skipped test would be a test that silently stopped running. Where the environment sets ``CI``, a skip
is a failure, unless its reason begins with one of :data:`EXPECTED_SKIPS`: a capability that a machine may
lack without anything being wrong.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import hypothesis
import numpy as np
import pytest

EXPECTED_SKIPS = {
    "two CPUs": "steering to another CPU needs two",
    "smcroute": "smcroute is not installed",
    "a limit of processes": "no cgroup controller of processes here to set a limit with",
}
"""What a machine may lack, and how the reason of a skip for want of it begins."""

# A first example may compile for seconds, and this machine may be busy: time is never what a test is about.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


@pytest.fixture(autouse=True)
def _hash_arithmetic_wraps() -> Iterator[None]:
    """Multiplicative hashing wraps at 64 bits. Compiled code just does; numpy scalars would warn of it."""
    if INTERPRETED:
        with np.errstate(over="ignore"):
            yield
    else:
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_unexpected(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module may also skip itself while it is collected (``importorskip``)."""
    report = yield
    _refuse_unexpected(report)
    return report


def _refuse_unexpected(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(tuple(EXPECTED_SKIPS.values())):
        report.outcome = "failed"
        report.longrepr = f"unexpected skip: {reason!r}; expected for want of: {', '.join(EXPECTED_SKIPS)}"
