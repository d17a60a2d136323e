"""A drawing of series over many runs: points, levels, and where a level changes."""

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from lab.results.series import Series
from reports.figures import svg
from reports.model import Drawing

WIDTH, HEIGHT = 880, 170
"""Size of one series in CSS pixels."""


def write_plot(series: Sequence[Series], path: Path) -> None:
    """Draw ``series`` into ``path``: an HTML page if it ends in ``.html``, else an SVG."""
    drawing = svg.standalone(draw(series))
    if path.suffix == ".html":
        drawing = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>{escape(TITLE)}</title><style>:root{{color-scheme:light dark}}"
            f"body{{margin:1rem auto;max-width:{WIDTH}px}}svg{{width:100%;height:auto}}</style>\n{drawing}"
        )
    path.write_text(drawing, encoding="utf-8")


TITLE = "Figures over many runs"


def draw(series: Sequence[Series]) -> str:
    """Draw a panel for each series, those with changes first. Equal series give equal bytes."""
    ordered = sorted(series, key=lambda each: (each.refused is not None, not each.changes))

    def plot(canvas: Canvas) -> None:
        if not ordered:
            canvas.text(0.02, 0.5, "no series", color=svg.MUTED)
            return
        panels = canvas.subplots(len(ordered), 1, squeeze=False).flatten()
        for axis, each in zip(panels, ordered, strict=True):
            _panel(axis, each)

    summary = "; ".join(f"{_name(each)}: {_summary(each)}" for each in ordered) or "no series"
    size = (WIDTH, HEIGHT * max(1, len(ordered)))
    return svg.draw(Drawing("trend", TITLE, summary, size, plot))


def _panel(axis: Axes, each: Series) -> None:
    values = [point.value for point in each.points]
    places = range(len(values))
    axis.plot(places, values, "o", color=svg.SERIES[0], markersize=5)
    bounds = [0, *(change.index for change in each.changes), len(values)]
    for start, end in pairwise(bounds):
        level = math.exp(sum(map(math.log, values[start:end])) / (end - start))
        axis.plot([start - 0.4, end - 0.6], [level, level], color=svg.SERIES[0])
    for change in each.changes:
        axis.axvline(change.index - 0.5, color=svg.SERIES[1], linestyle="--")
        at: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axis.annotate(f"× {change.factor:.2f}", (change.index - 0.5, 1), (4, -12), color=svg.INK, **at)
    axis.set_ylim(bottom=0, top=max(values) * 1.25)
    axis.set_ylabel(each.key.unit or "ratio")
    axis.set_title(f"{_name(each)}: {_summary(each)}")
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.set_xlabel(f"runs, {each.points[0].at[:10]} to {each.points[-1].at[:10]}")


def _name(each: Series) -> str:
    return f"{each.key.scenario}, {each.key.case}, {each.key.metric}, {each.key.subject}"


def _summary(each: Series) -> str:
    if each.refused:
        return "too few runs"
    return ", ".join(f"× {change.factor:.2f}" for change in each.changes) or "no change"
