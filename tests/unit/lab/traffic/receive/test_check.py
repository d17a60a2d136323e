"""The checking kernels against injected faults: each is found, named and counted, and nothing else is."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from lab.load.jobs import Flow, Stream
from lab.traffic.receive import check
from lab.traffic.receive.check import Expectation, Tally, latency_of, new_tally
from lab.traffic.receive.program import Captured, report_of
from lab.traffic.send.frames import datagram, templates

STREAM = Stream(stream_id=7, group="239.1.2.3", port=5001, source="10.10.0.1", source_port=4001)
FLOW = Flow(interface="r0", group=STREAM.group, port=STREAM.port, stream_id=7, sequences=100)
SENT_NS = 1_700_000_000_000_000_000


def packet(sequence: int, payload_bytes: int = 64) -> Packet:
    return datagram(STREAM, payload_bytes, sequence, SENT_NS)


def feed(
    tally: Tally, frame: bytes | Packet, *, snap: int | None = None, full: bool = True,
    payload_bytes: int = 64, interface: int = 0, gso_size: int = 0, ready: bool = True, after_ns: int = 1000,
) -> None:  # fmt: skip
    frame = bytes(frame)
    data = np.frombuffer(b"?" * 5 + frame[:snap] + b"?" * 5, np.uint8)  # at an odd offset, as blocks may
    expectation = Expectation(payload_bytes, int(full))
    captured = len(frame[:snap])
    check.check_frame(
        tally, interface, data, 5, captured, len(frame), gso_size, ready, SENT_NS + after_ns, expectation
    )


def fed(*frames: bytes | Packet, **options: Any) -> Tally:
    """What comes of these frames, where the flow of :data:`STREAM` is expected."""
    tally = new_tally((FLOW,), ("r0", "r1"))
    for frame in frames:
        feed(tally, frame, **options)
    return tally


def counts(tally: Tally) -> dict[str, int]:
    """What was counted of the first flow, but for latencies."""
    counted = zip(check.COLUMNS, tally.counts[0, : check.LATENCY_MIN].tolist(), strict=False)
    return {column: value for column, value in counted if value}


def test_all_in_order() -> None:
    tally = fed(*map(packet, range(100)))
    assert counts(tally) == {"received": 100, "received_bytes": 6400}
    assert report_of(tally, [100], Captured({}), 0).lost == (0,)


def test_lost() -> None:
    tally = fed(*(packet(number) for number in range(100) if number not in (0, 17, 99)))
    report = report_of(tally, [100], Captured({}), 0)
    assert (report.lost, report.reordered, report.duplicated) == ((3,), (0,), (0,))
    assert report.delivered == 97


@pytest.mark.parametrize(("seen", "most"), [([], 0), ([0, 1], 1), ([0, 1, 1, 0, 1], 3), ([0] * 300, 255)])
def test_the_most_copies_of_one_datagram_are_known(seen: list[int], most: int) -> None:
    assert report_of(fed(*map(packet, seen)), [4], Captured({}), 0).copies_max == most


def test_duplicated_copies_are_not_reordered_too() -> None:
    report = report_of(fed(*map(packet, [0, 1, 2, 1, 3, 0, 0])), [4], Captured({}), 0)
    assert (report.received, report.duplicated, report.reordered, report.lost) == ((7,), (3,), (0,), (0,))
    assert report.delivered == 4


@pytest.mark.parametrize(
    ("sequences", "reordered"),
    [
        ([0, 2, 1, 3], 1),  # two neighbours swapped
        ([1, 2, 3, 0], 1),  # one delayed
        ([3, 0, 1, 2], 3),  # one early: the others are below the next expected (RFC 4737)
        ([3, 2, 1, 0], 3),
    ],
)
def test_reordered_as_rfc_4737_says(sequences: list[int], reordered: int) -> None:
    report = report_of(fed(*map(packet, sequences)), [4], Captured({}), 0)
    assert (report.reordered, report.lost) == ((reordered,), (0,))


def corrupt(frame: bytes, at: int) -> bytes:
    damaged = bytearray(frame)
    damaged[at] ^= 0x10
    return bytes(damaged)


@pytest.mark.parametrize("at", [14 + 20 + 8 + 18, 14 + 20 + 8 + 63])
def test_a_damaged_filler_is_corrupted_and_lost(at: int) -> None:
    tally = fed(corrupt(bytes(packet(0)), at))
    assert counts(tally) == {"corrupted": 1}
    assert report_of(tally, [1], Captured({}), 0).lost == (1,)


def test_a_wrong_or_missing_udp_checksum_is_corrupted() -> None:
    for value in (0, 0x1234):
        wrong = packet(0)
        wrong[UDP].chksum = value
        tally = fed(wrong)
        assert counts(tally) == {"corrupted": 1}
        # Left to an offload, the field holds something else and says nothing.
        feed(tally, wrong, ready=False)
        assert counts(tally) == {"corrupted": 1, "received": 1, "received_bytes": 64}


def test_another_payload_length_is_corrupted() -> None:
    assert counts(fed(packet(0, 65), packet(1, 63))) == {"corrupted": 2}


def test_a_sequence_number_never_sent_is_corrupted() -> None:
    assert counts(fed(packet(100))) == {"corrupted": 1}


@pytest.mark.parametrize("at", range(14 + 20 + 8, 14 + 20 + 8 + 18))
def test_a_damaged_stamp_is_malformed(at: int) -> None:
    tally = fed(corrupt(bytes(packet(5)), at), full=False)
    assert counts(tally) == {}
    assert tally.totals[check.MALFORMED] == 1


def test_headers_alone_are_enough() -> None:
    tally = fed(packet(3), snap=14 + 20 + 8 + 18, full=False)
    assert counts(tally) == {"received": 1, "received_bytes": 64}
    feed(tally, packet(4), snap=14 + 20 + 8 + 17, full=False)
    assert tally.totals[check.MALFORMED] == 1


def test_an_ethernet_padded_datagram_is_intact() -> None:
    padded = bytes(packet(0, 18)) + bytes(7)
    assert counts(fed(padded, payload_bytes=18)) == {"received": 1, "received_bytes": 18}


def malformed_frames() -> dict[str, bytes]:
    fragment, options, not_udp = packet(0), packet(0), packet(0)
    fragment[IP].flags = "MF"
    not_udp[IP].proto = 6
    long_ip, long_udp = packet(0), packet(0)
    long_ip[IP].len = 200
    long_udp[UDP].len = 200
    options[IP].ihl = 3
    return {
        "fragment": bytes(fragment),
        "not UDP": bytes(not_udp),
        "IP length": bytes(long_ip),
        "UDP length": bytes(long_udp),
        "header length": bytes(options),
        "IP checksum": corrupt(bytes(packet(0)), 14 + 8),
        "not IPv4": corrupt(bytes(packet(0)), 12),
        "cut in the header": bytes(packet(0))[:40],
        "empty": b"",
        "no stamp": bytes(Ether() / IP(dst="239.1.2.3") / UDP(dport=5001)),
    }


@pytest.mark.parametrize(("name", "frame"), malformed_frames().items(), ids=lambda value: str(value)[:20])
def test_malformed(name: str, frame: bytes) -> None:
    tally = fed(frame)
    assert (tally.totals[check.MALFORMED], tally.totals[check.UNEXPECTED], counts(tally)) == (1, 0, {}), name


def test_flows_are_told_apart_by_interface_group_port_and_stream() -> None:
    flows = (
        FLOW,
        FLOW.model_copy(update={"interface": "r1"}),
        FLOW.model_copy(update={"port": 5002}),
        FLOW.model_copy(update={"stream_id": 8}),
    )
    tally = new_tally(flows, ("r0", "r1"))
    for _ in range(2):
        feed(tally, packet(0))
    feed(tally, packet(0), interface=1)
    feed(tally, datagram(STREAM.model_copy(update={"port": 5002}), 64, 0, SENT_NS))
    assert [int(row[check.RECEIVED]) for row in tally.counts] == [2, 1, 1, 0]
    assert [int(row[check.DUPLICATED]) for row in tally.counts] == [1, 0, 0, 0]


def test_another_group_is_unexpected() -> None:
    tally = fed(datagram(STREAM.model_copy(update={"group": "239.1.2.4"}), 64))
    feed(tally, packet(0), interface=1)
    assert tally.totals[check.UNEXPECTED] == 2
    assert counts(tally) == {}


def test_ten_thousand_flows_each_find_their_own() -> None:
    streams = [
        STREAM.model_copy(update={"stream_id": number, "group": STREAM.group + number})
        for number in range(10_000)
    ]
    flows = tuple(
        Flow(interface="r0", group=stream.group, port=stream.port, stream_id=stream.stream_id, sequences=1)
        for stream in streams
    )
    tally = new_tally(flows, ("r0",))
    frames = templates(streams, 20, "02:00:00:00:00:01").frames
    for frame in frames:
        feed(tally, frame.tobytes(), payload_bytes=20)
    assert tally.counts[:, check.RECEIVED].tolist() == [1] * 10_000
    assert tally.totals[check.UNEXPECTED] == 0


def test_each_segment_of_a_gso_frame_is_a_datagram() -> None:
    made = templates((STREAM,), 64, "02:00:00:00:00:01", segments=5)
    tally = fed(made.frames[0].tobytes(), gso_size=64, ready=False)
    assert counts(tally) == {"received": 5, "received_bytes": 320}
    assert tally.totals[check.GSO_FRAMES] == 1
    assert tally.copies[:6].tolist() == [1, 1, 1, 1, 1, 0]
    damaged = corrupt(made.frames[0].tobytes(), 14 + 20 + 8 + 3 * 64 + 40)
    feed(tally, damaged, gso_size=64, ready=False)
    assert counts(tally)["corrupted"] == 1
    assert counts(tally)["duplicated"] == 4


@pytest.mark.parametrize(
    "latencies", [[0], [1, 2, 3], list(range(0, 5_000_000, 777)), [check.HIGHEST_NS, 12]]
)
def test_latency_is_what_hdrh_itself_says(latencies: list[int]) -> None:
    flow = FLOW.model_copy(update={"sequences": len(latencies)})
    tally = new_tally((flow,), ("r0",))
    reference = HdrHistogram(1, check.HIGHEST_NS, 3)
    template = bytes(packet(0))
    for sequence, latency in enumerate(latencies):
        feed(tally, packet(sequence) if sequence else template, after_ns=latency)
        reference.record_value(latency)
    report = latency_of(tally, 0)
    assert report is not None
    assert report.count == len(latencies)
    assert report.max == pytest.approx(max(latencies), rel=1e-3)
    assert report.p50 == pytest.approx(reference.get_value_at_percentile(50), rel=1e-3, abs=1)
    assert report.p999 == pytest.approx(reference.get_value_at_percentile(99.9), rel=1e-3, abs=1)
    assert HdrHistogram.decode(report.histogram.encode()).get_total_count() == len(latencies)


def test_each_flow_has_latencies_of_its_own_and_unicast_is_not_in_the_histogram() -> None:
    unicast = STREAM.model_copy(update={"stream_id": 8, "group": IPv4Address("10.20.0.2")})
    other = FLOW.model_copy(update={"stream_id": 8, "group": unicast.group})
    tally = new_tally((FLOW, other), ("r0",))
    for stream, latencies in ((STREAM, (300, 100, 200)), (unicast, (9000,))):
        for sequence, latency in enumerate(latencies):
            feed(tally, datagram(stream, 64, sequence, SENT_NS), after_ns=latency)
    feed(tally, packet(0), after_ns=5)  # a duplicate, which does not count
    report = report_of(tally, [3, 1], Captured({}), 0)
    assert (report.latency_min, report.latency_max, report.latency_sum) == (
        (100, 9000),
        (300, 9000),
        (600, 9000),
    )
    assert report.latency is not None
    assert (report.latency.count, report.latency.max) == (3, 300)


def test_a_unicast_stream_goes_to_the_address_it_is_told() -> None:
    router = "02:00:0a:0a:00:02"
    unicast = STREAM.model_copy(update={"group": IPv4Address("10.20.0.2"), "mac": router})
    frame = bytes(templates([STREAM, unicast], 64, "02:00:00:00:00:01").frames[1])
    assert (Ether(frame).dst, Ether(frame)[IP].dst) == (router, "10.20.0.2")
    assert bytes(datagram(unicast, 64))[:6] == frame[:6]


def test_a_latency_below_zero_is_told_and_not_counted() -> None:
    tally = fed(packet(0), after_ns=-1)
    assert tally.totals[check.NEGATIVE] == 1
    assert latency_of(tally, 0) is None
