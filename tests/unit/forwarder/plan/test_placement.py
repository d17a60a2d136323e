"""Hashing rules to workers: values that other implementations must reproduce, balance, and moves."""

from __future__ import annotations

import pytest

from forwarder.plan.placement import MAX_MEMBERS, imbalance, moved, owner, owners, rule_hash, score, slot_seed
from forwarder.plan.strategy import Hashing

BASE = 0xEF010101  # 239.1.1.1
KEYS = [(BASE + number // 4, 5000 + number % 4) for number in range(10_000)]


def test_reference_values() -> None:
    """Whoever computes the hash elsewhere (a BPF program) has to arrive at these."""
    assert rule_hash(BASE, 5001) == 0xC598B197
    assert slot_seed(0) == 0x92CA2F0E
    assert score(rule_hash(BASE, 5001), slot_seed(0)) == 0x47E2CB28
    assert [owner(BASE, 5001, members) for members in (1, 2, 24, 96)] == [0, 1, 3, 67]
    assert owner(BASE, 5001, 24, Hashing.MODULO) == 23


@pytest.mark.parametrize("hashing", Hashing)
@pytest.mark.parametrize("members", [2, 24, 96])
def test_rules_are_spread_as_by_chance(members: int, hashing: Hashing) -> None:
    found = owners(KEYS, members, hashing)
    counts = [found.count(slot) for slot in range(members)]
    mean = len(KEYS) / members
    # Sum of squared deviations over the mean: chi-square, with mean m - 1 and variance 2 (m - 1).
    chi_square = sum((count - mean) ** 2 for count in counts) / mean
    assert chi_square < members - 1 + 6 * (2 * (members - 1)) ** 0.5


@pytest.mark.parametrize("members", [1, 4, 24])
def test_rendezvous_moves_only_what_the_newcomer_gets(members: int) -> None:
    before, after = owners(KEYS, members), owners(KEYS, members + 1)
    assert all(new in (old, members) for old, new in zip(before, after, strict=True))
    expected = len(KEYS) / (members + 1)
    assert moved(KEYS, members, members + 1, Hashing.RENDEZVOUS) == pytest.approx(expected, rel=0.2)


def test_modulo_moves_nearly_everything() -> None:
    assert moved(KEYS, 24, 25, Hashing.MODULO) > 0.9 * len(KEYS)


def test_nothing_to_place() -> None:
    assert owners([], 4) == []
    assert imbalance([0, 0]) == 1
    assert imbalance([3, 1]) == 1.5


def test_an_owner_program_of_the_most_members_fits() -> None:
    """12 instructions a member, and 32 to load and mix, of the 4,096 that the kernel takes (BPF_MAXINSNS)."""
    assert 12 * MAX_MEMBERS + 32 <= 4096
