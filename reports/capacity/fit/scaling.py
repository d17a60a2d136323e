"""Fit the Universal Scalability Law to pipelines, and the cost of workers that share a processor."""

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from lab.results import Pipelines
from reports.capacity.cost import terms
from reports.capacity.fit.regression import RESAMPLES, ROBUST_SCALE, SEED, robust_scatter
from reports.capacity.fit.samples import SUBJECT, Sample
from reports.capacity.law import Law, Spread
from reports.capacity.scaling import Coefficients, CountMeasured, Scaling
from reports.dataset import Dataset

FEWEST_FOR_COHERENCY = 3
"""Numbers of pipelines from which on both parameters can be told apart."""


def fit_scaling(runs: Sequence[Dataset], samples: Sequence[Sample], cost: Law) -> Scaling:
    """Fit to the pipelines of ``runs``; ``cost`` is the law of one worker, ``samples`` have several."""
    crowded = [
        (float(s.workers), math.log(s.cost_ns / cost.at(terms(s.load, s.arrived_per_forwarded))))
        for s in samples
        if s.says == "cost" and s.workers > 1
    ]
    found = [
        (run.run_id, each)
        for run in runs
        for each in run.pipelines
        if each.subject == SUBJECT and each.setting.commit is None
    ]
    shared: dict[str, Any] = {
        "counts": [_measured(run_id, each) for run_id, each in found],
        "crowding": _crowding(crowded),
        "crowded_most": max((workers for workers, _ in crowded), default=1.0),
    }
    if not found:
        why = "No pipelines were measured; scenario pipelines does."
        return Scaling(kind="range", why=why, **shared)
    ratios: dict[int, list[float]] = {}
    for _, each in found:
        pairs = zip(each.together, each.alone, strict=True)
        ratios.setdefault(each.pipelines, []).extend(together / alone for together, alone in pairs)
    return _fitted(ratios, shared)


def _measured(run_id: str, found: Pipelines) -> CountMeasured:
    return CountMeasured(
        cpus=found.pipelines,
        ratio=found.ratio,
        low=found.low,
        high=found.high,
        pairs=len(found.alone),
        trials=[f"{run_id}:{one}" for one in found.trial_ids],
    )


def _crowding(crowded: Sequence[tuple[float, float]]) -> Spread | None:
    """Cost factor for each doubling of the workers on one processor: 1.1 is a tenth more."""
    if not crowded:
        return None
    each = [log / math.log2(workers) for workers, log in crowded]
    middle = median(each)
    scatter = robust_scatter([one - middle for one in each])
    return Spread(value=max(1.0, math.exp(middle)), scatter=round(scatter, 4), cases=len(each))


def _fitted(ratios: dict[int, list[float]], shared: dict[str, Any]) -> Scaling:
    rng = np.random.default_rng(SEED)
    resamples = [
        # Within each number: all numbers stay, so that each resample can be fitted.
        _solve({cpus: list(rng.choice(found, len(found))) for cpus, found in ratios.items()})
        for _ in range(RESAMPLES)
    ]
    pairs = sum(map(len, ratios.values()))
    why = f"Fitted to {', '.join(map(str, sorted(ratios)))} pipelines against one, {pairs} pairs."
    return Scaling(kind="fitted", usl=_solve(ratios), resamples=resamples, why=why, **shared)


def _solve(ratios: dict[int, list[float]]) -> Coefficients:
    points = [(cpus, cpus * ratio) for cpus, found in ratios.items() for ratio in found]
    cpus, values = np.array(points, dtype=float).T
    both = len(ratios) >= FEWEST_FOR_COHERENCY

    def residuals(theta: Any) -> Any:
        kappa = theta[1] if both else 0.0
        return np.log(cpus / (1 + theta[0] * (cpus - 1) + kappa * cpus * (cpus - 1))) - np.log(values)

    solve: Callable[..., Any] = least_squares
    start = [0.02, 0.0001] if both else [0.02]
    found = solve(residuals, start, bounds=(0.0, np.inf), loss="soft_l1", f_scale=ROBUST_SCALE).x
    return Coefficients(sigma=float(found[0]), kappa=float(found[1]) if both else 0.0)
