"""A run's records as pandas frames, one for each data file of the report.

A column's name has its unit. Integers stay integers (a missing one is ``<NA>``, not a float); rates are
derived in one place, the records.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter, itemgetter
from typing import Any

import pandas as pd

from lab.results import OfferedPhase, ScalingSample, Setting, Trial
from reports.dataset import Dataset

Columns = Mapping[str, Callable[[Any], object]]
"""Column name to how it is read from a record."""


def _fields(names: str, part: str = "", prefix: str = "", suffix: str = "") -> Columns:
    """Attributes of a record, or of a part of it (``ledger.ingress``) that may be absent.

    ``column=attribute`` names a column that is not called as its attribute.
    """

    def column(name: str) -> Callable[[Any], object]:
        def read(record: Any) -> object:
            owner = attrgetter(part)(record) if part else record
            return None if owner is None else getattr(owner, name)

        return read

    pairs = (name.partition("=") for name in names.split())
    return {f"{prefix}{title}{suffix}": column(name or title) for title, _, name in pairs}


def _joined(name: str, separator: str) -> Columns:
    return {name: lambda record: separator.join(map(str, getattr(record, name)))}


def _pair(first: Columns, second: Columns, last: Columns | None = None) -> Columns:
    """Columns of ``(record, part of it)``; ``last`` are of the record again."""

    def at(place: int, read: Callable[[Any], object]) -> Callable[[Any], object]:
        return lambda pair: read(pair[place])

    parts = ((0, first), (1, second), (0, last or {}))
    return {name: at(place, read) for place, columns in parts for name, read in columns.items()}


def _only(kind: type, columns: Columns) -> Columns:
    """Columns that are empty for parts of another kind."""

    def of_kind(read: Callable[[Any], object]) -> Callable[[Any], object]:
        return lambda part: read(part) if isinstance(part, kind) else None

    return {name: of_kind(read) for name, read in columns.items()}


def _stage(name: str) -> Columns:
    part, prefix = f"ledger.{name}", f"{name}_"
    dropped = attrgetter(f"{part}.drops")
    return {
        **_fields("entered left", part, prefix),
        f"{name}_dropped": lambda t: sum(drop.count for drop in dropped(t)),
        **_fields("unattributed", part, prefix),
    }


SUBJECT = _fields("scenario case subject")
SETTING = {
    **_fields(" ".join(Setting.model_fields), "setting"),
    "options": lambda record: " ".join(record.setting.options),
}
TRIAL_IDS: Columns = {"trial_ids": lambda record: json.dumps(record.trial_ids, ensure_ascii=False)}
WARNINGS = _joined("warnings", "; ")
TRIAL = _fields("trial_id scenario case subject")
COPIES = "expected_copies=expected delivered_copies=delivered"

TRIALS: Columns = {
    **TRIAL,
    **_fields("purpose load_share"),
    **SETTING,
    **_fields(f"asked_dps duration_ns drain_ns offered offered_dps {COPIES}"),
    **_fields("delivered_copies_per_s=delivered_dps loss_ratio bound_by validity"),
    **_fields("balanced", "ledger"),
    **_stage("ingress"),
    **_stage("egress"),
    **_fields("streams checked lost duplicated reordered corrupted", "streams", "streams_"),
    **_fields("count", "latency", "latency_"),
    **_fields("p50 p90 p99 p999 max", "latency", "latency_", "_ns"),
    **_fields("busy_ns softirq_ns baseline_ns copies ns_per_copy", "cpu", "cpu_"),
    **WARNINGS,
}
DROPS = _pair(TRIAL, {name: itemgetter(at) for at, name in enumerate(("stage", "place", "reason", "count"))})
WORKER = _fields("worker_id cpu received matched private_bytes pss_bytes ring_bytes rules")
WORKERS = _pair(_fields("trial_id scenario case"), WORKER)
INPUTS = _pair(TRIAL, _fields(f"interface offered {COPIES} duplicated_copies=duplicated"))
LATENCY = "latency_min_ns latency_mean_ns latency_max_ns"
OUTPUTS = _pair(TRIAL, _fields(f"interface traffic streams offered delivered {LATENCY}"))
DELAY = {**SUBJECT, **SETTING, **_fields("change sign interface offered_dps resolution_ns")}
DELAYS = _pair(DELAY, {"delay_ns": lambda value: value})
CAPACITIES = _pair(
    _fields("scenario case subject offered_dps"),
    {**_fields(f"groups held offered {COPIES} silent why"), **TRIAL_IDS},
    _fields("bound_by"),
)
ZERO_LOSSES: Columns = {
    **SUBJECT,
    **SETTING,
    **_fields("goal_loss_ratio lower_dps upper_dps generator_ceiling_dps bound_by"),
    "trials": lambda z: len(z.trial_ids),
    **TRIAL_IDS,
    **WARNINGS,
}
COMPARISONS: Columns = {
    **_fields("scenario case metric higher_is_better a b"),
    **SETTING,
    **_fields("ratio low high confidence pairs unit"),
    "a_values": lambda c: " ".join(f"{value:.10g}" for value in c.a_values),
    "b_values": lambda c: " ".join(f"{value:.10g}" for value in c.b_values),
    **_fields("target verdict detectable bound_by"),
    **TRIAL_IDS,
    **WARNINGS,
}
FOOTPRINTS: Columns = {
    **_fields("scenario case strategy interfaces cpus workers"),
    **_fields("groups placement steering hashing", "setting"),
    **_fields("rules rules_per_worker imbalance documented_bytes modelled_bytes"),
    **_fields("workers_measured=workers private_bytes_per_worker template_bytes shared_bytes", "memory"),
    **_fields("pss_bytes_total ring_bytes_total kernel_bytes", "memory"),
    **_fields("ready_ns ready_user_ns ready_kernel_ns stopped_ns idle_cpu_ns idle_ns"),
    **_fields("ready_target_ns stop_target_ns private_target_bytes idle_target"),
    **_joined("discrepancies", "; "),
    **WARNINGS,
}
SOAKS: Columns = {
    **SUBJECT,
    **SETTING,
    **_fields("asked_dps"),
    "trials": lambda s: len(s.trial_ids),
    **_fields("duration_ns offered expected delivered"),
    **_joined("p99_ns", " "),
    **TRIAL_IDS,
    **_fields("grown_bytes late_bytes grown_descriptors grown_threads grew"),
    **WARNINGS,
}
COURSES = _pair(
    {**_fields("scenario case"), **TRIAL_IDS},
    {
        "at_ns": lambda part: part.started_ns if isinstance(part, OfferedPhase) else part.at_ns,
        **_only(OfferedPhase, _fields("asked_dps offered duration_ns")),
        **_only(ScalingSample, _fields("group workers group_offered_dps=offered_dps")),
    },
)
CHANGES: Columns = {
    **SUBJECT,
    **SETTING,
    **_fields("change=title asked_dps trial_id=trial_ids offered duration_ns lost duplicated reordered"),
    **_fields("reordered_moved flows_moved share took_ns"),
    "blocked_ns": lambda c: [round(ns) for ns in c.blocked_ns],
    **_fields("blocked_target_ns"),
}
REPEATED = "trial_id offered duration_ns lost duplicated reordered reordered_moved share took_ns blocked_ns"
"""Columns of :data:`CHANGES` that list a figure of each trial."""
CHECKS = {**_fields("scenario case passed expected observed aim"), **_fields("file", "frames", "frames_")}


def frame(records: Iterable[object], columns: Columns, lists: str = "") -> pd.DataFrame:
    """One row a record, one column an entry; the columns stand even when there is no record.

    ``lists`` name columns whose cells are lists of one length: each element gets a row.
    """
    rows = [[read(record) for read in columns.values()] for record in records]
    made = pd.DataFrame(rows, columns=list(columns))
    return (made.explode(lists.split()) if lists else made).convert_dtypes()


def frames(data: Dataset) -> dict[str, pd.DataFrame]:
    """Every frame of a run by the name of its CSV file, without the ending."""
    return {
        "trials": frame(data.trials, TRIALS),
        "drops": frame([(t, drop) for t in data.trials for drop in _drops(t)], DROPS),
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
        "changes": frame(data.changes, CHANGES, REPEATED),
        "checks": frame(data.checks, CHECKS),
        "provenance": pd.DataFrame(provenance_rows(data), columns=["key", "value"]),
    }


def _drops(trial: Trial) -> Iterator[tuple[str, str, str, int]]:
    """``(stage, place, reason, count)``; what no counter explains is one too: ``unattributed``."""
    for name, stage in (("ingress", trial.ledger.ingress), ("egress", trial.ledger.egress)):
        yield from ((name, drop.place, drop.reason, drop.count) for drop in stage.drops)
        if stage.unattributed:
            yield name, "unattributed", "no counter explains it", stage.unattributed


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
            rows.append((key, ("; " if key == "doubts" else " ").join(map(str, value))))
        else:
            rows.append((key, "" if value is None else str(value)))
    if data.ended is not None:
        rows += [("ended_at", data.ended.ended_at), ("outcome", data.ended.outcome)]
    return rows
