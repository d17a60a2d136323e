"""Checksums at their corners: zero that means *none*, zero that means 0xFFFF, carries that ripple."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from packet_support.frames import Datagram, read
from packet_support.linux import ones_sum
from packet_support.outputs import Output, in_one_memory, message
from scapy.layers.inet import UDP

from forwarder.abi import af_packet as ap
from forwarder.engines.packet import schema
from forwarder.engines.packet.checksum import fold
from forwarder.engines.packet.parse import verify


def forwarded(datagram: Datagram, output: Output) -> bytes:
    parsed = read(datagram.frame())
    rows, data = in_one_memory([(parsed.row, parsed.data)])
    length = len(datagram.payload)
    return message(output, rows, data.view(np.uint32), data, length=length)[ap.VNET_HDR_BYTES :]


def with_sum_of_zero(datagram: Datagram) -> Datagram:
    """The same with a payload for which the computed checksum is 0, sent as 0xFFFF (RFC 768)."""
    plain = replace(datagram, payload=b"\0\0")
    missing = UDP(plain.frame()[34:]).chksum
    found = replace(datagram, payload=missing.to_bytes(2, "big"))
    assert UDP(found.frame()[34:]).chksum == 0xFFFF
    return found


@pytest.mark.parametrize(
    ("total", "folded"),
    [(0, 0), (0xFFFF, 0xFFFF), (0x10000, 1), (0x1FFFE, 0xFFFF), (0xFFFFFFFF, 0xFFFF), (2**64 - 1, 0xFFFF)],
)
def test_carries_are_added_until_none_is_left(total: int, folded: int) -> None:
    assert fold(np.uint64(total)) == folded


def test_a_checksum_of_0xffff_verifies_and_is_updated_like_any_other() -> None:
    datagram = with_sum_of_zero(Datagram())
    parsed = read(datagram.frame())
    assert parsed.row[schema.FRAME_CHECKSUM] == 0xFFFF
    assert verify(parsed.words, parsed.data, parsed.row) == schema.TRUST_VERIFIED
    assert forwarded(datagram, Output()) == Output().forwarded(datagram, 0)


def test_a_checksum_that_becomes_zero_leaves_as_0xffff_and_not_as_none() -> None:
    """A zero would say that the sender computed none: the next corruption would pass unnoticed."""
    output = Output(source="preserve")
    leaving = with_sum_of_zero(Datagram(group=output.group, port=output.port))
    frame = forwarded(replace(Datagram(), payload=leaving.payload), output)
    assert frame[40:42] == b"\xff\xff"


def test_a_checksum_of_none_stays_none() -> None:
    frame = forwarded(Datagram(checksum="absent"), Output())
    assert frame[40:42] == b"\0\0"


def test_the_oracles_own_sum_agrees_with_the_example_of_rfc_1071() -> None:
    assert ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
