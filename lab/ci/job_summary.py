"""A run for the summary page of a CI job: Markdown, what matters first. Pure, but for :func:`append`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.results import AnyRecord, Check, Comparison, Trial

VARIABLE = "GITHUB_STEP_SUMMARY"
MOST_BYTES = 900_000
"""GitHub takes 1 MiB from one step, and nothing at all of more."""
MOST_FAILURES = 50


def markdown(
    records: Sequence[AnyRecord],
    outcome: str,
    failures: Sequence[str],
    inconclusive: Sequence[str],
    skipped: Sequence[str],
    report: str,
) -> str:
    """The summary.

    Args:
        report: the report as Markdown: its first section becomes a part of this.
    """
    trials = [record for record in records if isinstance(record, Trial)]
    checks = [record for record in records if isinstance(record, Check)]
    unbalanced = sum(not trial.ledger.balanced for trial in trials)
    passed = sum(check.passed for check in checks)
    lines = [
        f"## mcastlab: {outcome}",
        "",
        f"{len(trials):,} trials, {unbalanced} do not balance; {passed} of {len(checks)} checks passed.",
    ]
    lines += _listed("Failures", failures)
    comparisons = [record for record in records if isinstance(record, Comparison)]
    if comparisons:
        lines += [
            "",
            "### Comparisons",
            "",
            "| case | metric | ratio | interval | verdict |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(record) for record in comparisons]
    lines += _listed("Without a conclusion", inconclusive)
    lines += _listed("Left out", skipped)
    if section := first_section(report):
        lines += ["", "<details><summary>From the report</summary>", "", section, "", "</details>"]
    return _fitting("\n".join(lines)) + "\n"


def _row(record: Comparison) -> str:
    cells = (
        f"{record.scenario}: {record.case}",
        f"{record.metric}, {record.a} / {record.b}",
        f"{record.ratio:.3f}",
        f"{record.low:.3f} to {record.high:.3f}",
        record.verdict or "undecided",
    )
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    """One line, in which nothing is markup: what a program said may hold anything."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\`*_[]":
        text = text.replace(mark, f"\\{mark}")
    return text


def _listed(title: str, sentences: Sequence[str]) -> list[str]:
    if not sentences:
        return []
    more = len(sentences) - MOST_FAILURES
    rest = [f"- … and {more:,} more: see the report"] if more > 0 else []
    return ["", f"### {title}", "", *(f"- {_line(text)}" for text in sentences[:MOST_FAILURES]), *rest]


def first_section(report: str) -> str:
    """What stands under the first heading of the second level, without the heading; empty without one."""
    _, found, rest = report.partition("\n## ")
    return rest.partition("\n## ")[0].partition("\n")[2].strip() if found else ""


def _fitting(text: str) -> str:
    if len(text.encode()) <= MOST_BYTES:
        return text
    return text.encode()[:MOST_BYTES].decode(errors="ignore") + "\n\n… cut off: see the report"


def append(path: Path, text: str) -> None:
    """Add to what other steps of the job have said. Raises OSError."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
