"""What a long run's page folds: tables and drawings that are too long to read through, split by scenario."""

from collections.abc import Callable, Iterable, Sequence

from reports.dataset import Item, grouped
from reports.model import Row
from reports.quantity import plural

ROWS_SHOWN = 24
"""A table or drawing with more rows than this is split by scenario, and folded."""


def by_scenario(
    items: Iterable[Item], scenario_of: Callable[[Item], str], most: int
) -> list[tuple[str, list[Item]]]:
    """``(scenario, its items)``; all under the empty name where there are at most ``most``."""
    every = list(items)
    if len(every) <= most:
        return [("", every)] if every else []
    return list(grouped(every, scenario_of).items())


def row_counts(rows: Sequence[Row]) -> str:
    """``12 rows, 3 with a doubt, 1 failed``."""
    doubtful = sum(any(cell.doubts for cell in row.cells) for row in rows)
    bad = sum(any(cell.tone == "bad" for cell in row.cells) for row in rows)
    text = plural(len(rows), "row")
    text += f", {doubtful} with a doubt" if doubtful else ""
    return text + (f", {bad} failed" if bad else "")
