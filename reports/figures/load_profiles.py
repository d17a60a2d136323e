"""The drawing of a load that changes over time: the offered rate above, the workers below."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lab.results import NS_PER_S, Course
from reports import labels, quantity, verdicts
from reports.dataset import Dataset
from reports.figures import svg
from reports.figures.style import figure, set_ticks, thousands
from reports.labels import unique
from reports.model import Figure
from reports.tables.load_profiles import Steps, offered_steps, worker_steps


def load_profiles(data: Dataset) -> list[Figure]:
    return [_load_profile(number, record) for number, record in enumerate(data.courses, start=1)]


def _load_profile(number: int, record: Course) -> Figure:
    groups = unique(sample.group for sample in record.samples)

    def plot(canvas: Canvas, _narrow: bool) -> None:
        load, below = canvas.subplots(2, 1, height_ratios=(1.0, 0.8))
        _draw_steps(load, offered_steps(record), svg.SERIES[1], "-")
        load.set_title(f"{record.case}, {labels.subject(record.subject)}")
        load.set_ylabel("datagrams/s")
        set_ticks(load.yaxis, 4, FuncFormatter(thousands))
        for group in groups:
            colour, dashes = (svg.SERIES[0], "-") if group == record.hot_group else (svg.MUTED, ":")
            _draw_steps(below, worker_steps(record, group), colour, dashes)
        below.set_ylabel("workers")
        below.set_ylim(0, record.max_workers + 0.5)
        below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        below.set_xlabel("s")
        for axis in (load, below):
            axis.set_xlim(0, record.duration_ns / NS_PER_S)

    others = " Dotted lines: other groups." if len(groups) > 1 else ""
    return figure(
        f"course-{number}",
        f"Workers over time, {record.scenario}: {record.case}",
        f"Above: what was offered on all inputs together. Below: workers of the group.{others}",
        description(record),
        plot,
        lambda narrow: 300 if narrow else 330,
        verdicts.distinct(record.warnings),
    )


def _draw_steps(axis: Axes, steps: Steps, colour: str, dashes: str) -> None:
    times, values = zip(*steps, strict=True)
    axis.plot(times, values, drawstyle="steps-post", color=colour, linestyle=dashes, linewidth=2)
    axis.set_ylim(bottom=0)


def description(record: Course) -> str:
    """The drawing in words."""
    rates = [rate for _, rate in offered_steps(record)]
    sizes = worker_steps(record, record.hot_group)[:-1]
    steps = ", ".join(f"{size:g} from {at:.1f} s on" for at, size in sizes)
    text = (
        f"Offered between {quantity.rate(min(rates))} and {quantity.rate(max(rates))} datagrams a second in "
        f"{quantity.seconds(record.duration_ns)} s; workers of the group: {steps}."
    )
    others = [group for group in unique(s.group for s in record.samples) if group != record.hot_group]
    if others:
        most = max(int(size) for group in others for _, size in worker_steps(record, group))
        text += f" {quantity.plural(len(others), 'other group')}: at most {quantity.plural(most, 'worker')}."
    return text
