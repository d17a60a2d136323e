"""The rule table: open addressing over (input interface, group, port), in flat arrays.

A key packs to 64 bits: ``interface << 48 | port << 32 | group``, port and group raw. No rule has group 0, so
0 marks an empty bucket. Linear probing with backward-shift deletion leaves no tombstones: look-up cost does
not depend on history.
"""

from typing import Any, Final

import numpy as np

from forwarder.abi.jit import njit
from forwarder.engines.packet import schema

ABSENT: Final = -1
RULES: Final = 0
OUTPUTS_LIVE: Final = 1
OUTPUTS_END: Final = 2
"""Outputs of replaced and removed rules stay until there is no room behind the last one."""
SIZES: Final = 3
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
    bucket = _home(key, mask)
    while True:
        here = keys[bucket]
        if here == key:
            return np.int64(values[bucket])
        if here == 0:
            return ABSENT
        bucket = (bucket + 1) & mask


@njit
def insert(keys: Any, values: Any, key: int, value: int) -> bool:
    """Store; True when the key is new. The caller keeps at least one bucket empty."""
    mask = len(keys) - 1
    bucket = _home(key, mask)
    while keys[bucket] != 0:
        if keys[bucket] == key:
            values[bucket] = value
            return False
        bucket = (bucket + 1) & mask
    values[bucket] = value
    keys[bucket] = key
    return True


@njit
def delete(keys: Any, values: Any, key: int) -> int:
    """Take ``key`` out; its value, or ``ABSENT``. Later keys of the probe run move up."""
    mask = len(keys) - 1
    bucket = _home(key, mask)
    while keys[bucket] != key:
        if keys[bucket] == 0:
            return ABSENT
        bucket = (bucket + 1) & mask
    value = np.int64(values[bucket])
    hole = bucket
    while True:
        bucket = (bucket + 1) & mask
        if keys[bucket] == 0:
            break
        # A key may move into the hole unless its home lies between the hole and where it stands.
        if ((bucket - _home(keys[bucket], mask)) & mask) >= ((bucket - hole) & mask):
            keys[hole] = keys[bucket]
            values[hole] = values[bucket]
            hole = bucket
    keys[hole] = 0
    return value


@njit
def rehash(keys: Any, values: Any, new_keys: Any, new_values: Any) -> None:
    """Insert every entry of one table into another, empty and large enough."""
    for bucket in range(len(keys)):
        if keys[bucket] != 0:
            insert(new_keys, new_values, keys[bucket], values[bucket])


@njit
def compact(spans: Any, outputs: Any, new_outputs: Any) -> int:
    """Copy the outputs in use to ``new_outputs`` and point their rules there; how many rows it used."""
    used = 0
    for rule in range(len(spans)):
        first, count = np.int64(spans[rule, 0]), np.int64(spans[rule, 1])
        if count:
            for row in range(count):
                for column in range(schema.OUTPUT_COLUMNS):
                    new_outputs[used + row, column] = outputs[first + row, column]
            spans[rule, 0] = used
            used += count
    return used


@njit
def add_rules(rules: Any, new_keys: Any, new_slots: Any, new_counts: Any, new_outputs: Any) -> Any:
    """Store rules, or replace the outputs of those whose keys are known; the table as it is now.

    The old one holds what it held if it had to grow.

    Args:
        new_keys: ``uint64[n]`` of :func:`pack_key`.
        new_slots: ``uint32[n]``, each rule's number in this worker: its counters' row.
        new_counts: ``uint32[n]``, how many outputs each has.
        new_outputs: ``uint32[sum(new_counts), OUTPUT_COLUMNS]``, in the rules' order.
    """
    rules = _make_room(rules, new_slots, len(new_outputs))
    sizes = rules.sizes
    first = 0
    for index in range(len(new_keys)):
        remove_rule(rules, new_keys[index])
        count = np.int64(new_counts[index])
        end = sizes[OUTPUTS_END]
        for row in range(count):
            for column in range(schema.OUTPUT_COLUMNS):
                rules.outputs[end + row, column] = new_outputs[first + row, column]
        slot = np.int64(new_slots[index])
        rules.spans[slot, 0] = end
        rules.spans[slot, 1] = count
        insert(rules.keys, rules.values, new_keys[index], slot)
        sizes[RULES] += 1
        sizes[OUTPUTS_LIVE] += count
        sizes[OUTPUTS_END] += count
        first += count
    return rules


@njit
def remove_rule(rules: Any, key: int) -> bool:
    """Take a rule out; False when there is none with this key."""
    slot = delete(rules.keys, rules.values, key)
    if slot == ABSENT:
        return False
    rules.sizes[RULES] -= 1
    rules.sizes[OUTPUTS_LIVE] -= np.int64(rules.spans[slot, 1])
    rules.spans[slot, 0] = 0
    rules.spans[slot, 1] = 0
    return True


@njit
def _make_room(rules: Any, new_slots: Any, new_outputs: int) -> Any:
    """The table, with larger arrays in place of those without room for the new rules and outputs."""
    keys, values, spans, outputs, sizes = rules.keys, rules.values, rules.spans, rules.outputs, rules.sizes
    buckets = len(keys)
    while (sizes[RULES] + len(new_slots)) * 4 > buckets * 3:
        buckets *= 2
    if buckets > len(keys):
        keys, values = np.zeros(buckets, np.uint64), np.zeros(buckets, np.uint32)
        rehash(rules.keys, rules.values, keys, values)
    slots = 0
    for slot in new_slots:
        slots = max(slots, np.int64(slot) + 1)
    if slots > len(spans):
        spans = np.zeros((max(slots, len(spans) * 2), 2), np.uint32)
        spans[: len(rules.spans)] = rules.spans
    if sizes[OUTPUTS_END] + new_outputs > len(outputs):
        room = 16
        while room < sizes[OUTPUTS_LIVE] + new_outputs:
            room *= 2
        if room * 3 < (sizes[OUTPUTS_LIVE] + new_outputs) * 4:
            room *= 2
        outputs = np.zeros((room, schema.OUTPUT_COLUMNS), np.uint32)
        sizes[OUTPUTS_END] = compact(spans, rules.outputs, outputs)
    return schema.Rules(keys, values, spans, outputs, sizes)


def new_table(*, rules: int = 16) -> schema.Rules:
    """An empty table with room for some rules.

    Single-threaded: a change happens between two batches of the packet loop, never during one.
    """
    capacity = 1 << max(4, (rules * 4 // 3).bit_length())
    return schema.Rules(
        keys=np.zeros(capacity, np.uint64),
        values=np.zeros(capacity, np.uint32),
        spans=np.zeros((16, 2), np.uint32),
        outputs=np.zeros((16, schema.OUTPUT_COLUMNS), np.uint32),
        sizes=np.zeros(SIZES, np.int64),
    )
