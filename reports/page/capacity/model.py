"""The capacity model on the page: how well it predicts unseen cases, and its terms."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, NullFormatter

from reports import quantity
from reports.capacity.fit.model import fit
from reports.capacity.fit.regression import FitError
from reports.capacity.layouts import read_layouts
from reports.capacity.model import CapacityModel, HeldOut, HeldOutCase
from reports.capacity.scaling import ASSUMED_SIGMA
from reports.dataset import Dataset
from reports.figures import svg
from reports.figures.style import figure, grid, thousands
from reports.model import Cell, Column, Figure, Section, Table, flowed
from reports.page.capacity import document
from reports.tables.build import CASE, Columns, number, table

PROMISED = {"rate of a worker": 0.07, "zero-loss rate": 0.07, "memory": 0.05}
"""Median relative error that the model promises for cases that it has not seen."""
HOLD = (0.90, 0.99)
"""Share of such cases that intervals of 95 % promise to hold: neither too narrow nor too wide."""
BAND = 0.15
"""The band of the drawing."""
MOST_CPUS = 96
"""Where the scaling curve ends: the largest machine in the architecture document."""
HELD_OUT = """Each case was predicted by a model fitted to all the others, so these are the errors to expect
for a load that nobody has measured. Its interval is as wide as the errors of 95 % of the other held-out
cases. A worker that could not keep up shows what a datagram costs; where the generator was the limit, the
cost is known only to be no more than that."""
SUM = """The cost of a datagram on a CPU that does all of a forwarder's work is the sum of the terms below,
none of which can be negative. Intervals are of 95 %. They contain other choices of the cases (bootstrap), the
errors of held-out cases, and 10 % more with each doubling outside what was measured."""
TERMS = {
    "receive": ("Receive and match", "each datagram, the kernel's work included"),
    "receive_bytes": ("Receive 100 B of payload", "each datagram"),
    "host_stack": ("Host's own stack", "each datagram; --skip-host-stack spares it"),
    "lookup": ("Look a rule up", "each factor of ten of rules"),
    "frame": ("Send a frame", "each output, divided among the datagrams in the frame"),
    "copy": ("Send a copy", "each output and datagram"),
    "copy_bytes": ("Send 100 B of payload", "each output and datagram"),
    "drop": ("Drop", "each datagram too many, under overload only"),
}


def sections(data: Dataset) -> tuple[Section, ...]:
    """The model of this run and its predictions, and the document's tables answered with it.

    None where the run has too little to fit a model; another run's model is not this run's result.
    """
    try:
        model = fit([data])
    except FitError:
        return ()
    return section(model), document.section(data, model, read_layouts())


def section(model: CapacityModel) -> Section:
    held = [each for each in model.held_out if each.cases]
    rates = [each for each in held if each.what != "memory"]
    parts: list[Table | Figure] = [
        *_errors(held, model),
        *([_predicted_figure(rates)] if rates else []),
        *_terms(model),
        _scaling_figure(model),
        *(cases for each in held for cases in _cases(each, model)),
    ]
    text = (flowed(HELD_OUT), flowed(SUM), f"The model was {model.provenance}.")
    return Section("capacity", "Capacity model", text, tuple(parts))


def _errors(held: Sequence[HeldOut], model: CapacityModel) -> list[Table]:
    def median_error(each: HeldOut) -> Cell:
        return _promised(f"{each.median_error:.1%}", 0, each.median_error, PROMISED[each.what])

    def within(each: HeldOut) -> Cell:
        share = each.within / len(each.cases)
        return _promised(f"{each.within} of {len(each.cases)}", HOLD[0], share, HOLD[1])

    columns: Columns[HeldOut] = [
        (Column("Predicted"), lambda each: each.what.capitalize()),
        (number("Cases", "each held out"), lambda each: len(each.cases)),
        (number("Off by", "median"), median_error),
        (number("Off by", "worst"), lambda each: f"{each.errors[-1]:.0%}"),
        (number("Within its interval", "of 95 %"), within),
    ]

    def trials(each: HeldOut) -> tuple[str, ...]:
        records = [record for case in each.cases for record in case.records]
        return () if each.what == "memory" else own_trials(records, model)

    caption = "Predicted against measured, of cases held out"
    return table("capacity-errors", caption, columns, held, trials=trials)


def _promised(text: str, least: float, value: float, most: float) -> Cell:
    met = least <= value <= most
    bounds = f"{least:.0%} to {most:.0%}" if least else f"at most {most:.0%}"
    return Cell(text, f"{bounds}: {'met' if met else 'NOT MET'}", tone="good" if met else "bad")


def _terms(model: CapacityModel) -> list[Table]:
    law = model.cost

    def cost(name: str) -> str:
        return f"{law.coefficients[name]:,.0f}" if name in law.coefficients else "not measured"

    def interval(name: str) -> str | None:
        if name not in law.coefficients or not law.resamples:
            return None
        each = sorted(resample[name] for resample in law.resamples)
        cut = len(each) // 40
        return f"{each[cut]:,.0f} to {each[-1 - cut]:,.0f}"

    columns: Columns[str] = [
        (Column("Term"), lambda name: TERMS[name][0]),
        (number("Cost", "ns"), cost),
        (number("Interval", "of 95 %, ns"), interval),
        (Column("Counted"), lambda name: TERMS[name][1]),
    ]
    return table("capacity-terms", "What a datagram costs a forwarder's CPU", columns, TERMS)


def _cases(held: HeldOut, model: CapacityModel) -> list[Table]:
    memory = held.what == "memory"
    unit, shown = ("MB", quantity.megabytes) if memory else ("datagrams/s", quantity.rate)
    columns: Columns[HeldOutCase] = [
        (CASE, lambda case: case.case.split(":", 1)[1].strip() if memory else case.case),
        (number("Measured", unit), lambda case: shown(case.measured)),
        (number("Predicted", unit), lambda case: shown(case.predicted)),
        (number("Interval", unit), lambda case: f"{shown(case.low)} to {shown(case.high)}"),
        (number("Off by"), lambda case: f"{case.predicted / case.measured - 1:+.0%}"),
    ]
    return table(
        f"capacity-cases-{held.what.replace(' ', '-')}",
        f"Held out: {held.what}",
        columns,
        held.cases,
        trials=lambda case: () if memory else own_trials(case.records, model),
        folded=f"{held.what.capitalize()}: all {len(held.cases)} cases that were held out",
    )


def own_trials(cited: Sequence[str], model: CapacityModel) -> tuple[str, ...]:
    """Ids as in the run's own results: without the run's id in front."""
    prefix = f"{model.sources[0].run_id}:"
    return tuple(each.removeprefix(prefix) for each in cited)


def _predicted_figure(held: Sequence[HeldOut]) -> Figure:
    every = [case for each in held for case in each.cases]
    least = min(min(case.predicted, case.measured) for case in every) / 1.3
    most = max(max(case.predicted, case.measured) for case in every) * 1.3
    ends = np.array([least, most])
    looks = {held[0].what: ("o", svg.SERIES[0]), held[-1].what: ("s", svg.SERIES[1])}

    def plot(canvas: Canvas, narrow: bool) -> None:
        for axis, kind in grid(canvas, ("predicted", "residual"), narrow):
            axis.set_xscale("log")
            axis.set_xlim(least, most)
            if kind == "predicted":
                axis.set_yscale("log")
                axis.set_ylim(least, most)
                axis.plot(ends, ends, color=svg.MUTED, linewidth=1)
                low, high = ends * (1 - BAND), ends * (1 + BAND)
                axis.fill_between(ends, low, high, color=svg.GRID, linewidth=0)
                axis.set_title("Predicted")
                _plain(axis.yaxis)
            else:
                axis.axhspan(-BAND, BAND, color=svg.GRID, linewidth=0)
                axis.axhline(0, color=svg.MUTED, linewidth=1)
                axis.set_title("Off by")
                axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0%}"))
            axis.set_xlabel("measured, datagrams/s")
            _plain(axis.xaxis)
            for each in held:
                marker, colour = looks[each.what]
                measured = np.array([case.measured for case in each.cases])
                predicted = np.array([case.predicted for case in each.cases])
                values = predicted if kind == "predicted" else predicted / measured - 1
                axis.plot(measured, values, marker, color=colour, markerfacecolor="none")

    errors = ", ".join(f"{each.what} off by {each.median_error:.0%} in the median" for each in held)
    return figure(
        "capacity-predicted",
        "Predicted against measured, and the residuals",
        f"Circles: rate of a worker that cannot keep up; squares: rate without loss. The band is "
        f"{BAND:.0%} to either side; on the right the residuals.",
        f"Both axes in datagrams a second, logarithmic. {len(every)} points: {errors}.",
        plot,
        lambda narrow: 640 if narrow else 330,
    )


def _plain(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(thousands))
    axis.set_minor_formatter(NullFormatter())


def _scaling_figure(model: CapacityModel) -> Figure:
    scaling = model.scaling
    cpus = sorted({round(math.exp(step * math.log(MOST_CPUS) / 40)) for step in range(41)})
    curve = [scaling.speedup(each) for each in cpus]

    def plot(canvas: Canvas, _narrow: bool) -> None:
        axis = canvas.subplots()
        low, high = [p.low for p in curve], [p.high for p in curve]
        axis.fill_between(cpus, low, high, color=svg.GRID, linewidth=0, label="interval")
        axis.plot(cpus, [p.value for p in curve], color=svg.SERIES[0], label="predicted")
        counts = [each.cpus for each in scaling.counts]
        axis.plot(counts, [each.cpus * each.ratio for each in scaling.counts], "o", color=svg.INK)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_formatter("{x:g}")
        axis.set_xlabel("processors")
        axis.set_title("Times the rate of one")

    last = curve[-1]
    key = f"Line: predicted; band: its interval; circles: measured. {scaling.why}"
    if scaling.kind == "range":
        key += (
            f" So the band is no interval of a fit: it goes from no contention down to an assumed "
            f"{ASSUMED_SIGMA:.0%} of the work waiting for its turn; the line is their geometric mean."
        )
    return figure(
        "capacity-scaling",
        "More processors",
        key,
        f"Both axes logarithmic. At {MOST_CPUS} processors {last.value:.0f} times one, {last.low:.0f} to "
        f"{last.high:.0f}, {last.basis}.",
        plot,
        lambda narrow: 320 if narrow else 360,
        () if scaling.most >= MOST_CPUS else (f"{last.basis}: {last.reasons[0]}",),
    )
