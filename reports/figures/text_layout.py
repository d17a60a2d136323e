"""Place the panels of a drawing by the length of their texts, counted in characters.

matplotlib's own engines draw every text to learn its size, which takes a third of a drawing's time. The page
uses the reader's font anyway, whose widths are unknown.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
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


class Panel(NamedTuple):
    """A panel, its place in the grid, and the space for the texts around it in pixels."""

    axis: Axes
    column: int
    row: int
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
        places = [(axis, place) for axis in fig.axes if (place := axis.get_subplotspec()) is not None]
        if not places:
            return
        panels = [_panel(axis, place) for axis, place in places]
        grid = places[0][1].get_gridspec()
        head = _legend_height(fig)
        beside = [[(p.left, p.right) for p in panels if p.column == n] for n in range(grid.ncols)]
        around = [[(p.top, p.bottom) for p in panels if p.row == n] for n in range(grid.nrows)]
        columns = _spans(beside, width, grid.get_width_ratios())
        rows = _spans(around, height - head, grid.get_height_ratios())
        for panel in panels:
            (left, across), (top, down) = columns[panel.column], rows[panel.row]
            foot = 1 - (head + top + down) / height
            panel.axis.set_position((left / width, foot, across / width, down / height), "both")
            _place_labels(panel, across, down)


def _spans(margins: list[list[tuple[float, float]]], room: float, ratios: Any) -> list[tuple[float, float]]:
    """Start and length of each cell's inside; insides share what the margins before and after leave."""
    most = [tuple(map(max, zip(*each, strict=True))) if each else (0.0, 0.0) for each in margins]
    inside = max(room - sum(map(sum, most)), 10.0 * len(most))
    spans, at = [], 0.0
    for (before, after), ratio in zip(most, ratios, strict=True):
        length = inside * float(ratio) / float(sum(ratios))
        spans.append((at + before, length))
        at += before + length + after
    return spans


def _legend_height(fig: Canvas) -> float:
    """Height of the legend, which is above the panels."""
    rows = sum(-(-len(legend.get_texts()) // getattr(legend, "_ncols", 1)) for legend in fig.legends)
    return rows * LEGEND_ROW + EDGE if rows else 0.0


def _size(text: Text) -> float:
    return float(text.get_fontsize())


def _widest(texts: Iterable[Text]) -> float:
    return max((text_width(text.get_text(), _size(text)) for text in texts), default=0.0)


def _ticks(axis: Axis) -> list[Text]:
    return [label for label in axis.get_majorticklabels() if label.get_text()]


def _panel(axis: Axes, place: Any) -> Panel:
    beside = {side: _widest(t for t in axis.texts if t.get_gid() == side) for side in (BEFORE, AFTER)}
    left = max(_widest(_ticks(axis.yaxis)), beside[BEFORE]) + EDGE
    if axis.get_ylabel():
        left += _size(axis.yaxis.label) * LINE
    ticks = _ticks(axis.xaxis)
    right = max(EDGE + beside[AFTER], _widest(ticks) / 2 + 2)
    bottom = _size(ticks[0]) * LINE + EDGE if ticks else EDGE
    if axis.get_xlabel():
        bottom += _size(axis.xaxis.label) * LINE
    top = EDGE
    if title := axis.get_title("left"):
        top += (title.count("\n") + 1) * _size(axis.title) * LINE + EDGE / 2
    return Panel(axis, place.colspan.start, place.rowspan.start, left, right, top, bottom)


def _place_labels(panel: Panel, across: float, down: float) -> None:
    """Place the names of the axes; otherwise matplotlib draws all tick labels to find a place."""
    x, y = panel.axis.xaxis, panel.axis.yaxis
    x.set_label_coords(0.5, -(panel.bottom - EDGE / 2) / down)
    x.label.set_verticalalignment("bottom")
    y.set_label_coords(-(panel.left - EDGE / 2) / across, 0.5)
    y.label.set_verticalalignment("top")
