"""The rule table against a dict, under any sequence of changes and with keys that collide."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from packet_support import examples
from packet_support.frames import groups, ports, raw_address, raw_port
from packet_support.rule_table import RuleTable

from forwarder.engines.packet import schema
from forwarder.engines.packet.rule_table import ABSENT, delete, find, insert, pack_key

PLACES = 16


def _home(key: int, places: int) -> int:
    """Where a key would like to stand: multiplicative hashing as the module states it, in plain integers."""
    return (key * 0x9E3779B97F4A7C15 % (1 << 64) >> 32) % places


def _colliding(count: int) -> list[int]:
    """Keys whose homes are the last and the first place: probe runs that go around the end."""
    found: list[int] = []
    group, port = 0xEF, 1
    while len(found) < count:
        group += 1 << 8
        port = port % 0xFFFF + 1
        key = int(pack_key(3, port, group))
        if _home(key, PLACES) in (PLACES - 1, 0):
            found.append(key)
    return found


COLLIDING = _colliding(24)
keys = st.sampled_from(COLLIDING) | st.builds(
    lambda interface, port, group: int(pack_key(interface, raw_port(port), raw_address(group))),
    st.integers(0, 255),
    ports,
    groups,
)


@examples(200)
@given(st.integers(0, 0xFFFF), ports, groups, st.integers(0, 0xFFFF), ports, groups)
def test_a_key_tells_apart_interface_port_and_group(
    interface: int, port: int, group: str, other_interface: int, other_port: int, other_group: str
) -> None:
    one = pack_key(interface, raw_port(port), raw_address(group))
    other = pack_key(other_interface, raw_port(other_port), raw_address(other_group))
    assert (one == other) == ((interface, port, group) == (other_interface, other_port, other_group))
    assert one != 0, "0 marks an empty place"


@examples(300)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(COLLIDING[: PLACES - 1]), st.integers(0, 999))))
def test_colliding_keys_stay_reachable_when_others_before_them_go(
    steps: list[tuple[bool, int, int]],
) -> None:
    """All want the same two places, at the end and start of the array: the hardest backward shifts."""
    stored, values = np.zeros(PLACES, np.uint64), np.zeros(PLACES, np.uint32)
    model: dict[int, int] = {}
    for adding, key, value in steps:
        if adding:
            assert insert(stored, values, np.uint64(key), value) == (key not in model)
            model[key] = value
        else:
            assert delete(stored, values, np.uint64(key)) == model.pop(key, ABSENT)
        assert sorted(stored[stored != 0].tolist()) == sorted(model), "no tombstone, nothing lost"
        for known in COLLIDING:
            assert find(stored, values, np.uint64(known)) == model.get(known, ABSENT)


class RuleTableAgainstDict(RuleBasedStateMachine):
    """Adding, replacing and removing rules, with 0 to 40 outputs each, as the control channel would."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RuleTable(rules=1)
        self.model: dict[int, tuple[int, list[list[int]]]] = {}
        self.free = list(range(200, -1, -1))
        self.serial = 0

    def _outputs(self, count: int) -> np.ndarray:
        """Rows that occur nowhere else."""
        first = self.serial
        self.serial += count
        rows = np.arange(first, first + count, dtype=np.uint32)
        return np.repeat(rows, schema.OUTPUT_COLUMNS).reshape(count, schema.OUTPUT_COLUMNS)

    def _add(self, key: int, count: int) -> None:
        slot = self.model[key][0] if key in self.model else self.free.pop()
        outputs = self._outputs(count)
        self.table.add(key, slot, outputs)
        self.model[key] = slot, outputs.tolist()

    @precondition(lambda self: self.free)
    @rule(key=keys, count=st.integers(0, 3) | st.integers(0, 40))
    def add(self, key: int, count: int) -> None:
        self._add(key, count)

    @precondition(lambda self: len(self.free) > 30)
    @rule(first=st.integers(0, 0xFFFF), count=st.integers(10, 30))
    def add_many(self, first: int, count: int) -> None:
        for number in range(count):
            self._add(int(pack_key(7, raw_port((first + number) % 0xFFFF + 1), raw_address("239.9.9.9"))), 1)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), count=st.integers(0, 40))
    def replace(self, data: st.DataObject, count: int) -> None:
        self._add(data.draw(st.sampled_from(sorted(self.model))), count)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model)))
        assert self.table.remove(key)
        self.free.append(self.model.pop(key)[0])

    @rule(key=keys)
    def remove_what_may_be_absent(self, key: int) -> None:
        assert self.table.remove(key) == (key in self.model)
        if key in self.model:
            self.free.append(self.model.pop(key)[0])

    @invariant()
    def agrees(self) -> None:
        table = self.table
        assert len(table) == len(self.model)
        for key, (slot, outputs) in self.model.items():
            assert find(table.keys, table.values, np.uint64(key)) == slot
            first, count = (int(number) for number in table.spans[slot])
            assert table.outputs[first : first + count].tolist() == outputs
        for key in COLLIDING:
            if key not in self.model:
                assert find(table.keys, table.values, np.uint64(key)) == ABSENT
        assert np.count_nonzero(table.keys) == len(self.model)
        assert len(self.model) * 4 <= len(table.keys) * 3, "at least a quarter of the places stay empty"


TestRuleTableAgainstDict = RuleTableAgainstDict.TestCase
TestRuleTableAgainstDict.settings = examples(50)
