"""Loss and latency against offered load: a trial at each rate that the scenario names."""

from __future__ import annotations

from lab.results import Trial
from lab.scenario import steps as matrix
from lab.steps.context import Context, Series


def measure(step: matrix.Sweep, context: Context) -> None:
    """One trial at each rate of the table, in its order: shares of the ceiling, then datagrams/s."""
    rates: list[float] = []
    if step.table.ceiling_shares:
        ceiling = context.ceiling(matrix.calibration_setting(step.scenario, step.case))
        rates += [ceiling * share for share in step.table.ceiling_shares]
    rates += step.table.dps
    series = Series(context, step, step.case, step.subject, step.setting, "sweep")
    trials = [series.run(dps, step.profile.trial_ms / 1000) for dps in rates]
    context.reporter.outcome("; ".join(map(_line, trials)))


def _line(trial: Trial) -> str:
    p99 = "" if trial.latency is None else f", p99 {trial.latency.p99 / 1000:,.0f} µs"
    return f"{trial.offered_dps:,.0f} dps: {trial.loss_ratio:.3%} lost{p99}"
