"""The XDP engine's programs against scapy and against the packet engine's parser, frame by frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from packet_support import examples
from packet_support.frames import Datagram, damaged, datagrams, raw_address, read
from packet_support.frames import reason as name_of
from packet_support.judge import checksum_holds, defects
from packet_support.outputs import Output, outputs
from packet_support.xdp import LONGEST, RULE, Programs
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from forwarder.engines.packet.checksum import fold, pseudo_header
from forwarder.engines.xdp import layout

identifications = st.integers(0, 0xFFFF)
fitting = datagrams.filter(lambda datagram: len(datagram.frame()) <= LONGEST)
alive = fitting.filter(lambda datagram: datagram.ttl > 1)


@pytest.fixture(scope="module")
def programs() -> Programs:
    return Programs()


@examples(100)
@given(alive, outputs, identifications, st.binary(max_size=40))
def test_a_forwarded_datagram_is_the_one_that_scapy_builds(
    programs: Programs, datagram: Datagram, output: Output, identification: int, trailer: bytes
) -> None:
    """Every byte: addresses, TTL, DSCP, ECN, DF, ports, both checksums, payload; no options, no padding."""
    assume(datagram.checksum != "corrupt" and len(datagram.frame() + trailer) <= LONGEST)
    programs.serve(datagram, output)
    left = programs.forward(datagram.frame() + trailer, identification)
    assert left == output.forwarded(datagram, identification)


@examples(100)
@given(alive, outputs)
def test_a_datagram_corrupted_upstream_is_still_found_corrupt_downstream(
    programs: Programs, datagram: Datagram, output: Output
) -> None:
    datagram = replace(datagram, checksum="corrupt")
    programs.serve(datagram, output)
    left = programs.forward(datagram.frame())
    expected = output.forwarded(replace(datagram.arrived(), checksum="full"), 0)
    assert left[:40] + left[42:] == expected[:40] + expected[42:], "only the checksum differs"
    assert not checksum_holds(left)


@examples(100)
@given(alive, outputs, st.booleans())
def test_a_local_senders_unfinished_checksum_is_finished_and_a_whole_one_is_not_touched(
    programs: Programs, datagram: Datagram, output: Output, unfinished: bool
) -> None:
    datagram = replace(datagram, checksum="full")
    programs.serve(datagram, output, virtual=True)
    frame = bytearray(datagram.frame())
    if unfinished:
        at, length = 14 + (frame[14] & 15) * 4, len(datagram.payload) + 8
        pseudo = fold(pseudo_header(raw_address(datagram.source), raw_address(datagram.group), length))
        frame[at + 6 : at + 8] = int(pseudo).to_bytes(2, "little")
    assert programs.forward(bytes(frame)) == output.forwarded(datagram, 0)


def test_a_checksum_that_looks_unfinished_and_holds_is_kept(programs: Programs) -> None:
    """One in 65,536: header and payload that sum to the right number."""
    empty = Datagram(payload=bytes(2))
    word = (0xFFFF - _unfinished(empty) + UDP(empty.frame()[34:]).chksum) % 0xFFFF
    datagram = Datagram(payload=word.to_bytes(2, "big"))
    assert UDP(datagram.frame()[34:]).chksum == _unfinished(datagram)
    programs.serve(datagram, Output(), virtual=True)
    before = programs.counts()["completed"]
    assert programs.forward(datagram.frame()) == Output().forwarded(datagram, 0)
    assert programs.counts()["completed"] == before


def _unfinished(datagram: Datagram) -> int:
    length = len(datagram.payload) + 8
    raw = fold(pseudo_header(raw_address(datagram.source), raw_address(datagram.group), length))
    return int.from_bytes(int(raw).to_bytes(2, "little"), "big")


@examples(100)
@given(fitting, outputs)
def test_the_ttl_falls_by_one_or_is_set_and_a_spent_one_does_not_leave(
    programs: Programs, datagram: Datagram, output: Output
) -> None:
    programs.serve(datagram, output)
    _, between, _ = programs.arrive(datagram.frame())
    left, counted = programs.leave(between)
    if ttl := output.ttl_of(datagram):
        assert left is not None
        assert (left[22], counted["ttl_expired"]) == (ttl, 0)
    else:
        assert (left, counted["ttl_expired"], counted["handed_over"]) == (None, 1, 0)


@examples(100)
@given(fitting, st.integers(68, 1_500), st.integers(0, 255))
def test_a_copy_longer_than_its_output_allows_is_counted_once_and_does_not_leave(
    programs: Programs, datagram: Datagram, mtu: int, ttl: int
) -> None:
    output = Output(ttl=ttl)
    programs.serve(datagram, output, mtu=mtu)
    _, between, first = programs.arrive(datagram.frame())
    left, second = programs.leave(between)
    counted = {name: first[name] + second[name] for name in first}
    spent = not output.ttl_of(datagram)
    long = len(datagram.payload) + 28 > mtu
    assert (left is None) == (spent or long)
    assert (counted["ttl_expired"], counted["too_big"]) == (spent, long and not spent)


@pytest.mark.parametrize("more", [0, 1])
def test_a_datagram_that_just_fits_leaves_and_a_longer_one_does_not(programs: Programs, more: int) -> None:
    datagram = Datagram(payload=bytes(100 - 28 + more))
    programs.serve(datagram, Output(), mtu=100)
    _, between, first = programs.arrive(datagram.frame())
    left, second = programs.leave(between)
    assert (left is None, first["too_big"] + second["too_big"]) == (bool(more), more)


def test_a_checksum_that_comes_to_zero_leaves_as_ones(programs: Programs) -> None:
    """RFC 768: zero says that there is none."""
    sum_without = UDP(Output().forwarded(Datagram(payload=bytes(2)), 0)[34:]).chksum
    datagram = Datagram(payload=sum_without.to_bytes(2, "big"))
    programs.serve(datagram, Output())
    left = programs.forward(datagram.frame())
    assert left == Output().forwarded(datagram, 0)
    assert left[40:42] == b"\xff\xff"


@examples(50)
@given(fitting, st.integers(1, 64))
def test_every_fragment_is_left_to_the_host_the_first_one_too(
    programs: Programs, datagram: Datagram, eights: int
) -> None:
    assume(len(datagram.payload) + 8 > eights * 8)
    payload = datagram.payload[: 20 * 8 * eights]
    whole = replace(datagram, payload=payload, dont_fragment=False).packet()
    programs.serve(datagram, Output())
    for piece in fragment(whole, fragsize=eights * 8):
        assert programs.reason(bytes(piece)) == "fragment"


@examples(100)
@given(alive, st.integers(2, 9))
def test_copies_to_outputs_that_are_not_there_are_due_all_the_same(
    programs: Programs, datagram: Datagram, places: int
) -> None:
    programs.serve(datagram, Output())
    programs.broadcast(places)
    before = programs.map("rule_counts").read_array(layout.RULE_COUNT)[RULE]["matched"].sum()
    _, between, counted = programs.arrive(datagram.frame())
    assert (counted["matched"], counted["due"]) == (1, places)
    assert programs.map("rule_counts").read_array(layout.RULE_COUNT)[RULE]["matched"].sum() == before + 1
    left, counted = programs.leave(between)
    assert left is not None
    assert counted["handed_over"] == 1


@examples(100)
@given(fitting, st.sampled_from(["group", "port", "both"]))
def test_what_no_rule_wants_goes_to_the_host_as_it_came(
    programs: Programs, datagram: Datagram, other: str
) -> None:
    wanted = replace(datagram)
    if other in ("group", "both"):
        wanted = replace(wanted, group="239.9.9.9" if datagram.group != "239.9.9.9" else "239.9.9.8")
    if other in ("port", "both"):
        wanted = replace(wanted, port=datagram.port % 65_535 + 1)
    programs.serve(wanted, Output())
    assert programs.reason(datagram.frame()) == "no_rule"


@examples(50)
@given(fitting, st.integers(0, 4095), st.sampled_from([Dot1Q, Dot1AD]))
def test_a_tagged_frame_is_not_forwarded(
    programs: Programs, datagram: Datagram, vlan: int, tag: type[Dot1Q]
) -> None:
    programs.serve(datagram, Output())
    ether = datagram.packet()
    frame = bytes(Ether(src=ether.src, dst=ether.dst) / tag(vlan=vlan) / ether.payload)
    assume(len(frame) <= LONGEST)
    assert programs.reason(frame) == "vlan_tagged"


@examples(100)
@given(fitting, st.integers(0, 65_535))
def test_the_udp_length_decides_what_is_payload_and_must_fit(
    programs: Programs, datagram: Datagram, length: int
) -> None:
    packet = datagram.packet()
    packet[UDP].len, packet[UDP].chksum = length, 0
    packet[IP].ttl = 9
    programs.serve(datagram, Output())
    if 8 <= length <= len(datagram.payload) + 8:
        kept = replace(datagram, payload=datagram.payload[: length - 8], checksum="absent", ttl=9)
        assert programs.forward(bytes(packet)) == Output().forwarded(kept, 0)
    else:
        assert programs.reason(bytes(packet)) == "malformed"


@examples(250)
@given(st.binary(min_size=14, max_size=120))
@example(bytes(12) + b"\x08\x00")
def test_random_bytes_have_the_packet_engines_outcome(programs: Programs, frame: bytes) -> None:
    _judge(programs, frame)


@examples(300)
@given(
    fitting.map(lambda datagram: replace(datagram, payload=datagram.payload[:40])),
    st.lists(st.tuples(st.integers(12, 90), st.integers(0, 255)), max_size=4),
    st.integers(0, 140),
    st.booleans(),
)
def test_a_damaged_datagram_has_the_packet_engines_outcome(
    programs: Programs, datagram: Datagram, damage: list[tuple[int, int]], end: int, mend: bool
) -> None:
    """Bytes overwritten and the end cut off, with the IP checksum mended so that the later checks are met."""
    frame = damaged(datagram, damage, mend=mend)
    programs.serve(datagram, Output())
    _judge(programs, frame[: max(14, end)])


def _judge(programs: Programs, frame: bytes) -> None:
    outcome = programs.reason(frame)
    expected = name_of(read(frame).outcome)
    assert outcome in ((expected, "no_rule") if expected == "ok" else (expected,))
    assert outcome in (defects(frame, len(frame)) or {"ok", "no_rule"})
