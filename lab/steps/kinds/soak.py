"""One rate for a long time: is anything lost, does latency creep up, do memory or descriptors grow?

The subject's processes are looked at after the first trial, when all that they touch has been touched, and
after the last one. A soak that was cut short begins anew when the run is resumed: processes that were started
again have nothing to say about how those before them grew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.measure.memory import process_memory
from lab.measure.processes import descriptors, threads
from lab.results import Soak, SoakSample
from lab.scenario.load_tables import SoakTable
from lab.steps.step import BENCH_START_S, TRIAL_OVERHEAD_S, TableStep

if TYPE_CHECKING:
    from lab.steps.context import Context
    from lab.trial.bench import Bench


@dataclass(frozen=True)
class SoakStep(TableStep[SoakTable]):
    """The trials of the table, one after another, and a record of what changed from first to last."""

    key = "soak"
    records: ClassVar = (Soak,)

    @property
    def trials(self) -> int:
        return self.table.trials(self.profile.soak_s)

    @property
    def seconds(self) -> float:
        return self.trials * (self.table.trial_s + TRIAL_OVERHEAD_S) + BENCH_START_S

    def perform(self, context: Context) -> None:
        record = _measure(self, context)
        context.archive.write(record)
        line = describe(record)
        if record.grew:
            context.failures.append(f"{self.step_id}: {line}")
        context.reporter.outcome(line)


def _measure(step: SoakStep, context: Context) -> Soak:
    context.archive.recall(step.step_id, lambda _trial: False)
    table, receive = step.table, step.receive
    dps = float(table.dps or 0)
    if table.zero_loss_share is not None:
        best = context.zero_loss_of(step)
        receive, dps = best.setting.receive, (best.lower_dps or 0.0) * table.zero_loss_share
    setting = step.scenario.result_setting(step.case, step.subject, receive)
    series = context.series(step, step.case, step.subject, setting, "soak")
    trials = [series.run(dps, table.trial_s, load_share=table.zero_loss_share)]
    first, middle = _sample(series.bench), None
    while len(trials) < step.trials:
        trials.append(series.run(dps, table.trial_s, load_share=table.zero_loss_share))
        if len(trials) == step.trials // 2:
            middle = _sample(series.bench)
    last = _sample(series.bench)
    warnings = [f"a trial of it: {text}" for trial in trials for text in trial.warnings]
    if first is not None and last is not None and first.pids != last.pids:
        warnings.append("its processes are not those that it began with: what they hold cannot be compared")
    return Soak(
        scenario=step.scenario.name,
        case=step.case.name,
        subject=step.subject,
        setting=setting,
        asked_dps=round(dps),
        trial_ids=series.trial_ids,
        duration_ns=sum(trial.duration_ns for trial in trials),
        offered=sum(trial.offered for trial in trials),
        expected=sum(trial.expected for trial in trials),
        delivered=sum(trial.delivered for trial in trials),
        p99_ns=[trial.latency.p99 for trial in trials if trial.latency is not None],
        first=first,
        middle=middle,
        last=last,
        warnings=list(dict.fromkeys(warnings)),
    )


def _sample(bench: Bench) -> SoakSample | None:
    """``None`` where the work is the kernel's, or the subject has ended: there is no process to look at."""
    running = bench.subject
    if running is None or running.ended() is not None or not (pids := tuple(running.pids)):
        return None
    return SoakSample(
        pids=list(pids),
        private_bytes=sum(process_memory(pid).dirty_bytes for pid in pids),
        descriptors=sum(map(descriptors, pids)),
        threads=sum(map(threads, pids)),
    )


def describe(record: Soak) -> str:
    """A soak in one line."""
    line = f"{record.offered:,} datagrams in {record.duration_ns / 1e9:,.0f} s"
    line += f", {record.expected - record.delivered:,} of {record.expected:,} copies lost"
    if record.p99_ns:
        first, last = record.p99_ns[0] / 1000, record.p99_ns[-1] / 1000
        line += f", p99 {first:,.0f} µs at first and {last:,.0f} µs at last"
    if record.grown_bytes is not None and record.grown_descriptors is not None:
        grown, late = record.grown_bytes / 1e6, (record.late_bytes or 0) / 1e6
        line += f", private memory {grown:+,.2f} MB, {late:+,.2f} in the second half"
        line += f", {record.grown_descriptors:+} descriptors"
    if record.grown_threads is not None:
        line += f", {record.grown_threads:+} threads"
    if record.grew is None:
        return line
    nothing = "nothing grew" if record.judges_memory else "no descriptor or thread more, too short for memory"
    return f"{line}: {'it grew' if record.grew else nothing}"
