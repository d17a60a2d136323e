"""What a long run's page folds: tables and drawings that are too long to read through, split by scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from reports.labels import unique
from reports.model import Column, Row, Table
from reports.quantity import plural

Item = TypeVar("Item")

ROWS_SHOWN = 24
"""A table or drawing with more rows than this is folded, a part for each scenario."""


def split(name: str, caption: str, columns: Sequence[Column], rows: Sequence[tuple[str, Row]]) -> list[Table]:
    """One table of ``(scenario, row)``, or one folded table a scenario where there are many rows."""
    parts = by_scenario(rows, lambda row: row[0], ROWS_SHOWN)
    tables = []
    for scenario, members in parts:
        inner = tuple(row for _, row in members)
        if not scenario:
            tables.append(Table(name, caption, tuple(columns), inner))
            continue
        line = f"{scenario}: {told(inner)}"
        tables.append(Table(f"{name}-{scenario}", f"{caption}: {scenario}", tuple(columns), inner, line))
    return tables


def by_scenario(
    items: Iterable[Item], scenario_of: Callable[[Item], str], most: int
) -> list[tuple[str, list[Item]]]:
    """``(scenario, its items)``; all under no name where there are at most ``most`` or only one scenario."""
    every = list(items)
    scenarios = unique(map(scenario_of, every))
    if len(every) <= most:
        return [("", every)] if every else []
    return [(name, [item for item in every if scenario_of(item) == name]) for name in scenarios]


def told(rows: Sequence[Row]) -> str:
    """``12 rows, 3 with a doubt, 1 failed``: what a reader decides by whether to unfold them."""
    doubtful = sum(any(cell.doubts for cell in row.cells) for row in rows)
    bad = sum(any(cell.tone == "bad" for cell in row.cells) for row in rows)
    text = plural(len(rows), "row")
    text += f", {doubtful} with a doubt" if doubtful else ""
    return text + (f", {bad} failed" if bad else "")
