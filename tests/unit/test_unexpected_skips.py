"""Skips are failures in CI, but for those that name a capability which may be missing."""

from __future__ import annotations

import pytest
from paths import TESTS

pytest_plugins = ["pytester"]

CONFTEST = TESTS / "conftest.py"

TESTS = """
import pytest

@pytest.mark.skip(reason="some day")
def test_marked():
    pass

def test_on_its_way():
    pytest.skip("changed its mind")

def test_for_want_of_a_capability():
    pytest.skip("smcroute is not installed")

@pytest.mark.xfail(reason="known", strict=True)
def test_known_to_fail():
    assert False
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(TESTS)
    return pytester


def test_in_ci_an_unexpected_skip_fails(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    result = project.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(skipped=1, xfailed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines_random(
        ["*unexpected skip: 'some day'*", "*unexpected skip: 'changed its mind'*"]
    )


def test_in_ci_a_module_that_skips_itself_fails(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "1")
    project.makepyfile(test_other="import pytest; pytest.importorskip('no_such_module')")
    result = project.runpytest_inprocess("-p", "no:cacheprovider", "test_other.py")
    result.assert_outcomes(errors=1)


def test_elsewhere_a_skip_is_a_skip(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    result = project.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(skipped=3, xfailed=1)
