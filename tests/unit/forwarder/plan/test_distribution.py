"""How evenly rules lie on workers, and what a resize would move."""

from __future__ import annotations

from collections import Counter

import pytest

from forwarder.plan.placement import distribution, owners
from forwarder.plan.strategy import PRESETS, Hashing

KEYS = [(0xEF010000 + number, 5001) for number in range(600)]


def held(workers: int, hashing: Hashing) -> list[int]:
    counts = Counter(owners(KEYS, workers, hashing))
    return [counts[slot] for slot in range(workers)]


@pytest.mark.parametrize("hashing", Hashing)
def test_hashed_rules_are_counted_and_those_that_a_resize_moves(hashing: Hashing) -> None:
    strategy = PRESETS["hybrid-hash"].customised(hashing=hashing)
    counts = held(6, hashing)
    found = distribution(3, counts, KEYS, strategy)
    assert (found.group, found.workers, found.rules) == (3, 6, 600)
    assert (found.least, found.most) == (min(counts), max(counts))
    assert found.imbalance == pytest.approx(max(counts) / 100)
    owned = {workers: owners(KEYS, workers, hashing) for workers in (5, 6, 7)}
    for workers, moved in ((7, found.moved_by_one_more), (5, found.moved_by_one_less)):
        assert moved == sum(a != b for a, b in zip(owned[6], owned[workers], strict=True))


def test_consistent_hashing_moves_only_what_the_last_worker_holds() -> None:
    counts = held(6, Hashing.RENDEZVOUS)
    found = distribution(0, counts, KEYS, PRESETS["rule-hash"])
    assert found.moved_by_one_less == counts[-1]


def test_rules_that_every_worker_holds_move_nowhere() -> None:
    found = distribution(0, [600] * 4, KEYS, PRESETS["pool"])
    assert (found.imbalance, found.moved_by_one_more, found.moved_by_one_less) == (1.0, 0, 0)


def test_there_is_none_to_spare_in_a_group_of_one() -> None:
    found = distribution(0, [600], KEYS, PRESETS["rule-hash"])
    assert found.moved_by_one_less is None
    assert found.moved_by_one_more > 0
