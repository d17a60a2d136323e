"""One's complement arithmetic: the kernels' checksums against scapy's and against plain integers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from packet_support import examples
from packet_support.frames import addresses, payloads, ports, raw_address, raw_port
from packet_support.linux import ones_sum
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw
from scapy.utils import checksum as scapy_checksum

from forwarder.engines.packet.checksum import fold, pseudo_header, sum_bytes, update

sums = st.integers(0, (1 << 64) - 1)
words16 = st.integers(0, 0xFFFF)


def swapped(value: int) -> int:
    """A 16-bit word of memory, read in network order."""
    return (value >> 8) | ((value & 0xFF) << 8)


def summed(data: bytes) -> int:
    room = np.zeros((len(data) + 3) & ~3, np.uint8)
    room[: len(data)] = np.frombuffer(data, np.uint8)
    return int(sum_bytes(room.view(np.uint32), room, 0, len(data)))


@examples(500)
@given(sums)
def test_folding_keeps_the_residue_and_gives_zero_only_for_zero(total: int) -> None:
    folded = int(fold(np.uint64(total)))
    assert 0 <= folded <= 0xFFFF
    assert folded % 0xFFFF == total % 0xFFFF
    assert (folded == 0) == (total == 0)


@examples(300)
@given(st.binary(max_size=300))
def test_the_sum_of_any_bytes_is_scapys_checksum(data: bytes) -> None:
    assert swapped(int(fold(summed(data))) ^ 0xFFFF) == scapy_checksum(data)


@examples(200)
@given(st.binary(max_size=100), st.binary(max_size=9), st.integers(0, 5))
def test_the_sum_takes_in_no_byte_outside_its_range(data: bytes, behind: bytes, words_before: int) -> None:
    before = b"\xff" * (4 * words_before)
    room = np.full((len(before) + len(data) + len(behind) + 3) & ~3, 0xFF, np.uint8)
    room[len(before) : len(before) + len(data)] = np.frombuffer(data, np.uint8)
    assert int(sum_bytes(room.view(np.uint32), room, words_before, len(data))) == summed(data)


@examples(150)
@given(addresses, addresses, ports, ports, payloads)
def test_pseudo_header_and_datagram_add_up_as_scapy_checks_them(
    source: str, group: str, source_port: int, port: int, payload: bytes
) -> None:
    datagram = bytes(IP(src=source, dst=group) / UDP(sport=source_port, dport=port) / Raw(payload))[20:]
    total = int(pseudo_header(raw_address(source), raw_address(group), len(datagram))) + summed(datagram)
    assert int(fold(total)) == 0xFFFF


@examples(500)
@given(st.binary(min_size=8, max_size=64), st.binary(min_size=4, max_size=4), st.integers(0, 15))
def test_an_update_equals_a_full_recomputation(data: bytes, replacement: bytes, at: int) -> None:
    """RFC 1624 section 3; equal as one's complement numbers, where 0 and 0xFFFF are the same."""
    data = data[: len(data) & ~3]
    at = at * 4 % len(data)
    changed = data[:at] + replacement + data[at + 4 :]
    before = int(fold(summed(data))) ^ 0xFFFF
    updated = int(update(before, summed(data[at : at + 4]), summed(replacement)))
    assert 0 <= updated <= 0xFFFF
    assert updated % 0xFFFF == (ones_sum_raw(changed) ^ 0xFFFF) % 0xFFFF


@examples(300)
@given(words16, sums, sums, sums)
def test_updates_compose_and_can_be_undone(checksum: int, first: int, second: int, third: int) -> None:
    there = int(update(checksum, np.uint64(first), np.uint64(second)))
    further = int(update(there, np.uint64(second), np.uint64(third)))
    assert further % 0xFFFF == int(update(checksum, np.uint64(first), np.uint64(third))) % 0xFFFF
    assert int(update(there, np.uint64(second), np.uint64(first))) % 0xFFFF == checksum % 0xFFFF


@examples(300)
@given(st.binary(min_size=4, max_size=64), st.integers(0, 511), addresses, addresses, ports, ports)
def test_a_wrong_checksum_stays_wrong_by_the_same_amount_after_an_update(
    data: bytes, bit: int, old_source: str, new_source: str, old_port: int, new_port: int
) -> None:
    """What makes a payload corrupted upstream detectable downstream."""
    bit %= len(data) * 8
    corrupted = bytearray(data)
    corrupted[bit // 8] ^= 1 << (bit % 8)
    old = raw_address(old_source) + raw_port(old_port)
    new = raw_address(new_source) + raw_port(new_port)
    stated = int(fold(summed(data) + old)) ^ 0xFFFF
    updated = int(update(stated, old, new))
    assert int(fold(updated + new + summed(data))) == 0xFFFF
    assert int(fold(updated + new + summed(bytes(corrupted)))) != 0xFFFF


def ones_sum_raw(data: bytes) -> int:
    return swapped(ones_sum(data))
