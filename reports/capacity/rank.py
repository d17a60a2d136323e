"""Predict and rank candidates for a load. Pure: the planner makes the candidates."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from reports.capacity.law import Prediction
from reports.capacity.memory import Holding
from reports.capacity.model import CapacityModel
from reports.capacity.predict import (
    LatencyPrediction,
    Machine,
    MemoryPrediction,
    cost_ns,
    cpu_ns,
    latency,
    machine_dps,
    memory,
)
from reports.dataset import grouped

Verdict = Literal["meets it", "likely", "doubtful", "falls short"]
"""What reaches the rate asked for: the whole interval, the figure, only the interval's end, or nothing."""
ALIKE = 0.05
"""Relative difference up to which rates or sizes count as equal, so that the next merit decides."""
SIMPLEST = (
    *("pool", "fanout", "fanout-per-interface", "hybrid", "dynamic"),
    *("rule-hash", "hybrid-hash", "full-fanout"),
)
"""Strategies, simplest first: hashed rules need steering programs, and move when workers change."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run ``mcrd supervisor``, with figures of its plan."""

    strategy: str
    options: tuple[str, ...]
    groups: int
    workers: int
    workers_most: int
    """Most workers where it scales by load; predictions are for this number."""
    machine: Machine
    held: Holding
    rings_bytes: int
    why: tuple[str, ...]

    @property
    def command(self) -> str:
        return " ".join(("mcrd supervisor", *self.options))


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate with its predictions. Rates: datagrams/s that arrive on all interfaces together."""

    candidate: Candidate
    zero_loss_dps: Prediction
    headroom: float
    """Rate without loss over the rate asked for, less 1: 0.25 is a quarter more."""
    verdict: Verdict
    memory: MemoryPrediction
    cost_ns: Prediction
    """Of one datagram, a processor alone."""
    cpu_ns: Prediction
    """The same of all processors together: what they cost each other included."""
    latency: LatencyPrediction | None
    """At the rate asked for; ``None`` above what can be forwarded, or if it was not measured."""


def evaluate(candidate: Candidate, asked_dps: float, model: CapacityModel) -> Row:
    """Raises :class:`~reports.capacity.predict.UnknownError`."""
    rate = machine_dps(model, candidate.machine)
    return Row(
        candidate=candidate,
        zero_loss_dps=rate,
        headroom=rate.value / asked_dps - 1,
        verdict=verdict(rate, asked_dps),
        memory=memory(model, candidate.held, candidate.rings_bytes),
        cost_ns=cost_ns(model, candidate.machine.load),
        cpu_ns=cpu_ns(model, candidate.machine),
        latency=latency(model, candidate.machine, asked_dps / rate.value),
    )


def verdict(rate: Prediction, asked_dps: float) -> Verdict:
    if rate.low >= asked_dps:
        return "meets it"
    if rate.value >= asked_dps:
        return "likely"
    return "doubtful" if rate.high >= asked_dps else "falls short"


def ranked(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Candidates that meet the load first, by fewest processors, least memory and highest rate.

    The others follow by highest rate, fewest processors and least memory; then the simpler one wins.
    """
    by_meeting = grouped(rows, lambda row: row.verdict == "meets it")
    return (
        *_in_turn(by_meeting.get(True, []), (_frugality, _smallness, _rate)),
        *_in_turn(by_meeting.get(False, []), (_rate, _frugality, _smallness)),
    )


Merit = Callable[[Row], float]
_rate: Merit = attrgetter("zero_loss_dps.value")


def _in_turn(rows: Sequence[Row], merits: Sequence[Merit]) -> list[Row]:
    """Sort by the first merit, equal ones by the next, and at last by simplicity."""
    if not merits:
        return sorted(rows, key=lambda row: (SIMPLEST.index(row.candidate.strategy), row.candidate.workers))
    merit, *more = merits
    rest = sorted(rows, key=merit, reverse=True)
    found: list[Row] = []
    while rest:
        alike = [row for row in rest if merit(row) >= merit(rest[0]) * (1 - ALIKE)]
        found += _in_turn(alike, more)
        rest = rest[len(alike) :]
    return found


def _frugality(row: Row) -> float:
    return 1 / row.candidate.machine.cpus


def _smallness(row: Row) -> float:
    return 1 / row.memory.everything
