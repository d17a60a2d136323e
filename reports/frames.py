"""A run's records as pandas frames, one for each data file of the report.

A column's name has its unit. Integers stay integers (a missing one is ``<NA>``, not a float); rates are
derived in one place, the records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

import pandas as pd

from lab.results import Course, OfferedPhase, ScalingSample, Setting, Trial
from reports.dataset import Dataset

Columns = Mapping[str, Callable[[Any], object]]
"""Column name to how it is read from a record."""


def _fields(*names: str, part: str = "", prefix: str = "", suffix: str = "") -> Columns:
    """Attributes of a record, or of a part of it (``ledger.ingress``) that may be absent."""

    def column(name: str) -> Callable[[Any], object]:
        def read(record: Any) -> object:
            owner = attrgetter(part)(record) if part else record
            return None if owner is None else getattr(owner, name)

        return read

    return {f"{prefix}{name}{suffix}": column(name) for name in names}


def _joined(name: str, separator: str) -> Columns:
    return {name: lambda record: separator.join(map(str, getattr(record, name)))}


def _pair(first: Columns, second: Columns) -> Columns:
    """Columns of ``(record, part of it)``."""

    def at(place: int, read: Callable[[Any], object]) -> Callable[[Any], object]:
        return lambda pair: read(pair[place])

    return {
        name: at(place, read)
        for place, columns in enumerate((first, second))
        for name, read in columns.items()
    }


def _stage(name: str) -> Columns:
    dropped = attrgetter(f"ledger.{name}.drops")
    return {
        **_fields("entered", "left", part=f"ledger.{name}", prefix=f"{name}_"),
        f"{name}_dropped": lambda t: sum(drop.count for drop in dropped(t)),
        **_fields("unattributed", part=f"ledger.{name}", prefix=f"{name}_"),
    }


NAME = _fields("scenario", "case")
SUBJECT = _fields("scenario", "case", "subject")
SETTING = {
    **_fields(*Setting.model_fields, part="setting"),
    "options": lambda record: " ".join(record.setting.options),
}
TRIAL_IDS: Columns = {"trial_ids": lambda record: json.dumps(record.trial_ids, ensure_ascii=False)}
WARNINGS = _joined("warnings", "; ")

TRIALS: Columns = {
    **_fields("trial_id", "scenario", "case", "subject", "purpose", "load_share"),
    **SETTING,
    **_fields("asked_dps", "duration_ns", "drain_ns", "offered", "offered_dps"),
    "expected_copies": attrgetter("expected"),
    "delivered_copies": attrgetter("delivered"),
    "delivered_copies_per_s": attrgetter("delivered_dps"),
    **_fields("loss_ratio", "bound_by", "validity"),
    "balanced": attrgetter("ledger.balanced"),
    **_stage("ingress"),
    **_stage("egress"),
    **_fields(
        *("streams", "checked", "lost", "duplicated", "reordered", "corrupted"),
        part="streams",
        prefix="streams_",
    ),
    **_fields("count", part="latency", prefix="latency_"),
    **_fields("p50", "p90", "p99", "p999", "max", part="latency", prefix="latency_", suffix="_ns"),
    **_fields("busy_ns", "softirq_ns", "baseline_ns", "copies", "ns_per_copy", part="cpu", prefix="cpu_"),
    **WARNINGS,
}
TRIAL = _fields("trial_id", "scenario", "case", "subject")
DROPS: Columns = {
    **_pair(TRIAL, {}),
    "stage": lambda d: d[1],
    "place": lambda d: d[2],
    "reason": lambda d: d[3],
    "count": lambda d: d[4],
}
WORKERS = _pair(
    _fields("trial_id", "scenario", "case"),
    _fields(
        *("worker_id", "cpu", "received", "matched"), *("private_bytes", "pss_bytes", "ring_bytes", "rules")
    ),
)
INPUTS = _pair(
    TRIAL,
    {
        **_fields("interface", "offered"),
        "expected_copies": attrgetter("expected"),
        "delivered_copies": attrgetter("delivered"),
        "duplicated_copies": attrgetter("duplicated"),
    },
)
OUTPUTS = _pair(
    TRIAL,
    _fields(
        *("interface", "traffic", "streams", "offered", "delivered"),
        *("latency_min_ns", "latency_mean_ns", "latency_max_ns"),
    ),
)
DELAYS = _pair(
    {**SUBJECT, **SETTING, **_fields("change", "sign", "interface", "offered_dps", "resolution_ns")},
    {"delay_ns": lambda value: value},
)
CAPACITIES: Columns = {
    **_pair(
        {**SUBJECT, **_fields("offered_dps")},
        {
            **_fields("groups", "held", "offered"),
            "expected_copies": attrgetter("expected"),
            "delivered_copies": attrgetter("delivered"),
            **_fields("silent", "why"),
            **TRIAL_IDS,
        },
    ),
    "bound_by": lambda c: c[0].bound_by,
}
ZERO_LOSSES: Columns = {
    **SUBJECT,
    **SETTING,
    **_fields("goal_loss_ratio", "lower_dps", "upper_dps", "generator_ceiling_dps", "bound_by"),
    "trials": lambda z: len(z.trial_ids),
    **TRIAL_IDS,
    **WARNINGS,
}
COMPARISONS: Columns = {
    **_fields("scenario", "case", "metric", "higher_is_better", "a", "b"),
    **SETTING,
    **_fields("ratio", "low", "high", "confidence", "pairs", "unit"),
    "a_values": lambda c: " ".join(f"{value:.10g}" for value in c.a_values),
    "b_values": lambda c: " ".join(f"{value:.10g}" for value in c.b_values),
    **_fields("target", "verdict", "detectable", "bound_by"),
    **TRIAL_IDS,
    **WARNINGS,
}
FOOTPRINTS: Columns = {
    **_fields("scenario", "case", "strategy", "interfaces", "cpus", "workers"),
    **_fields("groups", "placement", "steering", "hashing", part="setting"),
    **_fields("rules", "rules_per_worker", "imbalance", "documented_bytes", "modelled_bytes"),
    "workers_measured": attrgetter("memory.workers"),
    **_fields("private_bytes_per_worker", "template_bytes", "shared_bytes", part="memory"),
    **_fields("pss_bytes_total", "ring_bytes_total", "kernel_bytes", part="memory"),
    **_fields("ready_ns", "stopped_ns", "idle_cpu_ns", "idle_ns"),
    **_fields("ready_target_ns", "stop_target_ns", "private_target_bytes", "idle_target"),
    **_joined("discrepancies", "; "),
    **WARNINGS,
}
SOAKS: Columns = {
    **SUBJECT,
    **SETTING,
    **_fields("asked_dps"),
    "trials": lambda s: len(s.trial_ids),
    **_fields("duration_ns", "offered", "expected", "delivered"),
    **_joined("p99_ns", " "),
    **TRIAL_IDS,
    **_fields("grown_bytes", "late_bytes", "grown_descriptors", "grown_threads", "grew"),
    **WARNINGS,
}
PHASE: Columns = {
    "at_ns": attrgetter("started_ns"),
    **_fields("asked_dps", "offered", "duration_ns"),
}
SAMPLE: Columns = {
    **_fields("at_ns", "group", "workers"),
    "group_offered_dps": attrgetter("offered_dps"),
}


def _phase_or_sample(name: str) -> Callable[[Any], object]:
    """A column of a load's phases or of the samples of its worker groups, empty for the others."""

    def read(pair: tuple[Course, OfferedPhase | ScalingSample]) -> object:
        columns = PHASE if isinstance(pair[1], OfferedPhase) else SAMPLE
        return columns[name](pair[1]) if name in columns else None

    return read


COURSES: Columns = {
    **_pair({**NAME, **TRIAL_IDS}, {}),
    **{name: _phase_or_sample(name) for name in {**PHASE, **SAMPLE}},
}
CHANGES: Columns = {
    **_pair({**SUBJECT, **SETTING, "change": attrgetter("title"), **_fields("asked_dps")}, {}),
    "trial_id": lambda c: c[0].trial_ids[c[1]],
    "offered": lambda c: c[0].offered[c[1]],
    "duration_ns": lambda c: c[0].duration_ns[c[1]],
    "lost": lambda c: c[0].lost[c[1]],
    "duplicated": lambda c: c[0].duplicated[c[1]],
    "reordered": lambda c: c[0].reordered[c[1]],
    "reordered_moved": lambda c: c[0].reordered_moved[c[1]],
    "flows_moved": lambda c: c[0].flows_moved,
    "share": lambda c: c[0].share[c[1]],
    "took_ns": lambda c: c[0].took_ns[c[1]],
    "blocked_ns": lambda c: round(c[0].blocked_ns[c[1]]),
    "blocked_target_ns": lambda c: c[0].blocked_target_ns,
}
CHECKS = _fields("scenario", "case", "passed", "expected", "observed")


def frame(records: Iterable[object], columns: Columns) -> pd.DataFrame:
    """One row a record, one column an entry; the columns stand even when there is no record."""
    rows = [[read(record) for read in columns.values()] for record in records]
    return pd.DataFrame(rows, columns=list(columns)).convert_dtypes()


def frames(data: Dataset) -> dict[str, pd.DataFrame]:
    """Every frame of a run by the name of its CSV file, without the ending."""
    return {
        "trials": frame(data.trials, TRIALS),
        "drops": frame(_drops(data.trials), DROPS),
        "workers": frame([(t, worker) for t in data.trials for worker in t.workers], WORKERS),
        "inputs": frame([(t, one) for t in data.trials for one in t.inputs], INPUTS),
        "outputs": frame([(t, one) for t in data.trials for one in t.outputs], OUTPUTS),
        "delays": frame([(d, value) for d in data.delays for value in d.values_ns], DELAYS),
        "capacities": frame([(c, step) for c in data.group_capacities for step in c.steps], CAPACITIES),
        "zero-loss": frame((*data.zero_losses, *data.partial_drops), ZERO_LOSSES),
        "comparisons": frame(data.comparisons, COMPARISONS),
        "footprints": frame(data.footprints, FOOTPRINTS),
        "soaks": frame(data.soaks, SOAKS),
        "courses": frame([(c, part) for c in data.courses for part in (*c.phases, *c.samples)], COURSES),
        "changes": frame([(c, at) for c in data.changes for at in range(len(c.trial_ids))], CHANGES),
        "checks": frame(data.checks, CHECKS),
        "provenance": pd.DataFrame(provenance_rows(data), columns=["key", "value"]),
    }


def _drops(trials: Iterable[Trial]) -> list[tuple[Trial, str, str, str, int]]:
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
    rows: list[tuple[str, str]] = []
    for key, value in {**run, **data.run.provenance.model_dump()}.items():
        if isinstance(value, dict):
            rows += [(f"{key}.{name}", str(inner)) for name, inner in value.items()]
        elif isinstance(value, list | tuple):
            rows.append((key, " ".join(map(str, value))))
        else:
            rows.append((key, "" if value is None else str(value)))
    if data.ended is not None:
        rows += [("ended_at", data.ended.ended_at), ("outcome", data.ended.outcome)]
    return rows
