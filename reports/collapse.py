"""What a long run's page folds: tables and drawings that are too long to read through, split by scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from reports.labels import unique
from reports.model import Column, Row, Table
from reports.quantity import plural

Item = TypeVar("Item")

ROWS_SHOWN = 24
"""A table or drawing with more rows than this is split by scenario, and folded."""


def split(name: str, caption: str, columns: Sequence[Column], rows: Sequence[tuple[str, Row]]) -> list[Table]:
    """One table of ``(scenario, row)``, or one folded table a scenario where there are many rows."""
    tables = []
    for scenario, members in by_scenario(rows, lambda row: row[0], ROWS_SHOWN):
        inner = tuple(row for _, row in members)
        if scenario:
            folded = f"{scenario}: {row_counts(inner)}"
            title = f"{caption}: {scenario}"
            tables.append(Table(f"{name}-{scenario}", title, tuple(columns), inner, folded))
        else:
            tables.append(Table(name, caption, tuple(columns), inner))
    return tables


def by_scenario(
    items: Iterable[Item], scenario_of: Callable[[Item], str], most: int
) -> list[tuple[str, list[Item]]]:
    """``(scenario, its items)``; all under the empty name where there are at most ``most``."""
    every = list(items)
    scenarios = unique(map(scenario_of, every))
    if len(every) <= most:
        return [("", every)] if every else []
    return [(name, [item for item in every if scenario_of(item) == name]) for name in scenarios]


def row_counts(rows: Sequence[Row]) -> str:
    """``12 rows, 3 with a doubt, 1 failed``."""
    doubtful = sum(any(cell.doubts for cell in row.cells) for row in rows)
    bad = sum(any(cell.tone == "bad" for cell in row.cells) for row in rows)
    text = plural(len(rows), "row")
    text += f", {doubtful} with a doubt" if doubtful else ""
    return text + (f", {bad} failed" if bad else "")
