"""Shared by the drawings: a look for each subject, two widths, rows with their values.

Colour is never the only mark. A subject has its colour *and* its marker; a doubtful figure is drawn hollow
and named under the drawing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator

from lab.results import ZeroLoss
from reports import verdicts
from reports.dataset import Item
from reports.figures import svg
from reports.figures.text_layout import AFTER, BEFORE
from reports.labels import unique
from reports.model import Drawing, Figure

WIDE, NARROW = 880, 350
"""Widths in CSS pixels: a desktop column, and a phone held upright."""
STEPS = (1, 2, 2.5, 5, 10)
"""Distances of ticks, times a power of ten."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a subject is drawn."""

    colour: str
    marker: str
    dashes: str

    def marks(self, hollow: bool, size: float = 8) -> dict[str, Any]:
        """Arguments that draw the marker alone."""
        fill = {"color": self.colour, "markerfacecolor": "none" if hollow else self.colour}
        return {**fill, "marker": self.marker, "markersize": size, "linestyle": "none"}


_LOOKS = {
    ("mcrd", False): Look(svg.SERIES[0], "o", "-"),
    ("mcrd", True): Look(svg.SERIES[0], "D", "-"),
    ("kernel", False): Look(svg.SERIES[1], "s", "--"),
    ("kernel", True): Look(svg.SERIES[1], "^", "--"),
    ("none", False): Look(svg.SERIES[2], "x", ":"),
}
"""By subject and whether its receive work goes first: the colour is the subject's, the marker says so."""


def look(subject: str, receive: str, others: Sequence[str] = ()) -> Look:
    """Known subjects look the same on every page; other peers take the remaining looks in turn."""
    other = receive != "first"
    if (subject, other) in _LOOKS:
        return _LOOKS[subject, other]
    strangers = [name for name in others if (name, False) not in _LOOKS]
    place = strangers.index(subject) if subject in strangers else 0
    return Look(svg.SERIES[3 + place % 2], "Pv"[place % 2] if other else "p<"[place % 2], "-.")


def figure(
    name: str,
    title: str,
    key: str,
    description: str,
    plot: Callable[[Canvas, bool], None],
    height: Callable[[bool], float],
    doubts: Sequence[str] = (),
    folded: str = "",
) -> Figure:
    """A figure that ``plot(canvas, narrow)`` draws at both widths, ``height(narrow)`` CSS pixels high.

    A folded one is drawn at one width only: a long run has a hundred of them, and few are looked at.
    """

    def at(part: str, width: int, narrow: bool) -> Drawing:
        size = (width, height(narrow))
        return Drawing(f"{name}-{part}", title, description, size, lambda canvas: plot(canvas, narrow))

    wide, narrow = at("wide", WIDE, False), None if folded else at("narrow", NARROW, True)
    return Figure(name, title, key, description, wide, narrow, tuple(unique(doubts)), folded)


def of_scenario(scenario: str, name: str, title: str) -> tuple[str, str]:
    """Name and title of a figure that may be split by scenario."""
    return (f"{name}-{scenario}", f"{title}, {scenario}") if scenario else (name, title)


def in_words(names: Sequence[str], texts: Iterable[str]) -> str:
    """The rows of a drawing for its description: ``name: text; name: text``."""
    return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))


def across(panels: int, narrow: bool) -> int:
    """Panels side by side."""
    return 1 if narrow or panels == 1 else 2


def grid(canvas: Canvas, panels: Sequence[Item], narrow: bool) -> Iterator[tuple[Axes, Item]]:
    """Each panel with its axes, two side by side where there is room."""
    columns = across(len(panels), narrow)
    axes = canvas.subplots(-(-len(panels) // columns), columns, squeeze=False).flatten()
    yield from zip(axes, panels, strict=False)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)


def draw_rows(axis: Axes, names: Sequence[str], values: Sequence[str], narrow: bool) -> None:
    """One line a row, first on top: name left and value right of it; on a phone name above, value below."""
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(False, axis="y")
    axis.spines["left"].set_visible(False)
    axis.set_yticks([])
    # Not labels of ticks: matplotlib takes twenty times as long for one.
    beside = partial(
        axis.annotate, xycoords=("axes fraction", "data"), textcoords="offset points", annotation_clip=False
    )
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        if narrow:
            small: dict[str, Any] = {"fontsize": 10.5, "ha": "left"}
            beside(name, (0, place), xytext=(0, 9), va="bottom", color=svg.INK, **small)
            beside(value, (0, place), xytext=(0, -9), va="top", color=svg.MUTED, **small)
        else:
            large: dict[str, Any] = {"fontsize": 11, "va": "center", "color": svg.INK}
            beside(name, (0, place), xytext=(-6, 0), ha="right", gid=BEFORE, **large)
            beside(value, (1, place), xytext=(6, 0), ha="left", gid=AFTER, **large)


def heights(rows: int, wide: int = 27) -> Callable[[bool], float]:
    """Height of a drawing of ``rows``; on a phone a row also holds its name and its value."""
    return lambda narrow: rows * (60 if narrow else wide) + 60


def draw_rate(axis: Axes, place: int, z: ZeroLoss, style: Look) -> None:
    """A zero-loss rate, where loss began (an arrow if nowhere), and the generator's ceiling."""
    lower = z.lower_dps or 0
    if z.upper_dps is None:
        at: dict[str, Any] = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
        axis.annotate("→", (lower, place), fontsize=15, color=style.colour, **at)
    else:
        axis.plot([lower, z.upper_dps], [place, place], color=style.colour, linewidth=2)
    axis.plot([lower], [place], **style.marks(hollow=bool(verdicts.distinct(z.warnings))))
    axis.plot([z.generator_ceiling_dps], [place], marker="|", markersize=13, color=svg.MUTED)


def rate_axis(axis: Axes, ticks: int) -> None:
    """Offered datagrams a second from 0, with at most ``ticks`` tick marks."""
    axis.set_xlim(left=0)
    axis.set_xlabel("datagrams/s offered")
    set_ticks(axis.xaxis, ticks, FuncFormatter(thousands))


def set_ticks(axis: Axis, most: int, text: str | Formatter) -> None:
    """At most so many tick marks at round values; ``text`` is a format of ``x``, or a formatter."""
    axis.set_major_locator(MaxNLocator(most, steps=STEPS))
    axis.set_major_formatter(text)


def thousands(value: float, _position: int) -> str:
    """A rate at a tick of an axis."""
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value else "0"


def legend(canvas: Canvas) -> None:
    """One legend over all panels, each name once."""
    entries: dict[str, Any] = {}
    for axis in canvas.axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    columns = 2 if canvas.get_figwidth() * 72 < WIDE else 4
    spacing = {"handlelength": 2.6, "columnspacing": 1.2}
    canvas.legend(entries.values(), entries, loc="outside upper left", ncols=columns, **spacing)
