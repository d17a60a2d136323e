"""Sizes and costs of the rule table, and the look-ups that an engine does while rules change."""

from __future__ import annotations

import numpy as np
import pytest
from packet_support.rule_table import RuleTable

from forwarder.engines.packet import schema
from forwarder.engines.packet.rule_table import ABSENT, find, pack_key

OUTPUT = np.array([[1, 2, 3, 4]], np.uint32)


def filled(count: int) -> RuleTable:
    table = RuleTable()
    for number in range(count):
        table.add(key(number), number, OUTPUT + np.uint32(number))
    return table


def key(number: int) -> int:
    """Consecutive groups, as administrators number them: equal low bytes in memory."""
    return int(pack_key(0, 0x8913, int.from_bytes((0xEF000001 + number).to_bytes(4, "big"), "little")))


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_a_rule_and_its_output_cost_at_most_64_bytes(count: int) -> None:
    assert filled(count).nbytes <= 64 * count


def test_ten_thousand_consecutive_groups_are_all_found_in_short_probe_runs() -> None:
    table = filled(10_000)
    places = np.flatnonzero(table.keys)
    homes = (table.keys[places] * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)).astype(np.int64)
    distances = (places - homes) % len(table.keys)
    assert all(
        find(table.keys, table.values, np.uint64(key(number))) == number for number in range(0, 10_000, 7)
    )
    assert find(table.keys, table.values, np.uint64(key(10_000))) == ABSENT
    # Linear probing at load a costs (1 + 1/(1-a))/2 looks on average (Knuth 6.4): 1.8 at 10,000 of 16,384.
    assert distances.mean() + 1 < 2.5


def test_replacing_one_rule_for_ever_does_not_grow_the_table() -> None:
    table = filled(10)
    before = table.nbytes
    for round_ in range(2_000):
        table.add(key(3), 3, np.repeat(OUTPUT + np.uint32(round_), 1 + round_ % 4, axis=0))
    assert table.nbytes <= 4 * before
    first, count = (int(number) for number in table.spans[3])
    assert table.outputs[first : first + count].tolist() == [[2000, 2001, 2002, 2003]] * 4


def test_arrays_taken_before_a_change_of_size_still_answer_for_what_they_held() -> None:
    """The engine takes the arrays anew after each change; until then it may use the old ones."""
    table = filled(12)
    keys, values = table.keys, table.values
    for number in range(12, 200):
        table.add(key(number), number, OUTPUT)
    assert table.keys is not keys
    assert all(find(keys, values, np.uint64(key(number))) == number for number in range(12))


def test_removing_a_rule_that_is_not_there_changes_nothing() -> None:
    table = filled(5)
    assert not table.remove(key(7))
    assert len(table) == 5
    assert table.remove(key(4))
    assert not table.remove(key(4))
    assert len(table) == 4
    assert table.spans[4].tolist() == [0, 0]
    assert OUTPUT.shape[1] == schema.OUTPUT_COLUMNS
