"""Loads that change over time: what a sender is asked for, and what is concluded from what workers did."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lab.analysis.load_profile import Bounds, checks, describe, hot_share, offered_phases, scaled_ns, sizes
from lab.load.jobs import Phase, PhaseReport
from lab.results import Course, OfferedPhase, Resize, ScalingSample, Setting
from lab.scenario.load_tables import CourseTable

MS = 1_000_000
SECOND = 1000 * MS
BOUNDS = Bounds(1, 3, 10_000)


def phases(*rates: tuple[float, int]) -> list[OfferedPhase]:
    """``(since when in seconds, datagrams/s)``."""
    return [
        OfferedPhase(started_ns=round(at * SECOND), duration_ns=SECOND, asked_dps=dps, offered=dps)
        for at, dps in rates
    ]


def resize(at_s: float, before: int, after: int, **changes: Any) -> Resize:
    made = Resize(
        at_ns=round(at_s * SECOND), took_ns=50 * MS, group=0, before=before, after=after, reason="busy"
    )
    return made.model_copy(update=changes)


def sample(at_s: float, workers: int, group: int = 0) -> ScalingSample:
    return ScalingSample(at_ns=round(at_s * SECOND), group=group, workers=workers, offered_dps=0)


def test_ramps_become_steps_with_the_same_mean_and_repeats_come_one_after_another() -> None:
    table = CourseTable.model_validate(
        {
            "phases": [{"dps": 0, "to_dps": 10_000, "seconds": 1.0}, {"dps": 500, "seconds": 0.5}],
            "repeat": 2,
        }
    )
    rates = table.rates
    assert len(rates) == 2 * (20 + 1)
    assert [rate.dps for rate in rates[:3]] == [250, 750, 1250]
    assert sum(rate.datagrams for rate in rates[:20]) == pytest.approx(5000, abs=20)
    assert sum(rate.seconds for rate in rates) == pytest.approx(table.seconds) == 3.0
    assert rates[:21] == rates[21:]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"phases": []}, "at least 1"),
        ({"phases": [{"dps": 0, "seconds": 1.0}]}, "at least one that sends"),
        ({"phases": [{"dps": 9, "seconds": 60.0}], "repeat": 2}, "120 s: at most 100 s"),
        ({"phases": [{"dps": -1, "seconds": 1.0}]}, "greater than or equal to 0"),
    ],
)
def test_an_impossible_course_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CourseTable.model_validate(table)


def test_needed_workers_are_within_the_bounds() -> None:
    assert [BOUNDS.needed(dps) for dps in (0, 10_000, 10_001, 20_001, 90_000)] == [1, 1, 2, 3, 3]


def test_the_hot_input_has_its_part_of_the_load() -> None:
    assert hot_share(Setting(payload_bytes=64)) == 1.0
    assert hot_share(Setting(payload_bytes=64, inputs=4, skew=32)) == 32 / 35


def test_neighbouring_steps_of_one_rate_are_one_phase() -> None:
    asked = [Phase(dps=5, seconds=1), Phase(dps=5, seconds=1), Phase(dps=9, seconds=1)]
    sent = [PhaseReport(started_ns=at * SECOND, duration_ns=SECOND, offered=at) for at in (0, 1, 2)]
    made = offered_phases(asked, sent)
    assert [(p.started_ns, p.duration_ns, p.asked_dps, p.offered) for p in made] == [
        (0, 2 * SECOND, 5, 1),
        (2 * SECOND, SECOND, 9, 2),
    ]


def test_sizes_are_those_of_complete_changes() -> None:
    changes = [resize(1, 1, 2), resize(2, 2, 3, failed="no memory"), resize(3, 9, 9, group=1)]
    assert sizes([sample(0.1, 1)], changes, 0) == [(0, 1), (SECOND + 50 * MS, 2)]
    # The first sample came when the group had grown already.
    assert sizes([sample(1.2, 2)], changes, 0)[0] == (0, 1)
    assert sizes([sample(1, 1)], [], 5) == []


@pytest.mark.parametrize(
    ("rates", "had", "share", "expected"),
    [
        (((0, 5_000), (1, 25_000)), [(0, 1), (1_400 * MS, 3)], 1.0, 400 * MS),
        (((0, 5_000), (1, 25_000)), [(0, 1), (1_400 * MS, 2)], 1.0, None),  # never enough
        (((0, 5_000), (1, 25_000)), [(0, 1), (1_400 * MS, 2)], 0.5, 400 * MS),  # half of it is for this group
        (((0, 5_000), (1, 9_000)), [(0, 1), (1_400 * MS, 2)], 1.0, None),  # never overloaded
        (((0, 25_000),), [(0, 1), (300 * MS, 2), (1_300 * MS, 3)], 1.0, 1_300 * MS),
        # The load is gone before the workers are there.
        (((0, 25_000), (0.2, 1_000)), [(0, 1), (1_300 * MS, 3)], 1.0, 200 * MS),
    ],
)
def test_time_from_overload_to_scaled(
    rates: tuple[tuple[float, int], ...], had: list[tuple[int, int]], share: float, expected: int | None
) -> None:
    assert scaled_ns(phases(*rates), had, BOUNDS, share) == expected


def record(**changes: Any) -> Course:
    values: dict[str, Any] = {
        "scenario": "s",
        "case": "c",
        "subject": "mcrd",
        "setting": Setting(payload_bytes=64),
        "trial_ids": ["t"],
        "threshold_dps": 10_000,
        "min_workers": 1,
        "max_workers": 3,
        "hot_group": 0,
        "hot_share": 1.0,
        "phases": phases((0, 5_000), (1, 25_000)),
        "samples": [sample(0, 1), sample(0, 1, group=7), sample(2, 3), sample(2, 1, group=7)],
        "resizes": [resize(1.35, 1, 3)],
        "offered": 30_000,
        "expected": 30_000,
        "delivered": 30_000,
        "duplicated": 0,
        "reordered": 0,
        "scaled_ns": 400 * MS,
        "scaled_target_ns": 2 * SECOND,
    }
    return Course(**{**values, **changes})


EXPECTED = {
    "scaled_within_s": 2.0,
    "most_workers": 3,
    "last_workers": 3,
    "other_workers": 1,
    "changes_at_most": 1,
    "lost": 0,
}


def failing(made: Course) -> list[str]:
    table = CourseTable.model_validate({"phases": [{"dps": 1, "seconds": 1.0}], **EXPECTED})
    return [check.expected for check in checks(table, made) if not check.passed]


def test_every_expectation_is_met_and_can_be_missed() -> None:
    assert failing(record()) == []
    assert record().most_workers == 3
    assert record().duration_ns == 2 * SECOND
    assert failing(record(scaled_ns=None)) == ["scaled_within_s = 2"]
    assert failing(record(scaled_ns=3 * SECOND)) == ["scaled_within_s = 2"]
    assert failing(record(delivered=29_999)) == ["lost = 0"]
    back = [resize(1.35, 1, 3), resize(1.8, 3, 2)]
    assert failing(record(resizes=back)) == ["last_workers = 3", "changes_at_most = 1"]
    assert failing(record(resizes=[resize(1.35, 1, 2)])) == ["most_workers = 3", "last_workers = 3"]
    crowded = [sample(0, 1), sample(2, 2, group=7)]
    assert failing(record(samples=crowded)) == ["other_workers = 1"]


def test_a_course_in_one_line() -> None:
    line = describe(record(delivered=29_000))
    assert line == (
        "workers 1 at 0.0 s → 3 at 1.4 s; 1,000 of 30,000 copies lost; scaled 0.40 s after the overload"
    )
