"""Build tables from records: each column is a heading and how its cell is read from one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from lab.results import Check, Footprint
from reports import labels
from reports.collapse import split
from reports.dataset import Dataset
from reports.model import Cell, Column, Row, Table

Kind = TypeVar("Kind")

Columns = Sequence[tuple[Column, Callable[[Kind], Cell | str]]]

CASE, SUBJECT, BOUND_BY = Column("Case"), Column("Subject", word=True), Column("Bounded by", word=True)


def number(title: str, unit: str = "") -> Column:
    return Column(title, unit, numeric=True)


def word(title: str, unit: str = "") -> Column:
    return Column(title, unit, word=True)


def plain(*texts: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, texts))


def trial_ids(source: Any) -> tuple[str, ...]:
    """The ids of the trials that a record, or a group of trials, was made from."""
    if isinstance(source, list):
        return tuple(trial.trial_id for trial in source)
    one = getattr(source, "trial_id", None)
    return (one,) if one is not None else tuple(getattr(source, "trial_ids", ()))


def row(
    record: Kind,
    columns: Columns[Kind],
    notes: Sequence[str] = (),
    trials: Callable[[Kind], tuple[str, ...]] = trial_ids,
) -> Row:
    cells = (read(record) for _, read in columns)
    return Row(tuple(c if isinstance(c, Cell) else Cell(c) for c in cells), tuple(notes), trials(record))


def headings(columns: Columns[Kind]) -> tuple[Column, ...]:
    return tuple(column for column, _ in columns)


def table(
    name: str,
    caption: str,
    columns: Columns[Kind],
    records: Iterable[Kind],
    notes: Callable[[Kind], Sequence[str]] = lambda _: (),
    trials: Callable[[Kind], tuple[str, ...]] = trial_ids,
    folded: str = "",
) -> Table | None:
    """One row a record; ``None`` without records, as in a run that was interrupted."""
    rows = tuple(row(record, columns, notes(record), trials) for record in records)
    return Table(name, caption, headings(columns), rows, folded) if rows else None


def tables(name: str, caption: str, columns: Columns[Kind], records: Iterable[Kind]) -> list[Table]:
    """One table, or one folded table a scenario where there are many records."""
    rows = [(_scenario(record), row(record, columns)) for record in records]
    return split(name, caption, headings(columns), rows)


def _scenario(source: Any) -> str:
    found: str = source[0].scenario if isinstance(source, list) else source.scenario
    return found


def row_name(data: Dataset, record: labels.Named, doubts: tuple[str, ...] = ()) -> Cell:
    """The case, with the scenario under it, and the egress where traffic flowed."""
    where = record.scenario
    if not isinstance(record, Footprint | Check):
        where += f", {labels.egress(record.setting)}"
    return Cell(labels.case_name(data, record), where, doubts)
