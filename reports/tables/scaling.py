"""Loads that change over time, the workers that came for them, and what changing a forwarder costs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lab.results import NS_PER_S, Change, Course
from reports import labels, quantity
from reports import verdicts as words
from reports.collapse import split
from reports.dataset import Dataset
from reports.figures import svg
from reports.figures.style import STEPS, figure, thousands
from reports.labels import in_order
from reports.model import Cell, Column, Figure, Row, Table, Tone

Steps = list[tuple[float, float]]
"""``(seconds, value from then on)``."""

NS_PER_MS = 1_000_000


# ------------------------------------------------------------------------------------- workers over time


def courses(data: Dataset) -> list[Figure]:
    """A figure for each course: what was offered above, the workers below, over the same time."""
    return [_course_figure(number, record) for number, record in enumerate(data.courses, start=1)]


def offered(record: Course) -> Steps:
    """The rate of each phase, as it was offered."""
    made = [
        (phase.started_ns / NS_PER_S, phase.offered * NS_PER_S / max(1, phase.duration_ns))
        for phase in record.phases
    ]
    return [*made, (record.duration_ns / NS_PER_S, made[-1][1])]


def workers(record: Course, group: int) -> Steps:
    """The size of a group, by what the forwarder logged; what it had at first by the first sample."""
    first = next((sample.workers for sample in record.samples if sample.group == group), 0)
    done = [change for change in record.resizes if change.group == group and change.failed is None]
    steps: Steps = [(0.0, done[0].before if done else first)]
    steps += [((change.at_ns + change.took_ns) / NS_PER_S, change.after) for change in done]
    return [*steps, (max(record.duration_ns / NS_PER_S, steps[-1][0]), steps[-1][1])]


def _course_figure(number: int, record: Course) -> Figure:
    groups = in_order(sample.group for sample in record.samples)

    def plot(canvas: Canvas, _narrow: bool) -> None:
        load, below = canvas.subplots(2, 1, height_ratios=(1.0, 0.8))
        _steps(load, offered(record), svg.SERIES[1], "-")
        load.set_title(f"{record.case}, {labels.subject(record.subject)}")
        load.set_ylabel("datagrams/s")
        load.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
        load.yaxis.set_major_formatter(FuncFormatter(thousands))
        for group in groups:
            hot = group == record.hot_group
            _steps(below, workers(record, group), svg.SERIES[0] if hot else svg.MUTED, "-" if hot else ":")
        below.set_ylabel("workers")
        below.set_ylim(0, record.max_workers + 0.5)
        below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        below.set_xlabel("s")
        for axis in (load, below):
            axis.set_xlim(0, record.duration_ns / NS_PER_S)

    others = " The dotted lines are those of other groups." if len(groups) > 1 else ""
    return figure(
        f"course-{number}",
        f"Workers over time, {record.scenario}: {record.case}",
        f"Above: what was offered on all inputs together. Below: workers of the group.{others}",
        in_words(record),
        plot,
        lambda narrow: 300 if narrow else 330,
        words.own(record.warnings),
    )


def _steps(axis: Axes, steps: Steps, colour: str, dashes: str) -> None:
    axis.plot(
        [at for at, _ in steps],
        [value for _, value in steps],
        drawstyle="steps-post",
        color=colour,
        linestyle=dashes,
        linewidth=2,
    )
    axis.set_ylim(bottom=0)


def in_words(record: Course) -> str:
    """The drawing, for who cannot see it."""
    rates = [rate for _, rate in offered(record)]
    sizes = workers(record, record.hot_group)[:-1]
    steps = ", ".join(f"{size:g} from {at:.1f} s on" for at, size in sizes)
    text = (
        f"Offered between {quantity.rate(min(rates))} and {quantity.rate(max(rates))} datagrams a second in "
        f"{quantity.seconds(record.duration_ns)} s; workers of the group: {steps}."
    )
    others = [group for group in in_order(s.group for s in record.samples) if group != record.hot_group]
    if others:
        most = max(int(size) for group in others for _, size in workers(record, group))
        text += f" {quantity.plural(len(others), 'other group')}: at most {quantity.plural(most, 'worker')}."
    return text


def course_table(data: Dataset) -> list[Table]:
    columns = (
        Column("Case"),
        Column("Offered", "datagrams/s, least and most", numeric=True),
        Column("A worker is meant for", "datagrams/s", numeric=True),
        Column("Workers", "least, most, at the end", numeric=True),
        Column("Changes", numeric=True),
        Column("Overload to scaled", "s", numeric=True),
        Column("Lost", "copies", numeric=True),
        Column("Again", "copies", numeric=True),
        Column("Out of order", "copies", numeric=True),
    )
    rows = [(c.scenario, Row(_course(c), trials=tuple(c.trial_ids))) for c in data.courses]
    return split("courses", "Loads that change over time", columns, rows)


def _course(record: Course) -> tuple[Cell, ...]:
    rates = [rate for _, rate in offered(record)]
    sizes = [int(size) for _, size in workers(record, record.hot_group)]
    lost = record.expected - record.delivered
    return (
        Cell(record.case, f"{record.scenario}, {labels.egress(record.setting)}", words.own(record.warnings)),
        Cell(f"{quantity.rate(min(rates))} / {quantity.rate(max(rates))}"),
        Cell(quantity.rate(record.threshold_dps)),
        Cell(f"{min(sizes)} / {max(sizes)} / {sizes[-1]}", f"{record.min_workers} to {record.max_workers}"),
        Cell(quantity.count(len(sizes) - 2)),
        _promised(record.scaled_ns, record.scaled_target_ns),
        Cell(quantity.count(lost), f"of {record.expected:,}", tone="bad" if lost else "good"),
        Cell(quantity.count(record.duplicated)),
        Cell(quantity.count(record.reordered)),
    )


def _promised(took_ns: int | None, target_ns: int | None) -> Cell:
    """What it took, beside what is promised."""
    if target_ns is None:
        return Cell(quantity.seconds(took_ns))
    kept = took_ns is not None and took_ns <= target_ns
    tone: Tone = "good" if kept else "bad"
    detail = f"at most {quantity.seconds(target_ns)} promised: {'kept' if kept else 'missed'}"
    return Cell(quantity.seconds(took_ns), detail, tone=tone)


# ------------------------------------------------------------------------------------- what changes cost


def changes(data: Dataset) -> list[Table]:
    columns = (
        Column("Case"),
        Column("Change", word=True),
        Column("Offered", "datagrams/s", numeric=True),
        Column("Times", numeric=True),
        Column("Lost", "copies", numeric=True),
        Column("Again", "copies", numeric=True),
        Column("Out of order", "copies of flows that stayed / moved", numeric=True),
        Column("Blocked", "ms, median and most", numeric=True),
        Column("Took", "ms, median and most", numeric=True),
    )
    rows = [(c.scenario, Row(_change(c), trials=tuple(c.trial_ids))) for c in data.changes]
    return split("changes", "What a change of the running forwarder costs", columns, rows)


def _change(record: Change) -> tuple[Cell, ...]:
    lost, blocked = sum(record.lost), [ns / NS_PER_MS for ns in record.blocked_ns]
    took = [ns / NS_PER_MS for ns in record.took_ns]
    due = sum(record.offered) * record.setting.outputs
    tone: Tone = "plain" if record.kept is None else "good" if record.kept else "bad"
    promised = ""
    if record.blocked_target_ns is not None:
        bound = record.blocked_target_ns / NS_PER_MS
        promised = f"at most {bound:g} promised: {'kept' if record.kept else 'missed'}"
    if min(record.share) < 1:
        promised = "\n".join(filter(None, (f"of {_shares(record.share)} of the load", promised)))
    moved = f"{record.flows_moved} of {record.setting.flows} flows move" if record.flows_moved else ""
    return (
        Cell(record.case, f"{record.scenario}, {labels.egress(record.setting)}", words.own(record.warnings)),
        Cell(record.title),
        Cell(quantity.rate(record.offered_dps), f"asked {quantity.rate(record.asked_dps)}"),
        Cell(quantity.count(len(record.trial_ids))),
        Cell(quantity.count(lost), f"of {due:,}"),
        Cell(quantity.count(sum(record.duplicated)), tone="bad" if sum(record.duplicated) else "plain"),
        Cell(f"{sum(record.reordered):,} / {sum(record.reordered_moved):,}", moved),
        Cell(f"{median(blocked):.2f} / {max(blocked):.2f}", promised, tone=tone),
        Cell(f"{median(took):,.1f} / {max(took):,.1f}"),
    )


def _shares(shares: Sequence[float]) -> str:
    low, high = quantity.percent(round(min(shares), 2)), quantity.percent(round(max(shares), 2))
    return low if low == high else f"{low} to {high}"
