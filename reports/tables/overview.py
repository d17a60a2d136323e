"""One row a scenario: where to look in a run of many."""

from __future__ import annotations

from lab.results import Capacity, Check, Comparison, Delay, Footprint, Trial, ZeroLoss
from reports import quantity, verdicts
from reports.dataset import Dataset
from reports.labels import unique
from reports.model import Cell, Column, Row, Table, Tone
from reports.tables.build import number, plain


def scenarios(data: Dataset) -> Table | None:
    """``None`` for a run of one scenario."""
    columns = (
        Column("Scenario"),
        number("Cases"),
        number("Trials"),
        number("Checks", "met of made"),
        number("Targets", "met of set"),
        number("Highest rate without loss", "datagrams/s"),
        Column("Ledger"),
        number("Doubts", "records"),
    )
    records: list[Check | Trial | ZeroLoss | Comparison | Footprint | Delay | Capacity]
    records = [*data.checks, *data.trials, *data.zero_losses, *data.comparisons, *data.footprints]
    records += [*data.delays, *data.group_capacities]
    names = unique(record.scenario for record in records)
    if data.run is not None:
        names = unique([*(n for n in data.run.scenarios if n in names), *names])
    if len(names) < 2:
        return None
    rows = tuple(_row(name, data.of_scenario(name)) for name in names)
    return Table("scenarios", "Scenarios of this run", columns, rows)


def _row(name: str, part: Dataset) -> Row:
    """``part``: the records of this scenario."""
    named: list[Trial | ZeroLoss | Footprint | Delay]
    named = [*part.trials, *part.zero_losses, *part.footprints, *part.delays]
    met = [target.met for c in part.comparisons if (target := verdicts.target(c)) is not None]
    met += [target.met for f in part.footprints for target in verdicts.footprint_targets(f)]
    best = max((z for z in part.zero_losses if z.lower_dps), key=lambda z: z.lower_dps or 0, default=None)
    unbalanced = sum(not t.ledger.balanced for t in part.trials)
    ledger = quantity.NONE
    if part.trials:
        ledger = f"{unbalanced:,} not balanced" if unbalanced else "balanced"
    return Row(
        (
            *plain(name, _some(len(unique(each.case for each in named))), _some(len(part.trials))),
            _of(sum(c.passed for c in part.checks), len(part.checks)),
            _of(sum(met), len(met)),
            Cell(verdicts.zero_loss_rate(best) if best else quantity.NONE, best.case if best else ""),
            Cell(ledger, tone="bad" if unbalanced else "plain"),
            Cell(_some(sum(verdicts.doubtful_records(part).values()))),
        )
    )


def _some(number: int) -> str:
    return quantity.count(number) if number else quantity.NONE


def _of(met: int, number: int) -> Cell:
    if not number:
        return Cell(quantity.NONE)
    tone: Tone = "good" if met == number else "bad"
    return Cell(f"{met:,} of {number:,}", tone=tone)
