"""The page of two runs against each other."""

from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter

from matplotlib.figure import Figure as Canvas

from reports import quantity
from reports.dataset import Dataset, grouped
from reports.figures import svg
from reports.figures.style import draw_rows, figure, heights, in_words, set_ticks
from reports.model import Cell, Column, Figure, Page, Point, Section, Table, Tone, flowed
from reports.page import compare
from reports.page.compare import ComparedFigure, Difference, Measured, Metric
from reports.quantity import capitalized, listed, plural
from reports.tables.build import CASE, Columns, number, table, tables

DRAWN = 24
"""A drawing of more rows than this is left to the table."""
NOT_IN_TURN = """The runs were made one after the other, not in turn: a machine that drifted in between shows
as a difference. For a verdict on two forwarders, measure both in one run with mcastlab compare."""
METHOD = f"""A ratio is A / B of geometric means. Its interval is Welch's, at 95 %, and is given where both
runs have at least {compare.LEAST_REPEATED} figures. Figures are matched by scenario, case, subject, every
setting and the load; what only one run has is listed below."""


def build(a: Dataset, b: Dataset) -> Page:
    found = compare.compared_figures(a, b)
    differing = compare.differences(a, b)
    sections = [Section("differences", "How the runs differ", (), tuple(_differences(differing)))]
    text: tuple[str, ...] = (flowed(METHOD),)
    for name, metric, members in _by_metric(found):
        parts: tuple[Table | Figure, ...] = (*_drawn(name, members), *_tables(name, members))
        sections.append(Section(name, capitalized(metric.name), text, parts))
        text = ()
    sections.append(Section("only", "In one run only", (), (*_only("A", a, b), *_only("B", b, a))))
    return Page(
        title="Two runs against each other",
        subtitle=f"A: {_description(a)} B: {_description(b)}",
        summary=tuple(_summary(a, b, found, differing)),
        sections=tuple(section for section in sections if section.parts),
    )


def _by_metric(found: Sequence[ComparedFigure]) -> list[tuple[str, Metric, list[ComparedFigure]]]:
    """``(name of its section, metric, its figures)``."""
    groups = grouped(found, lambda c: c.metric)
    return [(f"compare-{compare.METRICS.index(metric)}", metric, each) for metric, each in groups.items()]


def _description(data: Dataset) -> str:
    if data.run is None:
        return "a run without its opening record."
    where = data.run.provenance
    commit = f", commit {where.commit[:12]}" if where.commit else ""
    dirty = " with changes" if where.dirty else ""
    machine = f"{where.cpu_model}, {where.cpus} CPUs"
    return f"run {data.run.run_id}, {data.run.profile} profile, {machine}{commit}{dirty}."


def _summary(
    a: Dataset, b: Dataset, found: Sequence[ComparedFigure], differing: Sequence[Difference]
) -> Iterator[Point]:
    for name, data in (("A", a), ("B", b)):
        if data.left_out:
            text = "Its file held more than could be used:"
            yield Point(f"Left out of {name}.", text, "bad", items=data.left_out)
        if not data.finished:
            yield Point(f"{name} is incomplete.", "The run did not end; this is what there is.", "bad")
    if a.run is not None and b.run is not None and a.run.run_id == b.run.run_id:
        yield Point("The same run.", "A and B have one run id: nothing can differ.", "bad")
    machines = [each for each in differing if each.machine]
    if machines:
        items = tuple(f"{each.what}: {each.a} in A, {each.b} in B" for each in machines)
        text = "Figures are shown beside each other, and none is judged:"
        yield Point("Different machines.", text, "bad", (), items, "differences")
    elif refused := compare.refusal(a, b):
        yield Point("No verdicts.", f"{capitalized(refused)}.", "bad")
    if not found:
        yield Point("Nothing to compare.", "The runs have no figure in common.", "bad")
        return
    yield from (_metric_point(name, members) for name, _, members in _by_metric(found))
    yield Point("Not in turn.", flowed(NOT_IN_TURN))
    if others := [each.what for each in differing if not each.machine]:
        text = f"{listed(others[:8])}{' and more' if len(others) > 8 else ''}."
        yield Point("What else differs.", text, see="differences")
    alone = [(name, len(compare.missing(x, y))) for name, x, y in (("A", a, b), ("B", b, a))]
    if counts := [f"{plural(count, 'figure')} only in {name}" for name, count in alone if count]:
        yield Point("Not in both.", f"{listed(counts)}.", see="only")


def _metric_point(section: str, members: Sequence[ComparedFigure]) -> Point:
    metric = members[0].metric
    tally = Counter(c.verdict or "no verdict" for c in members)
    counts = listed([f"{verdict} in {count}" for verdict, count in tally.items()])
    ratios = [quantity.ratio(c.ratio) for c in sorted(members, key=lambda c: c.ratio)]
    direction = "more is better" if metric.higher_is_better else "less is better"
    ends = f"A / B from {ratios[0]} to {ratios[-1]} ×" if len(members) > 1 else f"A / B {ratios[0]} ×"
    apart = (c for c in members if c.verdict in ("better", "worse"))
    items = tuple(f"{c.key.name}, {c.key.who}: {_ratio_text(c)}, A is {c.verdict}" for c in apart)
    tone: Tone = "bad" if tally["worse"] else "good" if tally["better"] else "plain"
    text = f"{direction}, {plural(len(members), 'figure')}, {ends}: {counts}."
    return Point(f"{capitalized(metric.name)}.", text, tone, (), items, section)


def _interval(c: ComparedFigure) -> str:
    return quantity.interval(*c.interval) if c.interval else "no interval"


def _ratio_text(c: ComparedFigure) -> str:
    return f"{quantity.ratio(c.ratio)} × ({_interval(c)})"


def _differences(differing: Sequence[Difference]) -> list[Table]:
    def weight(each: Difference) -> Cell | str:
        if each.machine:
            return Cell("another machine: no verdicts", tone="bad")
        return "may explain a difference"

    columns: Columns[Difference] = [
        (Column("What"), lambda each: each.what),
        (Column("A"), lambda each: each.a),
        (Column("B"), lambda each: each.b),
        (Column("Weight"), weight),
    ]
    ordered = sorted(differing, key=lambda each: not each.machine)
    return table("differences", "Differences between the runs' provenance", columns, ordered)


def _tables(name: str, members: Sequence[ComparedFigure]) -> list[Table]:
    metric = members[0].metric

    def middle(side: Measured) -> str:
        return f"{'≥ ' if side.open_end else ''}{quantity.rate(side.middle)}"

    def ratio(c: ComparedFigure) -> Cell:
        sides = ((run, side) for run, side in (("A", c.a), ("B", c.b)) if side.doubtful)
        doubts = (f"{side.doubtful} of {len(side.values)} in {run} doubtful" for run, side in sides)
        return Cell(quantity.ratio(c.ratio), _interval(c), tuple(doubts))

    def verdict(c: ComparedFigure) -> Cell:
        tones: dict[str | None, Tone] = {"better": "good", "worse": "bad"}
        return Cell(c.verdict_text, tone=tones.get(c.verdict, "plain"))

    columns: Columns[ComparedFigure] = [
        (CASE, lambda c: c.key.name),
        (Column("Subject"), lambda c: c.key.who),
        (number("A", metric.unit), lambda c: middle(c.a)),
        (number("B", metric.unit), lambda c: middle(c.b)),
        (number("A / B", "×"), ratio),
        (Column("Verdict", "on A"), verdict),
        (Column("Figures", "A, B"), lambda c: f"{len(c.a.values)}, {len(c.b.values)}"),
    ]
    return tables(name, f"{metric.name}, A against B", columns, members)


def _drawn(name: str, members: Sequence[ComparedFigure]) -> list[Figure]:
    if len(members) > DRAWN:
        return []
    names = [f"{c.key.name}, {c.key.who}" for c in members]
    values = [_ratio_text(c) for c in members]

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
        set_ticks(axis.xaxis, 4 if narrow else 8, "{x:g}×")

    text = in_words(names, (f"{_ratio_text(c)}, {c.verdict_text}" for c in members))
    return [
        figure(
            name,
            f"{capitalized(members[0].metric.name)}, A / B",
            "Mark: the ratio. Thick line: its interval. Dotted line at 1: alike. Hollow mark: no verdict.",
            f"Each figure that both runs have, as a ratio of A to B; 1 is alike. {text}.",
            plot,
            heights(len(members), wide=30),
        )
    ]


def _only(name: str, one: Dataset, other: Dataset) -> list[Table]:
    found = compare.missing(one, other)
    columns: Columns[tuple[str, str]] = [(CASE, itemgetter(0)), (Column("Subject"), itemgetter(1))]
    caption = f"Only in {name}: {plural(len(found), 'figure')}"
    folded = caption if len(found) > DRAWN else ""
    return table(f"only-{name.lower()}", caption, columns, found, folded=folded)
