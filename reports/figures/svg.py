"""A matplotlib figure as SVG that belongs to its page: page colours, page font, readable text, unique ids.

matplotlib draws in placeholder colours, each standing for a CSS variable; here they are exchanged, so one
drawing serves light, dark and print. Text stays text. No pyplot: nothing global is created or kept.
"""

import io
import multiprocessing
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from reports.figures.text_layout import CountedLayout
from reports.model import Drawing

WORTH_A_PROCESS = 16
"""Drawings that make up for forking a process."""
INK = "#010203"
MUTED = "#010204"
GRID = "#010205"
SERIES = ("#01020a", "#01020b", "#01020c", "#01020d", "#01020e")

_VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--rule)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
}

_TICKS = {"labelsize": 11, "labelcolor": MUTED, "color": GRID, "major.size": 0, "minor.size": 0}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mcastlab",  # the same figure gives the same bytes
    "text.parse_math": False,  # a case named "$x$" is a name, not a formula
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "legend.fontsize": 11,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titley": 1.0,  # given, or matplotlib draws what is below a title to find its place
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    **{f"{axis}tick.{part}": value for axis in "xy" for part, value in _TICKS.items()},
    "figure.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
}

_PALETTE = {
    "ink": ("#1b2026", "#e6eaef"),
    "muted": ("#56606b", "#a5afba"),
    "rule": ("#d8dde3", "#39424d"),
    "paper": ("#ffffff", "#14181d"),
    "panel": ("#f5f7f9", "#1c2229"),
    "good": ("#1a6b34", "#7bd88f"),
    "bad": ("#a8211b", "#ff958c"),
    "doubt": ("#7a4b00", "#ffc46b"),
    "series-1": ("#0b5cad", "#6db3ff"),
    "series-2": ("#b04a00", "#ffab5e"),
    "series-3": ("#6b6f76", "#a9b0b8"),
    "series-4": ("#6a3d9a", "#c7a6ff"),
    "series-5": ("#2a7a2e", "#7bd88f"),
}
LIGHT, DARK = ({name: pair[place] for name, pair in _PALETTE.items()} for place in (0, 1))
"""The palette of page and drawings; text on paper keeps a contrast of at least 4.5:1 in both."""


def variables(palette: dict[str, str]) -> str:
    """The palette as CSS declarations."""
    return ";".join(f"--{name}:{colour}" for name, colour in palette.items())


def draw_all(drawings: Sequence[Drawing], cpus: int | None = None) -> dict[str, str]:
    """The SVG of each drawing by its name; many are divided among the CPUs that this process may use.

    Processes are forked because drawings hold closures, which cannot be pickled.
    """
    workers = min(cpus or len(os.sched_getaffinity(0)), len(drawings) // WORTH_A_PROCESS)
    if workers < 2:
        return {drawing.name: draw(drawing) for drawing in drawings}
    _shared.extend(drawings)
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
            made = list(pool.map(_draw_shared, range(len(drawings)), chunksize=4))
    finally:
        _shared.clear()
    return {drawing.name: text for drawing, text in zip(drawings, made, strict=True)}


_shared: list[Drawing] = []
"""The drawings, for processes that are forked while they are in here."""


def _draw_shared(place: int) -> str:
    return draw(_shared[place])


def draw(drawing: Drawing) -> str:
    """The SVG of one drawing: text stays text, and a screen reader reads its title and description."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(drawing.size[0] / 72, drawing.size[1] / 72), dpi=72, layout=CountedLayout())
        drawing.plot(canvas)
        # Not savefig(): that draws everything once more beforehand, for its size alone.
        write: Callable[..., object] = FigureCanvasSVG(canvas).print_svg
        write(buffer, metadata={"Date": None, "Creator": None})
    return _adopt(buffer.getvalue(), drawing.name, drawing.title, drawing.description)


def standalone(svg: str) -> str:
    """The same drawing as a file of its own, with the page's colours for light and dark."""
    style = (
        f"<style>svg{{{variables(LIGHT)};color:var(--ink);background:var(--paper);"
        "font-family:system-ui,sans-serif}"
        f"@media (prefers-color-scheme:dark){{svg{{{variables(DARK)}}}}}</style>"
    )
    return svg.replace("><title ", f">{style}<title ", 1) + "\n"


def _adopt(svg: str, name: str, title: str, description: str) -> str:
    """Cut matplotlib's output down to the drawing and fit it into the page."""
    svg = svg[svg.index("<svg") :]
    for pattern, replacement in (
        (r"<metadata>.*?</metadata>", ""),
        (r"<style.*?</style>", ""),  # would reach out of the drawing: set on <svg> below instead
        (r"<!--.*?-->", ""),
        (r'<g id="[^"]+"', "<g"),  # group ids repeat from figure to figure and nothing refers to them
        (r'\bid="([^"]+)"', rf'id="{name}-\1"'),
        (r'(href="#|url\(#)', rf"\1{name}-"),
        (r' transform="rotate\(-0 [^)]*\)"', ""),
        (r"font-family: [^;\"]+(; )?", ""),
        (r"font: (bold|[1-9]00) ([\d.]+px) [^;\"]+", r"font-weight: \1; font-size: \2"),
        (r"font: ([\d.]+px) [^;\"]+", r"font-size: \1"),
        (r"\s+", " "),
        (r"> <", "><"),
    ):
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    # Coordinates to a hundredth of a pixel; text between tags is left alone.
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag.group()), svg)
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    viewbox = re.search(r'viewBox="([^"]+)"', svg)
    if viewbox is None:
        raise ValueError(f"figure {name}: matplotlib wrote no viewBox")
    width, height = viewbox.group(1).split()[2:]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{viewbox.group(1)}" width="{width}" height="{height}" '
        f'stroke-linejoin="round" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    return head + svg[svg.index(">") + 1 :].strip()
