"""Tables of the functional checks, of every trial's ledger, and of what ran on what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter

from lab.results import Check, Drop, Frames, Stage, Trial
from reports import labels, quantity, verdicts
from reports.collapse import ROWS_SHOWN, by_scenario
from reports.dataset import Dataset, grouped
from reports.frames import provenance_rows
from reports.model import Cell, Column, Table
from reports.tables.build import CASE, Columns, number, table, word

CHECKS: Columns[Check] = [
    (Column("Check"), lambda c: c.case),
    (word("Outcome"), lambda c: Cell("passed", tone="good") if c.passed else Cell("FAILED", tone="bad")),
    (Column("Expected"), lambda c: c.expected),
    (Column("Observed"), lambda c: _with_frames(Cell(c.observed), c.frames)),
]


def checks(data: Dataset) -> list[Table]:
    """One table a scenario, failed checks first; where there are many, scenarios without any are folded."""
    tables = []
    known = verdicts.checks(data)
    for scenario, found in by_scenario(known, lambda check: check.scenario, most=0):
        met = sum(check.passed for check in found)
        outcome = f"{scenario}: {met} of {quantity.plural(len(found), 'check')} passed"
        folded = outcome if met == len(found) and len(known) > ROWS_SHOWN else ""
        ordered = sorted(found, key=lambda check: check.passed)
        tables += table(f"checks-{scenario}", outcome, CHECKS, ordered, folded=folded)
    return sorted(tables, key=lambda each: bool(each.folded))


TRIALS_LISTED = 40
"""A scenario with more trials than this lists those that need a look, and adds up the others."""


def ledgers(data: Dataset) -> list[Table]:
    """One table a scenario, one row a trial; of many trials, similar ones that are balanced share a row."""

    def case(group: list[Trial]) -> Cell:
        return Cell(labels.case_name(data, group[0]), labels.egress(group[0].setting))

    def offered(group: list[Trial]) -> Cell:
        return Cell(quantity.count(_sum(group, "ingress").entered), doubts=verdicts.counted_doubts(group))

    places = "by place and reason"
    columns: Columns[list[Trial]] = [
        (CASE, case),
        (Column("Trial"), _name),
        (Column("Subject"), lambda group: labels.subject_with_receive(group[0])),
        (number("Offered", "datagrams"), offered),
        (number("Matched a rule", "datagrams"), lambda group: _sum(group, "ingress").left),
        (
            Column("Dropped before a rule", f"datagrams, {places}"),
            lambda group: _drops(_sum(group, "ingress")),
        ),
        (number("Copies due", "copies"), lambda group: _sum(group, "egress").entered),
        (number("Delivered", "copies"), lambda group: _sum(group, "egress").left),
        (Column("Dropped after a rule", f"copies, {places}"), lambda group: _drops(_sum(group, "egress"))),
        (Column("Balance"), _balance),
    ]
    tables = []
    for scenario, trials in by_scenario(data.trials, lambda t: t.scenario, most=0):
        unbalanced = sum(not t.ledger.balanced for t in trials)
        state = f"{unbalanced} not balanced" if unbalanced else "all balanced"
        lost = sum(d.count for t in trials for s in (t.ledger.ingress, t.ledger.egress) for d in s.drops)
        number_of = quantity.plural(len(trials), "trial")
        summary = f"{scenario}: {number_of}, {state}, {lost:,} drops accounted for"
        name, caption = f"ledger-{scenario}", f"Ledger of {scenario}"
        tables += table(name, caption, columns, _groups(trials), folded=summary)
    return tables


def _groups(trials: Sequence[Trial]) -> list[list[Trial]]:
    """One trial each, or many of one case, subject and purpose that are balanced and have the same doubts."""

    def alike(t: Trial) -> object:
        if len(trials) <= TRIALS_LISTED or not t.ledger.balanced:
            return t.trial_id
        doubts = tuple(map(verdicts.without_numbers, verdicts.trial_doubts(t)))
        return t.case, t.subject, t.setting.receive, t.setting.egress, t.purpose, doubts

    return list(grouped(trials, alike).values())


def _name(group: list[Trial]) -> Cell:
    t = group[0]
    if len(group) > 1:
        rates = [one.offered_dps for one in group]
        between = f"{quantity.rate(min(rates))} to {quantity.rate(max(rates))} datagrams/s"
        return Cell(quantity.plural(len(group), "trial"), f"{t.purpose}, {between}")
    aim = "as fast as possible" if t.asked_dps is None else f"{quantity.rate(t.asked_dps)} datagrams/s"
    return Cell(t.trial_id.removeprefix(f"{t.scenario}/{t.case}/"), f"{t.purpose}, {aim}")


def _balance(group: list[Trial]) -> Cell:
    """The balance of one trial, or of the sum of several, which are balanced."""
    datagrams, copies = _sum(group, "ingress").unattributed, _sum(group, "egress").unattributed
    if not (datagrams or copies):
        return Cell("balanced", tone="good")
    text = f"OPEN: {datagrams:+,} datagrams, {copies:+,} copies without a reason"
    return _with_frames(Cell(text, tone="bad"), group[0].frames)


def _with_frames(cell: Cell, frames: Frames | None) -> Cell:
    """With a link to the frames around a failure, and what they are."""
    if frames is None:
        return cell
    return replace(cell, detail=frames.what if frames.file else frames.text, file=frames.file or "")


def _sum(group: Sequence[Trial], name: str) -> Stage:
    """The stage of one trial's ledger, or of the sum of several."""
    stages: list[Stage] = [getattr(t.ledger, name) for t in group]
    dropped: Counter[tuple[str, str]] = Counter()
    for drop in (drop for stage in stages for drop in stage.drops):
        dropped[drop.place, drop.reason] += drop.count
    return Stage(
        entered=sum(stage.entered for stage in stages),
        left=sum(stage.left for stage in stages),
        drops=[Drop(place=place, reason=reason, count=count) for (place, reason), count in dropped.items()],
    )


def _drops(stage: Stage) -> str:
    lines = [f"{d.place}, {d.reason}: {d.count:,}" for d in stage.drops if d.count]
    return "\n".join(lines) or "none"


_CAPITALIZED = ("profile", "scenarios", "kernel", "machine", "python", "commit", "command", "outcome")
PROVENANCE = {
    **{key: key.capitalize() for key in _CAPITALIZED},
    "schema_version": "Schema",
    "run_id": "Run",
    "started_at": "Started (UTC)",
    "ended_at": "Ended (UTC)",
    "cpu_model": "Processor",
    "cpus": "CPUs",
    "numa_nodes": "NUMA nodes",
    "memory_bytes": "Memory",
    "mitigations": "Processor mitigations",
    "sysctls": "Kernel settings (sysctl)",
    "packages": "Package versions",
    "dirty": "Changes not committed",
    "conditions": "What may bend figures here, when the run began",
    "doubts": "Doubts",
}


def provenance(data: Dataset) -> list[Table]:
    """The machine and the run; folded, the packages, sysctls and mitigations."""
    columns: Columns[tuple[str, str]] = [(Column("What"), itemgetter(0)), (Column("Value"), itemgetter(1))]
    parts: dict[str, list[tuple[str, str]]] = {"": []}
    for key, value in provenance_rows(data):
        part, _, name = key.partition(".")
        if name:
            parts.setdefault(part, []).append((name, value))
        else:
            parts[""].append((PROVENANCE.get(key, key), _provenance_value(key, value)))
    tables = table("provenance", "What ran, and on what", columns, parts.pop(""))
    for part, rows in parts.items():
        title = PROVENANCE.get(part, part)
        tables += table(f"provenance-{part}", title, columns, rows, folded=f"{title} ({len(rows)})")
    return tables


def _provenance_value(key: str, value: str) -> str:
    if key == "memory_bytes" and value.isdigit():
        return f"{int(value) / 1e9:,.1f} GB"
    if key == "dirty":
        return {"True": "yes", "False": "no"}.get(value, value)
    return value or quantity.NONE
