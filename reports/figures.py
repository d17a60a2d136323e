"""The drawings: records in, SVG out, each at two widths; colour is never the only mark.

A subject has its colour *and* its marker; a doubtful figure is drawn hollow and named under the drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lab.results import Comparison, Trial, ZeroLoss
from reports import quantity, svg, words
from reports.dataset import Dataset
from reports.model import Figure
from reports.tables import latency_groups, latency_medians
from reports.words import in_order

WIDE, NARROW = 880, 350
"""Widths in CSS pixels: a desktop column, and a phone held upright."""

PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")
STEPS = (1, 2, 2.5, 5, 10)
"""Tick distances, times a power of ten."""
LOSS_KNEE = 0.01
"""Percent of loss below which the axis is linear, so that none at all has a place on it."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a subject is drawn."""

    colour: str
    marker: str
    dashes: str

    def marks(self, hollow: bool = False, size: float = 8) -> dict[str, Any]:
        """What draws the marker alone."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markersize": size,
            "markerfacecolor": "none" if hollow else self.colour,
            "linestyle": "none",
        }


_LOOKS = {
    ("mcrd", False): Look(svg.SERIES[0], "o", "-"),
    ("mcrd", True): Look(svg.SERIES[0], "D", "-"),
    ("kernel", False): Look(svg.SERIES[1], "s", "--"),
    ("kernel", True): Look(svg.SERIES[1], "^", "--"),
    ("none", False): Look(svg.SERIES[2], "x", ":"),
}
"""By subject and receive packet steering: the colour is the subject's, the marker tells the steering."""


def look(subject: str, rps: bool, others: Sequence[str] = ()) -> Look:
    """The known subjects keep their look from page to page; peers that come later take the rest in turn."""
    if (subject, rps) in _LOOKS:
        return _LOOKS[subject, rps]
    strangers = [name for name in others if (name, False) not in _LOOKS]
    place = strangers.index(subject) if subject in strangers else 0
    return Look(svg.SERIES[3 + place % 2], "Pv"[place % 2] if rps else "p<"[place % 2], "-.")


def _figure(
    name: str,
    title: str,
    key: str,
    description: str,
    plot: Callable[[Canvas, bool], None],
    height: Callable[[bool], float],
    doubts: Sequence[str] = (),
) -> Figure:
    """``plot(canvas, narrow)`` drawn at both widths."""

    def at(width: int, narrow: bool) -> str:
        part = f"{name}-{'narrow' if narrow else 'wide'}"
        return svg.draw(
            part, title, description, (width, height(narrow)), lambda canvas: plot(canvas, narrow)
        )

    return Figure(name, title, key, description, at(WIDE, False), at(NARROW, True), tuple(in_order(doubts)))


# -------------------------------------------------------------------------------------- against the peer


def ratios(data: Dataset) -> Figure | None:
    """Each paired comparison as a ratio with its interval; one panel a metric, 1 marked as no difference."""
    if not data.comparisons:
        return None
    keys = in_order((c.metric, c.a, c.b, c.higher_is_better) for c in data.comparisons)
    panels = [
        [c for c in data.comparisons if (c.metric, c.a, c.b, c.higher_is_better) == key] for key in keys
    ]

    def plot(canvas: Canvas, narrow: bool) -> None:
        heights = [len(panel) + (1.3 if narrow else 1.0) for panel in panels]
        axes = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            _ratio_panel(axis, panel, narrow)

    def height(narrow: bool) -> float:
        return sum(len(panel) * (62 if narrow else 36) + 74 for panel in panels)

    lines = "; ".join(
        f"{c.metric}, {words.row_label(c)}: {words.measured(c)}, {words.verdict(c)}" for c in data.comparisons
    )
    return _figure(
        "ratios",
        "Ratio and interval",
        "Mark: the ratio. Thick line: its interval. Dotted line at 1: no difference. Upright stroke: the "
        "target. Hollow mark: doubtful.",
        f"Each paired comparison as a ratio; the dotted line at 1 is no difference. {lines}.",
        plot,
        height,
        words.shared([(f"{c.metric}, {c.case}", c.warnings) for c in data.comparisons]),
    )


def _ratio_panel(axis: Axes, panel: Sequence[Comparison], narrow: bool) -> None:
    first = panel[0]
    better = "higher is better" if first.higher_is_better else "lower is better"
    title = f"{first.metric}, {words.subject(first.a)} / {words.subject(first.b)}"
    axis.set_title(title + ("\n" if narrow else " ") + f"({better})", fontsize=11 if narrow else 12)
    axis.axvline(1, color=svg.INK, linewidth=1, linestyle=":")
    colour, marker = look(first.a, False).colour, look(first.a, False).marker
    for place, c in enumerate(panel):
        axis.plot([c.low, c.high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        fill = "none" if c.warnings else colour
        axis.plot([c.ratio], [place], marker=marker, markersize=9, color=colour, markerfacecolor=fill)
        if c.target is not None:
            axis.plot([c.target], [place], marker="|", markersize=18, markeredgewidth=2, color=svg.INK)
    labels = [words.row_label(c) for c in panel]
    values = [_row_value(c) for c in panel]
    _rows(axis, labels, values, narrow)
    marks = [value for c in panel for value in (c.low, c.high, c.target or c.ratio)]
    low, high = min(0.9, *marks), max(1.1, *marks)
    axis.set_xlim(low - (high - low) * 0.06, high + (high - low) * 0.06)
    axis.xaxis.set_major_locator(MaxNLocator(5 if narrow else 9, steps=STEPS))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def _row_value(c: Comparison) -> str:
    interval = f" ({quantity.interval(c.low, c.high)})" if c.pairs > 1 else ""
    return f"{quantity.ratio(c.ratio)}{interval}, {words.verdict(c)}"


def _rows(axis: Axes, labels: Sequence[str], values: Sequence[str], narrow: bool) -> None:
    """One line a row, first on top: name left and value right of it; on a phone name above, value below."""
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(False, axis="y")
    axis.spines["left"].set_visible(False)
    if not narrow:
        axis.set_yticks(range(len(labels)), labels)
        right = axis.secondary_yaxis("right")
        right.set_yticks(range(len(values)), values)
        right.spines["right"].set_visible(False)
        for side in (axis, right):
            side.tick_params(axis="y", labelcolor=svg.INK)
        return
    axis.set_yticks([])
    for place, (label, value) in enumerate(zip(labels, values, strict=True)):
        for text, rise, align, colour in ((label, 9, "bottom", svg.INK), (value, -9, "top", svg.MUTED)):
            axis.annotate(
                text,
                (0, place),
                xycoords=("axes fraction", "data"),
                xytext=(0, rise),
                textcoords="offset points",
                fontsize=10.5,
                va=align,
                color=colour,
            )


# -------------------------------------------------------------------------------------------- throughput


def zero_loss(data: Dataset) -> Figure | None:
    """A row a case and subject: the highest rate without loss, where loss began, the generator's ceiling."""
    found = [z for z in data.zero_losses if z.lower_dps is not None]
    if not found:
        return None
    subjects = in_order(z.subject for z in found)
    cases = in_order((z.scenario, words.row_label(z)) for z in found)
    rows = [z for case in cases for z in found if (z.scenario, words.row_label(z)) == case]
    names = [f"{words.row_label(z)}, {words.steered(z)}" for z in rows]

    def plot(canvas: Canvas, narrow: bool) -> None:
        axis = canvas.subplots()
        for place, z in enumerate(rows):
            _rate_row(axis, place, z, look(z.subject, z.setting.rps, subjects))
        _rows(axis, names, [_at_least(z) for z in rows], narrow)
        axis.set_xlim(left=0)
        axis.set_xlabel("datagrams/s offered")
        axis.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8, steps=STEPS))
        axis.xaxis.set_major_formatter(FuncFormatter(_thousands))

    def height(narrow: bool) -> float:
        return len(rows) * (60 if narrow else 27) + 60

    lines = "; ".join(
        f"{name}: {_at_least(z)}, bounded by {words.bound(z.bound_by)}"
        for name, z in zip(names, rows, strict=True)
    )
    return _figure(
        "zero-loss-rates",
        "Highest rate without loss",
        "Mark: the highest rate without loss. Line: from there to the first rate with loss. Arrow: none "
        "lost, the generator ended first. Upright stroke: the generator's ceiling with no forwarder. "
        "Hollow mark: doubtful.",
        f"Datagrams a second offered without loss. {lines}.",
        plot,
        height,
        words.shared([(name, z.warnings) for name, z in zip(names, rows, strict=True)]),
    )


def _rate_row(axis: Axes, place: int, z: ZeroLoss, style: Look) -> None:
    lower = z.lower_dps or 0
    if z.upper_dps is None:
        axis.annotate(
            "→",
            (lower, place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=15,
            color=style.colour,
        )
    else:
        axis.plot([lower, z.upper_dps], [place, place], color=style.colour, linewidth=2)
    axis.plot([lower], [place], **style.marks(hollow=bool(z.warnings)))
    axis.plot([z.generator_ceiling_dps], [place], marker="|", markersize=13, color=svg.MUTED)


def _at_least(z: ZeroLoss) -> str:
    return f"{'≥ ' if z.upper_dps is None else ''}{quantity.rate(z.lower_dps)}"


def _legend(canvas: Canvas) -> None:
    """One legend over all panels, each name once."""
    entries: dict[str, Any] = {}
    for axis in canvas.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    narrow = canvas.get_figwidth() * 72 < WIDE
    canvas.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper left",
        ncols=2 if narrow else 4,
        handlelength=2.6,
        columnspacing=1.2,
    )


def _thousands(value: float, _position: int) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value else "0"


# ---------------------------------------------------------------------------------- loss against the load


def loss(data: Dataset) -> list[Figure]:
    """One figure a scenario, one panel a case: share of copies lost at each rate that was offered."""
    trials = [t for t in data.trials if t.subject != "none" and t.purpose in ("search", "fixed")]
    return [
        _loss_figure(scenario, [t for t in trials if t.scenario == scenario])
        for scenario in in_order(t.scenario for t in trials)
    ]


def _loss_figure(scenario: str, trials: Sequence[Trial]) -> Figure:
    keys = in_order((t.case, t.setting.egress) for t in trials)
    panels = [[t for t in trials if (t.case, t.setting.egress) == key] for key in keys]
    subjects = in_order(t.subject for t in trials)

    def plot(canvas: Canvas, narrow: bool) -> None:
        across = 1 if narrow or len(panels) == 1 else 2
        down = -(-len(panels) // across)
        axes = canvas.subplots(down, across, squeeze=False).flatten()
        for axis, panel in zip(axes, panels, strict=False):
            _loss_panel(axis, panel, subjects)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        _legend(canvas)

    def height(narrow: bool) -> float:
        across = 1 if narrow or len(panels) == 1 else 2
        return -(-len(panels) // across) * (225 if narrow else 250) + 40

    told = "; ".join(_loss_words(panel) for panel in panels)
    hollow = sum(t.validity != "valid" for t in trials)
    doubts = [f"{quantity.plural(hollow, 'hollow mark')}: trials not valid, see the ledger"] if hollow else []
    return _figure(
        f"loss-{scenario}",
        f"Loss against offered load, {scenario}",
        "Mark: one trial. Hollow mark: a trial that is not valid.",
        f"Share of copies lost, in percent, at each offered rate. {told}.",
        plot,
        height,
        doubts,
    )


def _loss_words(panel: Sequence[Trial]) -> str:
    parts = []
    for name in in_order(words.steered(t) for t in panel):
        mine = [t for t in panel if words.steered(t) == name]
        worst = max(mine, key=lambda t: t.loss_ratio)
        parts.append(
            f"{name} lost up to {quantity.percent(worst.loss_ratio)} at {quantity.rate(worst.offered_dps)} "
            f"datagrams/s in {quantity.plural(len(mine), 'trial')}"
        )
    return f"{words.row_label(panel[0])}: {', '.join(parts)}"


def _loss_panel(axis: Axes, panel: Sequence[Trial], subjects: Sequence[str]) -> None:
    for name in in_order((t.subject, t.setting.rps) for t in panel):
        mine = sorted(
            (t for t in panel if (t.subject, t.setting.rps) == name),
            key=lambda t: (t.offered_dps, t.loss_ratio),
        )
        style = look(*name, subjects)
        for sound in (True, False):
            marks = [t for t in mine if (t.validity == "valid") == sound]
            axis.plot(
                [t.offered_dps for t in marks],
                [100 * t.loss_ratio for t in marks],
                color=style.colour,
                marker=style.marker,
                markersize=5,
                markerfacecolor=style.colour if sound else "none",
                linestyle=style.dashes if sound else "none",
                label=words.steered(mine[0]) if sound else None,
            )
    first = panel[0]
    axis.set_title(words.row_label(first))
    axis.set_yscale("symlog", linthresh=LOSS_KNEE, linscale=0.6)
    axis.set_ylim(-LOSS_KNEE / 8, 100)
    axis.set_yticks([0, 0.01, 0.1, 1, 10, 100], ["0", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
    axis.minorticks_off()
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axis.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axis.set_xlabel("datagrams/s offered")
    axis.set_ylabel("copies lost")


# ------------------------------------------------------------------------------------------------ latency


def latency(data: Dataset) -> Figure | None:
    """Latency percentiles, one panel a case, one line a subject; logarithmic, in microseconds."""
    groups = latency_groups(data)
    if not groups:
        return None

    def case_of(trials: Sequence[Trial]) -> tuple[str, str]:
        return trials[0].scenario, words.row_label(trials[0])

    cases = in_order(case_of(trials) for trials in groups)
    subjects = in_order(trials[0].subject for trials in groups)

    def plot(canvas: Canvas, narrow: bool) -> None:
        across = 1 if narrow or len(cases) == 1 else 2
        axes = canvas.subplots(-(-len(cases) // across), across, squeeze=False).flatten()
        for axis, case in zip(axes, cases, strict=False):
            for trials in (g for g in groups if case_of(g) == case):
                style = look(trials[0].subject, trials[0].setting.rps, subjects)
                axis.plot(
                    range(len(PERCENTILES)),
                    [value / quantity.NS_PER_US for value in latency_medians(trials)],
                    color=style.colour,
                    marker=style.marker,
                    linestyle=style.dashes,
                    label=words.steered(trials[0]),
                )
            axis.set_title(case[1])
            axis.set_xticks(range(len(PERCENTILES)), PERCENTILES)
            axis.set_yscale("log")
            axis.minorticks_off()
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.set_ylabel("µs")
        for axis in axes[len(cases) :]:
            axis.set_visible(False)
        _legend(canvas)

    def height(narrow: bool) -> float:
        across = 1 if narrow or len(cases) == 1 else 2
        return -(-len(cases) // across) * (215 if narrow else 230) + 40

    told = "; ".join(
        f"{case_of(g)[1]}, {words.steered(g[0])}: "
        + ", ".join(
            f"{name} {quantity.microseconds(value)}"
            for name, value in zip(PERCENTILES, latency_medians(g), strict=True)
        )
        for g in groups
    )
    return _figure(
        "latency-percentiles",
        "Latency percentiles",
        "Medians over the trials, in microseconds, on a logarithmic axis.",
        f"Send stamp to receive stamp in microseconds, logarithmic. {told}.",
        plot,
        height,
        words.shared([(f"{case_of(g)[1]}, {words.steered(g[0])}", words.group_doubts(g)) for g in groups]),
    )
