"""A run as JUnit XML and as a job's summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped
from record_support import STARTED_AT, comparison_record

from lab.ci import job_summary
from lab.ci.junit import cases, write
from lab.journal.archive import Archive, Done, Mark, steps_done
from lab.results import AnyRecord, Check, Comparison, RunEnded

BAD = "expected 2 copies, observed 1 <copy> & \x1b[31mred"


def check(case: str, passed: bool) -> Check:
    return Check(
        scenario="functional",
        case=case,
        passed=passed,
        expected="2 copies",
        observed="2 copies" if passed else "1 <copy> & \x1b[31mred",
    )


def comparison(ratio: float = 1.25) -> Comparison:
    return comparison_record(
        ratio,
        case="1→1 | a",
        metric="CPU per copy",
        higher_is_better=False,
        verdict="worse",
        low=1.2,
        high=1.3,
    )


def done(step: str, *records: AnyRecord, failures: Sequence[str] = (), seconds: float = 1.5) -> Done:
    mark = Mark(step=step, start=0, end=0, failures=list(failures), seconds=seconds)
    return Done(mark, records)


def ended(
    failures: Sequence[str] = (), inconclusive: Sequence[str] = (), skipped: Sequence[str] = ()
) -> RunEnded:
    return RunEnded(
        ended_at="",
        outcome="failed" if failures else "passed",
        failures=list(failures),
        inconclusive=list(inconclusive),
        skipped=list(skipped),
    )


PLANNED = ["functional/checks", "gate/1→1/cpu", "gate/1→8/search", "soak/x/soak-1", "later/x"]
STEPS = [
    done("(start)"),
    done("functional/checks", check("one", True), check("two", False), failures=[f"two: {BAD}"], seconds=4.0),
    done("gate/1→1/cpu", comparison(), failures=["gate/1→1/cpu: too slow"]),
]
FAILURES = [f"two: {BAD}", "gate/1→1/cpu: too slow", "gate/1→8/search: mcrd: exited 1: no ring"]


def test_every_step_check_and_comparison_is_a_test_case(tmp_path: Path) -> None:
    made = cases(
        PLANNED, STEPS, ended(FAILURES, ["soak/x/soak-1: too noisy"], ["socat in soak: not installed"])
    )
    file = tmp_path / "junit.xml"
    write(file, made, STARTED_AT)
    read = {(suite.name, case.name): case for suite in JUnitXml.fromfile(str(file)) for case in suite}
    told = {
        name: (type(case.result[0]), case.result[0].text) if case.result else None
        for (_, name), case in read.items()
    }
    red = BAD.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert told == {
        "one: 2 copies": None,
        "two: 2 copies": (Failure, red),
        "checks": None,  # the check has said it
        "1→1/cpu": (Failure, "gate/1→1/cpu: too slow"),
        "1→8/search": (Error, "mcrd: exited 1: no ring"),
        "x/soak-1": (Skipped, "no conclusion: too noisy"),
        "x": (Skipped, "not done: the run was interrupted"),
        "socat in soak": (Skipped, "not installed"),
    }
    assert read["functional", "checks"].time == 4.0
    whole = JUnitXml.fromfile(str(file))
    assert (whole.tests, whole.failures, whole.errors, whole.skipped) == (8, 2, 1, 3)
    assert {suite.timestamp for suite in whole} == {STARTED_AT}


def test_an_aim_that_is_not_reached_is_a_skipped_test_case_and_a_line_of_the_summary() -> None:
    aims = [
        check(name, passed).model_copy(update={"aim": True}) for name, passed in (("a", True), ("b", False))
    ]
    made = cases(["functional/checks"], [done("functional/checks", *aims)], ended())
    assert [(case.name, case.result) for case in made] == [
        ("a: 2 copies (an aim)", "passed"),
        ("b: 2 copies (an aim)", "skipped"),
        ("checks", "passed"),
    ]
    text = job_summary.markdown(aims, ended(), "")
    assert "0 of 0 checks passed" in text
    assert "- reached: functional, a: expected 2 copies; observed 2 copies" in text
    assert "- not reached: functional, b: expected 2 copies" in text


def test_what_came_out_of_a_step_is_kept() -> None:
    (made,) = cases(["gate/x"], [done("gate/x", comparison())], ended())
    assert made.result == "passed"
    assert "1.25 (1.20 to 1.30)" in made.text


def test_steps_and_what_they_wrote_come_from_the_journal(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "run") as archive:
        archive.begin()
        archive.write(check("one", True))
        archive.finish("functional/checks", [], 1.0)
        archive.begin()
        archive.write(comparison())
        archive.give_up("gate/x")
        archive.begin()
        archive.write(comparison(1.24))
        archive.finish("gate/x", ["slow"], 2.0)
    found = steps_done(tmp_path / "run")
    assert [(d.mark.step, d.mark.finished, d.mark.seconds) for d in found] == [
        ("functional/checks", True, 1.0),
        ("gate/x", False, None),
        ("gate/x", True, 2.0),
    ]
    assert [[type(record) for record in each.records] for each in found] == [
        [Check],
        [Comparison],
        [Comparison],
    ]
    made = cases(["functional/checks", "gate/x"], found, ended(["slow"]))
    assert [(case.name, case.result) for case in made] == [
        ("one: 2 copies", "passed"),
        ("checks", "passed"),
        ("x", "failed"),
    ]


REPORT = "# Title\n\nWhen\n\n## Summary\n\n- **Passed.** All of it.\n\n## Method\n\nLong.\n"


def test_the_summary_of_a_job_says_what_matters_first(tmp_path: Path) -> None:
    records = [check("one", True), check("two", False), comparison()]
    text = job_summary.markdown(records, ended(FAILURES, ["a: noisy"], ["socat: gone"]), REPORT)
    assert text.startswith("## mcastlab: failed\n")
    assert "1 of 2 checks passed" in text
    order = [text.index(part) for part in ("Failures", "Comparisons", "Without a", "Left out", "All of it")]
    assert order == sorted(order)
    assert "| gate: 1→1 \\| a | CPU per copy, mcrd / kernel | 1.250 | 1.200 to 1.300 | worse |" in text
    assert "&lt;copy> &amp;" in text, "what a program said is no markup"
    assert "Long." not in text
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    job_summary.append(file, text)
    assert file.read_text() == "before\n" + text


def test_a_summary_is_never_larger_than_is_taken() -> None:
    text = job_summary.markdown([], ended(["é" * 1_000_000]), "")
    assert len(text.encode()) < 1 << 20
    assert "cut off" in text
    many = job_summary.markdown([], ended([f"number {n}" for n in range(60)]), "")
    assert "… and 10 more" in many


def test_a_report_without_sections_adds_nothing() -> None:
    assert job_summary.first_section("no headings") == ""
    assert "details" not in job_summary.markdown([], ended(), "no headings")
