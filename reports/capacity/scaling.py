"""What more processors bring: what pipelines on a CPU each cost each other, fitted by a law.

Gunther's Universal Scalability Law: ``C(N) = N / (1 + σ(N−1) + κN(N−1))``, σ the share of the work that waits
for its turn (contention; with κ = 0 it is Amdahl's law), κ what each pair of CPUs costs to agree (coherency).
σ is fitted to any number of pipelines, κ only to three numbers or more. Without any the speed-up is between
perfect and that of :data:`ASSUMED_SIGMA`.
"""

import math
from typing import Literal

from pydantic import Field

from reports.capacity.law import NORMAL_95, OUTSIDE_DOUBLING, Basis, Part, Prediction, Spread, assumed

ASSUMED_SIGMA = 0.05
"""Where no pipelines were measured, the worst that is assumed: 96 processors do the work of 17."""
CROWDED_LEAST = 0.5
"""Assumed where workers that share a processor were not measured: at worst they do half as much."""
OTHER_NODE_LEAST = 0.7
"""Assumed: worst share of its rate that a worker reaches on another memory node than its interface."""


class Coefficients(Part):
    sigma: float = Field(ge=0)
    kappa: float = Field(ge=0)

    def speedup(self, cpus: int) -> float:
        return cpus / (1 + self.sigma * (cpus - 1) + self.kappa * cpus * (cpus - 1))


class CountMeasured(Part):
    """So many pipelines at the same time: what each delivers over what one alone does, with its interval."""

    cpus: int
    ratio: float
    low: float
    high: float
    pairs: int
    trials: list[str]


class Scaling(Part):
    kind: Literal["fitted", "range"]
    counts: list[CountMeasured]
    usl: Coefficients | None = None
    resamples: list[Coefficients] = Field(default_factory=list)
    why: str
    """What it was fitted to, or why it was not."""
    crowding: Spread | None = None
    """Cost factor for each doubling of the workers on one processor; ``None`` if not measured."""
    crowded_most: float = 1.0
    """Most workers on one processor that were measured."""

    @property
    def most(self) -> int:
        return max((each.cpus for each in self.counts), default=1)

    def speedup(self, cpus: int) -> Prediction:
        """Rate of this many processors over that of one."""
        if cpus == 1:
            return Prediction(1.0, 1.0, 1.0, "measured", ())
        if self.usl is None:
            low = Coefficients(sigma=ASSUMED_SIGMA, kappa=0).speedup(cpus)
            told = (
                f"{cpus:,} processors: from no contention down to {ASSUMED_SIGMA:.0%} of the work waiting"
                f" for its turn, assumed. {self.why}"
            )
            return assumed(low, float(cpus), told)
        value = self.usl.speedup(cpus)
        each = sorted(one.speedup(cpus) for one in self.resamples) or [value]
        cut = len(each) // 40  # 2.5 % at each end
        beyond = max(0.0, math.log2(cpus / self.most))
        margin = math.exp(NORMAL_95 * OUTSIDE_DOUBLING * beyond)
        low, high = each[cut] / margin, min(each[-1 - cut] * margin, float(cpus))
        if beyond:
            basis: Basis = "extrapolated"
            reason = f"{cpus:,} processors: contention was measured with {self.most:,}."
        else:
            basis = "measured" if any(count.cpus == cpus for count in self.counts) else "interpolated"
            reason = f"Contention was measured with up to {self.most:,} processors."
        return Prediction(value, min(low, value), max(high, value), basis, (reason,))
