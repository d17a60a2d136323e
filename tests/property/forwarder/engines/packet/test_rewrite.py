"""What leaves: the written headers and payloads against the datagrams that scapy builds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from packet_support import examples
from packet_support.frames import Datagram, datagrams, payloads, read
from packet_support.judge import checksum_holds
from packet_support.linux import VnetHeader, transmitted
from packet_support.outputs import Output, in_one_memory, message, outputs
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from forwarder.abi import af_packet as ap
from forwarder.engines.packet import schema
from forwarder.engines.packet.parse import verify
from forwarder.engines.packet.rewrite import SHORT_SEGMENT, copy_payload, outgoing_ttl

identifications = st.integers(0, 0xFFFF)
alive = datagrams.filter(lambda datagram: datagram.ttl > 1)


def sent(
    datagram: Datagram, output: Output, identification: int = 0, **vnet: int
) -> tuple[VnetHeader, bytes]:
    """A datagram through parse and rewrite alone: the virtio_net_hdr and the frame."""
    parsed = read(datagram.frame(), **vnet)
    assert parsed.outcome == schema.OK
    rows, data = in_one_memory([(parsed.row, parsed.data)])
    length = int(parsed.row[schema.FRAME_LENGTH])
    written = message(output, rows, data.view(np.uint32), data, length=length, identification=identification)
    return VnetHeader.unpack(written), written[ap.VNET_HDR_BYTES :]


@examples(150)
@given(alive, outputs, identifications)
def test_a_forwarded_datagram_is_the_one_that_scapy_builds(
    datagram: Datagram, output: Output, identification: int
) -> None:
    """Every byte: addresses from group and interface, TTL, DSCP, ECN, DF, ports, both checksums, payload."""
    assume(datagram.checksum != "corrupt")
    vnet, frame = sent(datagram, output, identification)
    assert vnet == VnetHeader()
    assert frame == output.forwarded(datagram, identification)


@examples(100)
@given(alive, outputs)
def test_a_datagram_corrupted_upstream_is_still_found_corrupt_downstream(
    datagram: Datagram, output: Output
) -> None:
    datagram = replace(datagram, checksum="corrupt")
    _, frame = sent(datagram, output)
    expected = output.forwarded(replace(datagram.arrived(), checksum="full"), 0)
    assert frame[:40] + frame[42:] == expected[:40] + expected[42:], "only the checksum differs"
    assert not checksum_holds(frame)
    again = read(frame)
    assert verify(again.words, again.data, again.row) == schema.TRUST_CORRUPT


@examples(75)
@given(alive, outputs, identifications)
def test_a_local_senders_unfinished_checksum_is_finished_by_the_kernel(
    datagram: Datagram, output: Output, identification: int
) -> None:
    assume(datagram.checksum == "full")
    parsed = read(datagram.frame())
    rows, data = in_one_memory([(parsed.row, parsed.data)])
    rows[0, schema.FRAME_TRUST] = schema.TRUST_PARTIAL
    rows[0, schema.FRAME_CHECKSUM] = 0x1234
    written = message(
        output,
        rows,
        data.view(np.uint32),
        data,
        length=len(datagram.payload),
        identification=identification,
    )
    assert VnetHeader.unpack(written) == VnetHeader(
        flags=ap.VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start=34, csum_offset=6
    )
    assert transmitted(written) == [output.forwarded(datagram, identification)]


@examples(100)
@given(
    alive,
    outputs,
    st.integers(1, 1_472),
    st.integers(1, 64),
    st.integers(0, 1_471),
    identifications,
)
def test_every_segment_of_a_burst_is_the_datagram_that_scapy_builds(
    datagram: Datagram, output: Output, size: int, count: int, missing: int, identification: int
) -> None:
    """As after coalescing: equal payload lengths, the last one may be shorter; cut as Linux cuts it."""
    size = min(size, 65_507 // count)
    sizes = [size] * (count - 1) + [max(size - missing % size, 1)]
    burst = [
        replace(datagram, payload=(bytes([number]) * sizes[number]), options=(), checksum="full")
        for number in range(count)
    ]
    parsed = [read(each.frame()) for each in burst]
    rows, data = in_one_memory([(each.row, each.data) for each in parsed])
    rows[:, schema.FRAME_TRUST] = schema.TRUST_VERIFIED
    rows[:-1, schema.FRAME_NEXT] = np.arange(1, count, dtype=np.uint32)
    written = message(
        output,
        rows,
        data.view(np.uint32),
        data,
        length=sum(sizes),
        segment=size if count > 1 else 0,
        identification=identification,
    )
    if count > 1:
        assert VnetHeader.unpack(written) == VnetHeader(
            flags=ap.VIRTIO_NET_HDR_F_NEEDS_CSUM,
            gso_type=ap.VIRTIO_NET_HDR_GSO_UDP_L4,
            hdr_len=42 + (sum(sizes) if size <= SHORT_SEGMENT else 0),
            gso_size=size,
            csum_start=34,
            csum_offset=6,
        )
    frames = transmitted(written)
    assert len(frames) == count
    for number in {0, 1 % count, count // 2, count - 1}:
        frame = frames[number]
        assert frame == output.forwarded(burst[number], (identification + number) & 0xFFFF)
        assert checksum_holds(frame)
        assert Ether(frame)[UDP].len == 8 + sizes[number]


@examples(60)
@given(alive, outputs, st.integers(1, 2_000), st.integers(1, 60_000), identifications)
def test_a_received_gso_frame_leaves_as_the_same_datagrams(
    datagram: Datagram, output: Output, size: int, length: int, identification: int
) -> None:
    size = max(size, length // 128 + 1)
    content = (bytes(range(251)) * (length // 251 + 1))[:length]
    whole = replace(datagram, payload=content, options=(), checksum="full")
    parsed = read(
        whole.frame(),
        flags=ap.VIRTIO_NET_HDR_F_NEEDS_CSUM,
        gso_type=ap.VIRTIO_NET_HDR_GSO_UDP_L4,
        gso_size=size,
    )
    rows, data = in_one_memory([(parsed.row, parsed.data)])
    written = message(
        output,
        rows,
        data.view(np.uint32),
        data,
        length=length,
        segment=int(parsed.row[schema.FRAME_SEGMENT]),
        identification=identification,
    )
    frames = transmitted(written)
    assert b"".join(frame[42:] for frame in frames) == content
    for number in {0, len(frames) // 2, len(frames) - 1}:
        part = replace(whole, payload=content[number * size : (number + 1) * size])
        assert frames[number] == output.forwarded(part, (identification + number) & 0xFFFF)


@examples(100)
@given(datagrams, outputs)
def test_the_ttl_falls_by_one_or_is_set_and_a_spent_one_does_not_leave(
    datagram: Datagram, output: Output
) -> None:
    parsed = read(datagram.frame())
    assert outgoing_ttl(parsed.row, output.row()) == (output.ttl or max(datagram.ttl - 1, 0))


@examples(100)
@given(
    st.lists(payloads.map(lambda payload: payload[:300]), min_size=1, max_size=12),
    st.integers(0, 8),
    st.randoms(),
)
def test_a_bursts_payloads_stand_end_to_end_in_their_order(
    contents: list[bytes], start_word: int, random: Random
) -> None:
    """Whatever their lengths: behind a payload of odd length the next one starts off the word boundary."""
    parsed = [read(Datagram(payload=content).frame()) for content in contents]
    rows, data = in_one_memory([(each.row, each.data) for each in parsed])
    order = list(range(len(contents)))
    random.shuffle(order)
    for here, following in pairwise(order):
        rows[here, schema.FRAME_NEXT] = following
    expected = b"".join(contents[row] for row in order)
    arena = np.full((4 * start_word + len(expected) + 7) & ~3, 0xEE, np.uint8)
    copied = copy_payload(
        data.view(np.uint32), data, rows, order[0], arena.view(np.uint32), arena, 4 * start_word
    )
    assert copied == len(expected)
    assert arena[4 * start_word :][: len(expected)].tobytes() == expected
    assert (arena[: 4 * start_word] == 0xEE).all()
    assert (arena[4 * start_word + len(expected) :] == 0xEE).all()
