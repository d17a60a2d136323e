"""A run as Markdown for the summary page of a CI job. Pure, but for :func:`append`."""

from collections.abc import Sequence
from pathlib import Path

from lab.results import AnyRecord, Check, Comparison, RunEnded, Trial

VARIABLE = "GITHUB_STEP_SUMMARY"
MOST_BYTES = 900_000
"""GitHub refuses a summary of more than 1 MiB."""
MOST_SENTENCES = 50
"""Shown under one heading."""


def markdown(records: Sequence[AnyRecord], ended: RunEnded, report: str) -> str:
    """The summary of a run, the most important first.

    Args:
        report: the report as Markdown, of which the first section is included.
    """
    trials = [record for record in records if isinstance(record, Trial)]
    checks = [record for record in records if isinstance(record, Check) and not record.aim]
    aims = [record for record in records if isinstance(record, Check) and record.aim]
    comparisons = [record for record in records if isinstance(record, Comparison)]
    unbalanced = sum(not trial.ledger.balanced for trial in trials)
    passed = sum(check.passed for check in checks)
    lines = [
        f"## mcastlab: {ended.outcome}",
        "",
        f"{len(trials):,} trials, {unbalanced} do not balance; {passed} of {len(checks)} checks passed.",
    ]
    lines += _listed("Failures", ended.failures)
    if comparisons:
        lines += ["", "### Comparisons", ""]
        lines += ["| case | metric | ratio | interval | verdict |", "|---|---|---|---|---|"]
        lines += [_row(record) for record in comparisons]
    lines += _listed("Aims", [f"{'' if one.passed else 'not '}reached: {one.text}" for one in aims])
    lines += _listed("Without a conclusion", ended.inconclusive)
    lines += _listed("Left out", ended.skipped)
    if section := first_section(report):
        lines += ["", "<details><summary>From the report</summary>", "", section, "", "</details>"]
    return _shortened("\n".join(lines)) + "\n"


def _row(record: Comparison) -> str:
    cells = (
        f"{record.scenario}: {record.case}",
        f"{record.figure}, {record.a} / {record.b}",
        f"{record.ratio:.3f}",
        f"{record.low:.3f} to {record.high:.3f}",
        record.verdict or "undecided",
    )
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    """One line without markup, as the text may contain what a program printed."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\`*_[]":
        text = text.replace(mark, f"\\{mark}")
    return text


def _listed(title: str, sentences: Sequence[str]) -> list[str]:
    if not sentences:
        return []
    more = len(sentences) - MOST_SENTENCES
    rest = [f"- … and {more:,} more: see the report"] if more > 0 else []
    return ["", f"### {title}", "", *(f"- {_line(text)}" for text in sentences[:MOST_SENTENCES]), *rest]


def first_section(report: str) -> str:
    """The text under the first heading of the second level; empty if there is none."""
    _, found, rest = report.partition("\n## ")
    return rest.partition("\n## ")[0].partition("\n")[2].strip() if found else ""


def _shortened(text: str) -> str:
    if len(text.encode()) <= MOST_BYTES:
        return text
    return text.encode()[:MOST_BYTES].decode(errors="ignore") + "\n\n… cut off: see the report"


def append(path: Path, text: str) -> None:
    """Add to the summary that other steps of the job wrote. Raises OSError."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
