"""What RFC 3918 asks to be reported of each of its tests, in its own terms: one table a test.

A scenario says which tests it makes (``rfc3918`` in its file). A frame's size is that on Ethernet, with the
check sequence that no veth carries; rates are frames a second, each frame a datagram.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from statistics import median
from typing import TypeVar

from lab.results import Capacity, CapacityStep, Delay, OutputSample, Trial, ZeroLoss
from reports import labels, quantity
from reports import verdicts as words
from reports.collapse import split
from reports.dataset import Dataset
from reports.labels import in_order
from reports.model import Cell, Column, Row, Section, Table
from reports.tables.trials import optional

Tested = TypeVar("Tested", Trial, ZeroLoss, Delay, Capacity)

ETHERNET_OVERHEAD = 14 + 20 + 8 + 4
"""Ethernet, IPv4 and UDP headers, and the check sequence."""
LEAST_FRAME = 64
P99_NEEDS = 100
"""With fewer values the 99th percentile is the largest one."""
NEXT_TO = 0.01
"""A trial within this of a rate was made for it: what is asked for is rounded."""

MADE = (
    "The tests of RFC 3918, each by its section, as far as they apply. Receivers do not ask for groups: a "
    "rule (for the kernel: a route) stands for the membership of the ports behind its outputs, and there is "
    "no router that would ask. Where a subject joins groups on its input, it speaks IGMP version 3, the "
    "host's default. Latency is from the send stamp to the receiver's, so it contains both links."
)
LEFT_OUT = (
    "Not made: section 4.4 (throughput with encapsulation, decapsulation and re-encapsulation), as no "
    "subject has tunnels; joins in MFDB state 1 (section 6.1: the group is forwarded to another port "
    "already), as a rule has all of its outputs from the start."
)


def section(data: Dataset) -> Section:
    parts = (
        mixed(data),
        matrix(data),
        aggregated(data),
        *latency_set(data),
        extremes(data),
        *delays(data),
        capacity(data),
        burdened(data),
    )
    return Section("rfc3918", "RFC 3918", (MADE, LEFT_OUT), tuple(part for part in parts if part is not None))


def _of(data: Dataset, test: str, records: Sequence[Tested]) -> list[Tested]:
    tests = data.run.rfc3918 if data.run is not None else {}
    return [record for record in records if test in tests.get(record.scenario, [])]


# -------------------------------------------------------------------------------------------- throughput


def mixed(data: Dataset) -> Table | None:
    columns = (
        *_configuration("Multicast : unicast"),
        Column("Intended load", "frames/s", numeric=True),
        Column("Multicast offered", "frames", numeric=True),
        Column("Unicast offered", "frames", numeric=True),
        Column("Multicast throughput", "frames/s out", numeric=True),
        Column("Unicast throughput", "frames/s out", numeric=True),
    )
    rows = []
    for z in _of(data, "4.1", data.zero_losses):
        percent = z.setting.unicast_percent
        trial = _at(data, z)
        figures = [quantity.NONE] * 4
        if trial is not None:
            multicast, unicast = _class(trial, "multicast"), _class(trial, "unicast")
            figures = [
                quantity.count(max((each.offered for each in multicast), default=0)),
                quantity.count(sum(each.offered for each in unicast)),
                quantity.rate(_rate(trial, multicast)),
                quantity.rate(_rate(trial, unicast)),
            ]
        rows.append(
            Row(
                (
                    *_configured(z, trial, f"{100 - percent} : {percent}"),
                    _found(z),
                    *map(Cell, figures),
                ),
                trials=tuple(z.trial_ids),
            )
        )
    return optional("rfc3918-mixed", "4.1 Mixed class throughput", columns, rows)


def matrix(data: Dataset) -> Table | None:
    columns = (
        *_configuration("Offered"),
        Column("Intended load", "frames/s", numeric=True),
        Column("Frames offered", numeric=True),
        Column("Frames received", "all outputs", numeric=True),
        Column("Forwarding rate", "frames/s out, all outputs", numeric=True),
        Column("and of each output", "frames/s, mean", numeric=True),
    )
    rows = []
    for z in _of(data, "4.2", data.zero_losses):
        trial = _at(data, z)
        rows.append(
            Row(
                (*_configured(z, trial, "zero loss"), _found(z), *_forwarded(trial)),
                trials=tuple(z.trial_ids),
            )
        )
        for flat in data.trials:
            if _same(flat, z) and flat.purpose == "fixed" and flat.asked_dps is None:
                load = Cell(quantity.rate(flat.offered_dps), doubts=words.trial_doubts(flat))
                cells = (*_configured(z, flat, "as fast as it can"), load, *_forwarded(flat))
                rows.append(Row(cells, trials=(flat.trial_id,)))
    return optional("rfc3918-matrix", "4.2 Scaled group forwarding matrix", columns, rows)


def _forwarded(trial: Trial | None) -> tuple[Cell, ...]:
    if trial is None:
        return tuple(Cell(quantity.NONE) for _ in range(4))
    return (
        Cell(quantity.count(trial.offered)),
        Cell(quantity.count(trial.delivered), f"{quantity.percent(trial.loss_ratio)} lost"),
        Cell(quantity.rate(trial.delivered_dps)),
        Cell(quantity.rate(trial.delivered_dps / trial.setting.outputs)),
    )


def aggregated(data: Dataset) -> Table | None:
    columns = (
        *_configuration("Bounded by"),
        Column("Aggregated throughput", "frames/s in", numeric=True),
        Column("the same", "frames/s out", numeric=True),
        Column("Frames offered", numeric=True),
        Column("Frames received", "on each output", numeric=True),
    )
    rows = []
    for z in _of(data, "4.3", data.zero_losses):
        trial = _at(data, z)
        received = [each.delivered for each in trial.outputs] if trial is not None else []
        ends = in_order(map(quantity.count, (min(received), max(received)))) if received else []
        rows.append(
            Row(
                (
                    *_configured(z, trial, words.bound(z.bound_by)),
                    _found(z),
                    Cell(quantity.rate(None if z.lower_dps is None else z.lower_dps * z.setting.outputs)),
                    Cell(quantity.NONE if trial is None else quantity.count(trial.offered)),
                    Cell(" to ".join(ends) or quantity.NONE),
                ),
                trials=tuple(z.trial_ids),
            )
        )
    return optional("rfc3918-aggregated", "4.3 Aggregated multicast throughput", columns, rows)


def _configuration(more: str) -> tuple[Column, ...]:
    """What the RFC wants of every test; ``more``: the title of one column."""
    return (
        Column("Case"),
        Column("Subject", word=True),
        Column("Frame size", "B", numeric=True),
        Column("Outputs", numeric=True),
        Column("Groups", numeric=True),
        Column("Duration", "s", numeric=True),
        Column(more),
    )


def _configured(record: Trial | ZeroLoss, trial: Trial | None, more: str) -> tuple[Cell, ...]:
    setting = record.setting
    return (
        Cell(record.case, record.scenario),
        Cell(labels.steered(record)),
        Cell(quantity.count(max(LEAST_FRAME, setting.payload_bytes + ETHERNET_OVERHEAD))),
        Cell(quantity.count(setting.outputs)),
        Cell(quantity.count(setting.rules)),
        Cell(quantity.NONE if trial is None else quantity.seconds(trial.duration_ns)),
        Cell(more),
    )


def _found(z: ZeroLoss) -> Cell:
    return Cell("none found" if z.lower_dps is None else words.at_least(z), doubts=words.own(z.warnings))


def _same(trial: Trial, z: ZeroLoss) -> bool:
    key = (trial.scenario, trial.case, trial.subject, trial.setting)
    return key == (z.scenario, z.case, z.subject, z.setting)


def _at(data: Dataset, z: ZeroLoss) -> Trial | None:
    """The trial that shows the rate found: one without loss, at that rate."""
    wanted = set(z.trial_ids)
    found = [
        t
        for t in data.trials
        if t.trial_id in wanted
        and t.asked_dps is not None
        and z.lower_dps is not None
        and abs(t.asked_dps - z.lower_dps) <= NEXT_TO * z.lower_dps
        and t.delivered >= t.expected
    ]
    return found[-1] if found else None


def _class(trial: Trial, traffic: str) -> list[OutputSample]:
    return [each for each in trial.outputs if each.traffic == traffic]


def _rate(trial: Trial, samples: Sequence[OutputSample]) -> float:
    return sum(each.delivered for each in samples) * quantity.NS_PER_S / (trial.duration_ns + trial.drain_ns)


# ----------------------------------------------------------------------------------------------- latency


def latency_set(data: Dataset) -> list[Table]:
    columns = (
        *_configuration("Offered load"),
        Column("Output"),
        *(Column(name, "µs", numeric=True) for name in ("Least", "Mean", "Largest")),
    )
    rows = [
        (
            t.scenario,
            Row(
                (
                    *_loaded(t),
                    Cell(each.interface),
                    Cell(quantity.microseconds(each.latency_min_ns), doubts=words.trial_doubts(t)),
                    Cell(quantity.microseconds(each.latency_mean_ns)),
                    Cell(quantity.microseconds(each.latency_max_ns)),
                ),
                trials=(t.trial_id,),
            ),
        )
        for t in _latency_trials(data, "5.1")
        for each in _class(t, "multicast")
    ]
    return split("rfc3918-latency", "5.1 Multicast latency, of each output over its groups", columns, rows)


def extremes(data: Dataset) -> Table | None:
    columns = (
        *_configuration("Offered load"),
        *(Column(name, "µs", numeric=True) for name in ("Least", "Largest", "Difference")),
    )
    rows = []
    for t in _latency_trials(data, "5.2"):
        low, high = _extremes(t)
        if low is not None and high is not None:
            figures = (Cell(quantity.microseconds(value)) for value in (low, high, high - low))
            rows.append(Row((*_loaded(t), *figures), trials=(t.trial_id,)))
    caption = "5.2 Min/max multicast latency, over outputs and groups"
    return optional("rfc3918-extremes", caption, columns, rows)


def burdened(data: Dataset) -> Table | None:
    columns = (
        *_configuration("Offered load"),
        *(Column(name, "µs", numeric=True) for name in ("Least", "Median", "p99", "Largest")),
        Column("Unicast lost", "of those offered", numeric=True),
    )
    rows = []
    for t in _latency_trials(data, "8.1"):
        if t.latency is None:
            continue
        low, _ = _extremes(t)
        figures = (low, t.latency.p50, t.latency.p99, t.latency.max)
        unicast = _class(t, "unicast")
        offered = sum(each.offered for each in unicast)
        lost = offered - sum(each.delivered for each in unicast)
        rows.append(
            Row(
                (
                    *_loaded(t),
                    *(Cell(quantity.microseconds(value)) for value in figures),
                    Cell(quantity.percent(lost / offered) if offered else "no unicast"),
                ),
                trials=(t.trial_id,),
            )
        )
    return optional("rfc3918-burdened", "8.1 Forwarding burdened multicast latency", columns, rows)


def _latency_trials(data: Dataset, test: str) -> list[Trial]:
    """Of each rate the last trial: one that was offered too little is repeated."""
    found = [t for t in _of(data, test, data.trials) if t.purpose == "latency" and t.outputs]
    last = {(t.scenario, t.case, t.subject, t.setting, t.asked_dps): t for t in found}
    return list(last.values())


def _loaded(t: Trial) -> tuple[Cell, ...]:
    unicast = t.setting.unicast_percent
    *cells, _ = _configured(t, t, "")
    beside = f"frames/s, {unicast} % unicast" if unicast else "frames/s"
    return (*cells, Cell(quantity.rate(t.offered_dps), beside, words.trial_doubts(t)))


def _extremes(t: Trial) -> tuple[int | None, int | None]:
    multicast = _class(t, "multicast")
    low = [each.latency_min_ns for each in multicast if each.latency_min_ns is not None]
    high = [each.latency_max_ns for each in multicast if each.latency_max_ns is not None]
    return min(low, default=None), max(high, default=None)


# ---------------------------------------------------------------------------------------------- overhead


def delays(data: Dataset) -> list[Table]:
    columns = (
        Column("Case"),
        Column("Subject", word=True),
        Column("Delay"),
        Column("Seen"),
        Column("Groups beside", numeric=True),
        Column("Offered load", "frames/s of the group", numeric=True),
        Column("Repetitions", numeric=True),
        *(Column(name, "µs", numeric=True) for name in ("Least", "Median", "p99", "Largest")),
        Column("Resolution", "µs", numeric=True),
        Column("Request answered", "µs, median", numeric=True),
    )
    chosen = [each for test in ("6.1", "6.2", "8.2") for each in _of(data, test, data.delays)]
    rows = [(d.scenario, Row(_delay_cells(d))) for d in data.delays if d in chosen]
    caption = "6.1 Group join delay, 6.2 group leave delay, 8.2 both beside unicast"
    return split("rfc3918-delay", caption, columns, rows)


def _delay_cells(d: Delay) -> tuple[Cell, ...]:
    join = d.change == "add"
    sign = "membership report" if d.sign != "datagram" else "first datagram" if join else "last datagram"
    doubts = list(words.own(d.warnings))
    if d.missed:
        doubts.append(f"{d.missed} of {d.missed + len(d.values_ns)} repetitions without it")
    if d.held_back:
        older = quantity.plural(d.held_back, "datagram")
        doubts.append(f"{older} sent before the request came, held back until then")
    if d.gaps:
        doubts.append(f"{quantity.plural(d.gaps, 'datagram')} lost between the first and the last")
    unicast = d.setting.unicast_percent
    p99 = percentile(d.values_ns, 0.99) if len(d.values_ns) >= P99_NEEDS else None
    figures = (
        min(d.values_ns, default=None),
        median(d.values_ns) if d.values_ns else None,
        p99,
        max(d.values_ns, default=None),
    )
    least, *others = (quantity.microseconds(value) for value in figures)
    return (
        Cell(d.case, d.scenario),
        Cell(labels.steered(d)),
        Cell("join" if join else "leave"),
        Cell(sign, f"on {d.interface}"),
        Cell(quantity.count(d.setting.rules)),
        Cell(quantity.rate(d.offered_dps), f"{unicast} % unicast beside" if unicast else ""),
        Cell(quantity.count(len(d.values_ns)), doubts=tuple(doubts)),
        Cell(least),
        *map(Cell, others),
        Cell(quantity.microseconds(d.resolution_ns) if d.resolution_ns else "time stamp"),
        Cell(quantity.microseconds(median(d.answered_ns) if d.answered_ns else None)),
    )


def percentile(values: Sequence[int], share: float) -> int:
    """The smallest value that so many are not above (nearest rank)."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


# ---------------------------------------------------------------------------------------------- capacity

ENDED = {
    "limit": "nothing: it is the largest number that was tried",
    "loss": "loss",
    "refused": "the subject, which did not take more",
    "generator": "the generator, which offered too little",
}


def capacity(data: Dataset) -> Table | None:
    columns = (
        Column("Case"),
        Column("Subject", word=True),
        Column("Frame size", "B", numeric=True),
        Column("Outputs", numeric=True),
        Column("Offered load", "frames/s", numeric=True),
        Column("Groups tried"),
        Column("Group capacity", "groups", numeric=True),
        Column("Bounded by"),
    )
    rows = []
    for c in _of(data, "7.1", data.capacities):
        found = "none" if c.groups is None else f"{'≥ ' if c.bound_by == 'limit' else ''}{c.groups:,}"
        rows.append(
            Row(
                (
                    Cell(c.case, c.scenario),
                    Cell(labels.steered(c)),
                    Cell(quantity.count(max(LEAST_FRAME, c.setting.payload_bytes + ETHERNET_OVERHEAD))),
                    Cell(quantity.count(c.setting.outputs)),
                    Cell(quantity.rate(c.offered_dps)),
                    Cell("\n".join(map(_step, c.steps))),
                    Cell(found, doubts=words.own(c.warnings)),
                    Cell(ENDED[c.bound_by]),
                ),
                trials=tuple(one for step in c.steps for one in step.trial_ids),
            )
        )
    return optional("rfc3918-capacity", "7.1 Multicast group capacity", columns, rows)


def _step(step: CapacityStep) -> str:
    if step.held:
        return f"{step.groups:,}: all {step.delivered:,} frames"
    if step.why:
        return f"{step.groups:,}: {step.why}"
    lost = step.expected - step.delivered
    return f"{step.groups:,}: {lost:,} of {step.expected:,} frames lost, {step.silent:,} groups silent"
