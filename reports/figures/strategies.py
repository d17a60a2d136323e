"""The drawings of strategies on the same load: throughput beside memory, and how evenly workers share."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from lab.results import Footprint
from reports import quantity, verdicts
from reports.dataset import Dataset
from reports.figures import svg
from reports.figures.style import draw_rate, draw_rows, figure, heights, in_words, look, rate_axis, set_ticks
from reports.model import Figure, Table
from reports.tables.strategies import Entry, Group, groups, idle_workers, shares_text, table

MEMORY: dict[str, dict[str, Any]] = {
    "documented": {"marker": "s", "markerfacecolor": "none"},
    "modelled": {"marker": "^", "markerfacecolor": "none"},
    "measured": {"marker": "o"},
}
"""Told apart by their shape, all in the forwarder's colour."""


def tables_and_figures(data: Dataset) -> list[Table | Figure]:
    """For each load its drawings and its table; those of the first load, with most strategies, are open."""
    parts: list[Table | Figure] = []
    for place, group in enumerate(groups(data)):
        drawn: list[Figure] = []
        if any(entry.found and entry.found.lower_dps is not None for entry in group.entries):
            drawn.append(_costs(group, folded=place > 0))
        if any(len(entry.shares) > 1 for entry in group.entries):
            drawn.append(_shares(group, folded=place > 0))
        parts += [table(group), *drawn] if place else [*drawn, table(group)]
    return parts


def _costs(group: Group, folded: bool) -> Figure:
    entries = group.entries
    with_memory = any(entry.footprint for entry in entries)
    names = [entry.case for entry in entries]

    def plot(canvas: Canvas, narrow: bool) -> None:
        if not with_memory:
            _rates(canvas.subplots(), entries, names, narrow)
            return
        rates, memory = canvas.subplots(*((2, 1) if narrow else (1, 2)))
        _rates(rates, entries, names, narrow)
        _memory(memory, entries, names if narrow else [""] * len(names), narrow)

    def height(narrow: bool) -> float:
        panels = 2 if narrow and with_memory else 1
        return panels * (len(entries) * (60 if narrow else 32) + 74)

    rates = (
        "Mark: the highest rate without loss. Line: from there to the first rate with loss. Arrow: none "
        "lost, the generator was the limit. Upright stroke: the generator's ceiling."
    )
    key = f"{rates} Hollow mark: doubtful."
    if with_memory:
        key = (
            f"Left (above on a phone): rates. {rates} Right (below on a phone): memory in MB without rings. "
            "Square: documented. Triangle: modelled. Disc: measured. Hollow disc or mark of a rate: doubtful."
        )
    memory = " and memory" if with_memory else ""
    title = f"Throughput{memory} of each strategy, {group.scenario}"
    text = in_words([entry.name for entry in entries], map(_costs_text, entries))
    return figure(
        f"strategies-{group.name}-costs",
        title,
        key,
        f"Rates without loss in datagrams a second{memory and ', and memory in megabytes'}. {text}.",
        plot,
        height,
        verdicts.merged([(e.case, verdicts.distinct(e.found.warnings)) for e in entries if e.found]),
        f"{title}, drawn" if folded else "",
    )


def _costs_text(entry: Entry) -> str:
    rate, found = "no rate without loss", entry.found
    if found is not None and found.lower_dps is not None:
        rate = f"{verdicts.zero_loss_rate(found)} datagrams/s, bounded by {verdicts.bound(found.bound_by)}"
    sizes = _sizes(entry.footprint) if entry.footprint else {}
    return ", ".join([rate, *(f"{name} {quantity.megabytes(size)} MB" for name, size in sizes.items())])


def _sizes(f: Footprint) -> dict[str, int]:
    known = {"documented": f.documented_bytes} if f.documented_bytes is not None else {}
    return {**known, "modelled": f.modelled_bytes, "measured": verdicts.measured_bytes(f)}


def _rates(axis: Axes, entries: Sequence[Entry], names: Sequence[str], narrow: bool) -> None:
    values = []
    for place, entry in enumerate(entries):
        if entry.found is None or entry.found.lower_dps is None:
            values.append("none found")
            continue
        draw_rate(axis, place, entry.found, look("mcrd", entry.found.setting.receive))
        values.append(verdicts.zero_loss_rate(entry.found))
    axis.set_title("Rate without loss")
    draw_rows(axis, names, values, narrow)
    rate_axis(axis, 4)


def _memory(axis: Axes, entries: Sequence[Entry], names: Sequence[str], narrow: bool) -> None:
    values = []
    for place, entry in enumerate(entries):
        if entry.footprint is None:
            values.append(quantity.NONE)
            continue
        sizes = _sizes(entry.footprint)
        for name, size in sizes.items():
            style = {"color": svg.SERIES[0], "linestyle": "none", "markersize": 8, **MEMORY[name]}
            if name == "measured" and verdicts.footprint_doubts(entry.footprint):
                style["markerfacecolor"] = "none"
            axis.plot([size / quantity.BYTES_PER_MB], [place], **style)
        values.append(quantity.megabytes(sizes["measured"]))
    axis.set_title("Memory, the measured figure beside")
    draw_rows(axis, names, values, narrow)
    axis.set_xlim(left=0)
    axis.set_xlabel("MB, all processes")
    set_ticks(axis.xaxis, 4, "{x:,g}")


def _shares(group: Group, folded: bool) -> Figure:
    entries = [entry for entry in group.entries if entry.shares]
    names = [f"{entry.case}, {quantity.plural(len(entry.shares), 'worker')}" for entry in entries]
    texts = ((shares_text(entry.shares), idle_workers(entry.shares)) for entry in entries)
    values = [", ".join(filter(None, each)) for each in texts]

    def plot(canvas: Canvas, narrow: bool) -> None:
        axis = canvas.subplots()
        axis.axvline(1, color=svg.INK, linewidth=1, linestyle=":")
        for place, shares in enumerate(entry.shares for entry in entries):
            axis.plot([min(shares), max(shares)], [place, place], color=svg.GRID, linewidth=1)
            busy = [share for share in shares if share]
            axis.plot(busy, [place] * len(busy), "|", markersize=14, markeredgewidth=2, color=svg.SERIES[0])
            if 0 in shares:
                axis.plot([0], [place], "x", markersize=8, markeredgewidth=2, color=svg.SERIES[1])
        draw_rows(axis, names, values, narrow)
        axis.set_xlim(-0.08, max(2.0, *(share for entry in entries for share in entry.shares)) * 1.05)
        axis.set_xlabel("times an even share of the datagrams")
        set_ticks(axis.xaxis, 5 if narrow else 9, "{x:g}×")

    title = f"Share of each worker, {group.scenario}"
    return figure(
        f"strategies-{group.name}-shares",
        title,
        "Upright stroke: a worker. Cross: a worker without any datagram. Dotted line at 1: an even share.",
        f"Datagrams that each worker received, as a multiple of an even share. {in_words(names, values)}.",
        plot,
        heights(len(entries), wide=30),
        folded=f"{title}, drawn" if folded else "",
    )
