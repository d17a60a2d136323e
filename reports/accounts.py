"""Tables of account: the functional checks, the ledger of every trial, and what ran on what."""

from __future__ import annotations

from lab.results import Stage, Trial
from reports import quantity, words
from reports.dataset import Dataset, provenance_rows
from reports.model import Cell, Column, Row, Table
from reports.tables import optional, plain, row_name
from reports.words import in_order


def checks(data: Dataset) -> Table | None:
    columns = (Column("Check"), Column("Outcome", word=True), Column("Expected"), Column("Observed"))
    rows = [
        Row(
            (
                row_name(c),
                Cell("passed" if c.passed else "FAILED", tone="good" if c.passed else "bad"),
                *plain(c.expected, c.observed),
            )
        )
        for c in data.checks
    ]
    return optional("checks", "Functional checks", columns, rows)


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
    """One ledger a scenario, one row a trial."""
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
        rows = tuple(Row(_ledger_cells(t)) for t in trials)
        tables.append(Table(f"ledger-{scenario}", f"Ledger of {scenario}", LEDGER, rows, folded=summary))
    return tables


def _ledger_cells(t: Trial) -> tuple[Cell, ...]:
    ingress, egress = t.ledger.ingress, t.ledger.egress
    aim = "as fast as possible" if t.asked_dps is None else f"{quantity.rate(t.asked_dps)} datagrams/s"
    closes = "closes"
    if not t.ledger.balanced:
        closes = (
            f"OPEN: {ingress.unattributed:+,} datagrams, {egress.unattributed:+,} copies without a reason"
        )
    return (
        Cell(t.case, words.egress(t.setting)),
        Cell(t.trial_id.removeprefix(f"{t.scenario}/{t.case}/"), f"{t.purpose}, {aim}"),
        Cell(words.steered(t)),
        Cell(quantity.count(ingress.entered), doubts=words.trial_doubts(t)),
        Cell(quantity.count(ingress.left)),
        Cell(_drops(ingress)),
        Cell(quantity.count(egress.entered)),
        Cell(quantity.count(egress.left)),
        Cell(_drops(egress)),
        Cell(closes, tone="good" if t.ledger.balanced else "bad"),
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
