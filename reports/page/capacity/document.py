"""The architecture document's tables with documented, modelled, measured and predicted figures.

A sentence under each row explains the difference.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.results import Footprint
from reports import quantity
from reports.capacity.law import Prediction
from reports.capacity.layouts import Configuration, DocumentedRow, Layouts, UseCase
from reports.capacity.model import CapacityModel
from reports.capacity.predict import LatencyPrediction, MemoryPrediction
from reports.capacity.predict import latency as predicted_latency
from reports.capacity.rank import Row as Ranked
from reports.capacity.rank import evaluate, ranked
from reports.dataset import Dataset
from reports.model import Cell, Column, Section, Table, Tone, flowed
from reports.tables.build import Columns, number, table

WIRE_BYTES = 66
"""Bytes on the wire around a payload on Ethernet (see ``mcastlab advise --gbps``)."""
MOST_NAMES = 4
SAME_CHOICE = 0.05
"""A choice whose rate is higher by no more than this is not a better one."""
MEMORY = """Like is compared with like. Rules alone: what the architecture document's own total is, and what
the model predicts for them. Processes and rules: modelled is the document's assumptions worked out (1 KB a
rule, 1 MB a process), measured what this run really started, predicted the capacity model; both are private
memory of workers and supervisor. All in: the same with what all processes share, receive rings, whose size is
configuration, and the kernel's own growth, which the document does not count."""
RATES = """Rates are predicted without loss, on CPUs that do all of the forwarder's work, receiving included.
The document names no size of datagrams: {payload:,} B of payload and one copy are assumed, a flow for each
rule, spread over workers by chance as a network card's hash does. Latency is that of a measured worker at the
same share of its rate, with as many interfaces and as many workers on its CPU as could be had. CPU usage is
what all CPUs together spend on a datagram: what they cost each other included."""
SHARE = 0.5
"""Share of its rate at which a configuration's latency is told."""


def section(data: Dataset, model: CapacityModel, layouts: Layouts) -> Section:
    """Empty where the model knows nothing about memory."""
    title = "The document's tables, answered"
    if model.memory is None:
        return Section("seed", title)
    tables = _worker_counts(data, model, layouts.rows) + _characteristics(model, layouts)
    text = (flowed(MEMORY), flowed(RATES).format(payload=layouts.payload_bytes))
    return Section("seed", title, text, (*tables, *_use_cases(model, layouts)))


def _worker_counts(data: Dataset, model: CapacityModel, rows: Sequence[DocumentedRow]) -> list[Table]:
    def memory(r: DocumentedRow) -> MemoryPrediction:
        return evaluate(r.planned, 1.0, model).memory

    def name(r: DocumentedRow) -> Cell:
        return Cell(r.source.rsplit(", ", 1)[1], f"{r.interfaces} IF, {r.cpus} CPUs, {r.strategy}")

    def everything(r: DocumentedRow) -> Cell:
        """Measured processes with the plan's rings: the footprint's own may be for another machine."""
        started, needs = _footprint(data, r), memory(r)
        if started is None:
            return Cell("not in this run")
        size = started.memory.held_bytes + (started.memory.kernel_bytes or 0) + needs.rings_bytes
        return Cell(quantity.megabytes(size), f"kernel {quantity.megabytes(started.memory.kernel_bytes)}")

    def parts(r: DocumentedRow) -> Cell:
        needs = memory(r)
        kernel = quantity.megabytes(getattr(needs.kernel, "value", None))
        told = f"rings {quantity.megabytes(needs.rings_bytes)}\nkernel {kernel}"
        return Cell(quantity.megabytes(needs.everything), told)

    columns: Columns[DocumentedRow] = [
        (Column("Row"), name),
        (number("Workers"), lambda r: _against(r.planned.workers, r.workers)),
        (number("Rules per worker"), lambda r: _against(r.planned.held.rules_per_worker, r.rules_per_worker)),
        (number("Rules", "MB, documented"), lambda r: quantity.megabytes(r.total_bytes)),
        (number("Rules", "MB, predicted"), lambda r: _bytes(memory(r).rules)),
        (number("Processes and rules", "MB, modelled"), lambda r: quantity.megabytes(r.modelled_bytes)),
        (number("Processes and rules", "MB, measured"), lambda r: _measured(_footprint(data, r))),
        (number("Processes and rules", "MB, predicted"), lambda r: _bytes(memory(r).total)),
        (number("All in", "MB, measured"), everything),
        (number("All in", "MB, predicted"), parts),
    ]

    def notes(r: DocumentedRow) -> Iterator[str]:
        return _differences(r, _footprint(data, r), memory(r))

    return table("seed-workers", "Worker Count Table", columns, rows, notes)


def _against(planned: int, documented: int | None) -> Cell:
    same = documented is None or documented == planned
    return Cell(quantity.count(planned), "" if same else f"documented {documented:,}")


def _bytes(size: Prediction) -> Cell:
    span = f"{quantity.megabytes(size.low)} to {quantity.megabytes(size.high)}\n{size.basis}"
    return Cell(quantity.megabytes(size.value), span)


def _measured(started: Footprint | None) -> Cell:
    if started is None:
        return Cell("not in this run")
    return Cell(quantity.megabytes(started.memory.own_bytes), f"{started.scenario}: {started.case}")


def _footprint(data: Dataset, row: DocumentedRow) -> Footprint | None:
    wanted = (row.strategy, row.interfaces, row.planned.workers, row.rules)
    found = (f for f in data.footprints if (f.strategy, f.interfaces, f.workers, f.rules) == wanted)
    return next(found, None)


def _differences(row: DocumentedRow, started: Footprint | None, needs: MemoryPrediction) -> Iterator[str]:
    yield from row.discrepancies
    predicted = needs.total
    measured = None if started is None else started.memory.own_bytes
    what, real = ("Predicted", predicted.value) if measured is None else ("Measured", measured)
    ratio, held = real / row.modelled_bytes, row.planned.held
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
        if needs.everything > row.modelled_bytes:
            yield "All in it is more than modelled: the model has neither rings nor the kernel's growth."
    if measured is not None:
        within = "within" if predicted.low <= measured <= predicted.high else "outside"
        off = f"{predicted.value / measured - 1:+.0%}"
        yield f"Predicted is {off} off the measurement, which is {within} its interval."


def _characteristics(model: CapacityModel, layouts: Layouts) -> list[Table]:
    made = {each.name: evaluate(each.planned, 1.0, model) for each in layouts.configurations}
    best = max(layouts.configurations, key=lambda each: made[each.name].zero_loss_dps.value)

    def delays(each: Configuration) -> LatencyPrediction | None:
        return predicted_latency(model, each.planned.machine, SHARE)

    def name(each: Configuration) -> Cell:
        workers = quantity.plural(each.planned.workers, "worker")
        return Cell(each.name, f"{workers}, {each.planned.strategy}")

    def throughput(each: Configuration) -> Cell:
        rate = made[each.name].zero_loss_dps
        gbps = rate.value * (layouts.payload_bytes + WIRE_BYTES) * 8 / 1e9
        text = f"{'★' * each.throughput} {quantity.rate(rate.value)}"
        return Cell(text, f"{_span(rate)}; {gbps:.3g} Gbit/s")

    def latency(each: Configuration) -> Cell:
        stars, seen = "★" * each.latency, delays(each)
        if seen is None:
            return Cell(f"{stars} not measured")
        p50, p99 = (quantity.microseconds(each.value) for each in (seen.p50, seen.p99))
        return Cell(f"{stars} p50 {p50}\np99 {p99}", seen.p50.basis)

    def cpu(each: Configuration) -> Cell:
        machine, spent = each.planned.machine, made[each.name].cpu_ns
        used = f"{each.cpu_usage}: {quantity.plural(machine.cpus, 'processor')}"
        busiest = f"busiest {1 / machine.evenness:.2g} × the mean"
        return Cell(quantity.rate(spent.value), f"{_span(spent)}\n{used}\n{busiest}")

    def memory(each: Configuration) -> Cell:
        return Cell(quantity.megabytes(made[each.name].memory.everything), each.memory)

    def overhead(each: Configuration) -> Cell:
        needs = made[each.name].memory
        size = needs.processes.value + (needs.kernel.value if needs.kernel else 0.0)
        return Cell(quantity.megabytes(size), each.overhead)

    columns: Columns[Configuration] = [
        (Column("Configuration"), name),
        (number("Throughput", "datagrams/s, predicted"), throughput),
        (number("Latency", f"µs, at {SHARE:.0%} of the rate"), latency),
        (number("CPU usage", "ns a datagram, predicted"), cpu),
        (number("Memory", "MB with rings, predicted"), memory),
        (number("Process overhead", "MB, predicted"), overhead),
    ]

    def reasons(each: Configuration) -> tuple[str, ...]:
        seen = delays(each)
        return () if seen is None else seen.p50.reasons

    def notes(each: Configuration) -> list[str]:
        """What the stars of a configuration mean in figures."""
        stars = f"{'★' * each.throughput} of throughput"
        if each is best:
            return [f"{stars}: the highest rate of the four.", *reasons(each)]
        mine, most = made[each.name].zero_loss_dps, made[best.name].zero_loss_dps
        text = f"{stars}: {mine.value / most.value:.0%} of the rate of {best.name}, which has "
        text += f"{'★' * best.throughput}."
        if mine.high >= most.low:
            text += " Their intervals overlap."
        if each.planned.workers > each.planned.machine.cpus:
            text += " More workers than processors add no processor: they take turns, and share its cost."
        return [text, *reasons(each)]

    return table(
        "seed-performance",
        "Performance Characteristics: stars become figures",
        columns,
        layouts.configurations,
        notes,
    )


def _span(rate: Prediction) -> str:
    return f"{quantity.rate(rate.low)} to {quantity.rate(rate.high)}\n{rate.basis}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A use case with the document's recommendation and ours, both predicted."""

    case: UseCase
    theirs: Ranked
    ours: Ranked


def _use_cases(model: CapacityModel, layouts: Layouts) -> list[Table]:
    columns: Columns[Answer] = [
        (
            Column("Use case"),
            lambda a: Cell(a.case.source.capitalize(), a.case.scenario.replace(": ", "\n", 1)),
        ),
        (
            number("Asked", "datagrams/s"),
            lambda a: Cell(quantity.rate(a.case.dps), f"{a.case.gbps:g} Gbit/s"),
        ),
        (Column("The document recommends"), lambda a: Cell(a.case.recommendation, a.case.claims)),
        (number("It does", "datagrams/s"), lambda a: _does(a.theirs)),
        (Column("We recommend"), lambda a: " ".join(map(_shortened, a.ours.candidate.options))),
        (number("It does", "datagrams/s"), lambda a: _does(a.ours)),
    ]

    def answer(case: UseCase) -> Answer:
        theirs = evaluate(case.documented, case.dps, model)
        return Answer(case, theirs, ranked(evaluate(each, case.dps, model) for each in case.candidates)[0])

    caption = "Use cases: the document's recommendation and ours"
    answers = map(answer, layouts.use_cases)
    return table("seed-use-cases", caption, columns, answers, lambda a: [why(a.theirs, a.ours)])


def _shortened(option: str) -> str:
    """A long list of interfaces is cut as the document does."""
    names = option.split(",")
    return option if len(names) <= MOST_NAMES else f"{names[0]},{names[1]},…,{names[-1]}"


def _does(row: Ranked) -> Cell:
    rate = row.zero_loss_dps
    detail = f"{row.verdict}\n{_span(rate)}\n{quantity.megabytes(row.memory.everything)} MB"
    tone: Tone = "good" if row.verdict == "meets it" else "bad" if row.verdict == "falls short" else "plain"
    return Cell(quantity.rate(rate.value), detail, tone=tone)


def why(theirs: Ranked, ours: Ranked) -> str:
    """Why we recommend ``ours``."""
    gain = ours.zero_loss_dps.value / theirs.zero_loss_dps.value - 1
    saved = theirs.memory.everything - ours.memory.everything
    a, b = ours.candidate, theirs.candidate
    same = (a.strategy, a.workers) == (b.strategy, b.workers)
    if same:
        parts = ["Ours is the document's"]
    elif gain > SAME_CHOICE:
        parts = [f"Ours forwards {gain:.0%} more"]
    elif ours.verdict == theirs.verdict == "meets it":
        parts = ["Both meet what is asked; ours with as much or less memory"]
    else:
        parts = ["Both forward about the same"]
    if not same and saved > 0:
        parts.append(f"it takes {quantity.megabytes(saved)} MB less")
    if ours.verdict == "falls short":
        parts.append("what is asked is out of reach of this machine, as far as the model knows")
    elif ours.verdict != "meets it":
        parts.append("whether it meets what is asked is within the interval, so not certain")
    return "; ".join([*parts, *a.why]) + "."
