"""What another CPU adds: benches on one CPU each, all at the same time, against one of them alone.

Whoever does the work of a bench, it is on that CPU, so nobody helps anybody and the sum of what they deliver
says what CPUs cost each other: caches, memory, locks of the kernel. Two CPUs show the beginning of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar

from lab.analysis.compare import interleaved, paired_ratio
from lab.results import Pipelines, Setting, Trial
from lab.scenario.load_tables import PipelinesTable
from lab.steps.step import BENCH_START_S, TRIAL_OVERHEAD_S, StepError, TableStep

if TYPE_CHECKING:
    from lab.steps.context import Context, Series

ESTIMATED_CPUS = 2


@dataclass(frozen=True)
class PipelinesStep(TableStep[PipelinesTable]):
    """Pairs for each number of pipelines."""

    key = "pipelines"
    records: ClassVar = (Pipelines,)

    @property
    def trials(self) -> int:
        return (ESTIMATED_CPUS + 1) * self.profile.pairs

    @property
    def seconds(self) -> float:
        each = 2 * self.profile.pairs * (self.trial_s + TRIAL_OVERHEAD_S)
        return each + ESTIMATED_CPUS * BENCH_START_S

    def perform(self, context: Context) -> None:
        context.archive.recall(self.step_id, lambda _trial: False)  # pairs that were cut short begin anew
        for count in counts(len(context.benches.cpus.each)):
            record = _measure(self, context, count)
            context.archive.write(record)
            context.reporter.outcome(describe(record))


def counts(cpus: int) -> list[int]:
    """2, 4, 8 … and all. Raises StepError where there is one CPU."""
    if cpus < 2:
        raise StepError("one CPU: there is none that could get in its way")
    return [*(2**n for n in range(1, cpus.bit_length()) if 2**n < cpus), cpus]


def _measure(step: PipelinesStep, context: Context, count: int) -> Pipelines:
    setting = step.setting.model_copy(update={"pipelines": count})
    alone = setting.model_copy(update={"pipelines": 1})

    def series_of(setting: Setting) -> list[Series]:
        return [
            context.series(step, step.case, step.subject, setting, "pipelines", cpus)
            for cpus in context.benches.cpus.each[:count]
        ]

    every, lone = series_of(setting), series_of(alone)
    values: dict[str, list[float]] = {"a": [], "b": []}
    for side in interleaved(step.profile.pairs):
        if side == "a":
            trials = run_together(every, step.trial_s)
        else:
            trials = [lone[len(values["b"]) % count].run(None, step.trial_s)]
        values[side].append(fmean(trial.delivered_dps for trial in trials))
    if not all((*values["a"], *values["b"])):
        raise StepError(f"{count} pipelines: one of them delivered nothing")
    ratio = paired_ratio(values["a"], values["b"])
    return Pipelines(
        scenario=step.scenario.name,
        case=step.case.name,
        subject=step.subject,
        setting=setting,
        together=values["a"],
        alone=values["b"],
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        trial_ids=[one for series in (*every, *lone) for one in series.trial_ids],
        warnings=list(ratio.warnings),
    )


def run_together(series: Sequence[Series], seconds: float) -> list[Trial]:
    """An unpaced trial of each at the same time."""
    from lab.trial.bench import measure_together

    asked = [(each.bench, each.request(None, seconds)) for each in series]
    return [each.keep(trial) for each, trial in zip(series, measure_together(asked), strict=True)]


def describe(record: Pipelines) -> str:
    """A record in one line."""
    worth = f"{record.ratio:.3f} ({record.low:.3f} to {record.high:.3f})"
    return f"{record.pipelines} pipelines: each delivers {worth} of what one alone does"
