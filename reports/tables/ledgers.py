"""Tables of account: the functional checks, the ledger of every trial, and what ran on what."""

from __future__ import annotations

from collections.abc import Sequence

from lab.results import Drop, Stage, Trial
from reports import labels, quantity
from reports import verdicts as words
from reports.collapse import ROWS_SHOWN, by_scenario
from reports.dataset import Dataset, provenance_rows
from reports.labels import in_order
from reports.model import Cell, Column, Row, Table
from reports.tables.trials import plain


def checks(data: Dataset) -> list[Table]:
    """Expectations of each scenario, failed ones first; those that were all met are folded where many."""
    columns = (Column("Check"), Column("Outcome", word=True), Column("Expected"), Column("Observed"))
    tables = []
    for scenario, found in by_scenario(data.checks, lambda check: check.scenario, most=0):
        met = sum(check.passed for check in found)
        rows = tuple(
            Row(
                (
                    Cell(c.case),
                    Cell("passed" if c.passed else "FAILED", tone="good" if c.passed else "bad"),
                    *plain(c.expected, c.observed),
                )
            )
            for c in sorted(found, key=lambda check: check.passed)
        )
        outcome = f"{scenario}: {met} of {quantity.plural(len(found), 'check')} passed"
        folded = outcome if met == len(found) and len(data.checks) > ROWS_SHOWN else ""
        tables.append(Table(f"checks-{scenario}", outcome, columns, rows, folded))
    return sorted(tables, key=lambda table: bool(table.folded))


TRIALS_LISTED = 40
"""A scenario with more trials than this lists those that need a look, and adds the others up."""

LEDGER = (
    Column("Case"),
    Column("Trial"),
    Column("Subject"),
    Column("Offered", "datagrams", numeric=True),
    Column("Matched a rule", "datagrams", numeric=True),
    Column("Dropped before a rule", "datagrams, by place and reason"),
    Column("Copies due", "copies", numeric=True),
    Column("Delivered", "copies", numeric=True),
    Column("Dropped after a rule", "copies, by place and reason"),
    Column("Balance"),
)


def ledgers(data: Dataset) -> list[Table]:
    """One ledger a scenario, one row a trial; of many trials those alike that balance make one row."""
    tables = []
    for scenario in in_order(t.scenario for t in data.trials):
        trials = [t for t in data.trials if t.scenario == scenario]
        unbalanced = sum(not t.ledger.balanced for t in trials)
        state = (
            f"{unbalanced} {'does' if unbalanced == 1 else 'do'} not close"
            if unbalanced
            else "every balance closes"
        )
        lost = sum(d.count for t in trials for s in (t.ledger.ingress, t.ledger.egress) for d in s.drops)
        number = quantity.plural(len(trials), "trial")
        summary = f"{scenario}: {number}, {state}, {lost:,} drops accounted for"
        rows = tuple(
            Row(_ledger_cells(data, group), trials=tuple(t.trial_id for t in group))
            for group in _ledger_groups(trials)
        )
        tables.append(Table(f"ledger-{scenario}", f"Ledger of {scenario}", LEDGER, rows, folded=summary))
    return tables


def _ledger_groups(trials: Sequence[Trial]) -> list[list[Trial]]:
    """One trial each, or many of one case, subject and purpose that balance and carry the same doubts."""
    if len(trials) <= TRIALS_LISTED:
        return [[t] for t in trials]
    groups: dict[object, list[Trial]] = {}
    for t in trials:
        key: object = t.trial_id
        if t.ledger.balanced:
            doubts = tuple(map(words.kind, words.trial_doubts(t)))
            key = (t.case, t.subject, t.setting.rps, t.setting.egress, t.purpose, doubts)
        groups.setdefault(key, []).append(t)
    return list(groups.values())


def _ledger_cells(data: Dataset, trials: Sequence[Trial]) -> tuple[Cell, ...]:
    """The cells of one trial, or of the sum of several: balances that close add up to one that does."""
    t = trials[0]
    ingress = _sum([one.ledger.ingress for one in trials])
    egress = _sum([one.ledger.egress for one in trials])
    aim = "as fast as possible" if t.asked_dps is None else f"{quantity.rate(t.asked_dps)} datagrams/s"
    name = Cell(t.trial_id.removeprefix(f"{t.scenario}/{t.case}/"), f"{t.purpose}, {aim}")
    if len(trials) > 1:
        low, *_, high = sorted(one.offered_dps for one in trials)
        between = f"{quantity.rate(low)} to {quantity.rate(high)} datagrams/s"
        name = Cell(quantity.plural(len(trials), "trial"), f"{t.purpose}, {between}")
    closes = "closes"
    if ingress.unattributed or egress.unattributed:
        closes = (
            f"OPEN: {ingress.unattributed:+,} datagrams, {egress.unattributed:+,} copies without a reason"
        )
    return (
        Cell(labels.case_name(data, t), labels.egress(t.setting)),
        name,
        Cell(labels.steered(t)),
        Cell(quantity.count(ingress.entered), doubts=words.alike(trials)),
        Cell(quantity.count(ingress.left)),
        Cell(_drops(ingress)),
        Cell(quantity.count(egress.entered)),
        Cell(quantity.count(egress.left)),
        Cell(_drops(egress)),
        Cell(closes, tone="good" if closes == "closes" else "bad"),
    )


def _sum(stages: Sequence[Stage]) -> Stage:
    dropped: dict[tuple[str, str], int] = {}
    for drop in (drop for stage in stages for drop in stage.drops):
        dropped[drop.place, drop.reason] = dropped.get((drop.place, drop.reason), 0) + drop.count
    return Stage(
        entered=sum(stage.entered for stage in stages),
        left=sum(stage.left for stage in stages),
        drops=[Drop(place=place, reason=reason, count=count) for (place, reason), count in dropped.items()],
    )


def _drops(stage: Stage) -> str:
    lines = [f"{d.place}, {d.reason}: {d.count:,}" for d in stage.drops if d.count]
    return "\n".join(lines) or "none"


def provenance(data: Dataset) -> list[Table]:
    """The machine and the run; then, on request, packages, sysctls and mitigations."""
    rows = provenance_rows(data)
    nested = in_order(key.split(".", 1)[0] for key, _ in rows if "." in key)
    head = [
        Row(plain(PROVENANCE.get(key, key), _provenance_value(key, value)))
        for key, value in rows
        if "." not in key
    ]
    columns = (Column("What"), Column("Value"))
    tables = [Table("provenance", "What ran, and on what", columns, tuple(head))] if head else []
    for part in nested:
        inner = [Row(plain(key[len(part) + 1 :], value)) for key, value in rows if key.startswith(f"{part}.")]
        title = PROVENANCE.get(part, part)
        folded = f"{title} ({len(inner)})"
        tables.append(Table(f"provenance-{part}", title, columns, tuple(inner), folded))
    return tables


PROVENANCE = {
    "schema_version": "Schema",
    "run_id": "Run",
    "started_at": "Started (UTC)",
    "ended_at": "Ended (UTC)",
    "profile": "Profile",
    "scenarios": "Scenarios",
    "kernel": "Kernel",
    "machine": "Machine",
    "cpu_model": "Processor",
    "cpus": "CPUs",
    "numa_nodes": "NUMA nodes",
    "memory_bytes": "Memory",
    "mitigations": "Processor mitigations",
    "sysctls": "Kernel settings (sysctl)",
    "packages": "Package versions",
    "python": "Python",
    "commit": "Commit",
    "dirty": "Changes not committed",
    "command": "Command",
    "outcome": "Outcome",
}


def _provenance_value(key: str, value: str) -> str:
    if key == "memory_bytes" and value.isdigit():
        return f"{int(value) / 1e9:,.1f} GB"
    if key == "dirty":
        return {"True": "yes", "False": "no"}.get(value, value)
    return value or quantity.NONE
