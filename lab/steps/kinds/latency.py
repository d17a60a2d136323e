"""Latency at stated rates, each output apart (RFC 3918): its mean, least and largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.load import mixed_traffic as mixed
from lab.results import Trial
from lab.scenario.rfc3918_tables import LatencyTable
from lab.steps.step import LOADED_TRIALS, LONG, TableStep

if TYPE_CHECKING:
    from lab.steps.context import Context, Series

ATTEMPTS = 3


@dataclass(frozen=True)
class LatencyStep(TableStep[LatencyTable]):
    """One trial at each rate of the table: at shares of the zero-loss rate, then at multicast rates."""

    key = "latency"

    @property
    def trials(self) -> int:
        return (LOADED_TRIALS // 2) * (len(self.table.shares) + len(self.table.multicast_dps))

    def perform(self, context: Context) -> None:
        rates: list[float] = []
        receive = self.receive
        if self.table.shares:
            best = context.zero_loss_of(self)
            receive = best.setting.receive
            rates += [(best.lower_dps or 0.0) * share for share in self.table.shares]
        setting = self.scenario.result_setting(self.case, self.subject, receive)
        rates += [mixed.with_unicast(dps, setting.unicast_percent) for dps in self.table.multicast_dps]
        series = context.series(self, self.case, self.subject, setting, "latency")
        trials = [_measure(series, dps, self.trial_s * LONG) for dps in rates]
        context.reporter.outcome("; ".join(map(_describe, trials)))


def _measure(series: Series, dps: float, seconds: float) -> Trial:
    """One trial that was offered what was asked for; a shared machine may need several attempts."""
    for _attempt in range(ATTEMPTS):
        trial = series.run(dps, seconds)
        if trial.validity != "invalid":
            break
    return trial


def _describe(trial: Trial) -> str:
    multicast = [each for each in trial.outputs if each.traffic == "multicast"]
    low = min((each.latency_min_ns for each in multicast if each.latency_min_ns is not None), default=0)
    high = max((each.latency_max_ns for each in multicast if each.latency_max_ns is not None), default=0)
    return f"{low / 1000:,.0f} to {high / 1000:,.0f} µs at {trial.offered_dps:,.0f} dps"
