"""From received bytes to fields or a reason: the parser against scapy, over any header and any length."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st
from packet_support import examples
from packet_support.frames import (
    Datagram,
    Parsed,
    damaged,
    datagrams,
    groups,
    ports,
    raw_address,
    raw_port,
    read,
    reason,
)
from packet_support.judge import defects
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Raw

from forwarder.abi import af_packet as ap
from forwarder.engines.packet import schema
from forwarder.engines.packet.parse import datagrams as count_datagrams
from forwarder.engines.packet.parse import verify


def assert_read_as(parsed: Parsed, datagram: Datagram) -> None:
    row = parsed.row
    assert reason(parsed.outcome) == "ok"
    assert row[schema.FRAME_SOURCE] == raw_address(datagram.source)
    assert row[schema.FRAME_GROUP] == raw_address(datagram.group)
    assert row[schema.FRAME_PORTS] == raw_port(datagram.source_port) | raw_port(datagram.port) << 16
    assert row[schema.FRAME_TTL_TOS_DF] == datagram.ttl | datagram.tos << 8 | datagram.dont_fragment << 16
    assert parsed.payload() == datagram.payload


@examples(300)
@given(datagrams, st.binary(max_size=60))
def test_every_field_is_read_as_scapy_wrote_it_and_trailing_bytes_are_not_payload(
    datagram: Datagram, trailer: bytes
) -> None:
    parsed = read(datagram.frame() + trailer)
    assert_read_as(parsed, datagram.arrived())
    expected = schema.TRUST_ABSENT if datagram.checksum == "absent" else schema.TRUST_UNVERIFIED
    assert parsed.row[schema.FRAME_TRUST] == expected
    assert parsed.row[schema.FRAME_SEGMENT] == 0
    assert count_datagrams(parsed.row) == 1


@examples(200)
@given(datagrams)
def test_verifying_tells_a_corrupted_datagram_from_a_sound_one(datagram: Datagram) -> None:
    assume(datagram.checksum != "absent")
    parsed = read(datagram.frame())
    expected = schema.TRUST_CORRUPT if datagram.checksum == "corrupt" else schema.TRUST_VERIFIED
    assert verify(parsed.words, parsed.data, parsed.row) == expected


@examples(100)
@given(datagrams, st.integers(0, 4095), st.sampled_from([Dot1Q, Dot1AD]))
def test_a_tagged_frame_is_not_forwarded_wherever_its_tag_is(
    datagram: Datagram, vlan: int, tag: type[Dot1Q]
) -> None:
    """The kernel takes the tag off and says so in the ring's header; a second one stays in the frame."""
    assert reason(read(datagram.frame(), tagged=True).outcome) == "vlan_tagged"
    ether = datagram.packet()
    inside = Ether(src=ether.src, dst=ether.dst) / tag(vlan=vlan) / ether.payload
    assert reason(read(bytes(inside)).outcome) == "vlan_tagged"
    assert reason(read(bytes(inside), tagged=True).outcome) == "vlan_tagged"


@examples(50)
@given(datagrams, st.integers(1, 64))
def test_every_fragment_is_refused_the_first_one_too(datagram: Datagram, eights: int) -> None:
    assume(len(datagram.payload) + 8 > eights * 8)
    payload = datagram.payload[: 20 * 8 * eights]
    whole = replace(datagram, payload=payload, dont_fragment=False).packet()
    pieces = fragment(whole, fragsize=eights * 8)
    assert len(pieces) > 1
    assert {reason(read(bytes(piece)).outcome) for piece in pieces} == {"fragment"}


@examples(200)
@given(datagrams, st.integers(0, 60 * 8 - 1))
def test_one_flipped_bit_in_the_ip_header_is_always_noticed(datagram: Datagram, bit: int) -> None:
    frame = bytearray(datagram.frame())
    bit %= (frame[14] & 15) * 32
    frame[14 + bit // 8] ^= 1 << (bit % 8)
    assert reason(read(bytes(frame)).outcome) in {"bad_checksum", "malformed"}


@examples(200)
@given(datagrams, st.integers(0, 65_535))
def test_a_capture_that_ends_before_the_datagram_is_truncated_wherever_it_ends(
    datagram: Datagram, end: int
) -> None:
    frame = datagram.frame()
    captured = frame[: end % len(frame)]
    assert reason(read(captured, length=len(frame)).outcome) == "truncated"


@examples(200)
@given(datagrams, st.integers(0, 65_535))
def test_a_frame_shorter_than_its_ip_header_says_is_malformed(datagram: Datagram, end: int) -> None:
    frame = datagram.frame()
    assert reason(read(frame[: end % len(frame)]).outcome) == "malformed"


@examples(200)
@given(datagrams, st.integers(0, 65_535))
def test_the_udp_length_decides_what_is_payload_and_must_fit(datagram: Datagram, length: int) -> None:
    """RFC 768 allows a UDP length below what IP carries; as the kernel does, the rest is cut off."""
    room = len(datagram.payload) + 8
    packet = datagram.packet()
    packet[UDP].len = length
    parsed = read(bytes(packet))
    if 8 <= length <= room:
        assert_read_as(parsed, replace(datagram, payload=datagram.payload[: length - 8]))
    else:
        assert reason(parsed.outcome) == "malformed"


@examples(100)
@given(st.integers(1, 0xDFFFFFFF) | st.integers(0xF0000000, 0xFFFFFFFF), ports)
def test_a_datagram_to_any_other_address_is_not_multicast(address: int, port: int) -> None:
    datagram = Datagram(group=f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}")
    assert reason(read(replace(datagram, port=port).frame()).outcome) == "not_multicast"


@examples(60)
@given(groups, st.sampled_from([TCP, ICMP]), st.integers(0, 255).filter(lambda number: number != 17))
def test_other_protocols_over_ipv4_are_not_udp(group: str, protocol: type, number: int) -> None:
    for packet in (Ether() / IP(dst=group) / protocol(), Ether() / IP(dst=group, proto=number) / Raw(b"x")):
        assert reason(read(bytes(packet)).outcome) == "not_udp"


@examples(60)
@given(st.binary(max_size=60), st.integers(1536, 0xFFFF))
def test_frames_of_other_protocols_are_not_ipv4(rest: bytes, ethertype: int) -> None:
    assume(ethertype not in (0x0800, 0x8100, 0x88A8))
    frames = (
        Ether() / ARP(),
        Ether() / IPv6(dst="ff02::1") / UDP() / Raw(rest),
        Dot3() / LLC() / Raw(rest),
        Ether(type=ethertype) / Raw(rest),
    )
    assert {reason(read(bytes(frame)).outcome) for frame in frames} == {"not_ipv4"}


@examples(60)
@given(datagrams, st.integers(1, 65_507), st.integers(1, 9_000))
def test_a_gso_frame_counts_as_the_datagrams_it_will_be_cut_into(
    datagram: Datagram, length: int, size: int
) -> None:
    """From a local sender: UDP_SEGMENT, or merged by UDP GRO; the checksum field is the pseudo-header's."""
    whole = replace(datagram, payload=bytes(length), options=(), checksum="full")
    parsed = read(
        whole.frame(),
        flags=ap.VIRTIO_NET_HDR_F_NEEDS_CSUM,
        gso_type=ap.VIRTIO_NET_HDR_GSO_UDP_L4,
        gso_size=size,
    )
    assert_read_as(parsed, whole)
    assert parsed.row[schema.FRAME_TRUST] == schema.TRUST_PARTIAL
    assert parsed.row[schema.FRAME_SEGMENT] == (size if size < length else 0)
    assert count_datagrams(parsed.row) == len(range(0, length, size))


@examples(60)
@given(datagrams)
def test_what_the_kernel_knows_of_the_checksum_is_believed(datagram: Datagram) -> None:
    """NEEDS_CSUM: the field is unfinished. DATA_VALID: the device checked it, but not a field of zero."""
    frame = datagram.frame()
    partial = read(frame, flags=ap.VIRTIO_NET_HDR_F_NEEDS_CSUM)
    assert partial.row[schema.FRAME_TRUST] == schema.TRUST_PARTIAL
    valid = read(frame, flags=ap.VIRTIO_NET_HDR_F_DATA_VALID)
    expected = schema.TRUST_ABSENT if datagram.checksum == "absent" else schema.TRUST_VERIFIED
    assert valid.row[schema.FRAME_TRUST] == expected


@examples(5)
@given(st.integers(9_000, 65_507), st.booleans())
def test_a_jumbo_datagram_is_read_whole(length: int, full: bool) -> None:
    datagram = Datagram(payload=bytes(65_507 if full else length))
    assert_read_as(read(datagram.frame()), datagram)


def _judge(frame: bytes, length: int, tagged: bool, flags: int, gso_type: int, gso_size: int) -> None:
    """Exactly one outcome, true of the bytes, and no byte behind the captured ones has a say in it."""
    first, second = (
        read(
            frame,
            length=length,
            tagged=tagged,
            flags=flags,
            gso_type=gso_type,
            gso_size=gso_size,
            filler=filler,
        )
        for filler in (0, 0xFF)
    )
    expected = defects(frame, length, tagged=tagged)
    assert reason(first.outcome) in (expected or {"ok"})
    assert first.outcome == second.outcome
    if first.outcome == schema.OK:
        assert (first.row == second.row).all()
        end = int(first.row[schema.FRAME_PAYLOAD]) * 4 + int(first.row[schema.FRAME_LENGTH])
        assert end <= 2 + len(frame)
        assert count_datagrams(first.row) >= 1
        assert verify(first.words, first.data, first.row) == verify(second.words, second.data, second.row)


anything = {
    "tagged": st.booleans(),
    "flags": st.integers(0, 255),
    "gso_type": st.sampled_from([0, 1, 3, 4, 5, 0x80, 255]),
    "gso_size": st.integers(0, 65_535),
}


@examples(400)
@given(st.binary(max_size=120), st.integers(0, 100), st.fixed_dictionaries(anything))
def test_random_bytes_have_exactly_one_outcome_and_it_is_true(frame: bytes, cut: int, rest: dict) -> None:
    _judge(frame, len(frame) + cut, **rest)


@examples(400)
@given(
    datagrams.map(lambda datagram: replace(datagram, payload=datagram.payload[:40])),
    st.lists(st.tuples(st.integers(12, 90), st.integers(0, 255)), max_size=4),
    st.integers(0, 140),
    st.integers(0, 20),
    st.booleans(),
    st.fixed_dictionaries(anything),
)
def test_a_damaged_datagram_has_exactly_one_outcome_and_it_is_true(
    datagram: Datagram,
    damage: list[tuple[int, int]],
    end: int,
    cut: int,
    mend: bool,
    rest: dict,
) -> None:
    """Bytes overwritten and the end cut off, with the IP checksum mended so that the later checks are met."""
    frame = damaged(datagram, damage, mend=mend)
    _judge(frame[: max(end, 1)], len(frame[: max(end, 1)]) + cut, **rest)
