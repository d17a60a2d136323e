"""One row a scenario: where to look, in a run of many."""

from __future__ import annotations

from lab.results import Capacity, Check, Comparison, Delay, Footprint, Trial, ZeroLoss
from reports import quantity
from reports import verdicts as words
from reports.dataset import Dataset
from reports.labels import in_order
from reports.model import Cell, Column, Row, Table, Tone
from reports.tables.trials import optional, plain


def scenarios(data: Dataset) -> Table | None:
    """Nothing for a run of one scenario."""
    columns = (
        Column("Scenario"),
        Column("Cases", numeric=True),
        Column("Trials", numeric=True),
        Column("Checks", "met of made", numeric=True),
        Column("Targets", "met of set", numeric=True),
        Column("Highest rate without loss", "datagrams/s", numeric=True),
        Column("Ledger"),
        Column("Doubts", "records", numeric=True),
    )
    records: list[Check | Trial | ZeroLoss | Comparison | Footprint | Delay | Capacity]
    records = [*data.checks, *data.trials, *data.zero_losses, *data.comparisons, *data.footprints]
    records += [*data.delays, *data.capacities]
    names = in_order(record.scenario for record in records)
    if data.run is not None:
        names = in_order([*(n for n in data.run.scenarios if n in names), *names])
    rows = [_row(data, name) for name in names] if len(names) > 1 else []
    return optional("scenarios", "Scenarios of this run", columns, rows)


def _row(data: Dataset, name: str) -> Row:
    trials = [t for t in data.trials if t.scenario == name]
    checks = [c for c in data.checks if c.scenario == name]
    rates = [z for z in data.zero_losses if z.scenario == name]
    pairs = [c for c in data.comparisons if c.scenario == name]
    sizes = [f for f in data.footprints if f.scenario == name]
    named: list[Trial | ZeroLoss | Footprint | Delay] = [*trials, *rates, *sizes]
    named += [d for d in data.delays if d.scenario == name]
    cases = in_order(each.case for each in named)
    kept = [aim.met for c in pairs if (aim := words.target(c)) is not None]
    kept += [promise.met for f in sizes for promise in words.promises(f)]
    best = max((z for z in rates if z.lower_dps), key=lambda z: z.lower_dps or 0, default=None)
    open_ = sum(not t.ledger.balanced for t in trials)
    doubts = sum(bool(words.trial_doubts(t)) for t in trials)
    doubts += sum(bool(words.own(z.warnings)) for z in rates)
    doubts += sum(bool(words.own(c.warnings)) for c in pairs)
    doubts += sum(bool(words.footprint_doubts(f)) for f in sizes)
    return Row(
        (
            *plain(name, _some(len(cases)), _some(len(trials))),
            _of(sum(c.passed for c in checks), len(checks)),
            _of(sum(kept), len(kept)),
            Cell(words.at_least(best) if best else quantity.NONE, best.case if best else ""),
            Cell(_ledger(len(trials), open_), tone="bad" if open_ else "plain"),
            Cell(_some(doubts)),
        )
    )


def _some(number: int) -> str:
    return quantity.count(number) if number else quantity.NONE


def _of(met: int, number: int) -> Cell:
    if not number:
        return Cell(quantity.NONE)
    tone: Tone = "good" if met == number else "bad"
    return Cell(f"{met:,} of {number:,}", tone=tone)


def _ledger(trials: int, open_: int) -> str:
    if not trials:
        return quantity.NONE
    return f"{open_:,} open" if open_ else "closes"
