"""Tables of the RFC 3918 tests, in the RFC's own terms: one table a test.

A scenario says which tests it makes (``rfc3918`` in its file). A frame's size is that on Ethernet, with the
check sequence that no veth carries; rates are frames a second, each frame a datagram.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import TypeVar

from lab.results import Capacity, CapacityStep, Delay, OutputSample, Setting, Trial, ZeroLoss
from reports import labels, quantity, verdicts
from reports.dataset import Dataset, grouped
from reports.labels import unique
from reports.model import Cell, Column, Table
from reports.quantity import microseconds
from reports.tables.build import CASE, SUBJECT, Columns, Shown, number, table, tables

Tested = TypeVar("Tested", Trial, ZeroLoss, Delay, Capacity)

ETHERNET_OVERHEAD = 14 + 20 + 8 + 4
"""Bytes of Ethernet, IPv4 and UDP headers, and the check sequence."""
LEAST_FRAME = 64
P99_NEEDS = 100
"""With fewer values the 99th percentile is the largest one."""
NEXT_TO = 0.01
"""Relative difference up to which a trial was made for a rate: the rate that is asked for is rounded."""


def all_tables(data: Dataset) -> list[Table]:
    tests = (mixed_class, forwarding_matrix, aggregated, latency, min_max_latency, delays, group_capacity)
    return [table for test in (*tests, burdened_latency) for table in test(data)]


def _of(data: Dataset, test: str, records: Sequence[Tested]) -> list[Tested]:
    tests = data.run.rfc3918 if data.run is not None else {}
    return [record for record in records if test in tests.get(record.scenario, [])]


@dataclass(frozen=True, slots=True)
class Measured:
    """A rate that was searched, or a trial at one rate; ``trial`` shows it where there is one."""

    record: Trial | ZeroLoss
    trial: Trial | None

    @property
    def load(self) -> Cell:
        record = self.record
        if isinstance(record, Trial):
            return Cell(quantity.rate(record.offered_dps), doubts=verdicts.trial_doubts(record))
        return Cell(verdicts.rate_or_none_found(record), doubts=verdicts.distinct(record.warnings))

    def shown(self, read: Callable[[Trial], Shown]) -> Shown:
        return None if self.trial is None else read(self.trial)


def mixed_class(data: Dataset) -> list[Table]:
    def share(m: Measured) -> str:
        percent = m.record.setting.unicast_percent
        return f"{100 - percent} : {percent}"

    def multicast(t: Trial) -> int:
        return max((each.offered for each in _class(t, "multicast")), default=0)

    def unicast(t: Trial) -> int:
        return sum(each.offered for each in _class(t, "unicast"))

    columns: Columns[Measured] = [
        *_setup("Multicast : unicast", share),
        (number("Intended load", "frames/s"), lambda m: m.load),
        (number("Multicast offered", "frames"), lambda m: m.shown(multicast)),
        (number("Unicast offered", "frames"), lambda m: m.shown(unicast)),
        (number("Multicast throughput", "frames/s out"), lambda m: m.shown(lambda t: _rate(t, "multicast"))),
        (number("Unicast throughput", "frames/s out"), lambda m: m.shown(lambda t: _rate(t, "unicast"))),
    ]
    return table("rfc3918-mixed", "4.1 Mixed class throughput", columns, _searched(data, "4.1"))


def forwarding_matrix(data: Dataset) -> list[Table]:
    def received(t: Trial) -> Cell:
        return Cell(quantity.count(t.delivered), f"{quantity.percent(t.loss_ratio)} lost")

    def rate(outputs: Callable[[Setting], int]) -> Callable[[Measured], Shown]:
        return lambda m: m.shown(lambda t: quantity.rate(t.delivered_dps / outputs(t.setting)))

    columns: Columns[Measured] = [
        *_setup("Offered", lambda m: "zero loss" if isinstance(m.record, ZeroLoss) else "as fast as it can"),
        (number("Intended load", "frames/s"), lambda m: m.load),
        (number("Frames offered"), lambda m: m.shown(lambda t: t.offered)),
        (number("Frames received", "all outputs"), lambda m: m.shown(received)),
        (number("Forwarding rate", "frames/s out, all outputs"), rate(lambda _: 1)),
        (number("and of each output", "frames/s, mean"), rate(lambda setting: setting.outputs)),
    ]
    fastest = grouped((t for t in data.trials if t.purpose == "fixed" and t.asked_dps is None), _row)
    found = []
    for searched in _searched(data, "4.2"):
        found += [searched, *(Measured(t, t) for t in fastest.get(_row(searched.record), ()))]
    return table("rfc3918-matrix", "4.2 Scaled group forwarding matrix", columns, found)


def aggregated(data: Dataset) -> list[Table]:
    def out(m: Measured) -> str:
        lower = m.record.lower_dps if isinstance(m.record, ZeroLoss) else None
        return quantity.rate(None if lower is None else lower * m.record.setting.outputs)

    def received(t: Trial) -> str | None:
        found = [each.delivered for each in t.outputs]
        return " to ".join(unique(map(quantity.count, (min(found), max(found))))) if found else None

    columns: Columns[Measured] = [
        *_setup("Bounded by", lambda m: verdicts.bound(m.record.bound_by)),
        (number("Aggregated throughput", "frames/s in"), lambda m: m.load),
        (number("the same", "frames/s out"), out),
        (number("Frames offered"), lambda m: m.shown(lambda t: t.offered)),
        (number("Frames received", "on each output"), lambda m: m.shown(received)),
    ]
    caption = "4.3 Aggregated multicast throughput"
    return table("rfc3918-aggregated", caption, columns, _searched(data, "4.3"))


def _setup(title: str, more: Callable[[Measured], Shown]) -> Columns[Measured]:
    """What the RFC wants reported of every test, and one column more."""
    return [
        (CASE, lambda m: Cell(m.record.case, m.record.scenario)),
        (SUBJECT, lambda m: labels.subject_with_receive(m.record)),
        (number("Frame size", "B"), lambda m: _frame_size(m.record.setting)),
        (number("Outputs"), lambda m: m.record.setting.outputs),
        (number("Groups"), lambda m: m.record.setting.rules),
        (number("Duration", "s"), lambda m: m.shown(lambda t: quantity.seconds(t.duration_ns))),
        (Column(title), more),
    ]


def _frame_size(setting: Setting) -> int:
    return max(LEAST_FRAME, setting.payload_bytes + ETHERNET_OVERHEAD)


def _searched(data: Dataset, test: str) -> list[Measured]:
    return [Measured(z, _trial_at_rate(data, z)) for z in _of(data, test, data.zero_losses)]


def _row(record: Trial | ZeroLoss) -> tuple[str, str, str, Setting]:
    return record.scenario, record.case, record.subject, record.setting


def _trial_at_rate(data: Dataset, z: ZeroLoss) -> Trial | None:
    """The last trial without loss at the rate that was found."""
    rate = z.lower_dps
    if rate is None:
        return None
    wanted = set(z.trial_ids)
    lossless = [t for t in data.trials if t.trial_id in wanted and t.delivered >= t.expected]
    near = [t for t in lossless if t.asked_dps is not None and abs(t.asked_dps - rate) <= NEXT_TO * rate]
    return near[-1] if near else None


def _class(trial: Trial, traffic: str) -> list[OutputSample]:
    return [each for each in trial.outputs if each.traffic == traffic]


def _rate(trial: Trial, traffic: str) -> str:
    delivered = sum(each.delivered for each in _class(trial, traffic))
    return quantity.rate(delivered * quantity.NS_PER_S / (trial.duration_ns + trial.drain_ns))


@dataclass(frozen=True, slots=True)
class OutputLatency(Measured):
    output: OutputSample


@dataclass(frozen=True, slots=True)
class Latencies(Measured):
    """Latencies of a trial over all multicast outputs and their groups, in ns."""

    figures: tuple[float | None, ...]
    unicast_lost: str = ""


def latency(data: Dataset) -> list[Table]:
    def least(m: OutputLatency) -> Cell:
        doubts = verdicts.trial_doubts(m.trial) if m.trial else ()
        return Cell(microseconds(m.output.latency_min_ns), doubts=doubts)

    columns: Columns[OutputLatency] = [
        *_setup("Offered load", _offered_load),
        (Column("Output"), lambda m: m.output.interface),
        (number("Least", "µs"), least),
        (number("Mean", "µs"), lambda m: microseconds(m.output.latency_mean_ns)),
        (number("Largest", "µs"), lambda m: microseconds(m.output.latency_max_ns)),
    ]
    trials = _latency_trials(data, "5.1")
    found = [OutputLatency(t, t, output) for t in trials for output in _class(t, "multicast")]
    return tables("rfc3918-latency", "5.1 Multicast latency, of each output over its groups", columns, found)


def min_max_latency(data: Dataset) -> list[Table]:
    found = []
    for t in _latency_trials(data, "5.2"):
        low, high = _extremes(t)
        if low is not None and high is not None:
            found.append(Latencies(t, t, (low, high, high - low)))
    columns = _latency_columns("Least", "Largest", "Difference")
    return table("rfc3918-extremes", "5.2 Min/max multicast latency, over outputs and groups", columns, found)


def burdened_latency(data: Dataset) -> list[Table]:
    found = []
    for t in _latency_trials(data, "8.1"):
        if t.latency is None:
            continue
        unicast = _class(t, "unicast")
        offered, delivered = (sum(getattr(u, name) for u in unicast) for name in ("offered", "delivered"))
        lost = quantity.percent((offered - delivered) / offered) if offered else "no unicast"
        figures = (_extremes(t)[0], t.latency.p50, t.latency.p99, t.latency.max)
        found.append(Latencies(t, t, figures, lost))
    columns: Columns[Latencies] = [
        *_latency_columns("Least", "Median", "p99", "Largest"),
        (number("Unicast lost", "of those offered"), lambda m: m.unicast_lost),
    ]
    return table("rfc3918-burdened", "8.1 Forwarding burdened multicast latency", columns, found)


def _latency_columns(*titles: str) -> Columns[Latencies]:
    def figure(place: int) -> Callable[[Latencies], str]:
        return lambda m: microseconds(m.figures[place])

    return [
        *_setup("Offered load", _offered_load),
        *((number(title, "µs"), figure(place)) for place, title in enumerate(titles)),
    ]


def _latency_trials(data: Dataset, test: str) -> Iterable[Trial]:
    """The last trial at each rate: one that was offered too little is repeated."""
    found = [t for t in _of(data, test, data.trials) if t.purpose == "latency" and t.outputs]
    return {(_row(t), t.asked_dps): t for t in found}.values()


def _offered_load(m: Measured) -> Cell:
    unicast = m.record.setting.unicast_percent
    return Cell(m.load.text, f"frames/s, {unicast} % unicast" if unicast else "frames/s", m.load.doubts)


def _extremes(t: Trial) -> tuple[int | None, int | None]:
    multicast = _class(t, "multicast")
    low = [each.latency_min_ns for each in multicast if each.latency_min_ns is not None]
    high = [each.latency_max_ns for each in multicast if each.latency_max_ns is not None]
    return min(low, default=None), max(high, default=None)


def delays(data: Dataset) -> list[Table]:
    def of_values(figure: Callable[[list[int]], float]) -> Callable[[Delay], str]:
        return lambda d: microseconds(figure(d.values_ns) if d.values_ns else None)

    def p99(d: Delay) -> str:
        return microseconds(percentile(d.values_ns, 0.99) if len(d.values_ns) >= P99_NEEDS else None)

    def resolution(d: Delay) -> str:
        return microseconds(d.resolution_ns) if d.resolution_ns else "time stamp"

    def answered(d: Delay) -> str:
        return microseconds(median(d.answered_ns) if d.answered_ns else None)

    columns: Columns[Delay] = [
        (CASE, lambda d: Cell(d.case, d.scenario)),
        (SUBJECT, labels.subject_with_receive),
        (Column("Delay"), lambda d: "join" if d.change == "add" else "leave"),
        (Column("Seen"), _sign),
        (number("Groups beside"), lambda d: d.setting.rules),
        (number("Offered load", "frames/s of the group"), _delay_load),
        (number("Repetitions"), lambda d: Cell(quantity.count(len(d.values_ns)), doubts=_delay_doubts(d))),
        (number("Least", "µs"), of_values(min)),
        (number("Median", "µs"), of_values(median)),
        (number("p99", "µs"), p99),
        (number("Largest", "µs"), of_values(max)),
        (number("Resolution", "µs"), resolution),
        (number("Request answered", "µs, median"), answered),
    ]
    chosen = [each for test in ("6.1", "6.2", "8.2") for each in _of(data, test, data.delays)]
    caption = "6.1 Group join delay, 6.2 group leave delay, 8.2 both beside unicast"
    return tables("rfc3918-delay", caption, columns, [d for d in data.delays if d in chosen])


def _sign(d: Delay) -> Cell:
    datagram = "first datagram" if d.change == "add" else "last datagram"
    return Cell("membership report" if d.sign != "datagram" else datagram, f"on {d.interface}")


def _delay_load(d: Delay) -> Cell:
    unicast = d.setting.unicast_percent
    return Cell(quantity.rate(d.offered_dps), f"{unicast} % unicast beside" if unicast else "")


def _delay_doubts(d: Delay) -> tuple[str, ...]:
    doubts = list(verdicts.distinct(d.warnings))
    if d.missed:
        doubts.append(f"{d.missed} of {d.missed + len(d.values_ns)} repetitions without it")
    if d.held_back:
        older = quantity.plural(d.held_back, "datagram")
        doubts.append(f"{older} sent before the request came, held back until then")
    if d.gaps:
        doubts.append(f"{quantity.plural(d.gaps, 'datagram')} lost between the first and the last")
    return tuple(doubts)


def percentile(values: Sequence[int], share: float) -> int:
    """The smallest value that at least this share of the values do not exceed (nearest rank)."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


ENDED = {
    "limit": "nothing: it is the largest number that was tried",
    "loss": "loss",
    "refused": "the subject, which did not take more",
    "generator": "the generator, which offered too little",
}


def group_capacity(data: Dataset) -> list[Table]:
    def groups(c: Capacity) -> Cell:
        least = "≥ " if c.bound_by == "limit" else ""
        most = "none" if c.groups is None else f"{least}{c.groups:,}"
        return Cell(most, doubts=verdicts.distinct(c.warnings))

    columns: Columns[Capacity] = [
        (CASE, lambda c: Cell(c.case, c.scenario)),
        (SUBJECT, labels.subject_with_receive),
        (number("Frame size", "B"), lambda c: _frame_size(c.setting)),
        (number("Outputs"), lambda c: c.setting.outputs),
        (number("Offered load", "frames/s"), lambda c: quantity.rate(c.offered_dps)),
        (Column("Groups tried"), lambda c: "\n".join(map(_step, c.steps))),
        (number("Group capacity", "groups"), groups),
        (Column("Bounded by"), lambda c: ENDED[c.bound_by]),
    ]
    return table(
        "rfc3918-capacity",
        "7.1 Multicast group capacity",
        columns,
        _of(data, "7.1", data.group_capacities),
        trials=lambda c: tuple(one for step in c.steps for one in step.trial_ids),
    )


def _step(step: CapacityStep) -> str:
    if step.held:
        return f"{step.groups:,}: all {step.delivered:,} frames"
    if step.why:
        return f"{step.groups:,}: {step.why}"
    lost = step.expected - step.delivered
    return f"{step.groups:,}: {lost:,} of {step.expected:,} frames lost, {step.silent:,} groups silent"
