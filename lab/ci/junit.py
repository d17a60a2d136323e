"""A run as JUnit XML: a test case for each step, check and comparison. Pure, but for :func:`write`.

What a step did is in the run's journal: its time, its failures, and which of the results are its own. A step
without a conclusion, one that an interruption left undone, and a subject that is not on this machine are
skipped test cases, each with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from lab.analysis.compare import describe
from lab.journal.archive import Done
from lab.results import Check, Comparison

Result = Literal["passed", "failed", "error", "skipped"]
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 file may hold; a program's last words may."""


@dataclass(frozen=True)
class Case:
    """One test case. ``seconds`` is ``None`` where the time is not known, or is that of another one."""

    suite: str
    name: str
    result: Result
    text: str = ""
    """Why it failed or was skipped; what came out of it otherwise."""
    seconds: float | None = None


def cases(
    planned: Sequence[str],
    done: Iterable[Done],
    failures: Sequence[str],
    inconclusive: Sequence[str],
    skipped: Sequence[str],
) -> list[Case]:
    """The test cases of a run.

    Args:
        planned: the ids of its steps, in order.
        failures, inconclusive, skipped: the sentences of its last record. One of a step that was given up
            begins with the step's id.
    """
    finished = {each.mark.step: each for each in done if each.mark.finished}
    broken, open_ended = _by_step(planned, failures), _by_step(planned, inconclusive)
    made: list[Case] = []
    for step in planned:
        if step in finished:
            made += _finished(finished[step])
        elif step in broken:
            made.append(Case(_suite(step), _short(step), "error", broken[step]))
        elif step in open_ended:
            made.append(Case(_suite(step), _short(step), "skipped", f"no conclusion: {open_ended[step]}"))
        else:
            made.append(Case(_suite(step), _short(step), "skipped", "not done: the run was interrupted"))
    for text in skipped:
        name, _, why = text.partition(": ")
        made.append(Case("subjects", name, "skipped", why))
    return made


def _finished(done: Done) -> Iterator[Case]:
    step, failures = done.mark.step, list(done.mark.failures)
    for record in done.records:
        if isinstance(record, Check):
            text = f"expected {record.expected}, observed {record.observed}"
            # Told by the check itself, so not once more by its step.
            failures = [failure for failure in failures if not failure.endswith(text)]
            name = f"{record.case}: {record.expected}"
            yield Case(_suite(step), name, "passed" if record.passed else "failed", text)
    came_out = "\n".join(describe(record) for record in done.records if isinstance(record, Comparison))
    result: Result = "failed" if failures else "passed"
    yield Case(_suite(step), _short(step), result, "\n".join(failures) or came_out, done.mark.seconds)


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
    """The document: a suite for each scenario, all begun when the run was (ISO 8601)."""
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
            told = kind(text.partition("\n")[0])
            told.text = text
            item.result = [told]
        suite.add_testcase(item)
    xml = JUnitXml("mcastlab")
    for suite in suites.values():
        xml.add_testsuite(suite)
    return xml


def _legal(text: str) -> str:
    return _NOT_XML.sub("�", text)


def write(path: Path, made: Iterable[Case], started_at: str) -> None:
    """Write the document of ``made``. Raises OSError."""
    document(made, started_at).write(str(path), pretty=True)
