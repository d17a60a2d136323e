"""What a change of the running forwarder costs: which flows move, whose loss it is, for how long."""

from __future__ import annotations

from typing import Any

import pytest
from record_support import trial_record

from forwarder.plan.placement import flow_owner
from lab.analysis.change import aimed, describe, moved, reordered, share_of
from lab.load.flows import streams_of
from lab.results import Change, Setting, WorkerSample

MS = 1_000_000
SETTING = Setting(payload_bytes=64, outputs=2, flows=64)


def test_flows_move_where_their_owner_changes_and_a_worker_more_takes_only_its_own() -> None:
    streams = streams_of(SETTING)
    assert moved(streams, 2, 2) == frozenset()
    away = moved(streams, 2, 3)
    assert away == moved(streams, 3, 2)
    assert 0 < len(away) < len(streams) / 2
    for stream in streams:
        flow = (int(stream.source), int(stream.group), stream.source_port, stream.port)
        assert (stream.stream_id in away) == (flow_owner(*flow, 3) == 2)


def test_reordered_copies_belong_to_flows_that_stayed_or_moved() -> None:
    assert reordered([1, 0, 5, 2], [0, 1, 0, 1], frozenset({1})) == (6, 2)
    assert reordered([1, 0], [0, 1], frozenset()) == (1, 0)


def test_a_worker_s_share_is_what_came_to_it() -> None:
    of = [WorkerSample(worker_id=n, cpu=1, received=r, matched=r) for n, r in ((0, 30), (4, 10))]
    trial = trial_record(workers=of)
    assert [share_of(worker, trial) for worker in (0, 4, 7)] == [0.75, 0.25, 0.0]


def record(**changes: Any) -> Change:
    values: dict[str, Any] = {
        "scenario": "s",
        "case": "c",
        "subject": "mcrd",
        "setting": SETTING,
        "change": "crash",
        "asked_dps": 100_000,
        "trial_ids": ["t-1", "t-2"],
        "offered": [100_000, 50_000],
        "duration_ns": [1000 * MS, 500 * MS],
        "lost": [2000, 0],
        "duplicated": [0, 0],
        "reordered": [0, 0],
        "reordered_moved": [0, 0],
        "share": [0.5, 0.5],
        "took_ns": [30 * MS, 40 * MS],
        "blocked_target_ns": 20 * MS,
    }
    return Change(**{**values, **changes})


def test_blocked_time_is_what_was_lost_over_the_rate_of_its_share() -> None:
    """1,000 datagrams to two outputs each, of 50,000 a second."""
    assert record().blocked_ns == [20 * MS, 0.0]
    assert record().offered_dps == 100_000
    assert record().kept is True
    assert record(lost=[2001, 0]).kept is False
    assert record(blocked_target_ns=None).kept is None
    assert record(share=[0.0, 0.5]).blocked_ns == [0.0, 0.0]
    assert [aimed(record(), ms).passed for ms in (20, 19)] == [True, False]
    assert aimed(record(), 19).aim


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (
            {},
            "crash, 2 times at 100,000 dps: 2,000 copies lost, 0 again, 0 out of order in flows that stayed;",
        ),
        ({}, "blocked 10.00 ms, at most 20.00; took 0.035 s; at most 20 ms promised: kept"),
        ({"flows_moved": 9, "reordered_moved": [3, 0]}, ", 3 in the 9 that moved"),
        ({"lost": [9000, 0]}, "promised: missed"),
    ],
)
def test_a_change_in_one_line(changes: dict[str, Any], part: str) -> None:
    assert part in describe(record(**changes))
