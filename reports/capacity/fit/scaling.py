"""Fit the Universal Scalability Law to a run's numbers of workers, or say why not."""

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from reports.capacity.cost import terms
from reports.capacity.fit.regression import RESAMPLES, ROBUST_SCALE, SEED, robust_scatter
from reports.capacity.fit.samples import Sample
from reports.capacity.law import Law, Spread
from reports.capacity.scaling import FEWEST_COUNTS, Coefficients, CountMeasured, Scaling


def fit_scaling(samples: Sequence[Sample], cost: Law) -> Scaling:
    """Fit to samples whose workers had processors of their own; ``cost`` is the law of one worker.

    A speed-up is the measured rate over what that law predicts for one worker at the same load.
    """
    speedups: dict[int, list[tuple[float, str]]] = {}
    crowded: list[tuple[float, float]] = []
    for sample in (sample for sample in samples if sample.says == "cost"):
        expected_ns = cost.at(terms(sample.load, sample.arrived_per_forwarded))
        times = expected_ns / sample.cost_ns
        if sample.workers > sample.cpus:
            crowded.append((sample.workers / sample.cpus, -math.log(times)))
        else:
            speedups.setdefault(sample.cpus, []).append((sample.cpus * times, sample.trial))
    counts = []
    for cpus, found in sorted(speedups.items()):
        values, trials = zip(*found, strict=True)
        counts.append(CountMeasured(cpus=cpus, speedup=median(values), trials=list(trials)))
    most = max((workers for workers, _ in crowded), default=1.0)
    shared: dict[str, Any] = {"counts": counts, "crowding": _crowding(crowded), "crowded_most": most}
    if len(counts) < FEWEST_COUNTS:
        there = ", ".join(str(count.cpus) for count in counts) or "none"
        why = (
            f"Not fitted: workers on processors of their own were measured for {len(counts)} of at least "
            f"{FEWEST_COUNTS} numbers of processors ({there}); scenario capacity-workers measures more."
        )
        return Scaling(kind="range", why=why, **shared)
    return _fitted(speedups, shared)


def _crowding(crowded: Sequence[tuple[float, float]]) -> Spread | None:
    """Cost factor for each doubling of the workers on one processor: 1.1 is a tenth more."""
    if not crowded:
        return None
    each = [log / math.log2(workers) for workers, log in crowded]
    middle = median(each)
    scatter = robust_scatter([one - middle for one in each])
    return Spread(value=max(1.0, math.exp(middle)), scatter=round(scatter, 4), cases=len(each))


def _fitted(speedups: dict[int, list[tuple[float, str]]], shared: dict[str, Any]) -> Scaling:
    points = [(cpus, value) for cpus, found in speedups.items() for value, _ in found]
    usl, amdahl = _solve(points, 2), _solve(points, 1)
    rng = np.random.default_rng(SEED)
    resamples = []
    for _ in range(RESAMPLES):
        # Within each number: all numbers stay, so that each resample can be fitted.
        places = {cpus: rng.integers(0, len(found), len(found)) for cpus, found in speedups.items()}
        drawn = [(cpus, speedups[cpus][place][0]) for cpus, each in places.items() for place in each]
        resamples.append(_solve(drawn, 2))
    off = [math.log(usl.speedup(cpus) / value) for cpus, value in points]
    scatter = round(robust_scatter(off) / math.sqrt(len(points)), 4)
    why = f"Fitted to {', '.join(map(str, sorted(speedups)))} processors."
    shared |= {"usl": usl, "amdahl": amdahl, "resamples": resamples}
    return Scaling(kind="fitted", scatter=scatter, why=why, **shared)


def _solve(points: Sequence[tuple[int, float]], parameters: int) -> Coefficients:
    cpus, values = np.array(points, dtype=float).T

    def residuals(theta: Any) -> Any:
        kappa = theta[1] if parameters == 2 else 0.0
        return np.log(cpus / (1 + theta[0] * (cpus - 1) + kappa * cpus * (cpus - 1))) - np.log(values)

    start = [0.02, 0.0001][:parameters]
    solve: Callable[..., Any] = least_squares
    found = solve(residuals, start, bounds=(0.0, np.inf), loss="soft_l1", f_scale=ROBUST_SCALE).x
    return Coefficients(sigma=float(found[0]), kappa=float(found[1]) if parameters == 2 else 0.0)
