"""A run's records, sorted by kind, and as pandas frames: what every table, figure and CSV file is made from.

Integers stay integers (a missing one is ``<NA>``, not a float); rates are derived in one place, the records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pandas as pd

from lab.results import (
    AnyRecord,
    Capacity,
    CapacityStep,
    Change,
    Check,
    Comparison,
    Course,
    Delay,
    Footprint,
    InputSample,
    OutputSample,
    RunEnded,
    RunStarted,
    Setting,
    Soak,
    Stage,
    Trial,
    WorkerSample,
    ZeroLoss,
)
from reports.columns import CHANGES, COURSES, SOAKS, Columns, course_rows, setting_columns
from reports.reading import read

Kind = TypeVar("Kind")

RowKey = tuple[str, str, str, bool, str]
"""Scenario, case, subject, receive packet steering, egress: what every row of a table tells."""


def row_key(scenario: str, case: str, subject: str, setting: Setting) -> RowKey:
    return scenario, case, subject, setting.rps, setting.egress


@dataclass(frozen=True, slots=True)
class Dataset:
    """One run. ``run`` is ``None`` when nothing was written; ``ended`` when the run was cut short."""

    run: RunStarted | None
    ended: RunEnded | None
    trials: tuple[Trial, ...]
    zero_losses: tuple[ZeroLoss, ...]
    partial_drops: tuple[ZeroLoss, ...]
    """Rates that some loss was allowed at (PDR)."""
    comparisons: tuple[Comparison, ...]
    footprints: tuple[Footprint, ...]
    delays: tuple[Delay, ...]
    capacities: tuple[Capacity, ...]
    soaks: tuple[Soak, ...]
    courses: tuple[Course, ...]
    changes: tuple[Change, ...]
    checks: tuple[Check, ...]
    varied: Mapping[RowKey, tuple[str, ...]]
    """Settings that differ between rows which would read the same without them."""
    shared_cases: frozenset[str]
    """Names of cases that more than one scenario has."""
    left_out: tuple[str, ...] = ()
    """What the results file held that is not in here, and why."""

    @property
    def empty(self) -> bool:
        rates = self.trials or self.zero_losses or self.comparisons
        return not (rates or self.footprints or self.delays or self.capacities or self.checks)

    @property
    def finished(self) -> bool:
        return self.ended is not None and self.ended.outcome != "interrupted"


def load(results: Path) -> Dataset:
    """One run from a ``results.jsonl`` or the folder that holds it, without what of it cannot be used.

    Raises :class:`lab.results.ResultsError` when there is no such file, or nothing in it can be used.
    """
    reading = read(results)
    return replace(sort_records(reading.records), left_out=reading.left_out)


def sort_records(records: Iterable[AnyRecord]) -> Dataset:
    """Records of one run by kind, each in the order it was written."""
    every = list(records)

    def of(kind: type[Kind]) -> tuple[Kind, ...]:
        return tuple(record for record in every if isinstance(record, kind))

    runs, ends = of(RunStarted), of(RunEnded)
    return Dataset(
        run=runs[0] if runs else None,
        ended=ends[-1] if ends else None,
        trials=of(Trial),
        zero_losses=tuple(z for z in of(ZeroLoss) if not z.goal_loss_ratio),
        partial_drops=tuple(z for z in of(ZeroLoss) if z.goal_loss_ratio),
        comparisons=of(Comparison),
        footprints=of(Footprint),
        delays=of(Delay),
        capacities=of(Capacity),
        soaks=of(Soak),
        courses=of(Course),
        changes=of(Change),
        checks=of(Check),
        varied=_varied([*of(Trial), *of(ZeroLoss)]),
        shared_cases=_shared_cases(every),
    )


def _varied(records: Iterable[Trial | ZeroLoss]) -> dict[RowKey, tuple[str, ...]]:
    seen: dict[RowKey, dict[str, Setting]] = {}
    for record in records:
        key = row_key(record.scenario, record.case, record.subject, record.setting)
        seen.setdefault(key, {})[record.setting.model_dump_json()] = record.setting
    return {
        key: tuple(
            name
            for name in Setting.model_fields
            if len({str(getattr(setting, name)) for setting in settings.values()}) > 1
        )
        for key, settings in seen.items()
        if len(settings) > 1
    }


def _shared_cases(records: Iterable[AnyRecord]) -> frozenset[str]:
    scenarios: dict[str, set[str]] = {}
    for record in records:
        if not isinstance(record, RunStarted | RunEnded):
            scenarios.setdefault(record.case, set()).add(record.scenario)
    return frozenset(case for case, found in scenarios.items() if len(found) > 1)


# ---------------------------------------------------------------------------------------------- frames


def _stage(name: str, of: Callable[[Trial], Stage]) -> Columns[Trial]:
    return {
        f"{name}_entered": lambda t: of(t).entered,
        f"{name}_left": lambda t: of(t).left,
        f"{name}_dropped": lambda t: sum(drop.count for drop in of(t).drops),
        f"{name}_unattributed": lambda t: of(t).unattributed,
    }


def _optional(part: str, fields: Iterable[str], suffix: str = "") -> Columns[Trial]:
    """Fields of a part of a trial that may be absent: ``streams_lost``, ``latency_p99_ns`` …"""

    def column(field: str) -> Callable[[Trial], object]:
        return lambda trial: getattr(getattr(trial, part), field, None)

    return {f"{part}_{field}{suffix}": column(field) for field in fields}


TRIALS: Columns[Trial] = {
    "trial_id": lambda t: t.trial_id,
    "scenario": lambda t: t.scenario,
    "case": lambda t: t.case,
    "subject": lambda t: t.subject,
    "purpose": lambda t: t.purpose,
    "load_share": lambda t: t.load_share,
    **setting_columns(lambda t: t.setting),
    "asked_dps": lambda t: t.asked_dps,
    "duration_ns": lambda t: t.duration_ns,
    "drain_ns": lambda t: t.drain_ns,
    "offered": lambda t: t.offered,
    "offered_dps": lambda t: t.offered_dps,
    "expected_copies": lambda t: t.expected,
    "delivered_copies": lambda t: t.delivered,
    "delivered_copies_per_s": lambda t: t.delivered_dps,
    "loss_ratio": lambda t: t.loss_ratio,
    "bound_by": lambda t: t.bound_by,
    "validity": lambda t: t.validity,
    "balanced": lambda t: t.ledger.balanced,
    **_stage("ingress", lambda t: t.ledger.ingress),
    **_stage("egress", lambda t: t.ledger.egress),
    **_optional("streams", ("streams", "checked", "lost", "duplicated", "reordered", "corrupted")),
    "latency_count": lambda t: t.latency.count if t.latency else None,
    **_optional("latency", ("p50", "p90", "p99", "p999", "max"), suffix="_ns"),
    **_optional("cpu", ("busy_ns", "softirq_ns", "baseline_ns", "copies", "ns_per_copy")),
    "warnings": lambda t: "; ".join(t.warnings),
}

DROPS: Columns[tuple[Trial, str, str, str, int]] = {
    "trial_id": lambda d: d[0].trial_id,
    "scenario": lambda d: d[0].scenario,
    "case": lambda d: d[0].case,
    "subject": lambda d: d[0].subject,
    "stage": lambda d: d[1],
    "place": lambda d: d[2],
    "reason": lambda d: d[3],
    "count": lambda d: d[4],
}

WORKERS: Columns[tuple[Trial, WorkerSample]] = {
    "trial_id": lambda w: w[0].trial_id,
    "scenario": lambda w: w[0].scenario,
    "case": lambda w: w[0].case,
    "worker_id": lambda w: w[1].worker_id,
    "cpu": lambda w: w[1].cpu,
    "received": lambda w: w[1].received,
    "matched": lambda w: w[1].matched,
    "private_bytes": lambda w: w[1].private_bytes,
    "pss_bytes": lambda w: w[1].pss_bytes,
    "ring_bytes": lambda w: w[1].ring_bytes,
    "rules": lambda w: w[1].rules,
}

INPUTS: Columns[tuple[Trial, InputSample]] = {
    "trial_id": lambda i: i[0].trial_id,
    "scenario": lambda i: i[0].scenario,
    "case": lambda i: i[0].case,
    "subject": lambda i: i[0].subject,
    "interface": lambda i: i[1].interface,
    "offered": lambda i: i[1].offered,
    "expected_copies": lambda i: i[1].expected,
    "delivered_copies": lambda i: i[1].delivered,
    "duplicated_copies": lambda i: i[1].duplicated,
}

OUTPUTS: Columns[tuple[Trial, OutputSample]] = {
    "trial_id": lambda o: o[0].trial_id,
    "scenario": lambda o: o[0].scenario,
    "case": lambda o: o[0].case,
    "subject": lambda o: o[0].subject,
    "interface": lambda o: o[1].interface,
    "traffic": lambda o: o[1].traffic,
    "streams": lambda o: o[1].streams,
    "offered": lambda o: o[1].offered,
    "delivered": lambda o: o[1].delivered,
    "latency_min_ns": lambda o: o[1].latency_min_ns,
    "latency_mean_ns": lambda o: o[1].latency_mean_ns,
    "latency_max_ns": lambda o: o[1].latency_max_ns,
}

DELAYS: Columns[tuple[Delay, int]] = {
    "scenario": lambda d: d[0].scenario,
    "case": lambda d: d[0].case,
    "subject": lambda d: d[0].subject,
    **setting_columns(lambda d: d[0].setting),
    "change": lambda d: d[0].change,
    "sign": lambda d: d[0].sign,
    "interface": lambda d: d[0].interface,
    "offered_dps": lambda d: d[0].offered_dps,
    "resolution_ns": lambda d: d[0].resolution_ns,
    "delay_ns": lambda d: d[1],
}

CAPACITIES: Columns[tuple[Capacity, CapacityStep]] = {
    "scenario": lambda c: c[0].scenario,
    "case": lambda c: c[0].case,
    "subject": lambda c: c[0].subject,
    "offered_dps": lambda c: c[0].offered_dps,
    "groups": lambda c: c[1].groups,
    "held": lambda c: c[1].held,
    "offered": lambda c: c[1].offered,
    "expected_copies": lambda c: c[1].expected,
    "delivered_copies": lambda c: c[1].delivered,
    "silent": lambda c: c[1].silent,
    "why": lambda c: c[1].why,
    "trial_ids": lambda c: json.dumps(c[1].trial_ids, ensure_ascii=False),
    "bound_by": lambda c: c[0].bound_by,
}

ZERO_LOSSES: Columns[ZeroLoss] = {
    "scenario": lambda z: z.scenario,
    "case": lambda z: z.case,
    "subject": lambda z: z.subject,
    **setting_columns(lambda z: z.setting),
    "goal_loss_ratio": lambda z: z.goal_loss_ratio,
    "lower_dps": lambda z: z.lower_dps,
    "upper_dps": lambda z: z.upper_dps,
    "generator_ceiling_dps": lambda z: z.generator_ceiling_dps,
    "bound_by": lambda z: z.bound_by,
    "trials": lambda z: len(z.trial_ids),
    "trial_ids": lambda z: json.dumps(z.trial_ids, ensure_ascii=False),
    "warnings": lambda z: "; ".join(z.warnings),
}

COMPARISONS: Columns[Comparison] = {
    "scenario": lambda c: c.scenario,
    "case": lambda c: c.case,
    "metric": lambda c: c.metric,
    "higher_is_better": lambda c: c.higher_is_better,
    "a": lambda c: c.a,
    "b": lambda c: c.b,
    **setting_columns(lambda c: c.setting),
    "ratio": lambda c: c.ratio,
    "low": lambda c: c.low,
    "high": lambda c: c.high,
    "confidence": lambda c: c.confidence,
    "pairs": lambda c: c.pairs,
    "unit": lambda c: c.unit,
    "a_values": lambda c: " ".join(f"{value:.10g}" for value in c.a_values),
    "b_values": lambda c: " ".join(f"{value:.10g}" for value in c.b_values),
    "target": lambda c: c.target,
    "verdict": lambda c: c.verdict,
    "detectable": lambda c: c.detectable,
    "bound_by": lambda c: c.bound_by,
    "trial_ids": lambda c: json.dumps(c.trial_ids, ensure_ascii=False),
    "warnings": lambda c: "; ".join(c.warnings),
}

FOOTPRINTS: Columns[Footprint] = {
    "scenario": lambda f: f.scenario,
    "case": lambda f: f.case,
    "strategy": lambda f: f.strategy,
    "interfaces": lambda f: f.interfaces,
    "cpus": lambda f: f.cpus,
    "workers": lambda f: f.workers,
    "groups": lambda f: f.setting.groups if f.setting else None,
    "placement": lambda f: f.setting.placement if f.setting else None,
    "steering": lambda f: f.setting.steering if f.setting else None,
    "hashing": lambda f: f.setting.hashing if f.setting else None,
    "rules": lambda f: f.rules,
    "rules_per_worker": lambda f: f.rules_per_worker,
    "imbalance": lambda f: f.imbalance,
    "documented_bytes": lambda f: f.documented_bytes,
    "modelled_bytes": lambda f: f.modelled_bytes,
    "workers_measured": lambda f: f.memory.workers,
    "private_bytes_per_worker": lambda f: f.memory.private_bytes_per_worker,
    "template_bytes": lambda f: f.memory.template_bytes,
    "shared_bytes": lambda f: f.memory.shared_bytes,
    "pss_bytes_total": lambda f: f.memory.pss_bytes_total,
    "ring_bytes_total": lambda f: f.memory.ring_bytes_total,
    "kernel_bytes": lambda f: f.memory.kernel_bytes,
    "ready_ns": lambda f: f.ready_ns,
    "stopped_ns": lambda f: f.stopped_ns,
    "idle_cpu_ns": lambda f: f.idle_cpu_ns,
    "idle_ns": lambda f: f.idle_ns,
    "ready_target_ns": lambda f: f.ready_target_ns,
    "stop_target_ns": lambda f: f.stop_target_ns,
    "private_target_bytes": lambda f: f.private_target_bytes,
    "idle_target": lambda f: f.idle_target,
    "discrepancies": lambda f: "; ".join(f.discrepancies),
    "warnings": lambda f: "; ".join(f.warnings),
}

CHECKS: Columns[Check] = {
    "scenario": lambda c: c.scenario,
    "case": lambda c: c.case,
    "passed": lambda c: c.passed,
    "expected": lambda c: c.expected,
    "observed": lambda c: c.observed,
}


def frame(records: Iterable[Kind], columns: Columns[Kind]) -> pd.DataFrame:
    """One row a record, one column an entry; the columns stand even when there is no record."""
    rows = [[read(record) for read in columns.values()] for record in records]
    return pd.DataFrame(rows, columns=list(columns)).convert_dtypes()


def frames(data: Dataset) -> dict[str, pd.DataFrame]:
    """Every frame of a run by the name of its CSV file, without the ending."""
    return {
        "trials": frame(data.trials, TRIALS),
        "drops": frame(drops(data.trials), DROPS),
        "workers": frame([(t, worker) for t in data.trials for worker in t.workers], WORKERS),
        "inputs": frame([(t, one) for t in data.trials for one in t.inputs], INPUTS),
        "outputs": frame([(t, one) for t in data.trials for one in t.outputs], OUTPUTS),
        "delays": frame([(d, value) for d in data.delays for value in d.values_ns], DELAYS),
        "capacities": frame([(c, step) for c in data.capacities for step in c.steps], CAPACITIES),
        "zero-loss": frame((*data.zero_losses, *data.partial_drops), ZERO_LOSSES),
        "comparisons": frame(data.comparisons, COMPARISONS),
        "footprints": frame(data.footprints, FOOTPRINTS),
        "soaks": frame(data.soaks, SOAKS),
        "courses": frame(course_rows(data.courses), COURSES),
        "changes": frame([(c, at) for c in data.changes for at in range(len(c.trial_ids))], CHANGES),
        "checks": frame(data.checks, CHECKS),
        "provenance": pd.DataFrame(provenance_rows(data), columns=["key", "value"]),
    }


def drops(trials: Iterable[Trial]) -> list[tuple[Trial, str, str, str, int]]:
    """``(trial, stage, place, reason, count)``; what no counter explains is a row too: ``unattributed``."""
    rows = []
    for trial in trials:
        for name, stage in (("ingress", trial.ledger.ingress), ("egress", trial.ledger.egress)):
            rows += [(trial, name, drop.place, drop.reason, drop.count) for drop in stage.drops]
            if stage.unattributed:
                rows.append((trial, name, "unattributed", "no counter explains it", stage.unattributed))
    return rows


def provenance_rows(data: Dataset) -> list[tuple[str, str]]:
    """``(key, value)`` of the run, nested keys joined by dots."""
    if data.run is None:
        return []
    run = data.run.model_dump(exclude={"kind", "provenance"})
    flat = {**run, **data.run.provenance.model_dump()}
    rows: list[tuple[str, str]] = []
    for key, value in flat.items():
        if isinstance(value, dict):
            rows += [(f"{key}.{name}", str(inner)) for name, inner in value.items()]
        elif isinstance(value, list | tuple):
            rows.append((key, " ".join(map(str, value))))
        else:
            rows.append((key, "" if value is None else str(value)))
    if data.ended is not None:
        rows += [("ended_at", data.ended.ended_at), ("outcome", data.ended.outcome)]
    return rows
