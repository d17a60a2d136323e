"""Fit laws to cases: positive coefficients, residuals of logarithms, one-sided bounds.

A residual is the logarithm of predicted over measured, so that relative errors weigh the same at every size;
large ones weigh less than their square (soft L1), as stalls of a shared machine should. A case weighs the
same however often it was measured. Resamples draw cases, as trials of one case are not independent.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

from reports.capacity.law import Law

RESAMPLES = 100
SEED = 20_250_101
"""Seed of the resampling: the same records give the same model."""
ROBUST_SCALE = 0.1
"""Residuals up to about this (10 %) count in full."""
FEWEST_CASES = 3
LEAST_SCATTER = 0.01
"""Least scatter of a law, 1 %, however well a few cases fit it."""
LEAST = 1e-6
"""Coefficients up to this are 0, which the solver does not reach exactly."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Observation:
    """One measurement: case, terms and value; ``at_most``: the value is only an upper bound."""

    case: Hashable
    terms: dict[str, float]
    value: float
    at_most: bool = False


class FitError(ValueError):
    """Too few measurements; the message says what there is and what is needed."""


def fit_law(observations: Sequence[Observation], what: str) -> Law:
    """The law of ``observations`` with its resamples; ``what`` names it in :class:`FitError`."""
    table = _Table(observations, what)
    rng = np.random.default_rng(SEED)
    number = len(table.cases)
    coefficients = table.solve(table.weights(np.ones(number)), None)
    drawn = (np.bincount(rng.integers(0, number, number), minlength=number) for _ in range(RESAMPLES))
    resamples = [table.solve(table.weights(counts.astype(float)), coefficients) for counts in drawn]
    return table.law(coefficients, resamples)


def fit_coefficients(observations: Sequence[Observation], what: str) -> Law:
    """The law without resamples, a hundred times as fast."""
    table = _Table(observations, what)
    return table.law(table.solve(table.weights(np.ones(len(table.cases))), None), [])


def robust_scatter(logs: Sequence[float]) -> float:
    """Standard deviation that ignores a few outliers: 1.4826 × the median distance from 0."""
    return 1.4826 * float(np.median(np.abs(logs))) if len(logs) else 0.0


def _named(names: Sequence[str], values: Array) -> dict[str, float]:
    # What the bound at 0 leaves is nothing.
    return {name: float(f"{max(v - LEAST, 0.0):.6g}") for name, v in zip(names, values, strict=True)}


class _Table:
    """Observations as arrays; raises :class:`FitError` for too few cases."""

    def __init__(self, observations: Sequence[Observation], what: str) -> None:
        points = [o for o in observations if not o.at_most]
        shown = len({o.case for o in points})
        if shown < FEWEST_CASES:
            raise FitError(f"{what}: {shown} cases that show it; allowed: {FEWEST_CASES} or more")
        # A term that no point has cannot be told from nothing.
        names = sorted({name for o in points for name, value in o.terms.items() if value})
        self.names = names
        self.cases = list(dict.fromkeys(o.case for o in observations))
        number = {case: place for place, case in enumerate(self.cases)}
        self.case = np.array([number[o.case] for o in observations])
        self.bound = np.array([o.at_most for o in observations])
        self.rows = np.array([[o.terms.get(name, 0.0) for name in names] for o in observations], dtype=float)
        self.logs = np.log(np.array([o.value for o in observations], dtype=float))
        counts = np.bincount(self.case, minlength=len(self.cases))
        self.each = 1 / counts[self.case]

    def weights(self, of_case: Array) -> Array:
        return np.asarray(np.sqrt(self.each * of_case[self.case]))

    def solve(self, weights: Array, start: Array | None) -> Array:
        kept = weights > 0
        rows, logs, bound, weight = self.rows[kept], self.logs[kept], self.bound[kept], weights[kept]
        if start is None:
            # Relative residuals of the points alone: linear, and near enough to begin with.
            scale = (weight / np.exp(logs))[~bound]
            start = nnls(rows[~bound] * scale[:, None], np.exp(logs[~bound]) * scale)[0]

        def predicted(theta: Array) -> Array:
            return np.asarray(np.maximum(rows @ theta, 1e-9))

        def residuals(theta: Array) -> Array:
            off = np.log(predicted(theta)) - logs
            return np.asarray(np.where(bound, np.maximum(off, 0.0), off) * weight)

        def slopes(theta: Array) -> Array:
            value = predicted(theta)
            counted = np.where(bound & (np.log(value) <= logs), 0.0, weight / value)
            return np.asarray(rows * counted[:, None])

        found = least_squares(
            residuals,
            np.maximum(start, 1e-3),
            jac=slopes,
            bounds=(0.0, np.inf),
            loss="soft_l1",
            f_scale=ROBUST_SCALE,
            x_scale=np.maximum(start, 1.0),
            max_nfev=60,
        )
        return np.asarray(found.x)

    def law(self, coefficients: Array, resamples: Sequence[Array]) -> Law:
        own = self.case_errors(coefficients)
        return Law(
            coefficients=_named(self.names, coefficients),
            resamples=[_named(self.names, each) for each in resamples],
            scatter=max(LEAST_SCATTER, round(robust_scatter(own), 4)),
            cases=len(own),
        )

    def case_errors(self, theta: Array) -> list[float]:
        """The median logarithm of predicted over measured of each case that has points."""
        off = np.log(np.maximum(self.rows @ theta, 1e-9)) - self.logs
        picked = [off[(self.case == place) & ~self.bound] for place in range(len(self.cases))]
        return [float(np.median(each)) for each in picked if len(each)]
