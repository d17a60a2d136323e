"""A run as JUnit XML: a test case for each step and each check. Pure, but for :func:`write`.

A step's duration, failures and records come from the run's journal. An aim that was not reached is a skipped
test case. A step without a conclusion, one that an interrupt left undone, and a subject that is not on this
machine are skipped test cases, with the reason.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from lab.analysis.compare import describe
from lab.journal.archive import Done
from lab.results import Check, Comparison, RunEnded

Result = Literal["passed", "failed", "error", "skipped"]
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids, and that the output of a failed program may contain."""


@dataclass(frozen=True)
class Case:
    """One test case. ``seconds`` is ``None`` for a check, whose time is part of its step's, or if unknown."""

    suite: str
    name: str
    result: Result
    text: str = ""
    """Why it failed or was skipped, otherwise its outcome."""
    seconds: float | None = None


def cases(planned: Sequence[str], done: Iterable[Done], ended: RunEnded) -> list[Case]:
    """The test cases of a run.

    Args:
        planned: the ids of its steps, in order.
        ended: its last record. A sentence about a step that was given up begins with the step's id.
    """
    finished = {each.mark.step: each for each in done if each.mark.finished}
    broken, undecided = _by_step(planned, ended.failures), _by_step(planned, ended.inconclusive)
    made: list[Case] = []
    for step in planned:
        if step in finished:
            made += _finished(finished[step])
        elif step in broken:
            made.append(Case(_suite(step), _short(step), "error", broken[step]))
        else:
            interrupted = "not done: the run was interrupted"
            why = f"no conclusion: {undecided[step]}" if step in undecided else interrupted
            made.append(Case(_suite(step), _short(step), "skipped", why))
    for text in ended.skipped:
        name, _, why = text.partition(": ")
        made.append(Case("subjects", name, "skipped", why))
    return made


def _finished(done: Done) -> Iterator[Case]:
    step, failures = done.mark.step, list(done.mark.failures)
    for record in done.records:
        if isinstance(record, Check):
            text = record.outcome
            # The check is a test case of its own, so its step does not repeat the failure.
            failures = [failure for failure in failures if not failure.endswith(text)]
            name = f"{record.case}: {record.expected}{' (an aim)' if record.aim else ''}"
            missed: Result = "skipped" if record.aim else "failed"
            yield Case(_suite(step), name, "passed" if record.passed else missed, text)
    outcome = "\n".join(describe(record) for record in done.records if isinstance(record, Comparison))
    result: Result = "failed" if failures else "passed"
    yield Case(_suite(step), _short(step), result, "\n".join(failures) or outcome, done.mark.seconds)


def _by_step(planned: Iterable[str], sentences: Iterable[str]) -> Mapping[str, str]:
    found = {}
    for sentence in sentences:
        for step in planned:
            if sentence.startswith(f"{step}: "):
                found[step] = sentence.removeprefix(f"{step}: ")
    return found


def _suite(step: str) -> str:
    return step.partition("/")[0]


def _short(step: str) -> str:
    return step.partition("/")[2] or step


def document(made: Iterable[Case], started_at: str) -> JUnitXml:
    """The document, with a suite for each scenario; ``started_at`` is ISO 8601."""
    suites: dict[str, TestSuite] = {}
    for case in made:
        suite = suites.setdefault(case.suite, TestSuite(case.suite))
        suite.timestamp = started_at
        item = TestCase(_legal(case.name), f"mcastlab.{case.suite}", case.seconds)
        text = _legal(case.text)
        if case.result == "passed" and text:
            item.system_out = text
        elif case.result != "passed":
            kind = {"failed": Failure, "error": Error, "skipped": Skipped}[case.result]
            outcome = kind(text.partition("\n")[0])
            outcome.text = text
            item.result = [outcome]
        suite.add_testcase(item)
    xml = JUnitXml("mcastlab")
    for suite in suites.values():
        xml.add_testsuite(suite)
    return xml


def _legal(text: str) -> str:
    return _NOT_XML.sub("�", text)


def write(path: Path, made: Iterable[Case], started_at: str) -> None:
    """Write the document to ``path``. Raises OSError."""
    document(made, started_at).write(str(path), pretty=True)
