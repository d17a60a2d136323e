"""One row a scenario: where to look in a run of many."""

from lab.results import Delay, Footprint, Trial, ZeroLoss
from reports import quantity, verdicts
from reports.dataset import Dataset, Named, Tested
from reports.labels import unique
from reports.model import Cell, Column, Table
from reports.tables.build import Columns, number, table

Scenario = tuple[str, Dataset]
"""Its name, and its records."""


def scenarios(data: Dataset) -> list[Table]:
    """None for a run of one scenario."""
    records: list[Named | Tested]
    records = [*data.checks, *data.trials, *data.zero_losses, *data.comparisons, *data.footprints]
    records += [*data.delays, *data.group_capacities]
    names = unique(record.scenario for record in records)
    if data.run is not None:
        names = unique([*(n for n in data.run.scenarios if n in names), *names])
    if len(names) < 2:
        return []
    columns: Columns[Scenario] = [
        (Column("Scenario"), lambda part: part[0]),
        (number("Cases"), lambda part: _cases(part[1]) or None),
        (number("Trials"), lambda part: len(part[1].trials) or None),
        (number("Checks", "met of made"), lambda part: _met([c.passed for c in verdicts.checks(part[1])])),
        (
            number("Targets", "met of set"),
            lambda part: _met([t.target.met for t in verdicts.targets(part[1])]),
        ),
        (number("Highest rate without loss", "datagrams/s"), lambda part: _best(part[1])),
        (Column("Ledger"), lambda part: _ledger(part[1])),
        (number("Doubts", "records"), lambda part: sum(verdicts.doubtful_records(part[1]).values()) or None),
    ]
    parts = [(name, data.of_scenario(name)) for name in names]
    return table("scenarios", "Scenarios of this run", columns, parts)


def _cases(part: Dataset) -> int:
    named: list[Trial | ZeroLoss | Footprint | Delay]
    named = [*part.trials, *part.zero_losses, *part.footprints, *part.delays]
    return len({each.case for each in named})


def _met(met: list[bool]) -> Cell:
    if not met:
        return Cell(quantity.NONE)
    return Cell(f"{sum(met):,} of {len(met):,}", tone="good" if all(met) else "bad")


def _best(part: Dataset) -> Cell:
    best = max((z for z in part.zero_losses if z.lower_dps), key=lambda z: z.lower_dps or 0, default=None)
    return Cell(verdicts.zero_loss_rate(best), best.case) if best else Cell(quantity.NONE)


def _ledger(part: Dataset) -> Cell:
    if not part.trials:
        return Cell(quantity.NONE)
    unbalanced = sum(not t.ledger.balanced for t in part.trials)
    return Cell(f"{unbalanced:,} not balanced", tone="bad") if unbalanced else Cell("balanced")
