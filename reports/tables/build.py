"""Build tables from records: each column is a heading and how its cell is read from one record."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from lab.results import Check, Footprint
from reports import labels, quantity
from reports.collapse import ROWS_SHOWN, by_scenario, row_counts
from reports.dataset import Dataset, Named
from reports.model import Cell, Column, Row, Table

Kind = TypeVar("Kind")

Shown = Cell | str | int | None
"""What a column reads: an integer is a count, ``None`` an empty cell."""
Columns = Sequence[tuple[Column, Callable[[Kind], Shown]]]

CASE, SUBJECT, BOUND_BY = Column("Case"), Column("Subject", word=True), Column("Bounded by", word=True)


def number(title: str, unit: str = "") -> Column:
    return Column(title, unit, numeric=True)


def word(title: str, unit: str = "") -> Column:
    return Column(title, unit, word=True)


def first(source: Any) -> Any:
    """The record itself, the ``record`` that a row is about, or the first one of a group."""
    return source[0] if isinstance(source, list) else getattr(source, "record", source)


def trial_ids(source: Any) -> tuple[str, ...]:
    """The ids of the trials that a record, or a group of trials, was made from."""
    if isinstance(source, list):
        return tuple(trial.trial_id for trial in source)
    record = first(source)
    one = getattr(record, "trial_id", None)
    return (one,) if one is not None else tuple(getattr(record, "trial_ids", ()))


def cell(found: Shown) -> Cell:
    if isinstance(found, Cell):
        return found
    return Cell(found if isinstance(found, str) else quantity.count(found))


def table(
    name: str,
    caption: str,
    columns: Columns[Kind],
    records: Iterable[Kind],
    notes: Callable[[Kind], Iterable[str]] = lambda _: (),
    trials: Callable[[Kind], tuple[str, ...]] = trial_ids,
    folded: str = "",
) -> list[Table]:
    """A table with one row a record; none without records, as in a run that was interrupted."""
    rows = tuple(
        Row(tuple(cell(read(record)) for _, read in columns), tuple(notes(record)), trials(record))
        for record in records
    )
    return [Table(name, caption, tuple(column for column, _ in columns), rows, folded)] if rows else []


def tables(name: str, caption: str, columns: Columns[Kind], records: Iterable[Kind]) -> list[Table]:
    """One table, or one folded table a scenario where there are many records."""
    made = []
    for scenario, members in by_scenario(records, lambda record: first(record).scenario, ROWS_SHOWN):
        if scenario:
            (part,) = table(f"{name}-{scenario}", f"{caption}: {scenario}", columns, members)
            made.append(replace(part, folded=f"{scenario}: {row_counts(part.rows)}"))
        else:
            made += table(name, caption, columns, members)
    return made


def row_name(data: Dataset, record: Named, doubts: tuple[str, ...] = ()) -> Cell:
    """The case, with the scenario under it, and the egress where traffic flowed."""
    where = record.scenario
    if not isinstance(record, Footprint | Check):
        where += f", {labels.egress(record.setting)}"
    return Cell(labels.case_name(data, record), where, doubts)


def named(data: Dataset) -> Columns[Any]:
    """The first two columns of records, or groups of records, of a subject."""
    return [
        (CASE, lambda source: row_name(data, first(source))),
        (SUBJECT, lambda source: labels.subject_with_receive(first(source))),
    ]
