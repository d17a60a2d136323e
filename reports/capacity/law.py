"""A law: a sum of costs, none of which can be negative; evaluated without numerical libraries.

So predictions grow with their terms: more outputs never cost less, more rules never need less memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Basis = Literal["measured", "interpolated", "extrapolated"]
NORMAL_95 = 1.96
"""Standard deviations to either side that include 95 % of a normal distribution."""
OUTSIDE_DOUBLING = 0.1
"""Convention: each doubling beyond what was measured, of any quantity, adds this to the standard deviation of
the logarithm: 10 %."""


class Part(BaseModel):
    """Parts of a model file: frozen, finite numbers, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Law(Part):
    """``value = Σ coefficient × term``; the scatter is that of the logarithm of measured over predicted."""

    coefficients: dict[str, float]
    resamples: list[dict[str, float]] = Field(default_factory=list)
    """Coefficients fitted to other choices of the cases, drawn with replacement (bootstrap)."""
    scatter: float = Field(ge=0)
    """Over cases that the fit had not seen if there were enough, else over those that it had."""
    cases: int = Field(ge=1)

    @model_validator(mode="after")
    def _same_terms(self) -> Law:
        for each in (self.coefficients, *self.resamples):
            if each.keys() != self.coefficients.keys():
                raise ValueError(f"resamples: terms {sorted(each)}, not {sorted(self.coefficients)}")
            if any(value < 0 for value in each.values()):
                raise ValueError("coefficients: a cost below 0")
        return self

    def at(self, terms: Mapping[str, float]) -> float:
        """The value; terms that the law does not have count as 0."""
        return _sum(self.coefficients, terms)

    def deviation(self, terms: Mapping[str, float]) -> float:
        """Standard deviation of the value's logarithm, from coefficients and from cases about the law."""
        logs = [math.log(max(1e-9, _sum(each, terms))) for each in self.resamples]
        mean = sum(logs) / len(logs) if logs else 0.0
        spread = sum((log - mean) ** 2 for log in logs) / max(1, len(logs) - 1)
        return math.sqrt(spread + self.scatter**2)


def _sum(coefficients: Mapping[str, float], terms: Mapping[str, float]) -> float:
    return sum(value * terms.get(name, 0.0) for name, value in coefficients.items())


class Spread(Part):
    """A factor measured in several cases: its median, and the scatter of its logarithm."""

    value: float = Field(gt=0)
    scatter: float = Field(ge=0)
    cases: int = Field(ge=0)
    """0 if the factor is assumed, not measured."""


class Range(Part):
    """The measured range of one quantity."""

    least: float
    most: float

    def doublings_outside(self, value: float) -> float:
        """How many halvings or doublings bring ``value`` into the range."""
        if self.least <= value <= self.most:
            return 0.0
        edge = self.most if value > self.most else self.least
        return abs(math.log2(max(value, 1e-9) / max(edge, 1e-9)))


def ranges(measured: Sequence[Mapping[str, float]]) -> dict[str, Range]:
    """The range of each quantity over all that was measured."""
    values = {name: [each[name] for each in measured] for name in measured[0]}
    return {name: Range(least=min(each), most=max(each)) for name, each in values.items()}


@dataclass(frozen=True, slots=True)
class Prediction:
    """A figure with its interval of 95 %, its basis, and why."""

    value: float
    low: float
    high: float
    basis: Basis
    reasons: tuple[str, ...]
    """Why it is not measured; if it is, by what."""

    @property
    def deviation(self) -> float:
        """Standard deviation of the value's logarithm, from the upper end."""
        return math.log(self.high / self.value) / NORMAL_95


def assumed(least: float, most: float, reason: str) -> Prediction:
    """A figure that nobody measured, somewhere between two: their geometric mean."""
    return Prediction(math.sqrt(least * most), least, most, "extrapolated", (reason,))


def around(value: float, deviation: float) -> tuple[float, float]:
    """The interval of 95 % around a value whose logarithm has this standard deviation."""
    factor = math.exp(NORMAL_95 * min(deviation, 50.0))
    return value / factor, value * factor


_ORDER: tuple[Basis, ...] = ("measured", "interpolated", "extrapolated")


def weakest(*bases: Basis) -> Basis:
    """The basis of a figure made from several."""
    return max(bases, key=_ORDER.index)
