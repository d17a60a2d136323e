"""The drawing of a worker's memory: its own, its share of the template, and its rings."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from lab.results import Footprint
from reports import labels, quantity, verdicts
from reports.collapse import ROWS_SHOWN, by_scenario
from reports.dataset import Dataset
from reports.figures import svg
from reports.figures.style import draw_rows, figure, in_words, of_scenario, set_ticks
from reports.model import Figure
from reports.tables.footprints import in_size_order

PARTS: dict[str, dict[str, Any]] = {
    "private": {"facecolor": svg.SERIES[0]},
    "template": {"facecolor": "none", "hatch": "||"},
    "rings": {"facecolor": "none", "hatch": "||"},
}
"""Told apart by their filling, all in the forwarder's colour."""
THICK, THIN = 0.5, 0.16
"""Width of a bar in rows; on a phone its name and value stand above and below it."""


def stacks(data: Dataset) -> list[Figure]:
    """One worker's memory, a bar for each footprint, without rings and with them."""
    parts = by_scenario(in_size_order(data), lambda f: f.scenario, ROWS_SHOWN)
    return [_stack(data, *part) for part in parts]


def of_worker(f: Footprint) -> dict[str, float]:
    """A worker's bytes; template and rings, which are held once, are divided evenly."""
    return {
        "private": f.memory.private_bytes_per_worker,
        "template": f.memory.template_bytes / f.workers,
        "rings": f.memory.ring_bytes_total / f.workers,
    }


def _stack(data: Dataset, scenario: str, footprints: Sequence[Footprint]) -> Figure:
    names = [_name(data, f) for f in footprints]
    sizes = [of_worker(f) for f in footprints]
    doubts = [verdicts.footprint_doubts(f) for f in footprints]

    def plot(canvas: Canvas, narrow: bool) -> None:
        own, whole = canvas.subplots(*((2, 1) if narrow else (1, 2)))
        own.set_title("Private, and share of the template")
        _bars(own, sizes, names, ("private", "template"), narrow)
        whole.set_title("The same with rings")
        _bars(whole, sizes, names if narrow else [""] * len(names), tuple(PARTS), narrow)

    texts = (" MB, ".join(f"{part} {quantity.megabytes(size[part])}" for part in PARTS) for size in sizes)
    name, title = of_scenario(scenario, "memory-stack", "Memory of one worker")
    return figure(
        name,
        title,
        "Left, on a phone above: filled, its private memory; hatched, its share of what the supervisor has "
        "written. Right, on a phone below: with its rings, in upright strokes. What all of them hold once is "
        "in the table.",
        f"Megabytes that one worker accounts for. {in_words(names, (f'{text} MB' for text in texts))}.",
        plot,
        lambda narrow: (2 if narrow else 1) * (len(footprints) * (60 if narrow else 30) + 74),
        verdicts.merged(list(zip(names, doubts, strict=True))),
        f"{title}, drawn" if scenario else "",
    )


def _name(data: Dataset, f: Footprint) -> str:
    name, number = labels.label(data, f), quantity.plural(f.workers, "worker")
    return name if number in name else f"{name}, {number}"


def _bars(
    axis: Axes, sizes: Sequence[dict[str, float]], names: Sequence[str], parts: Sequence[str], narrow: bool
) -> None:
    for place, size in enumerate(sizes):
        begin = 0.0
        for part in parts:
            length, height = size[part] / quantity.BYTES_PER_MB, THIN if narrow else THICK
            axis.barh(place, length, height, begin, edgecolor=svg.SERIES[0], linewidth=1, **PARTS[part])
            begin += length
    draw_rows(axis, names, [quantity.megabytes(sum(size[part] for part in parts)) for size in sizes], narrow)
    axis.set_xlim(left=0)
    axis.set_xlabel("MB a worker")
    set_ticks(axis.xaxis, 4, "{x:,g}")
