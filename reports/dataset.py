"""A run's records, sorted by kind: what every table, figure and data file is made from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lab.results import (
    AnyRecord,
    Capacity,
    Change,
    Check,
    Comparison,
    Course,
    Delay,
    Footprint,
    Pipelines,
    RunEnded,
    RunStarted,
    Setting,
    Soak,
    Trial,
    ZeroLoss,
)
from reports.reading import read

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

Tested = Trial | ZeroLoss | Delay | Capacity | Soak | Pipelines
"""Records of one subject."""
Named = Trial | ZeroLoss | Comparison | Footprint | Check | Soak | Course | Change | Pipelines
"""Records that are rows of tables."""
RowKey = tuple[str, str, str, str, str]
"""Scenario, case, subject, who receives, egress: what every row of a table shows."""


def row_key(scenario: str, case: str, subject: str, setting: Setting) -> RowKey:
    return scenario, case, subject, setting.receive, setting.egress


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by their key, in order of first appearance."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


@dataclass(frozen=True, slots=True)
class Dataset:
    """One run. ``run`` is ``None`` when nothing was written; ``ended`` when the run was cut short."""

    run: RunStarted | None
    ended: RunEnded | None
    trials: tuple[Trial, ...]
    zero_losses: tuple[ZeroLoss, ...]
    partial_drops: tuple[ZeroLoss, ...]
    """Highest rates with some loss allowed (PDR)."""
    comparisons: tuple[Comparison, ...]
    footprints: tuple[Footprint, ...]
    delays: tuple[Delay, ...]
    group_capacities: tuple[Capacity, ...]
    """RFC 3918, section 7.1."""
    soaks: tuple[Soak, ...]
    courses: tuple[Course, ...]
    """Loads that change over time."""
    changes: tuple[Change, ...]
    pipelines: tuple[Pipelines, ...]
    """What another CPU adds."""
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
        return not (rates or self.footprints or self.delays or self.group_capacities or self.checks)

    @property
    def finished(self) -> bool:
        return self.ended is not None and self.ended.outcome != "interrupted"

    @property
    def run_id(self) -> str:
        return self.run.run_id if self.run else "unknown"

    @property
    def cpus(self) -> int:
        """Processors of the machine; 0 where they are not known."""
        return self.run.provenance.cpus if self.run else 0

    def of_scenario(self, name: str) -> Dataset:
        """The same run with the records of one scenario only."""
        parts: dict[str, Any] = {
            kind: tuple(r for r in getattr(self, kind) if r.scenario == name) for kind in KINDS
        }
        return replace(self, **parts)


KINDS = (
    *("trials", "zero_losses", "partial_drops", "comparisons", "footprints", "delays", "group_capacities"),
    *("soaks", "courses", "changes", "pipelines", "checks"),
)
"""Fields of :class:`Dataset` with records of scenarios."""


def load(results: Path) -> Dataset:
    """One run from a ``results.jsonl`` or the folder that holds it, without what cannot be used.

    Raises :class:`lab.results.ResultsError` when there is no such file, or nothing in it can be used.
    """
    reading = read(results)
    return replace(sort_records(reading.records), left_out=reading.left_out)


def sort_records(records: Iterable[AnyRecord]) -> Dataset:
    """Records of one run by kind, each in the order it was written."""
    every = list(records)

    def of(kind: type[Item]) -> tuple[Item, ...]:
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
        group_capacities=of(Capacity),
        soaks=of(Soak),
        courses=of(Course),
        changes=of(Change),
        pipelines=of(Pipelines),
        checks=of(Check),
        varied=_varied([*of(Trial), *of(ZeroLoss)]),
        shared_cases=_shared_cases(every),
    )


def _varied(records: Iterable[Trial | ZeroLoss]) -> dict[RowKey, tuple[str, ...]]:
    rows = grouped(records, lambda r: row_key(r.scenario, r.case, r.subject, r.setting))
    varied = {}
    for key, found in rows.items():
        settings = {record.setting for record in found}
        names = (name for name in Setting.model_fields if len({getattr(s, name) for s in settings}) > 1)
        varied[key] = tuple(names)
    return varied


def _shared_cases(records: Iterable[AnyRecord]) -> frozenset[str]:
    cases = grouped((r for r in records if not isinstance(r, RunStarted | RunEnded)), lambda r: r.case)
    return frozenset(case for case, found in cases.items() if len({r.scenario for r in found}) > 1)
