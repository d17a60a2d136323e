"""Owners one at a time and in bulk agree, and rendezvous hashing is consistent, for any keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forwarder.plan.placement import owner, owners
from forwarder.plan.strategy import Hashing

keys = st.lists(st.tuples(st.integers(0xE000_0000, 0xEFFF_FFFF), st.integers(1, 65535)), max_size=20)


@given(keys, st.integers(1, 300), st.sampled_from(Hashing))
def test_in_bulk_as_one_by_one(keys: list[tuple[int, int]], members: int, hashing: Hashing) -> None:
    found = owners(keys, members, hashing)
    assert found == [owner(group, port, members, hashing) for group, port in keys]
    assert all(0 <= slot < members for slot in found)


@given(keys, st.integers(1, 100), st.integers(1, 20))
def test_a_larger_group_takes_rules_and_moves_no_other(
    keys: list[tuple[int, int]], members: int, more: int
) -> None:
    for old, new in zip(owners(keys, members), owners(keys, members + more), strict=True):
        assert new == old or new >= members
