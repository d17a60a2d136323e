"""Latency at stated rates, each output apart: the set that RFC 3918 asks for, and its least and largest."""

from __future__ import annotations

from lab.load import mixed_traffic as mixed
from lab.results import Trial
from lab.scenario import steps as matrix
from lab.scenario.steps import LONG
from lab.steps.context import Context, Series, StepError

ATTEMPTS = 3


def measure(step: matrix.LatencySet, context: Context) -> None:
    """One trial at each rate of the table: at shares of the zero-loss rate, then at multicast rates."""
    rates: list[float] = []
    rps = step.rps
    if step.table.shares:
        best = context.best_rate(step.scenario.name, matrix.Side(step.subject, step.case))
        if best is None:
            raise StepError(
                f"{step.subject}, {step.case.name}: no zero-loss rate was found to take a share of"
            )
        rps = best.setting.rps
        rates += [(best.lower_dps or 0.0) * share for share in step.table.shares]
    setting = step.scenario.result_setting(step.case, step.subject, rps)
    rates += [mixed.with_unicast(dps, setting.unicast_percent) for dps in step.table.multicast_dps]
    series = Series(context, step, step.case, step.subject, setting, "latency")
    trials = [_at(series, dps, step.profile.trial_ms / 1000 * LONG) for dps in rates]
    context.reporter.outcome("; ".join(map(_line, trials)))


def _at(series: Series, dps: float, seconds: float) -> Trial:
    """One trial that was offered what was asked for; of a shared machine, several may be needed."""
    for _attempt in range(ATTEMPTS):
        trial = series.run(dps, seconds)
        if trial.validity != "invalid":
            break
    return trial


def _line(trial: Trial) -> str:
    multicast = [each for each in trial.outputs if each.traffic == "multicast"]
    low = min((each.latency_min_ns for each in multicast if each.latency_min_ns is not None), default=0)
    high = max((each.latency_max_ns for each in multicast if each.latency_max_ns is not None), default=0)
    return f"{low / 1000:,.0f} to {high / 1000:,.0f} µs at {trial.offered_dps:,.0f} dps"
