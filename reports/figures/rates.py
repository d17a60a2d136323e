"""The drawings of rates, loss, latency and comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from lab.results import Comparison, Trial, ZeroLoss
from reports import labels, quantity, verdicts
from reports.collapse import ROWS_SHOWN, by_scenario
from reports.dataset import Dataset
from reports.figures import svg
from reports.figures.style import (
    across,
    draw_rate,
    draw_rows,
    figure,
    grid,
    legend,
    look,
    rate_axis,
    row_heights,
    set_ticks,
)
from reports.labels import unique
from reports.model import Figure
from reports.tables.trials import PERCENTILES, latency_groups, latency_medians, load_share

LOSS_KNEE = 0.01
"""Percent of loss below which the axis is linear, so that 0 has a place on it."""
OPEN_FIGURES = 3
"""With more scenarios than this, their drawings of loss are folded."""


# -------------------------------------------------------------------------------------- against the peer


def ratios(data: Dataset) -> Figure | None:
    """Each paired comparison as a ratio with its interval; one panel a metric, 1 marked as no difference."""
    if not data.comparisons:
        return None
    keys = unique((c.metric, c.a, c.b, c.higher_is_better) for c in data.comparisons)
    panels = [
        [c for c in data.comparisons if (c.metric, c.a, c.b, c.higher_is_better) == key] for key in keys
    ]

    def plot(canvas: Canvas, narrow: bool) -> None:
        heights = [len(panel) + (1.3 if narrow else 1.0) for panel in panels]
        axes = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            _ratio_panel(data, axis, panel, narrow)

    def height(narrow: bool) -> float:
        return sum(len(panel) * (62 if narrow else 36) + 74 for panel in panels)

    names = {id(c): f"{c.metric}, {labels.label(data, c)}" for c in data.comparisons}
    lines = "; ".join(
        f"{names[id(c)]}: {verdicts.measured(c)}, {verdicts.concluded(c)}" for c in data.comparisons
    )
    return figure(
        "ratios",
        "Ratio and interval",
        "Mark: the ratio. Thick line: its interval. Dotted line at 1: no difference. Upright stroke: the "
        "target. Hollow mark: doubtful.",
        f"Each paired comparison as a ratio; the dotted line at 1 is no difference. {lines}.",
        plot,
        height,
        verdicts.merged([(names[id(c)], verdicts.distinct(c.warnings)) for c in data.comparisons]),
    )


def _ratio_panel(data: Dataset, axis: Axes, panel: Sequence[Comparison], narrow: bool) -> None:
    first = panel[0]
    better = "higher is better" if first.higher_is_better else "lower is better"
    between = f"{labels.subject(first.a)} / {labels.subject(first.b)}"
    if first.a == first.b:
        between = f"{labels.subject(first.a)}, one case / another"
    axis.set_title(
        f"{first.metric}, {between}" + ("\n" if narrow else " ") + f"({better})",
        fontsize=11 if narrow else 12,
    )
    axis.axvline(1, color=svg.INK, linewidth=1, linestyle=":")
    colour, marker = look(first.a, False).colour, look(first.a, False).marker
    for place, c in enumerate(panel):
        axis.plot([c.low, c.high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        fill = "none" if verdicts.distinct(c.warnings) else colour
        axis.plot([c.ratio], [place], marker=marker, markersize=9, color=colour, markerfacecolor=fill)
        if c.target is not None:
            axis.plot([c.target], [place], marker="|", markersize=18, markeredgewidth=2, color=svg.INK)
    draw_rows(axis, [labels.label(data, c) for c in panel], [_row_value(c) for c in panel], narrow)
    marks = [value for c in panel for value in (c.low, c.high, c.target or c.ratio)]
    low, high = min(0.9, *marks), max(1.1, *marks)
    axis.set_xlim(low - (high - low) * 0.06, high + (high - low) * 0.06)
    set_ticks(axis.xaxis, 5 if narrow else 9, "{x:g}×")


def _row_value(c: Comparison) -> str:
    interval = f" ({quantity.interval(c.low, c.high)})" if c.pairs > 1 else ""
    return f"{quantity.ratio(c.ratio)}{interval}, {verdicts.verdict(c)}"


# -------------------------------------------------------------------------------------------- throughput


def zero_loss(data: Dataset) -> list[Figure]:
    """A row a case and subject: the highest rate without loss, where loss began, the generator's ceiling."""
    found = [z for z in data.zero_losses if z.lower_dps is not None]
    subjects = unique(z.subject for z in found)
    return [
        _zero_loss_figure(data, scenario, rates, subjects)
        for scenario, rates in by_scenario(found, lambda z: z.scenario, ROWS_SHOWN)
    ]


def _zero_loss_figure(
    data: Dataset, scenario: str, found: Sequence[ZeroLoss], subjects: Sequence[str]
) -> Figure:
    cases = unique((z.scenario, labels.label(data, z)) for z in found)
    rates = [z for case in cases for z in found if (z.scenario, labels.label(data, z)) == case]
    names = [f"{labels.label(data, z)}, {labels.subject_with_rps(z)}" for z in rates]

    def plot(canvas: Canvas, narrow: bool) -> None:
        axis = canvas.subplots()
        for place, z in enumerate(rates):
            draw_rate(
                axis, place, z, look(z.subject, z.setting.rps, subjects), bool(verdicts.distinct(z.warnings))
            )
        draw_rows(axis, names, [verdicts.zero_loss_rate(z) for z in rates], narrow)
        rate_axis(axis, 4 if narrow else 8)

    lines = "; ".join(
        f"{name}: {verdicts.zero_loss_rate(z)}, bounded by {verdicts.bound(z.bound_by)}"
        for name, z in zip(names, rates, strict=True)
    )
    return figure(
        f"zero-loss-rates-{scenario}" if scenario else "zero-loss-rates",
        f"Highest rate without loss, {scenario}" if scenario else "Highest rate without loss",
        "Mark: the highest rate without loss. Line: from there to the first rate with loss. Arrow: none "
        "lost, the generator was the limit. Upright stroke: the generator's ceiling with no forwarder. "
        "Hollow mark: doubtful.",
        f"Datagrams a second offered without loss. {lines}.",
        plot,
        row_heights(len(rates)),
        verdicts.merged(
            [(name, verdicts.distinct(z.warnings)) for name, z in zip(names, rates, strict=True)]
        ),
        f"{scenario}: {quantity.plural(len(rates), 'rate')}, drawn" if scenario else "",
    )


# ---------------------------------------------------------------------------------- loss against the load


def loss(data: Dataset) -> list[Figure]:
    """One figure a scenario, one panel a case: share of copies lost at each rate that was offered."""
    trials = [t for t in data.trials if t.subject != "none" and t.purpose in ("search", "fixed", "sweep")]
    scenarios = unique(t.scenario for t in trials)
    return [
        _loss_figure(data, name, [t for t in trials if t.scenario == name], len(scenarios) > OPEN_FIGURES)
        for name in scenarios
    ]


def _loss_figure(data: Dataset, scenario: str, trials: Sequence[Trial], folded: bool) -> Figure:
    keys = unique((t.case, t.setting.egress) for t in trials)
    panels = [[t for t in trials if (t.case, t.setting.egress) == key] for key in keys]
    subjects = unique(t.subject for t in trials)

    def plot(canvas: Canvas, narrow: bool) -> None:
        for axis, panel in grid(canvas, panels, narrow):
            _loss_panel(data, axis, panel, subjects)
        legend(canvas)

    def height(narrow: bool) -> float:
        return -(-len(panels) // across(len(panels), narrow)) * (225 if narrow else 250) + 40

    text = "; ".join(_loss_text(data, panel) for panel in panels)
    hollow = sum(t.validity != "valid" for t in trials)
    doubts = [f"{quantity.plural(hollow, 'hollow mark')}: trials not valid, see the ledger"] if hollow else []
    line = f"{scenario}: {quantity.plural(len(panels), 'case')}, {quantity.plural(len(trials), 'trial')}"
    return figure(
        f"loss-{scenario}",
        f"Loss against offered load, {scenario}",
        "Mark: one trial. Hollow mark: a trial that is not valid.",
        f"Share of copies lost, in percent, at each offered rate. {text}.",
        plot,
        height,
        doubts,
        line if folded else "",
    )


def _loss_text(data: Dataset, panel: Sequence[Trial]) -> str:
    parts = []
    for name in unique(labels.subject_with_rps(t) for t in panel):
        mine = [t for t in panel if labels.subject_with_rps(t) == name]
        worst = max(mine, key=lambda t: t.loss_ratio)
        parts.append(
            f"{name} lost up to {quantity.percent(worst.loss_ratio)} at {quantity.rate(worst.offered_dps)} "
            f"datagrams/s in {quantity.plural(len(mine), 'trial')}"
        )
    return f"{labels.label(data, panel[0])}: {', '.join(parts)}"


def _loss_panel(data: Dataset, axis: Axes, panel: Sequence[Trial], subjects: Sequence[str]) -> None:
    for name in unique((t.subject, t.setting.rps) for t in panel):
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
                label=labels.subject_with_rps(mine[0]) if sound else None,
            )
    axis.set_title(labels.label(data, panel[0]))
    axis.set_yscale("symlog", linthresh=LOSS_KNEE, linscale=0.6)
    axis.set_ylim(-LOSS_KNEE / 8, 100)
    axis.set_yticks([0, 0.01, 0.1, 1, 10, 100], ["0", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
    axis.minorticks_off()
    rate_axis(axis, 5)
    axis.set_ylabel("copies lost")


# ------------------------------------------------------------------------------------------------ latency


def latency(data: Dataset) -> list[Figure]:
    """A row a case and subject: p50, p99 and the maximum; logarithmic, in microseconds."""
    groups = latency_groups(data)
    subjects = unique(g[0].subject for g in groups)
    return [
        _latency_figure(data, scenario, members, subjects)
        for scenario, members in by_scenario(groups, lambda g: g[0].scenario, ROWS_SHOWN)
    ]


def _latency_figure(
    data: Dataset, scenario: str, groups: Sequence[Sequence[Trial]], subjects: Sequence[str]
) -> Figure:
    names = [_loaded_name(data, g[0]) for g in groups]
    medians = [latency_medians(g) for g in groups]
    doubts = [(name, verdicts.group_doubts(g)) for name, g in zip(names, groups, strict=True)]

    def plot(canvas: Canvas, narrow: bool) -> None:
        axis = canvas.subplots()
        for place, (g, values) in enumerate(zip(groups, medians, strict=True)):
            style = look(g[0].subject, g[0].setting.rps, subjects)
            p50, _, p99, _, most = (value / quantity.NS_PER_US for value in values)
            axis.plot([p50, most], [place, place], color=style.colour, linewidth=1)
            axis.plot([p50, p99], [place, place], color=style.colour, linewidth=3, solid_capstyle="butt")
            axis.plot([p50], [place], **style.marks(hollow=bool(doubts[place][1])))
            axis.plot([most], [place], marker="|", markersize=13, color=svg.MUTED)
        draw_rows(axis, names, [_latency_value(values) for values in medians], narrow)
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.set_xlabel("µs")

    text = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{percentile} {quantity.microseconds(value)}"
            for percentile, value in zip(PERCENTILES, values, strict=True)
        )
        for name, values in zip(names, medians, strict=True)
    )
    return figure(
        f"latency-percentiles-{scenario}" if scenario else "latency-percentiles",
        f"Latency percentiles, {scenario}" if scenario else "Latency percentiles",
        "Mark: the median, p50. Thick line: to p99. Thin line: to the maximum, the upright stroke. "
        "Medians over the trials, on a logarithmic axis. Hollow mark: doubtful.",
        f"Send stamp to receive stamp in microseconds, logarithmic. {text}.",
        plot,
        row_heights(len(groups)),
        verdicts.merged(doubts),
        f"{scenario}: {quantity.plural(len(groups), 'row')}, drawn" if scenario else "",
    )


def _loaded_name(data: Dataset, trial: Trial) -> str:
    share = load_share(trial)
    return f"{labels.label(data, trial)}, {labels.subject_with_rps(trial)}{f', at {share}' if share else ''}"


def _latency_value(values: Sequence[float]) -> str:
    p50, _, p99, _, _ = values
    return f"p50 {quantity.microseconds(p50)}, p99 {quantity.microseconds(p99)}"
