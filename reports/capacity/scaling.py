"""Speed-up by more processors: the Universal Scalability Law if it was measured, else an assumed range.

Gunther's law: ``C(N) = N / (1 + σ(N−1) + κN(N−1))``, σ the share of the work that waits for its turn
(contention; with κ = 0 it is Amdahl's law), κ what each pair of workers costs to agree (coherency). It has
two parameters, so it is fitted only to four or more numbers of workers, each on a processor of its own.
Otherwise the speed-up is between perfect and that of :data:`PESSIMISTIC_SIGMA`, which is an assumption.
"""

import math
from typing import Literal

from pydantic import Field

from reports.capacity.law import Basis, Part, Prediction, Spread, assumed

FEWEST_COUNTS = 4
PESSIMISTIC_SIGMA = 0.05
"""Assumed: a twentieth of the work waits for its turn, so that 96 processors do the work of 17. Workers share
no table, ring or lock, so more contention than that would have to be the kernel's."""

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
    """Measured rate of all workers together over that of one worker at the same load."""

    cpus: int
    speedup: float
    trials: list[str]


class Scaling(Part):
    kind: Literal["fitted", "range"]
    counts: list[CountMeasured]
    usl: Coefficients | None = None
    amdahl: Coefficients | None = None
    resamples: list[Coefficients] = Field(default_factory=list)
    scatter: float = 0.0
    why: str
    """Why it was fitted, or was not."""
    crowding: Spread | None = None
    """Cost factor for each doubling of the workers on one processor; ``None`` if not measured."""
    crowded_most: float = 1.0
    """Most workers on one processor that were measured."""

    @property
    def most(self) -> int:
        return max((each.cpus for each in self.counts), default=1)

    def speedup(self, cpus: int) -> Prediction:
        """Rate of this many workers over one worker's, each on its own processor."""
        if cpus == 1:
            return Prediction(1.0, 1.0, 1.0, "measured", ())
        if self.kind == "range" or self.usl is None:
            low = Coefficients(sigma=PESSIMISTIC_SIGMA, kappa=0).speedup(cpus)
            told = (
                f"{cpus:,} processors: from no contention down to {PESSIMISTIC_SIGMA:.0%} of the work waiting"
                f" for its turn. {self.why}"
            )
            return assumed(low, float(cpus), told)
        value = self.usl.speedup(cpus)
        each = sorted(one.speedup(cpus) for one in self.resamples) or [value]
        cut = len(each) // 40  # 2.5 % at each end
        margin = math.exp(1.96 * self.scatter)
        low, high = each[cut] / margin, min(each[-1 - cut] * margin, float(cpus))
        if any(count.cpus == cpus for count in self.counts):
            basis: Basis = "measured"
            reason = f"{cpus} processors were measured."
        elif cpus <= self.most:
            basis, reason = "interpolated", f"Up to {self.most} processors were measured."
        else:
            basis = "extrapolated"
            reason = f"{cpus:,} processors: {self.most} were measured."
            low = min(low, Coefficients(sigma=PESSIMISTIC_SIGMA, kappa=0).speedup(cpus))
        return Prediction(value, min(low, value), max(high, value), basis, (reason,))
