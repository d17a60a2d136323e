"""The page of two runs against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reports import quantity
from reports.collapse import split
from reports.dataset import Dataset
from reports.figures import svg
from reports.figures.style import STEPS, draw_rows, figure
from reports.model import Cell, Column, Figure, Page, Point, Row, Section, Table, Tone
from reports.page import compare as contrast
from reports.page.compare import Contrast, Difference
from reports.quantity import listed, plural
from reports.tables.build import plain

DRAWN = 24
"""A drawing of more rows than this is left to the table."""
NOT_IN_TURN = (
    "The runs were made one after the other, not in turn: a machine that drifted in between shows as a "
    "difference. For a verdict on two forwarders let mcastlab compare measure both in one run."
)
READING = (
    "A ratio is A / B of geometric means. Its interval is Welch's, at 95 %, and is given where both runs "
    f"have at least {contrast.LEAST_REPEATED} figures. Figures are matched by scenario, case, subject, every "
    "setting and the load; what only one run has is listed below."
)


def build(a: Dataset, b: Dataset) -> Page:
    found = contrast.contrasts(a, b)
    differing = contrast.differences(a, b)
    by_metric = [(metric, [c for c in found if c.metric == metric]) for metric in contrast.METRICS]
    sections = (
        Section("differences", "How the runs differ", (), tuple(_differences(differing))),
        *(
            Section(
                f"contrast-{place}",
                metric.name[:1].upper() + metric.name[1:],
                (READING,) if place == first else (),
                (*_drawn(place, members), *_tables(place, members)),
            )
            for first in [next((n for n, (_, each) in enumerate(by_metric) if each), -1)]
            for place, (metric, members) in enumerate(by_metric)
            if members
        ),
        Section("only", "In one run only", (), tuple(_only(a, b))),
    )
    return Page(
        title="Two runs against each other",
        subtitle=f"A: {_told(a)} B: {_told(b)}",
        summary=tuple(_summary(a, b, found, differing)),
        sections=tuple(section for section in sections if section.parts),
    )


def _told(data: Dataset) -> str:
    if data.run is None:
        return "a run without its opening record."
    where = data.run.provenance
    commit = f", commit {where.commit[:12]}" if where.commit else ""
    dirty = " with changes" if where.dirty else ""
    machine = f"{where.cpu_model}, {where.cpus} CPUs"
    return f"run {data.run.run_id}, {data.run.profile} profile, {machine}{commit}{dirty}."


def _summary(
    a: Dataset, b: Dataset, found: Sequence[Contrast], differing: Sequence[Difference]
) -> list[Point]:
    points: list[Point] = []
    for name, data in (("A", a), ("B", b)):
        if data.left_out:
            points.append(
                Point(
                    f"Left out of {name}.", "Its file held more than could be used:", "bad", (), data.left_out
                )
            )
        if not data.finished:
            points.append(
                Point(f"{name} is incomplete.", "The run did not end; this is what there is.", "bad")
            )
    if a.run is not None and b.run is not None and a.run.run_id == b.run.run_id:
        points.append(Point("The same run.", "A and B have one run id: nothing can differ.", "bad"))
    machines = [each for each in differing if each.machine]
    if machines:
        items = tuple(f"{each.what}: {each.a} in A, {each.b} in B" for each in machines)
        text = "Figures are shown beside each other, and none is judged:"
        points.append(Point("Different machines.", text, "bad", (), items, "differences"))
    elif refused := contrast.refusal(a, b):
        points.append(Point("No verdicts.", f"{refused[:1].upper()}{refused[1:]}.", "bad"))
    if not found:
        points.append(Point("Nothing to compare.", "No figure of one run has its like in the other.", "bad"))
        return points
    for place, metric in enumerate(contrast.METRICS):
        members = [c for c in found if c.metric == metric]
        if members:
            points.append(_metric_point(f"contrast-{place}", members))
    points.append(Point("Not in turn.", NOT_IN_TURN))
    others = [each.what for each in differing if not each.machine]
    if others:
        points.append(
            Point(
                "What else differs.",
                f"{listed(others[:8])}{' and more' if len(others) > 8 else ''}.",
                see="differences",
            )
        )
    alone = [(name, len(contrast.missing(x, y))) for name, x, y in (("A", a, b), ("B", b, a))]
    if any(number for _, number in alone):
        told = listed([f"{plural(number, 'figure')} only in {name}" for name, number in alone if number])
        points.append(Point("Not in both.", f"{told}.", see="only"))
    return points


def _metric_point(section: str, members: Sequence[Contrast]) -> Point:
    metric = members[0].metric
    tally = Counter(c.verdict or "no verdict" for c in members)
    said = listed([f"{word} in {number}" for word, number in tally.items()])
    ratios = sorted(members, key=lambda c: c.ratio)
    direction = "more is better" if metric.higher_is_better else "less is better"
    ends = (
        f"A / B from {_ratio(ratios[0])} to {_ratio(ratios[-1])} ×"
        if len(members) > 1
        else f"A / B {_ratio(ratios[0])} ×"
    )
    items = tuple(
        f"{c.name}, {c.subject}: {_ratio(c)} × ({_interval(c)}), A is {c.verdict}"
        for c in members
        if c.verdict in ("better", "worse")
    )
    tone: Tone = "bad" if tally["worse"] else "good" if tally["better"] else "plain"
    text = f"{direction}, {plural(len(members), 'figure')}, {ends}: {said}."
    return Point(f"{metric.name[:1].upper()}{metric.name[1:]}.", text, tone, (), items, section)


def _ratio(c: Contrast) -> str:
    return quantity.ratio(c.ratio)


def _interval(c: Contrast) -> str:
    return quantity.interval(*c.interval) if c.interval else "no interval"


def _differences(differing: Sequence[Difference]) -> list[Table]:
    columns = (Column("What"), Column("A"), Column("B"), Column("Weight"))
    rows = tuple(
        Row(
            (
                *plain(each.what, each.a, each.b),
                Cell(
                    "another machine: no verdicts" if each.machine else "may explain a difference",
                    tone="bad" if each.machine else "plain",
                ),
            )
        )
        for each in sorted(differing, key=lambda each: not each.machine)
    )
    return [Table("differences", "What the runs' provenance says differently", columns, rows)] if rows else []


def _tables(place: int, members: Sequence[Contrast]) -> list[Table]:
    metric = members[0].metric
    columns = (
        Column("Case"),
        Column("Subject"),
        Column("A", metric.unit, numeric=True),
        Column("B", metric.unit, numeric=True),
        Column("A / B", "×", numeric=True),
        Column("Verdict", "on A"),
        Column("Figures", "A, B"),
    )
    rows = [(c.key.scenario, Row(_cells(c), trials=_trials(c))) for c in members]
    return split(f"contrast-{place}", f"{metric.name}, A against B", columns, rows)


def _cells(c: Contrast) -> tuple[Cell, ...]:
    tones: dict[str | None, Tone] = {"better": "good", "worse": "bad"}
    doubts = tuple(
        f"{side.doubtful} of {len(side.values)} in {name} doubtful"
        for name, side in (("A", c.a), ("B", c.b))
        if side.doubtful
    )
    return (
        Cell(c.name),
        Cell(c.subject),
        *(Cell(f"{'≥ ' if side.open_end else ''}{quantity.rate(side.middle)}") for side in (c.a, c.b)),
        Cell(_ratio(c), _interval(c), doubts),
        Cell(c.told, tone=tones.get(c.verdict, "plain")),
        Cell(f"{len(c.a.values)}, {len(c.b.values)}"),
    )


def _trials(c: Contrast) -> tuple[str, ...]:
    return (*(f"A: {one}" for one in c.a.trials), *(f"B: {one}" for one in c.b.trials))


def _drawn(place: int, members: Sequence[Contrast]) -> list[Figure]:
    if len(members) > DRAWN:
        return []
    names = [f"{c.name}, {c.subject}" for c in members]
    values = [f"{_ratio(c)} × ({_interval(c)})" for c in members]

    def plot(canvas: Canvas, narrow: bool) -> None:
        axis = canvas.subplots()
        axis.axvline(1, color=svg.INK, linewidth=1, linestyle=":")
        for row, c in enumerate(members):
            if c.interval:
                axis.plot(c.interval, [row, row], color=svg.SERIES[0], linewidth=3, solid_capstyle="butt")
            fill = svg.SERIES[0] if c.verdict else "none"
            axis.plot([c.ratio], [row], marker="o", markersize=8, color=svg.SERIES[0], markerfacecolor=fill)
        draw_rows(axis, names, values, narrow)
        axis.set_xlabel("A / B")
        axis.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8, steps=STEPS))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))

    metric = members[0].metric
    told = "; ".join(
        f"{name}: {value}, {c.told}" for name, value, c in zip(names, values, members, strict=True)
    )
    return [
        figure(
            f"contrast-{place}",
            f"{metric.name[:1].upper()}{metric.name[1:]}, A / B",
            "Mark: the ratio. Thick line: its interval. Dotted line at 1: alike. Hollow mark: no verdict.",
            f"Each figure that both runs have, as a ratio of A to B; 1 is alike. {told}.",
            plot,
            lambda narrow: len(members) * (60 if narrow else 30) + 60,
        )
    ]


def _only(a: Dataset, b: Dataset) -> list[Table]:
    columns = (Column("Case"), Column("Subject"))
    tables = []
    for name, one, other in (("A", a, b), ("B", b, a)):
        rows = tuple(Row(plain(*each)) for each in contrast.missing(one, other))
        if rows:
            caption = f"Only in {name}: {plural(len(rows), 'figure')}"
            tables.append(
                Table(f"only-{name.lower()}", caption, columns, rows, caption if len(rows) > DRAWN else "")
            )
    return tables
