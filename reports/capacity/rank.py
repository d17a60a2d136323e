"""Candidates for a load, predicted and ranked. Pure: what a candidate comes to is the planner's business."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from reports.capacity.law import Prediction
from reports.capacity.memory import Holding
from reports.capacity.model import CapacityModel
from reports.capacity.predict import Machine, MemoryPrediction, cost_ns, machine_dps, memory

Verdict = Literal["meets it", "likely", "doubtful", "falls short"]
"""The whole interval is above what is asked; the figure itself; only the interval's end; nothing."""
ALIKE = 0.05
"""Rates, and sizes, that are so near to one another are the same: the other one decides then."""
SIMPLEST = (
    "pool",
    "fanout",
    "fanout-per-interface",
    "hybrid",
    "dynamic",
    "rule-hash",
    "hybrid-hash",
    "full-fanout",
)
"""From what has least to go wrong: hashed rules need programs that steer, and move when workers change."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run ``mcrd supervisor``, and what its plan comes to."""

    strategy: str
    options: tuple[str, ...]
    groups: int
    workers: int
    workers_most: int
    """That it may come to, where it scales by load: predicted for so many."""
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
    """Of the rate without loss over the rate asked for: 0.25 is a quarter more."""
    verdict: Verdict
    memory: MemoryPrediction
    cost_ns: Prediction


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
    )


def verdict(rate: Prediction, asked_dps: float) -> Verdict:
    if rate.low >= asked_dps:
        return "meets it"
    if rate.value >= asked_dps:
        return "likely"
    return "doubtful" if rate.high >= asked_dps else "falls short"


def ranked(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Whoever meets it, on fewest processors, with least memory; else whoever forwards most.

    Alike in all of this: whoever forwards more, and in the end the simpler one.
    """
    every = list(rows)
    meeting = [row for row in every if row.verdict == "meets it"]
    others = [row for row in every if row.verdict != "meets it"]
    return (
        *_in_turn(meeting, (_frugality, _smallness, _rate)),
        *_in_turn(others, (_rate, _frugality, _smallness)),
    )


Merit = Callable[[Row], float]


def _in_turn(rows: Sequence[Row], merits: Sequence[Merit]) -> list[Row]:
    """By the first merit; those that are alike in it by the next, and in the end by simplicity."""
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


def _rate(row: Row) -> float:
    return row.zero_loss_dps.value


def _frugality(row: Row) -> float:
    return 1 / row.candidate.machine.cpus


def _smallness(row: Row) -> float:
    return 1 / row.memory.everything
