"""The rule table: open addressing over (input interface, group, port), in flat arrays.

A key packs to 64 bits: ``interface << 48 | port << 32 | group``, port and group raw. No rule has group 0, so
0 marks an empty place. Linear probing with backward-shift deletion leaves no tombstones: look-up cost does
not depend on history.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from forwarder.abi.jit import njit
from forwarder.packet import layout

ABSENT: Final = -1
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: Knuth's multiplicative hashing."""


@njit
def pack_key(interface: int, port: int, group: int) -> int:
    """The 64-bit key of (interface slot, raw port, raw group)."""
    return (np.uint64(interface) << np.uint64(48)) | (np.uint64(port) << np.uint64(32)) | np.uint64(group)


@njit
def _home(key: int, mask: int) -> int:
    return np.int64((np.uint64(key) * _MULTIPLIER) >> np.uint64(32)) & mask


@njit
def find(keys: Any, values: Any, key: int) -> int:
    """The value under ``key``, or ``ABSENT``. ``keys`` is ``uint64[2^k]``, ``values`` ``uint32[2^k]``."""
    mask = len(keys) - 1
    place = _home(key, mask)
    while True:
        here = keys[place]
        if here == key:
            return np.int64(values[place])
        if here == 0:
            return ABSENT
        place = (place + 1) & mask


@njit
def insert(keys: Any, values: Any, key: int, value: int) -> bool:
    """Store; True when the key is new. The caller keeps at least one place empty."""
    mask = len(keys) - 1
    place = _home(key, mask)
    while keys[place] != 0:
        if keys[place] == key:
            values[place] = value
            return False
        place = (place + 1) & mask
    values[place] = value
    keys[place] = key
    return True


@njit
def delete(keys: Any, values: Any, key: int) -> int:
    """Take ``key`` out; its value, or ``ABSENT``. Later keys of the probe run move up."""
    mask = len(keys) - 1
    place = _home(key, mask)
    while keys[place] != key:
        if keys[place] == 0:
            return ABSENT
        place = (place + 1) & mask
    value = np.int64(values[place])
    hole = place
    while True:
        place = (place + 1) & mask
        if keys[place] == 0:
            break
        # A key may move into the hole unless its home lies between the hole and where it stands.
        if ((place - _home(keys[place], mask)) & mask) >= ((place - hole) & mask):
            keys[hole] = keys[place]
            values[hole] = values[place]
            hole = place
    keys[hole] = 0
    return value


@njit
def add_rules(
    keys: Any,
    values: Any,
    spans: Any,
    outputs: Any,
    end: int,
    new_keys: Any,
    new_slots: Any,
    new_counts: Any,
    new_outputs: Any,
) -> tuple[int, int]:
    """Store rules in arrays with room for them, their outputs from row ``end`` on.

    Returns:
        by how much the rules, and the outputs in use, have become more.
    """
    rules, live = 0, 0
    first = 0
    for index in range(len(new_keys)):
        known = delete(keys, values, new_keys[index])
        if known != ABSENT:
            rules -= 1
            live -= np.int64(spans[known, 1])
            spans[known, 0] = 0
            spans[known, 1] = 0
        count = np.int64(new_counts[index])
        for row in range(count):
            for column in range(layout.OUTPUT_COLUMNS):
                outputs[end + first + row, column] = new_outputs[first + row, column]
        slot = new_slots[index]
        spans[slot, 0] = end + first
        spans[slot, 1] = count
        insert(keys, values, new_keys[index], slot)
        rules += 1
        live += count
        first += count
    return rules, live


@njit
def rehash(keys: Any, values: Any, new_keys: Any, new_values: Any) -> None:
    """Insert every entry of one table into another, empty and large enough."""
    for place in range(len(keys)):
        if keys[place] != 0:
            insert(new_keys, new_values, keys[place], values[place])


@njit
def compact(spans: Any, outputs: Any, new_outputs: Any) -> int:
    """Copy the outputs in use to ``new_outputs`` and point their rules there; how many rows it used."""
    used = 0
    for rule in range(len(spans)):
        first, count = np.int64(spans[rule, 0]), np.int64(spans[rule, 1])
        if count:
            for row in range(count):
                for column in range(layout.OUTPUT_COLUMNS):
                    new_outputs[used + row, column] = outputs[first + row, column]
            spans[rule, 0] = used
            used += count
    return used


class RuleTable:
    """A worker's rules. ``keys``/``values`` lead to a rule slot; ``spans[slot]`` is (first output, count).

    The arrays are replaced when they grow: take them anew after each change. Single-threaded: a change
    happens between two batches of the packet loop, never during one.
    """

    def __init__(self, *, rules: int = 16) -> None:
        capacity = 1 << max(4, (rules * 4 // 3).bit_length())
        self.keys: NDArray[np.uint64] = np.zeros(capacity, np.uint64)
        self.values: NDArray[np.uint32] = np.zeros(capacity, np.uint32)
        self.spans: NDArray[np.uint32] = np.zeros((16, 2), np.uint32)
        self.outputs: NDArray[np.uint32] = np.zeros((16, layout.OUTPUT_COLUMNS), np.uint32)
        self._outputs_end = 0
        self._outputs_live = 0
        self._rules = 0

    def __len__(self) -> int:
        return self._rules

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, capacity included."""
        return sum(a.nbytes for a in (self.keys, self.values, self.spans, self.outputs))

    def add(self, key: int, slot: int, outputs: NDArray[np.uint32]) -> None:
        """Store one rule: :meth:`add_many`."""
        slots, counts = np.array([slot], np.uint32), np.array([len(outputs)], np.uint32)
        self.add_many(np.array([key], np.uint64), slots, counts, outputs)

    def add_many(
        self,
        keys: NDArray[np.uint64],
        slots: NDArray[np.uint32],
        counts: NDArray[np.uint32],
        outputs: NDArray[np.uint32],
    ) -> None:
        """Store rules, or replace the outputs of those whose keys are known.

        Args:
            keys: ``uint64[n]`` of :func:`pack_key`.
            slots: ``uint32[n]``, each rule's number in this worker: its counters' row.
            counts: ``uint32[n]``, how many outputs each has.
            outputs: ``uint32[sum(counts), OUTPUT_COLUMNS]``, in the rules' order.
        """
        self._make_room(len(keys), int(slots.max()) + 1, len(outputs))
        change = add_rules(
            self.keys, self.values, self.spans, self.outputs, self._outputs_end, keys, slots, counts, outputs
        )
        self._rules += change[0]
        self._outputs_live += change[1]
        self._outputs_end += len(outputs)

    def remove(self, key: int) -> bool:
        """Take a rule out; False when there is none with this key."""
        slot = delete(self.keys, self.values, np.uint64(key))
        if slot == ABSENT:
            return False
        self._outputs_live -= int(self.spans[slot, 1])
        self.spans[slot] = 0
        self._rules -= 1
        return True

    def _make_room(self, rules: int, slots: int, outputs: int) -> None:
        """Replace arrays that could not take so many more rules and outputs, and slots up to a number."""
        places = len(self.keys)
        while (self._rules + rules) * 4 > places * 3:
            places *= 2
        if places > len(self.keys):
            keys, values = np.zeros(places, np.uint64), np.zeros(places, np.uint32)
            rehash(self.keys, self.values, keys, values)
            self.keys, self.values = keys, values
        if slots > len(self.spans):
            spans = np.zeros((max(slots, len(self.spans) * 2), 2), np.uint32)
            spans[: len(self.spans)] = self.spans
            self.spans = spans
        if self._outputs_end + outputs > len(self.outputs):
            needed = self._outputs_live + outputs
            room = np.zeros((1 << max(4, (needed * 4 // 3).bit_length()), layout.OUTPUT_COLUMNS), np.uint32)
            self._outputs_end = compact(self.spans, self.outputs, room)
            self.outputs = room
