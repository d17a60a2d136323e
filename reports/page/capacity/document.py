"""The architecture document's tables, answered: documented, modelled, measured and predicted side by side.

Each difference is said in a sentence. What is predicted comes from the run's own model where it has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from lab.results import Footprint, Trial
from reports import quantity
from reports.capacity.law import Prediction
from reports.capacity.layouts import Configuration, DocumentedRow, Layouts, UseCase
from reports.capacity.model import CapacityModel
from reports.capacity.rank import Candidate, evaluate, ranked
from reports.capacity.rank import Row as Ranked
from reports.dataset import Dataset
from reports.model import Cell, Column, Row, Section, Table, Tone

WIRE_BYTES = 66
"""Around a payload on Ethernet, all of it (see ``mcastlab advise --gbps``)."""
MOST_NAMES = 4
SAME_CHOICE = 0.05
"""A choice that does so little more is no better one."""

MEMORY = (
    "Documented is the architecture document's own figure, modelled its assumptions worked out (1 KB a "
    "rule, 1 MB a process), measured what this run really started, predicted the capacity model. Measured "
    "and predicted are private memory of workers and supervisor, rules included; not in them are what all of "
    "them share, receive rings, whose size is configuration, and the kernel's own growth."
)
RATES = (
    "Rates are predicted without loss, with the kernel's part of receiving on the workers' own processors. "
    "The document names no size of datagrams: {payload:,} B of payload and one copy are assumed, a flow for "
    "each rule, spread over workers by chance as a network card's hash does."
)


def section(data: Dataset, model: CapacityModel, layouts: Layouts) -> Section:
    """Empty where the model knows nothing of memory, or of workers that also receive."""
    if model.memory is None or not model.steered:
        return Section("seed", "The document's tables, answered")
    text = [MEMORY, RATES.format(payload=layouts.payload_bytes)]
    tables = (
        _worker_counts(data, model, layouts.rows),
        _characteristics(data, model, layouts),
        _use_cases(model, layouts),
    )
    return Section("seed", "The document's tables, answered", tuple(text), tables)


def _worker_counts(data: Dataset, model: CapacityModel, rows: Sequence[DocumentedRow]) -> Table:
    columns = (
        Column("Row"),
        Column("Workers", numeric=True),
        Column("Rules per worker", numeric=True),
        *(Column(name, "MB", numeric=True) for name in ("Documented", "Modelled", "Measured", "Predicted")),
        Column("Rings", "MB", numeric=True),
        Column("Kernel growth", "MB, predicted", numeric=True),
    )
    made = []
    for row in rows:
        told = evaluate(row.planned, 1.0, model).memory
        started = _footprint(data, row)
        measured = None if started is None else started.memory.own_bytes
        made.append(
            Row(
                (
                    Cell(row.source.rsplit(", ", 1)[1], _setting(row)),
                    _against(row.planned.workers, row.workers),
                    _against(row.planned.held.rules_per_worker, row.rules_per_worker),
                    Cell(quantity.megabytes(row.total_bytes)),
                    Cell(quantity.megabytes(row.modelled_bytes)),
                    _measured(started),
                    _bytes(told.total),
                    Cell(quantity.megabytes(row.planned.rings_bytes)),
                    Cell(quantity.megabytes(told.kernel.value) if told.kernel else quantity.NONE),
                ),
                tuple(_differences(row, measured, told.total)),
            )
        )
    return Table("seed-workers", "Worker Count Table", columns, tuple(made))


def _setting(row: DocumentedRow) -> str:
    return f"{row.interfaces} IF, {row.cpus} CPUs, {row.strategy}"


def _against(planned: int, documented: int | None) -> Cell:
    same = documented is None or documented == planned
    return Cell(quantity.count(planned), "" if same else f"documented {documented:,}")


def _bytes(told: Prediction) -> Cell:
    span = f"{quantity.megabytes(told.low)} to {quantity.megabytes(told.high)}\n{told.basis}"
    return Cell(quantity.megabytes(told.value), span)


def _measured(started: Footprint | None) -> Cell:
    if started is None:
        return Cell("not in this run")
    return Cell(quantity.megabytes(started.memory.own_bytes), f"{started.scenario}: {started.case}")


def _footprint(data: Dataset, row: DocumentedRow) -> Footprint | None:
    return next(
        (
            f
            for f in data.footprints
            if (f.strategy, f.interfaces, f.workers, f.rules)
            == (row.strategy, row.interfaces, row.planned.workers, row.rules)
        ),
        None,
    )


def _differences(row: DocumentedRow, measured: int | None, told: Prediction) -> Iterator[str]:
    yield from row.discrepancies
    real = told.value if measured is None else measured
    held = row.planned.held
    ratio = real / row.modelled_bytes
    what = "Predicted" if measured is None else "Measured"
    if ratio > 1:
        yield (
            f"{what} is {ratio:.1f} × what is modelled: the document leaves out the supervisor, whose own "
            "memory weighs more than that of so few workers."
        )
    else:
        yield (
            f"{what} is {1 - ratio:.0%} less than modelled: workers are forked from one template and share "
            f"what they do not write, and {held.rules_per_worker:,} rules take far less than 1 KB each."
        )
    if measured is not None:
        within = "within" if told.low <= measured <= told.high else "outside"
        off = f"{told.value / measured - 1:+.0%}"
        yield f"Predicted is {off} off the measurement, which is {within} its interval."


def _characteristics(data: Dataset, model: CapacityModel, layouts: Layouts) -> Table:
    columns = (
        Column("Configuration"),
        Column("Throughput", "datagrams/s, predicted", numeric=True),
        Column("Latency", "µs, measured here", numeric=True),
        Column("CPU usage", "ns a datagram, predicted", numeric=True),
        Column("Memory", "MB with rings, predicted", numeric=True),
        Column("Process overhead", "MB, predicted", numeric=True),
    )
    rows = [_characteristic(data, model, each, layouts.payload_bytes) for each in layouts.configurations]
    best = max(layouts.configurations, key=lambda each: _rate(each.planned, model).value)
    notes = tuple(_stars(each, best, model) for each in layouts.configurations)
    made = tuple(Row(row.cells, (note,), row.trials) for row, note in zip(rows, notes, strict=True))
    return Table("seed-performance", "Performance Characteristics: stars become figures", columns, made)


def _characteristic(data: Dataset, model: CapacityModel, each: Configuration, payload_bytes: int) -> Row:
    told = evaluate(each.planned, 1.0, model)
    rate, needs = told.zero_loss_dps, told.memory
    gbps = rate.value * (payload_bytes + WIRE_BYTES) * 8 / 1e9
    span = f"{quantity.rate(rate.low)} to {quantity.rate(rate.high)}\n{rate.basis}; {gbps:.3g} Gbit/s"
    trials = _latency_trials(data, each.planned.strategy)
    latency = Cell("not measured")
    if trials:
        middle = [t.latency for t in trials if t.latency]
        p50, p99 = median(one.p50 for one in middle), median(one.p99 for one in middle)
        text = f"p50 {quantity.microseconds(p50)}\np99 {quantity.microseconds(p99)}"
        latency = Cell(text, f"{quantity.plural(len(trials), 'trial')} of strategy {each.planned.strategy}")
    cpus = each.planned.machine.cpus
    kernel = needs.kernel.value if needs.kernel else 0.0
    overhead = needs.processes.value + kernel
    return Row(
        (
            Cell(each.name, f"{quantity.plural(each.planned.workers, 'worker')}, {each.planned.strategy}"),
            Cell(f"{_stars_of(each.throughput)} {quantity.rate(rate.value)}", span),
            Cell(f"{_stars_of(each.latency)} {latency.text}", latency.detail),
            Cell(
                f"{quantity.rate(told.cost_ns.value)}",
                f"{each.cpu_usage}: {quantity.plural(cpus, 'processor')}\n"
                f"busiest {1 / each.planned.machine.evenness:.2g} × the mean",
            ),
            Cell(quantity.megabytes(needs.everything), each.memory),
            Cell(quantity.megabytes(overhead), each.overhead),
        ),
        trials=tuple(t.trial_id for t in trials),
    )


def _stars_of(number: int) -> str:
    return "★" * number


def _rate(planned: Candidate, model: CapacityModel) -> Prediction:
    return evaluate(planned, 1.0, model).zero_loss_dps


def _stars(each: Configuration, best: Configuration, model: CapacityModel) -> str:
    """What the stars come to."""
    mine, most = _rate(each.planned, model), _rate(best.planned, model)
    share = mine.value / most.value
    if each is best:
        return f"{_stars_of(each.throughput)} of throughput: the highest rate of the four."
    apart = " Their intervals overlap." if mine.high >= most.low else ""
    text = (
        f"{_stars_of(each.throughput)} of throughput: {share:.0%} of the rate of {best.name}, which has "
        f"{_stars_of(best.throughput)}.{apart}"
    )
    if each.planned.workers > each.planned.machine.cpus:
        text += " More workers than processors add no processor: they take turns, and share its cost."
    return text


def _latency_trials(data: Dataset, strategy: str) -> list[Trial]:
    return [
        t
        for t in data.trials
        if t.subject == "mcrd" and t.purpose == "latency" and t.latency and t.setting.strategy == strategy
    ]


def _use_cases(model: CapacityModel, layouts: Layouts) -> Table:
    columns = (
        Column("Use case"),
        Column("Asked", "datagrams/s", numeric=True),
        Column("The document recommends"),
        Column("It does", "datagrams/s", numeric=True),
        Column("We recommend"),
        Column("It does", "datagrams/s", numeric=True),
    )
    return Table(
        "seed-use-cases",
        "Use cases: the document's recommendation and ours",
        columns,
        tuple(_answered(case, model) for case in layouts.use_cases),
    )


def _answered(case: UseCase, model: CapacityModel) -> Row:
    theirs = evaluate(case.documented, case.dps, model)
    ours = ranked(evaluate(each, case.dps, model) for each in case.candidates)[0]
    return Row(
        (
            Cell(case.source.capitalize(), case.scenario.replace(": ", "\n", 1)),
            Cell(quantity.rate(case.dps), f"{case.gbps:g} Gbit/s"),
            Cell(case.recommendation, case.claims),
            _does(theirs),
            Cell(_options(ours.candidate)),
            _does(ours),
        ),
        (why(theirs, ours),),
    )


def _options(candidate: Candidate) -> str:
    """Its options, a long list of interfaces cut as the document does."""
    return " ".join(_shortened(word) for word in candidate.options)


def _shortened(word: str) -> str:
    names = word.split(",")
    return word if len(names) <= MOST_NAMES else f"{names[0]},{names[1]},…,{names[-1]}"


def _does(row: Ranked) -> Cell:
    rate = row.zero_loss_dps
    memory = f"{quantity.megabytes(row.memory.everything)} MB"
    span = f"{row.verdict}\n{quantity.rate(rate.low)} to {quantity.rate(rate.high)}\n{rate.basis}\n{memory}"
    tone: Tone = "good" if row.verdict == "meets it" else "bad" if row.verdict == "falls short" else "plain"
    return Cell(quantity.rate(rate.value), span, tone=tone)


def why(theirs: Ranked, ours: Ranked) -> str:
    """The reason for our choice, beside the document's."""
    gain = ours.zero_loss_dps.value / theirs.zero_loss_dps.value - 1
    saved = theirs.memory.everything - ours.memory.everything
    parts = []
    same = (ours.candidate.strategy, ours.candidate.workers) == (
        theirs.candidate.strategy,
        theirs.candidate.workers,
    )
    if same:
        parts.append("Ours is the document's")
    elif gain > SAME_CHOICE:
        parts.append(f"Ours forwards {gain:.0%} more")
    elif ours.verdict == theirs.verdict == "meets it":
        parts.append("Both meet what is asked; ours with as much or less memory")
    else:
        parts.append("Both forward about the same")
    if not same and saved > 0:
        parts.append(f"it takes {quantity.megabytes(saved)} MB less")
    if ours.verdict == "falls short":
        parts.append("what is asked is out of reach of this machine, as far as the model knows")
    elif ours.verdict != "meets it":
        parts.append("whether it meets what is asked is within the interval, so not certain")
    parts += ours.candidate.why
    return "; ".join(parts) + "."
