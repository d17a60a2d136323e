"""The drawings of rates, loss, latency and comparisons."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from lab.results import Comparison, Trial, ZeroLoss
from reports import labels, quantity, verdicts
from reports.collapse import ROWS_SHOWN, by_scenario
from reports.dataset import Dataset, grouped
from reports.figures import style, svg
from reports.labels import unique
from reports.model import Figure
from reports.tables.trials import PERCENTILES, latency_groups, latency_medians, load_share

LOSS_KNEE = 0.01
"""Percent of loss below which the axis is linear, so that 0 has a place on it."""
OPEN_FIGURES = 3
"""With more scenarios than this, their drawings of loss are folded."""


def ratios(data: Dataset) -> list[Figure]:
    """Each paired comparison as a ratio with its interval; one panel a metric, 1 marked as no difference."""
    if not data.comparisons:
        return []
    panels = [*grouped(data.comparisons, lambda c: (c.figure, c.a, c.b, c.higher_is_better)).values()]

    def plot(canvas: Canvas, narrow: bool) -> None:
        heights = [len(panel) + (1.3 if narrow else 1.0) for panel in panels]
        axes = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            _ratio_panel(data, axis, panel, narrow)

    names = [f"{c.figure}, {labels.label(data, c)}" for c in data.comparisons]
    said = (f"{verdicts.measured(c)}, {verdicts.concluded(c)}" for c in data.comparisons)
    text = style.in_words(names, said)
    doubts = [verdicts.distinct(c.warnings) for c in data.comparisons]
    made = style.figure(
        "ratios",
        "Ratio and interval",
        "Mark: the ratio. Thick line: its interval. Dotted line at 1: no difference. Upright stroke: the "
        "target. Hollow mark: doubtful.",
        f"Each paired comparison as a ratio; the dotted line at 1 is no difference. {text}.",
        plot,
        lambda narrow: sum(len(panel) * (62 if narrow else 36) + 74 for panel in panels),
        verdicts.merged(list(zip(names, doubts, strict=True))),
    )
    return [made]


def _ratio_panel(data: Dataset, axis: Axes, panel: Sequence[Comparison], narrow: bool) -> None:
    first = panel[0]
    better = "higher is better" if first.higher_is_better else "lower is better"
    between = f"{labels.subject(first.a)} / {labels.subject(first.b)}"
    if first.a == first.b:
        between = f"{labels.subject(first.a)}, one case / another"
    separator, size = ("\n", 11) if narrow else (" ", 12)
    axis.set_title(f"{first.figure}, {between}{separator}({better})", fontsize=size)
    axis.axvline(1, color=svg.INK, linewidth=1, linestyle=":")
    how = style.look(first.a, "first")
    for place, c in enumerate(panel):
        axis.plot([c.low, c.high], [place, place], color=how.colour, linewidth=3, solid_capstyle="butt")
        hollow = bool(verdicts.distinct(c.warnings))
        axis.plot([c.ratio], [place], **how.marks(hollow, size=9))
        if c.target is not None:
            axis.plot([c.target], [place], marker="|", markersize=18, markeredgewidth=2, color=svg.INK)
    style.draw_rows(axis, [labels.label(data, c) for c in panel], [_row_value(c) for c in panel], narrow)
    marks = [value for c in panel for value in (c.low, c.high, c.target or c.ratio)]
    low, high = min(0.9, *marks), max(1.1, *marks)
    axis.set_xlim(low - (high - low) * 0.06, high + (high - low) * 0.06)
    style.set_ticks(axis.xaxis, 5 if narrow else 9, "{x:g}×")


def _row_value(c: Comparison) -> str:
    interval = f" ({quantity.interval(c.low, c.high)})" if c.pairs > 1 else ""
    return f"{quantity.ratio(c.ratio)}{interval}, {verdicts.verdict(c)}"


def zero_loss(data: Dataset) -> list[Figure]:
    """A row a case and subject: the highest rate without loss, where loss began, the generator's ceiling."""
    found = [z for z in data.zero_losses if z.lower_dps is not None]
    subjects = unique(z.subject for z in found)
    parts = by_scenario(found, lambda z: z.scenario, ROWS_SHOWN)
    return [_zero_loss_figure(data, *part, subjects) for part in parts]


def _zero_loss_figure(
    data: Dataset, scenario: str, found: Sequence[ZeroLoss], subjects: Sequence[str]
) -> Figure:
    cases = grouped(found, lambda z: (z.scenario, labels.label(data, z)))
    rates = [z for members in cases.values() for z in members]
    names = [f"{labels.label(data, z)}, {labels.subject_with_receive(z)}" for z in rates]
    values = [verdicts.zero_loss_rate(z) for z in rates]

    def plot(canvas: Canvas, narrow: bool) -> None:
        axis = canvas.subplots()
        for place, z in enumerate(rates):
            style.draw_rate(axis, place, z, style.look(z.subject, z.setting.receive, subjects))
        style.draw_rows(axis, names, values, narrow)
        style.rate_axis(axis, 4 if narrow else 8)

    bounds = [f"{verdicts.zero_loss_rate(z)}, bounded by {verdicts.bound(z.bound_by)}" for z in rates]
    doubts = [verdicts.distinct(z.warnings) for z in rates]
    return style.figure(
        *style.of_scenario(scenario, "zero-loss-rates", "Highest rate without loss"),
        "Mark: the highest rate without loss. Line: from there to the first rate with loss. Arrow: none "
        "lost, the generator was the limit. Upright stroke: the generator's ceiling with no forwarder. "
        "Hollow mark: doubtful.",
        f"Datagrams a second offered without loss. {style.in_words(names, bounds)}.",
        plot,
        style.heights(len(rates)),
        verdicts.merged(list(zip(names, doubts, strict=True))),
        f"{scenario}: {quantity.plural(len(rates), 'rate')}, drawn" if scenario else "",
    )


def loss(data: Dataset) -> list[Figure]:
    """One figure a scenario, one panel a case: share of copies lost at each rate that was offered."""
    trials = [t for t in data.trials if t.subject != "none" and t.purpose in ("search", "fixed", "sweep")]
    scenarios = grouped(trials, lambda t: t.scenario)
    folded = len(scenarios) > OPEN_FIGURES
    return [_loss_figure(data, name, members, folded) for name, members in scenarios.items()]


def _loss_figure(data: Dataset, scenario: str, trials: Sequence[Trial], folded: bool) -> Figure:
    panels = [*grouped(trials, lambda t: (t.case, t.setting.egress)).values()]
    subjects = unique(t.subject for t in trials)

    def plot(canvas: Canvas, narrow: bool) -> None:
        for axis, panel in style.grid(canvas, panels, narrow):
            _loss_panel(data, axis, panel, subjects)
        style.legend(canvas)

    text = "; ".join(_loss_text(data, panel) for panel in panels)
    hollow = sum(t.validity != "valid" for t in trials)
    doubts = [f"{quantity.plural(hollow, 'hollow mark')}: trials not valid, see the ledger"] if hollow else []
    line = f"{scenario}: {quantity.plural(len(panels), 'case')}, {quantity.plural(len(trials), 'trial')}"
    return style.figure(
        f"loss-{scenario}",
        f"Loss against offered load, {scenario}",
        "Mark: one trial. Hollow mark: a trial that is not valid.",
        f"Share of copies lost, in percent, at each offered rate. {text}.",
        plot,
        lambda narrow: -(-len(panels) // style.across(len(panels), narrow)) * (225 if narrow else 250) + 40,
        doubts,
        line if folded else "",
    )


def _loss_text(data: Dataset, panel: Sequence[Trial]) -> str:
    parts = []
    for name, mine in grouped(panel, labels.subject_with_receive).items():
        worst = max(mine, key=lambda t: t.loss_ratio)
        parts.append(
            f"{name} lost up to {quantity.percent(worst.loss_ratio)} at {quantity.rate(worst.offered_dps)} "
            f"datagrams/s in {quantity.plural(len(mine), 'trial')}"
        )
    return f"{labels.label(data, panel[0])}: {', '.join(parts)}"


def _loss_panel(data: Dataset, axis: Axes, panel: Sequence[Trial], subjects: Sequence[str]) -> None:
    for (subject, receive), mine in grouped(panel, lambda t: (t.subject, t.setting.receive)).items():
        how = style.look(subject, receive, subjects)
        mine.sort(key=lambda t: (t.offered_dps, t.loss_ratio))
        for sound in (True, False):
            marks = [t for t in mine if (t.validity == "valid") == sound]
            rates, losses = [t.offered_dps for t in marks], [100 * t.loss_ratio for t in marks]
            line: dict[str, Any] = {"linestyle": how.dashes} if sound else {}
            name = labels.subject_with_receive(mine[0]) if sound else None
            axis.plot(rates, losses, label=name, **how.marks(not sound, size=5) | line)
    axis.set_title(labels.label(data, panel[0]))
    axis.set_yscale("symlog", linthresh=LOSS_KNEE, linscale=0.6)
    axis.set_ylim(-LOSS_KNEE / 8, 100)
    axis.set_yticks([0, 0.01, 0.1, 1, 10, 100], ["0", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
    axis.minorticks_off()
    style.rate_axis(axis, 5)
    axis.set_ylabel("copies lost")


def latency(data: Dataset) -> list[Figure]:
    """A row a case and subject: p50, p99 and the maximum; logarithmic, in microseconds."""
    groups = latency_groups(data)
    subjects = unique(g[0].subject for g in groups)
    parts = by_scenario(groups, lambda g: g[0].scenario, ROWS_SHOWN)
    return [_latency_figure(data, *part, subjects) for part in parts]


def _latency_figure(
    data: Dataset, scenario: str, groups: Sequence[Sequence[Trial]], subjects: Sequence[str]
) -> Figure:
    names = [_loaded_name(data, g[0]) for g in groups]
    medians = [latency_medians(g) for g in groups]
    doubts = [verdicts.group_doubts(g) for g in groups]
    figures = [dict(zip(PERCENTILES, map(quantity.microseconds, each), strict=True)) for each in medians]

    def plot(canvas: Canvas, narrow: bool) -> None:
        axis = canvas.subplots()
        for place, (g, values) in enumerate(zip(groups, medians, strict=True)):
            how = style.look(g[0].subject, g[0].setting.receive, subjects)
            p50, _, p99, _, most = (value / quantity.NS_PER_US for value in values)
            axis.plot([p50, most], [place, place], color=how.colour, linewidth=1)
            axis.plot([p50, p99], [place, place], color=how.colour, linewidth=3, solid_capstyle="butt")
            axis.plot([p50], [place], **how.marks(hollow=bool(doubts[place])))
            axis.plot([most], [place], marker="|", markersize=13, color=svg.MUTED)
        style.draw_rows(axis, names, [f"p50 {each['p50']}, p99 {each['p99']}" for each in figures], narrow)
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.set_xlabel("µs")

    texts = (", ".join(f"{percentile} {value}" for percentile, value in each.items()) for each in figures)
    return style.figure(
        *style.of_scenario(scenario, "latency-percentiles", "Latency percentiles"),
        "Mark: the median, p50. Thick line: to p99. Thin line: to the maximum, the upright stroke. "
        "Medians over the trials, on a logarithmic axis. Hollow mark: doubtful.",
        f"Send stamp to receive stamp in microseconds, logarithmic. {style.in_words(names, texts)}.",
        plot,
        style.heights(len(groups)),
        verdicts.merged(list(zip(names, doubts, strict=True))),
        f"{scenario}: {quantity.plural(len(groups), 'row')}, drawn" if scenario else "",
    )


def _loaded_name(data: Dataset, trial: Trial) -> str:
    share = load_share(trial)
    return (
        f"{labels.label(data, trial)}, {labels.subject_with_receive(trial)}{f', at {share}' if share else ''}"
    )
