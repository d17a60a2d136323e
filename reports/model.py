"""The page as data, free of HTML and Markdown, so that both say the same.

A doubt is part of the cell, sentence or figure that it is about.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from reports.quantity import plural

ITEMS_SHOWN = 8
"""A point of the summary with more items than this folds the others."""

Tone = Literal["plain", "good", "bad"]
"""Colour only; the text of a cell says the same in words."""


@dataclass(frozen=True, slots=True)
class Cell:
    """``detail`` is set smaller under the text; both may hold several lines."""

    text: str
    detail: str = ""
    doubts: tuple[str, ...] = ()
    tone: Tone = "plain"
    file: str = ""
    """A file beside the page, linked to under the text."""


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    unit: str = ""
    numeric: bool = False
    """Aligned to the right."""
    word: bool = False
    """Short words, kept on one line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One cell a column, the first of which names the row. ``notes`` stand under it, over the full width."""

    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    trials: tuple[str, ...] = ()
    """Ids of the trials that its numbers come from; folded."""

    @property
    def trials_text(self) -> str:
        return plural(len(self.trials), "trial")


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    """Unique on the page: the anchor."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    folded: str = ""
    """The line under which a long table is folded; empty for an open one."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"table {self.name}: {len(row.cells)} cells in {len(self.columns)} columns")


@dataclass(frozen=True, slots=True)
class Drawing:
    """What to draw, as data: all drawings of a page are made together, on all CPUs."""

    name: str
    """Unique on the page: it begins every id in the drawing."""
    title: str
    description: str
    size: tuple[float, float]
    """Width and height in CSS pixels."""
    plot: Callable[[Any], None]
    """Draws on the canvas that it is given."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One drawing at two widths, so that its type stays legible on a phone."""

    name: str
    title: str
    key: str
    """What mark, line and stroke stand for."""
    description: str
    """Axes, units and the main values, for a reader who cannot see it."""
    wide: Drawing
    narrow: Drawing | None
    """``None`` where a phone scrolls the wide one."""
    doubts: tuple[str, ...] = ()
    folded: str = ""
    """The line under which it is folded, as for a table."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the summary: a lead in bold, a text, and a line for each case."""

    lead: str
    text: str
    tone: Tone = "plain"
    doubts: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    see: str = ""
    """Name of the section with its details, where there is one."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The items that are not folded."""
        return self.items if len(self.items) <= ITEMS_SHOWN + 1 else self.items[:ITEMS_SHOWN]

    @property
    def more(self) -> tuple[str, ...]:
        return self.items[len(self.shown) :]


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    title: str
    text: tuple[str, ...] = ()
    parts: tuple[Table | Figure, ...] = ()


def flowed(text: str) -> str:
    """A text of several lines as one."""
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    subtitle: str
    summary: tuple[Point, ...]
    sections: tuple[Section, ...]
    files: tuple[str, ...] = ()
    """The data files that lie beside the page."""
