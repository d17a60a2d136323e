"""The whole engine, from ring to wire: every frame has one fate, every copy is what scapy builds."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st
from packet_support import examples
from packet_support.bench import Bench
from packet_support.frames import Datagram
from packet_support.judge import checksum_holds, defects
from packet_support.linux import VnetHeader, ones_sum, transmitted
from packet_support.outputs import Output
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from forwarder.abi import af_packet as ap
from forwarder.engines.packet import schema
from forwarder.net.packet_sockets import Ring

GROUPS = ("239.1.1.1", "239.1.1.2", "239.1.1.3")
"""The last one has no rule."""
SEGMENT = 100

GOOD = Output(group="239.2.0.1", port=6001, link=0, link_source="10.2.0.1", link_mac="02:00:00:00:01:00")
SET = Output(
    group="239.2.0.2",
    port=6002,
    ttl=64,
    source="preserve",
    link=1,
    link_source="10.2.1.1",
    link_mac="02:00:00:00:01:01",
)
SMALL = replace(GOOD, group="239.2.0.3", link=2, link_mac="02:00:00:00:01:02")
ABSENT = replace(GOOD, group="239.2.0.4", link=3, link_mac="02:00:00:00:01:03")
REFUSES = replace(SET, group="239.2.0.5", link=4, link_mac="02:00:00:00:01:04")
OUTPUTS = (GOOD, SET, SMALL, ABSENT, REFUSES)
SMALL_MTU = 600


PLAIN = VnetHeader()


@dataclass(frozen=True)
class Arrival:
    """A frame in the ring, and the datagrams it stands for when it is a forwardable one."""

    frame: bytes
    vnet: VnetHeader = PLAIN
    tagged: bool = False
    cut_to: int | None = None
    datagrams: tuple[Datagram, ...] = ()

    def why_not(self) -> str | None:
        captured = self.frame if self.cut_to is None else self.frame[: self.cut_to]
        found = defects(captured, len(self.frame), tagged=self.tagged)
        assert len(found) <= 1, "these tests arrange one defect at a time"
        return next(iter(found), None)


def _sound(datagram: Datagram) -> Arrival:
    return Arrival(datagram.frame(), datagrams=(datagram,))


def _gso(datagram: Datagram) -> Arrival:
    """From a local sender with UDP_SEGMENT: one frame, cut only by a device or by the receiver."""
    whole = replace(datagram, checksum="full", payload=datagram.payload * 3)
    parts = range(0, max(len(whole.payload), 1), SEGMENT)
    return Arrival(
        whole.frame(),
        VnetHeader(ap.VIRTIO_NET_HDR_F_NEEDS_CSUM, ap.VIRTIO_NET_HDR_GSO_UDP_L4, 42, SEGMENT, 34, 6),
        datagrams=tuple(replace(whole, payload=whole.payload[at : at + SEGMENT]) for at in parts),
    )


def _unfinished(datagram: Datagram) -> Arrival:
    """From a local sender: the checksum field holds no more than the sum of the pseudo header."""
    whole = replace(datagram, checksum="full")
    frame = whole.frame()
    pseudo = ones_sum(frame[26:34] + struct.pack(">HH", 17, 8 + len(whole.payload)))
    vnet = VnetHeader(ap.VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start=34, csum_offset=6)
    return Arrival(frame[:40] + struct.pack(">H", pseudo) + frame[42:], vnet, datagrams=(whole,))


def _cut_off(datagram: Datagram) -> Arrival:
    frame = datagram.frame()
    return Arrival(frame, cut_to=len(frame) - 1)


def _bad_ip_checksum(datagram: Datagram) -> Arrival:
    frame = bytearray(datagram.frame())
    frame[24] ^= 0x40
    return Arrival(bytes(frame))


def _fragment(datagram: Datagram) -> Arrival:
    packet = replace(datagram, dont_fragment=False).packet()
    packet[IP].flags = "MF"
    return Arrival(bytes(packet))


def _bad_udp_length(datagram: Datagram) -> Arrival:
    packet = datagram.packet()
    packet[UDP].len = 7
    return Arrival(bytes(packet))


ILLS: tuple[Callable[[Datagram], Arrival], ...] = (
    _cut_off,
    _bad_ip_checksum,
    _fragment,
    _bad_udp_length,
    lambda datagram: Arrival(datagram.frame(), tagged=True),
    lambda datagram: Arrival(bytes(Ether() / Dot1Q(vlan=5) / datagram.packet().payload)),
    lambda datagram: Arrival(datagram.frame()[:-1]),
    lambda datagram: Arrival(replace(datagram, group="10.1.1.1").frame()),
    lambda datagram: Arrival(bytes(Ether() / IP(dst=datagram.group, proto=2) / Raw(b"igmp"))),
    lambda _: Arrival(bytes(Ether() / ARP())),
    lambda _: Arrival(bytes(Ether() / IPv6() / UDP() / Raw(b"six"))),
    lambda _: Arrival(b"\x01\x00\x5e"),
)
"""Ways for a frame not to be forwardable."""


# No two sources use one port: an output that rewrites the source would merge their flows into one on the
# wire, in which any order of the two is right.
SENDERS = [("10.1.0.9", 4000), ("10.1.0.9", 4001), ("10.1.0.8", 4002)]

datagrams = st.builds(
    lambda sender, **fields: Datagram(source=sender[0], source_port=sender[1], **fields),
    st.sampled_from(SENDERS),
    group=st.sampled_from(GROUPS),
    ttl=st.sampled_from([16, 16, 16, 2, 1, 0]),
    tos=st.sampled_from([0, 0, 0xB9]),
    dont_fragment=st.sampled_from([True, True, True, False]),
    payload=st.tuples(st.sampled_from([0, 1, 64, 64, 64, 63, 700]), st.integers(0, 255)).map(
        lambda drawn: bytes([drawn[1]]) * drawn[0]
    ),
    checksum=st.sampled_from(["full", "full", "full", "absent", "absent", "corrupt"]),
)
arrivals = st.lists(
    st.builds(
        lambda make, datagram: make(datagram),
        st.sampled_from([_sound] * 3 + [_unfinished, _gso]) | st.sampled_from(ILLS),
        datagrams,
    ),
    max_size=20,
)
rule_outputs = st.lists(st.sampled_from(OUTPUTS), max_size=3, unique=True)


def _fate(datagram: Datagram, output: Output, largest: int) -> str:
    """What becomes of a datagram's copy: ``sent`` or an egress reason."""
    if output.link == ABSENT.link:
        return "output_absent"
    if output.ttl_of(datagram) == 0:
        return "ttl_expired"
    if output.link == SMALL.link and largest + 28 > SMALL_MTU:
        return "too_big"
    return "transmit_refused" if output.link == REFUSES.link else "sent"


def _assert_sent(frames: list[bytes], owed: list[tuple[Datagram, Output]], filled: bool) -> None:
    """The frames on the wire are the owed copies, in order within each flow and output, byte for byte.

    ``filled``: those without a checksum have got one.
    """

    def stream(frame: bytes) -> bytes:
        return frame[:12] + frame[26:38]

    wire: dict[bytes, list[bytes]] = defaultdict(list)
    for frame in frames:
        wire[stream(frame)].append(frame)
    expected: dict[bytes, list[tuple[Datagram, Output]]] = defaultdict(list)
    for datagram, output in owed:
        expected[stream(output.forwarded(datagram.arrived(), 0))].append((datagram, output))
    assert {key: len(found) for key, found in wire.items()} == {
        key: len(wanted) for key, wanted in expected.items()
    }
    for key, found in wire.items():
        for frame, (datagram, output) in zip(found, expected[key], strict=True):
            sound = replace(datagram.arrived(), checksum="full")
            bare = datagram.checksum == "absent" and not filled
            built = output.forwarded(datagram if bare else sound, Ether(frame)[IP].id)
            if datagram.checksum == "corrupt":
                assert frame[:40] + frame[42:] == built[:40] + built[42:]
                assert not checksum_holds(frame)
            else:
                assert frame == built


@examples(75)
@given(st.lists(arrivals, min_size=1, max_size=3), rule_outputs, rule_outputs, st.booleans(), st.booleans())
def test_every_datagram_is_forwarded_as_scapy_builds_it_or_counted_with_its_reason(
    rounds: list[list[Arrival]], first: list[Output], second: list[Output], coalesce: bool, fill: bool
) -> None:
    with Bench(Ring(4096, 32), coalesce=coalesce, fill_checksums=fill) as bench:
        for output in OUTPUTS:
            bench.connect(
                output,
                mtu=SMALL_MTU if output.link == SMALL.link else 65_535,
                present=output.link != ABSENT.link,
                refuses=output.link == REFUSES.link,
            )
        # Other ports, so that on the wire too the two rules' flows can be told apart.
        rules = {GROUPS[0]: first, GROUPS[1]: [replace(output, port=7000) for output in second]}
        slots = {group: bench.add_rule(group, 5001, outputs) for group, outputs in rules.items()}
        fates: Counter[str] = Counter()
        matched: Counter[int] = Counter()
        for arriving in rounds:
            owed = []
            for arrival in arriving:
                assert bench.ring.receive(
                    arrival.frame, arrival.vnet, tagged=arrival.tagged, cut_to=arrival.cut_to
                )
                why_not = arrival.why_not()
                if why_not:
                    fates[why_not] += 1
                    continue
                group = arrival.datagrams[0].group
                if group not in rules:
                    fates["no_rule"] += len(arrival.datagrams)
                    continue
                matched[slots[group]] += len(arrival.datagrams)
                largest = max(len(datagram.payload) for datagram in arrival.datagrams)
                for output in rules[group]:
                    for datagram in arrival.datagrams:
                        fate = _fate(datagram, output, largest)
                        fates[fate] += 1
                        if fate == "sent":
                            owed.append((datagram, output))
            messages = bench.forward()
            _assert_sent([frame for message in messages for frame in transmitted(message)], owed, fill)
            if not coalesce and not any(len(arrival.datagrams) > 1 for arrival in arriving):
                assert len(messages) == len(owed)
        bench.assert_balanced()
        assert bench.counter(schema.SENT) == fates.pop("sent", 0)
        assert bench.reasons() == dict(fates)
        for slot in slots.values():
            assert bench.block.rule_matched[slot, 0] == matched[slot]


@examples(60)
@given(
    st.lists(
        st.tuples(
            st.binary(max_size=300), st.integers(0, 40), st.booleans(), st.binary(min_size=10, max_size=10)
        ),
        max_size=30,
    )
)
def test_garbage_in_the_ring_is_counted_once_a_frame_and_given_back(
    slots: list[tuple[bytes, int, bool, bytes]],
) -> None:
    with Bench(Ring(256, 32)) as bench:
        for frame, cut, tagged, vnet in slots:
            assert bench.ring.receive(
                frame, VnetHeader.unpack(vnet), tagged=tagged, cut_to=max(len(frame) - cut, 0)
            )
        assert bench.forward() == []
        bench.assert_balanced()
        assert bench.counter(schema.RECEIVED) == len(slots) == sum(bench.reasons().values())
