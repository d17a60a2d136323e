"""Whose turn it is: shares kept exactly, spread evenly, and sequence numbers without a gap."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.load.stream_order import order, per_stream, sequences

shares = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def test_equal_streams_take_turns_in_their_order() -> None:
    assert order([1, 1, 1]).tolist() == [0, 1, 2]
    assert order([1, 1], least=5).tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("others", [1, 3, 19])
def test_what_one_stream_gets_more_is_spread_over_the_turn(others: int) -> None:
    turn = order([8] + [1] * others).tolist()
    assert Counter(turn) == {0: 8, **dict.fromkeys(range(1, others + 1), 1)}
    places = [at for at, stream in enumerate(turn) if stream == 0]
    gaps = {later - earlier for earlier, later in pairwise(places)}
    assert max(gaps) <= -(-others // 8) + 1


@given(shares=shares, least=st.integers(1, 100), rounds=st.integers(0, 3))
def test_every_stream_counts_from_zero_without_a_gap_however_many_were_sent(
    shares: list[int], least: int, rounds: int
) -> None:
    turn = order(shares, least)
    assert len(turn) >= least
    assert len(turn) % sum(shares) == 0
    before, totals = sequences(turn)
    sent = rounds * len(turn) + len(turn) // 2
    seen: list[list[int]] = [[] for _ in shares]
    for k in range(sent):
        round_, slot = divmod(k, len(turn))
        seen[turn[slot]].append(round_ * int(totals[slot]) + int(before[slot]))
    assert [len(numbers) for numbers in seen] == per_stream(turn, sent).tolist()
    assert all(numbers == list(range(len(numbers))) for numbers in seen)
