"""The page as data: what it says, free of HTML and Markdown, so that both say the same.

A doubt is part of the cell, sentence or figure that it is about; renderers show it there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

ITEMS_SHOWN = 8
"""A statement of the summary with more items than this keeps the rest folded."""

Tone = Literal["plain", "good", "bad"]
"""Colour only; the text of a cell says the same in words."""


@dataclass(frozen=True, slots=True)
class Cell:
    """``detail`` is set smaller under the text; both may hold several lines."""

    text: str
    detail: str = ""
    doubts: tuple[str, ...] = ()
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    unit: str = ""
    numeric: bool = False
    """Set to the right, digits under digits."""
    word: bool = False
    """Short words, kept on one line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One cell a column; the first names the row. ``notes`` stand under the row, over its full width."""

    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    trials: tuple[str, ...] = ()
    """Ids of the trials that its numbers come from, shown on request."""

    @property
    def trials_text(self) -> str:
        return f"{len(self.trials):,} trial{'' if len(self.trials) == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    """Unique on the page: the anchor."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    folded: str = ""
    """When set, a long table is shown on request, under this line."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"table {self.name}: {len(row.cells)} cells in {len(self.columns)} columns")


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is to be drawn: all drawings of a page are made together, on all CPUs."""

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
    """How to read it: what mark, line and stroke stand for."""
    description: str
    """What a reader who cannot see it needs to know: axes, units, and the main values."""
    wide: Drawing
    narrow: Drawing | None
    """``None`` where a phone shows the wide one, to be scrolled sideways."""
    doubts: tuple[str, ...] = ()
    folded: str = ""
    """As for a table."""


@dataclass(frozen=True, slots=True)
class Point:
    """One statement of the summary: the words it begins with, set off; its text; a line for each case."""

    lead: str
    text: str
    tone: Tone = "plain"
    doubts: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    see: str = ""
    """Name of the section with the rows that it is said from, where there is one."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The first items; the others are shown on request."""
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


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    subtitle: str
    summary: tuple[Point, ...]
    sections: tuple[Section, ...]
    files: tuple[str, ...] = ()
    """The data files that lie beside the page."""
