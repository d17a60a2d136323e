"""How a data file's columns are read from records: what all have in common, and those of given loads.

A column's name has its unit; integers stay integers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from lab.results import Change, Course, OfferedPhase, ScalingSample, Setting, Soak

Kind = TypeVar("Kind")

Columns = Mapping[str, Callable[[Kind], object]]
"""Column name, with its unit, to how it is read from a record."""


def setting_columns(of: Callable[[Kind], Setting]) -> Columns[Kind]:
    def column(name: str) -> Callable[[Kind], object]:
        def read(record: Kind) -> object:
            value = getattr(of(record), name)
            return " ".join(value) if isinstance(value, list | tuple) else value

        return read

    return {name: column(name) for name in Setting.model_fields}


SOAKS: Columns[Soak] = {
    "scenario": lambda s: s.scenario,
    "case": lambda s: s.case,
    "subject": lambda s: s.subject,
    **setting_columns(lambda s: s.setting),
    "asked_dps": lambda s: s.asked_dps,
    "trials": lambda s: len(s.trial_ids),
    "duration_ns": lambda s: s.duration_ns,
    "offered": lambda s: s.offered,
    "expected": lambda s: s.expected,
    "delivered": lambda s: s.delivered,
    "p99_ns": lambda s: " ".join(map(str, s.p99_ns)),
    "trial_ids": lambda s: json.dumps(s.trial_ids, ensure_ascii=False),
    "grown_bytes": lambda s: s.grown_bytes,
    "late_bytes": lambda s: s.late_bytes,
    "grown_descriptors": lambda s: s.grown_descriptors,
    "grown_threads": lambda s: s.grown_threads,
    "grew": lambda s: s.grew,
    "warnings": lambda s: "; ".join(s.warnings),
}

COURSES: Columns[tuple[Course, OfferedPhase | ScalingSample]] = {
    "scenario": lambda c: c[0].scenario,
    "case": lambda c: c[0].case,
    "trial_ids": lambda c: json.dumps(c[0].trial_ids, ensure_ascii=False),
    "at_ns": lambda c: c[1].started_ns if isinstance(c[1], OfferedPhase) else c[1].at_ns,
    "asked_dps": lambda c: c[1].asked_dps if isinstance(c[1], OfferedPhase) else None,
    "offered": lambda c: c[1].offered if isinstance(c[1], OfferedPhase) else None,
    "duration_ns": lambda c: c[1].duration_ns if isinstance(c[1], OfferedPhase) else None,
    "group": lambda c: c[1].group if isinstance(c[1], ScalingSample) else None,
    "workers": lambda c: c[1].workers if isinstance(c[1], ScalingSample) else None,
    "group_offered_dps": lambda c: c[1].offered_dps if isinstance(c[1], ScalingSample) else None,
}
"""Phases of the load, and samples of the groups."""

CHANGES: Columns[tuple[Change, int]] = {
    "scenario": lambda c: c[0].scenario,
    "case": lambda c: c[0].case,
    "subject": lambda c: c[0].subject,
    **setting_columns(lambda c: c[0].setting),
    "change": lambda c: c[0].title,
    "asked_dps": lambda c: c[0].asked_dps,
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


def course_rows(courses: Iterable[Course]) -> list[tuple[Course, OfferedPhase | ScalingSample]]:
    """What was offered in each phase, then each look at the groups."""
    rows: list[tuple[Course, OfferedPhase | ScalingSample]] = []
    for course in courses:
        rows += [(course, phase) for phase in course.phases]
        rows += [(course, sample) for sample in course.samples]
    return rows
