"""Generated frames against scapy, and the check against a plain reading of the definitions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from lab.load.jobs import Flow, Stream
from lab.load.stamp import HEADER_BYTES, STAMP_BYTES
from lab.traffic.compiled import fold, stamp_at
from lab.traffic.receive import check
from lab.traffic.receive.check import Expectation, account, check_frame, new_tally
from lab.traffic.send.frames import Stamp, datagram, templates

MAC = "02:00:0a:0a:00:01"

streams = st.builds(
    Stream,
    stream_id=st.integers(0, 65535),
    group=st.ip_addresses(v=4, network="224.0.0.0/4"),
    port=st.integers(1, 65535),
    source=st.ip_addresses(v=4, network="10.0.0.0/8"),
    source_port=st.integers(1, 65535),
    ttl=st.integers(0, 255),
    dscp=st.integers(0, 63),
)
sizes = st.integers(STAMP_BYTES, 1472)
sequences = st.integers(0, 2**32 - 1)
times = st.integers(0, 2**63 - 1)


@given(st.lists(streams, min_size=1, max_size=4), sizes)
def test_a_template_is_what_scapy_builds(many: list[Stream], payload_bytes: int) -> None:
    made = templates(many, payload_bytes, MAC)
    for stream, frame in zip(many, made.frames, strict=True):
        assert frame.tobytes() == bytes(datagram(stream, payload_bytes, source_mac=MAC))


@given(st.lists(streams, min_size=1, max_size=4), sizes)
def test_a_template_without_a_checksum_has_zero_there(many: list[Stream], payload_bytes: int) -> None:
    made = templates(many, payload_bytes, MAC, udp_checksum=False)
    for stream, frame in zip(many, made.frames, strict=True):
        built = datagram(stream, payload_bytes, source_mac=MAC)
        built[UDP].chksum = 0
        assert frame.tobytes() == bytes(built)
    assert not made.checksum_sums.any()


@given(streams, sizes, sequences, times)
@settings(max_examples=150)
def test_a_stamped_frame_is_what_scapy_builds(
    stream: Stream, payload_bytes: int, sequence: int, sent_ns: int
) -> None:
    """The stamp written and the checksum derived as the sender does, one addition for each datagram."""
    made = templates((stream,), payload_bytes, MAC)
    frame = made.frames[0]
    stamp_at(frame, HEADER_BYTES, stream.stream_id, sequence, sent_ns)
    checksum = (0xFFFF - fold(int(made.checksum_sums[0]) + 0xFFFF - (sequence & 0xFFFF))) or 0xFFFF
    frame[40], frame[41] = checksum >> 8, checksum & 0xFF
    assert frame.tobytes() == bytes(datagram(stream, payload_bytes, sequence, sent_ns, MAC))


@given(streams, st.integers(2, 8), st.integers(STAMP_BYTES, 200))
def test_segments_of_a_gso_frame_carry_their_own_stamps(
    stream: Stream, segments: int, payload_bytes: int
) -> None:
    frame = templates((stream,), payload_bytes, MAC, segments).frames[0].tobytes()
    dissected = Ether(frame)
    assert dissected[UDP].len == 8 + segments * payload_bytes
    assert dissected[IP].len == 20 + dissected[UDP].len
    payload = frame[HEADER_BYTES:]
    for number in range(segments):
        alone = bytes(datagram(stream, payload_bytes, sequence=number))[HEADER_BYTES:]
        assert payload[number * payload_bytes : (number + 1) * payload_bytes] == alone
    # The checksum field holds the sum of the pseudo header, for whoever cuts the frame to complete.
    pseudo = sum(int.from_bytes(frame[at : at + 2], "big") for at in range(26, 34, 2))
    assert dissected[UDP].chksum == fold(pseudo + 17 + dissected[UDP].len)


@given(streams, sizes, st.integers(0, 999), times)
def test_what_scapy_builds_is_received_intact(
    stream: Stream, payload_bytes: int, sequence: int, sent_ns: int
) -> None:
    flow = Flow(
        interface="r0", group=stream.group, port=stream.port, stream_id=stream.stream_id, sequences=1000
    )
    tally = new_tally((flow,), ("r0",))
    frame = np.frombuffer(bytes(datagram(stream, payload_bytes, sequence, sent_ns)), np.uint8)
    check_frame(tally, 0, frame, 0, len(frame), len(frame), 0, True, sent_ns, Expectation(payload_bytes, 1))
    assert tally.counts[0, : check.LATENCY_MIN].tolist() == [1, payload_bytes, 0, 0, 0]


@given(streams, sequences, times)
def test_the_stamp_dissects_to_what_went_in(stream: Stream, sequence: int, sent_ns: int) -> None:
    frame = np.zeros(STAMP_BYTES, np.uint8)
    stamp_at(frame, 0, stream.stream_id, sequence, sent_ns)
    seen = Stamp(frame.tobytes())
    assert (seen.stream, seen.sequence, seen.sent_ns) == (stream.stream_id, sequence, sent_ns)
    assert bytes(Stamp(stream=stream.stream_id, sequence=sequence, sent_ns=sent_ns)) == frame.tobytes()


@given(st.lists(st.integers(0, 30), max_size=80))
def test_counts_follow_the_definitions(arrivals: list[int]) -> None:
    """RFC 4737: only first copies count; one is reordered when a higher number came before it."""
    flow = Flow(interface="r0", group="239.0.0.1", port=1, stream_id=0, sequences=31)
    tally = new_tally((flow,), ("r0",))
    for sequence in arrivals:
        account(tally, 0, sequence, 10)
    first_copies = list(dict.fromkeys(arrivals))
    reordered = sum(
        any(earlier > sequence for earlier in first_copies[:index])
        for index, sequence in enumerate(first_copies)
    )
    assert tally.counts[0, check.RECEIVED] == len(arrivals)
    assert tally.counts[0, check.DUPLICATED] == len(arrivals) - len(first_copies)
    assert tally.counts[0, check.REORDERED] == reordered
