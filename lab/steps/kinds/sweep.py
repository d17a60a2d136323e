"""Loss and latency against offered load: a trial at each rate that the scenario names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.results import Trial
from lab.scenario.load_tables import SweepTable
from lab.steps.step import TableStep

if TYPE_CHECKING:
    from lab.steps.context import Context


@dataclass(frozen=True)
class SweepStep(TableStep[SweepTable]):
    """One trial at each rate of the table, in its order: shares of the ceiling, then datagrams/s."""

    key = "sweep"

    @property
    def trials(self) -> int:
        return len(self.table.ceiling_shares) + len(self.table.dps)

    def perform(self, context: Context) -> None:
        rates: list[float] = []
        if self.table.ceiling_shares:
            ceiling = context.ceiling(self.scenario.generator_setting(self.case))
            rates += [ceiling * share for share in self.table.ceiling_shares]
        rates += self.table.dps
        series = context.series(self, self.case, self.subject, self.setting, "sweep")
        context.reporter.outcome("; ".join(_describe(series.run(dps, self.trial_s)) for dps in rates))


def _describe(trial: Trial) -> str:
    p99 = "" if trial.latency is None else f", p99 {trial.latency.p99 / 1000:,.0f} µs"
    return f"{trial.offered_dps:,.0f} dps: {trial.loss_ratio:.3%} lost{p99}"
