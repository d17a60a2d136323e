"""Where a counting receiver puts its flows, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.load.jobs import ReceiverJob
from lab.traffic.receive.count import SAME_STREAM, least, place


def found(interface: int, stream: int, placed: Any) -> list[int]:
    """The rows that the program looks at, in its order."""
    offset = stream - int(placed.low[interface])
    if not 0 <= offset < placed.streams[interface]:
        return []
    rows = [int(placed.first[interface]) + offset]
    while placed.following[rows[-1]]:
        rows.append(int(placed.following[rows[-1]]))
    return rows


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(100, 110)), max_size=SAME_STREAM))
def test_every_flow_has_a_row_of_its_own_that_its_stream_leads_to(flows: list[tuple[int, int]]) -> None:
    interface = np.array([one for one, _ in flows], np.int64)
    stream = np.array([one for _, one in flows], np.int64)
    placed = place(interface, stream, 4)
    assert len(set(placed.row.tolist())) == len(flows)
    for flow, (at, number) in enumerate(flows):
        assert placed.row[flow] in found(at, number, placed)
    assert len(placed.following) <= 4 * 11 + len(flows)


def test_more_flows_of_one_stream_than_the_program_looks_at_are_refused() -> None:
    many = np.full(SAME_STREAM + 1, 7, np.int64)
    place(np.zeros(SAME_STREAM, np.int64), many[1:], 1)
    with pytest.raises(OSError, match=r"65 flows of one stream at one interface: at most 64 allowed"):
        place(np.zeros(SAME_STREAM + 1, np.int64), many, 1)


def test_the_least_that_is_not_zero() -> None:
    rows = np.array([[0, 0, 9, 4], [0, 3, 0, 5]], np.uint64)
    assert least(rows).tolist() == [0, 3, 9, 4]


@pytest.mark.parametrize(
    "whole", [{"full": True}, {"offload": True}, {"everything": True}, {"keep_frames": 1}]
)
def test_what_needs_whole_frames_is_for_rings(whole: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"mode count, {next(iter(whole))}: needs whole frames, mode ring"):
        ReceiverJob(interfaces=("r0",), mode="count", **whole)


def test_only_a_counting_receiver_takes_xdp_frames() -> None:
    with pytest.raises(ValueError, match="mode ring, xdp: mode count is allowed"):
        ReceiverJob(interfaces=("r0",), xdp=True)
