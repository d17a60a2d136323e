"""Place the panels of a drawing by the length of their texts, counted in characters.

matplotlib's own engines draw every text to learn its size, which takes a third of a drawing's time. The page
uses the reader's font anyway, whose widths are unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.gridspec import SubplotSpec
from matplotlib.layout_engine import LayoutEngine
from matplotlib.text import Text

NARROW_LETTERS, BROAD_LETTERS = frozenset("fijlrt.,:;|'()[] -/"), frozenset("mwMW@%→⚠")
LINE = 1.3
"""Height of a line of text over its font size."""
EDGE = 8.0
"""Pixels left free around a drawing, and between text and axis."""
LEGEND_ROW = 17.0
"""Height of a row of the legend, in pixels."""
BEFORE, AFTER = "before", "after"
"""Group ids of texts to the left and right of a panel's rows."""


@dataclass(frozen=True, slots=True)
class Margins:
    """Space for the texts around a panel, in pixels."""

    left: float
    right: float
    top: float
    bottom: float


def text_width(text: str, size: float) -> float:
    """Pixels of the longest line of ``text`` in DejaVu Sans of ``size`` pixels, the widest usual font."""
    return max((sum(map(_em, line)) for line in text.split("\n")), default=0.0) * size


def _em(letter: str) -> float:
    if letter in NARROW_LETTERS:
        return 0.38
    if letter in BROAD_LETTERS:
        return 0.96
    return 0.7 if letter.isupper() else 0.62


class CountedLayout(LayoutEngine):
    """Places the panels of a grid; those of a column or row have the same margins."""

    _adjust_compatible = True
    _colorbar_gridspec = False

    def execute(self, fig: Canvas) -> None:
        width, height = (side * fig.dpi for side in fig.get_size_inches())
        panels = [axis for axis in fig.axes if axis.get_subplotspec() is not None]
        if not panels:
            return
        margins = {axis: _margins(axis) for axis in panels}
        grid = _place(panels[0]).get_gridspec()
        head = _legend_height(fig)
        columns = _spans(
            [_most(margins[a].left for a in panels if _column(a) == n) for n in range(grid.ncols)],
            [_most(margins[a].right for a in panels if _column(a) == n) for n in range(grid.ncols)],
            width,
            np.asarray(grid.get_width_ratios(), dtype=float).tolist(),
        )
        rows = _spans(
            [_most(margins[a].top for a in panels if _row(a) == n) for n in range(grid.nrows)],
            [_most(margins[a].bottom for a in panels if _row(a) == n) for n in range(grid.nrows)],
            height - head,
            np.asarray(grid.get_height_ratios(), dtype=float).tolist(),
        )
        for axis in panels:
            left, across = columns[_column(axis)]
            top, down = rows[_row(axis)]
            axis.set_position(
                (left / width, 1 - (head + top + down) / height, across / width, down / height), "both"
            )
            _place_labels(axis, margins[axis], across, down)


def _place(axis: Axes) -> SubplotSpec:
    place = axis.get_subplotspec()
    if place is None:
        raise ValueError("a panel without a place in a grid")
    return place


def _size(text: Text) -> float:
    return float(text.get_fontsize())


def _column(axis: Axes) -> int:
    return _place(axis).colspan.start


def _row(axis: Axes) -> int:
    return _place(axis).rowspan.start


def _most(sizes: Iterable[float]) -> float:
    return max(sizes, default=0.0)


def _spans(
    before: list[float], after: list[float], room: float, ratios: list[float]
) -> list[tuple[float, float]]:
    """Start and length of each cell's inside; insides share what the margins leave."""
    inside = max(room - sum(before) - sum(after), 10.0 * len(before))
    spans, at = [], 0.0
    for margin, rest, ratio in zip(before, after, ratios, strict=True):
        length = inside * ratio / sum(ratios)
        spans.append((at + margin, length))
        at += margin + length + rest
    return spans


def _legend_height(fig: Canvas) -> float:
    """Height of the legend, which is above the panels."""
    rows = sum(-(-len(legend.get_texts()) // getattr(legend, "_ncols", 1)) for legend in fig.legends)
    return rows * LEGEND_ROW + EDGE if rows else 0.0


def _ticks(axis: Axis) -> tuple[float, float]:
    """Width of the longest tick label, and its font size; 0 without labels."""
    labels = [label for label in axis.get_majorticklabels() if label.get_text()]
    if not labels:
        return 0.0, 0.0
    return max(text_width(label.get_text(), _size(label)) for label in labels), _size(labels[0])


def _texts(axis: Axes, where: str) -> float:
    """Width of the longest text beside the panel's rows."""
    sizes = (text_width(t.get_text(), _size(t)) for t in axis.texts if t.get_gid() == where)
    return max(sizes, default=0.0)


def _margins(axis: Axes) -> Margins:
    across, size = _ticks(axis.yaxis)
    across = max(across, _texts(axis, BEFORE))
    left = across + EDGE
    if axis.get_ylabel():
        left += _size(axis.yaxis.label) * LINE
    right = EDGE + _texts(axis, AFTER)
    label_width, size = _ticks(axis.xaxis)
    right = max(right, label_width / 2 + 2)
    bottom = size * LINE + EDGE if size else EDGE
    if axis.get_xlabel():
        bottom += _size(axis.xaxis.label) * LINE
    title = axis.get_title("left")
    top = EDGE
    if title:
        top += (title.count("\n") + 1) * _size(axis.title) * LINE + EDGE / 2
    return Margins(left, right, top, bottom)


def _place_labels(axis: Axes, margins: Margins, across: float, down: float) -> None:
    """Place the names of the axes; otherwise matplotlib draws all tick labels to find a place."""
    axis.xaxis.set_label_coords(0.5, -(margins.bottom - EDGE / 2) / down)
    axis.xaxis.label.set_verticalalignment("bottom")
    axis.yaxis.set_label_coords(-(margins.left - EDGE / 2) / across, 0.5)
    axis.yaxis.label.set_verticalalignment("top")
