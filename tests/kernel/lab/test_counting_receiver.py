"""The program that checks in the kernel, against the check of captured frames: same frames, same verdicts."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_support.traffic import Bench, bench, flows, streams
from packet_support.bpf_machine import execute
from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from forwarder.abi.af_packet import SOCK_FILTER
from forwarder.abi.bpf import run_on_frame as run
from lab.load.jobs import Flow, ReceiverJob, ReceiverReport, SenderJob, Stream
from lab.load.topology import Topology
from lab.netns import namespaces as netns
from lab.traffic.receive import check
from lab.traffic.receive.check import Expectation, Tally, check_frame, new_tally, record_latency
from lab.traffic.receive.count import Counter
from lab.traffic.receive.program import snap_bytes
from lab.traffic.receive.ring import capture_filter
from lab.traffic.send.frames import Stamp, datagram

PROGRAMS = {"count_packet": (2, 2**32 - 1), "count_frame": (1, 2)}
"""The verdicts on what is taken and on what is not: TCX_DROP, TCX_NEXT; XDP_DROP, XDP_PASS."""
SHORTEST_PACKET = 34
"""The kernel runs no program of the stack's on less: Ethernet and IPv4 (``bpf_prog_test_run_skb``)."""

STREAM = streams(1, first=7)[0]
SAME_STREAM = STREAM.model_copy(update={"group": STREAM.group + 1})
OTHER = streams(1, first=9)[0]
UNICAST = STREAM.model_copy(update={"group": "10.20.0.2", "mac": "02:00:00:00:00:02"})
STRANGE = (
    streams(1, first=8)[0],
    streams(1, first=60_000)[0],
    STREAM.model_copy(update={"port": 5002}),
    UNICAST.model_copy(update={"group": "10.20.0.3"}),
)
KNOWN = (STREAM, SAME_STREAM, OTHER, UNICAST)
SEQUENCES = 9
"""Not a multiple of the four bytes that the program adds to at once."""


def _job(payload_bytes: int | None = 64, *, unicast: bool = False) -> ReceiverJob:
    of = tuple(
        Flow(interface="lo", group=one.group, port=one.port, stream_id=one.stream_id, sequences=SEQUENCES)
        for one in KNOWN
    )
    return ReceiverJob(mode="count", flows=of, payload_bytes=payload_bytes, unicast=unicast)


def _stamped(stream: Stream, sequence: int, payload_bytes: int, sent_ns: int) -> Packet:
    return datagram(stream, payload_bytes, sequence, sent_ns)


LONG_AGO_NS, LATER_NS = 1_700_000_000_000_000_000, 2**62
"""Latencies that no clock can change: above all buckets, and negative."""

ordinary = st.builds(
    _stamped,
    st.sampled_from(KNOWN + STRANGE),
    st.integers(0, SEQUENCES),
    st.sampled_from([64, 64, 64, 64, 18, 65, 1400]),
    st.sampled_from([LONG_AGO_NS, LONG_AGO_NS, LATER_NS]),
)


def _with(layer: type[Packet], field: str, value: object) -> bytes:
    """A datagram with one field changed, its header checksum right."""
    changed = _stamped(STREAM, 1, 64, LONG_AGO_NS)
    changed[layer].setfieldval(field, value)
    return bytes(changed)


LARGEST = {
    IP: {"len": 200, "version": 15, "flags": 7, "frag": 8191, "proto": 255, "chksum": 65535},
    UDP: {"len": 200, "chksum": 65535},
    Stamp: {"magic": 65535, "check": 65535, "sequence": 2**32 - 1},
}
"""The numbers that fields are changed to begin at 0."""

changed_fields = st.one_of(
    *(
        st.builds(_with, st.just(layer), st.just(field), st.integers(0, largest))
        for layer, fields in LARGEST.items()
        for field, largest in fields.items()
    ),
    st.builds(_with, st.just(IP), st.just("options"), st.just([IPOption_NOP()] * 4)),
    st.builds(_with, st.just(Ether), st.just("type"), st.sampled_from([0x0806, 0x86DD, 0x8100])),
)


def _damaged(packet: Packet, at: int, bit: int) -> bytes:
    frame = bytearray(bytes(packet))
    frame[at % len(frame)] ^= 1 << bit
    return bytes(frame)


frames = st.one_of(
    ordinary.map(bytes),
    ordinary.map(bytes),
    changed_fields,
    st.builds(_damaged, ordinary, st.integers(0, 59), st.integers(0, 7)),
    st.builds(lambda packet, size: bytes(packet)[:size], ordinary, st.integers(14, 80)),
)


def _captured(job: ReceiverJob, tally: Tally, frame: bytes, time_ns: int) -> bool:
    """What a ring of headers and stamps would come to; whether it takes the frame at all."""
    program = capture_filter(snap_bytes(job, whole=False), everything=False, unicast=job.unicast)
    kept = execute(b"".join(SOCK_FILTER.pack(*one) for one in program), frame)
    if kept:
        data = np.frombuffer(frame[:kept], np.uint8)
        expectation = Expectation(job.payload_bytes or 0, 0)
        check_frame(tally, 0, data, 0, len(data), len(frame), 0, True, time_ns, expectation)
    return bool(kept)


CUT_SHORT = [bytes(_stamped(STREAM, 0, 64, LONG_AGO_NS))[:size] for size in range(14, 62)]


@pytest.mark.parametrize("program", PROGRAMS)
@given(
    seen=st.lists(frames, max_size=40), payload_bytes=st.sampled_from([64, 64, None]), unicast=st.booleans()
)
@example(seen=CUT_SHORT, payload_bytes=64, unicast=True)
@example(seen=CUT_SHORT, payload_bytes=64, unicast=False)
@settings(max_examples=40)
def test_every_frame_is_judged_as_a_captured_one(
    program: str, seen: list[bytes], payload_bytes: int | None, unicast: bool
) -> None:
    job = _job(payload_bytes, unicast=unicast)
    oracle, tally = new_tally(job.flows, ("lo",)), new_tally(job.flows, ("lo",))
    taken, left = PROGRAMS[program]
    before = time.time_ns()
    with Counter(job, tally) as counter:
        for frame in seen:
            if program == "count_packet" and len(frame) < SHORTEST_PACKET:
                continue
            verdict = run(counter.object.program(program), frame).verdict
            assert verdict == (taken if _captured(job, oracle, frame, time.time_ns()) else left)
        assert counter.add_to(tally) == {"lo": 0}
    latencies = [check.LATENCY_MIN, check.LATENCY_MAX, check.LATENCY_SUM]
    compared = [column for column in range(len(check.COLUMNS)) if column not in latencies]
    assert tally.counts[:, compared].tolist() == oracle.counts[:, compared].tolist()
    for total in (check.FRAMES, check.UNEXPECTED, check.MALFORMED, check.NEGATIVE, check.COPIES_MAX):
        assert tally.totals[total] == oracle.totals[total], f"total {total} of {check.TOTALS}"
    assert tally.histogram.tolist() == oracle.histogram.tolist()
    # Taken at two moments, each since this example began.
    difference = np.abs(tally.counts[:, latencies] - oracle.counts[:, latencies])
    assert (difference <= (time.time_ns() - before) * SEQUENCES).all()
    if oracle.totals[check.FRAMES]:
        assert before <= tally.totals[check.FIRST_NS] <= tally.totals[check.LAST_NS] <= time.time_ns()


def _bucket(latency_ns: int) -> int:
    tally = new_tally(_job().flows, ("lo",))
    record_latency(tally, 0, latency_ns, True)
    (found,) = np.flatnonzero(tally.histogram)
    return int(found)


def test_a_latency_goes_into_the_bucket_that_it_belongs_to() -> None:
    for latency_ns in [1 << bit for bit in range(37)] + [
        check.HIGHEST_NS - 1,
        check.HIGHEST_NS,
        2 * check.HIGHEST_NS,
    ]:
        tally = new_tally(_job().flows, ("lo",))
        with Counter(_job(), tally) as counter:
            packet = counter.object.program("count_packet")
            earliest = time.time_ns()
            frame = bytes(_stamped(STREAM, 0, 64, earliest - latency_ns))
            run(packet, frame)
            took = time.time_ns() - earliest
            counter.add_to(tally)
        (bucket,) = np.flatnonzero(tally.histogram)
        # A clock that was set between two readings of it may be off by as much as they lie apart.
        assert _bucket(max(1, latency_ns - 1000)) <= bucket <= _bucket(latency_ns + took + 1000)


def test_more_copies_than_a_byte_holds_leave_their_neighbours_alone() -> None:
    tally = new_tally(_job().flows, ("lo",))
    with Counter(_job(), tally) as counter:
        packet = counter.object.program("count_packet")
        run(packet, bytes(_stamped(STREAM, 1, 64, LONG_AGO_NS)), repeat=300)
        run(packet, bytes(_stamped(STREAM, 2, 64, LONG_AGO_NS)))
        counter.add_to(tally)
    assert tally.counts[0, :4].tolist() == [301, 301 * 64, 299, 0]
    assert tally.totals[check.COPIES_MAX] == 255


@pytest.fixture(scope="module")
def links() -> Iterator[Bench]:
    with bench(Topology(direct=True, inputs=2, outputs=2, mtu=9000), "count") as made:
        yield made


def _report(seen: ReceiverReport) -> dict[str, object]:
    """A report less what two captures of the same frames cannot have in common."""
    apart = {"latency", "latency_min", "latency_max", "latency_sum", "first_ns", "last_ns", "mode"}
    return seen.model_dump(exclude=apart) | {"latencies": seen.latency.count if seen.latency else 0}


def _send(links: Bench, frames: Sequence[bytes], job: ReceiverJob) -> ReceiverReport:
    sending = SenderJob(interface="g0", frames=tuple(frame.hex() for frame in frames))
    sent, seen = links.transfer(sending, job)
    assert sent.offered == len(frames)
    return seen


def _faulty(stream: Stream, chance: random.Random) -> list[list[bytes]]:
    """For each of 300 sequence numbers what is sent: a datagram, none, two, another's, or a damaged one."""
    sent = [[bytes(_stamped(stream, number, 64, LONG_AGO_NS))] for number in range(300)]
    for number in range(1, len(sent)):
        what = chance.random()
        if what < 0.02:
            sent[number] = []
        elif what < 0.04:
            sent[number] *= 2
        elif what < 0.06:
            sent[number - 1], sent[number] = sent[number], sent[number - 1]
        elif what < 0.08:
            sent[number] = [_damaged(Ether(frame), chance.randrange(14, 60), 3) for frame in sent[number]]
    return sent


def test_losses_duplicates_swaps_and_damage_are_reported_as_rings_report_them(links: Bench) -> None:
    chance = random.Random(5)
    of = streams(5)
    sent: list[bytes] = []
    for faulty in zip(*(_faulty(stream, chance) for stream in of), strict=True):
        sent += [frame for sequence in faulty for frame in sequence]
    tagged = Ether(sent[0])
    sent.append(bytes(Ether(src=tagged.src, dst=tagged.dst) / Dot1Q(vlan=7) / tagged.payload))
    sent.append(bytes(_stamped(STRANGE[0], 0, 64, LONG_AGO_NS)))
    job = ReceiverJob(flows=(*flows(of, 300), *flows(of, 300, "r1")), payload_bytes=64)
    modes = {"ring": {}, "count": {"mode": "count"}, "xdp": {"mode": "count", "xdp": True}}
    by = {mode: _send(links, sent, job.model_copy(update=update)) for mode, update in modes.items()}
    assert [seen.mode for seen in by.values()] == ["ring", "count", "count"]
    assert _report(by["count"]) == _report(by["ring"])
    for fault in ("duplicated", "reordered", "lost"):
        assert sum(getattr(by["ring"], fault)) > 0
    assert by["ring"].unexpected > 0
    assert by["ring"].malformed > 0
    # In front of the stack a tag is still in the frame, which is then no IPv4.
    assert by["xdp"].frames == by["ring"].frames - 1
    assert by["xdp"].received == (by["ring"].received[0] - 1, *by["ring"].received[1:])


def test_two_processors_at_the_same_flow_lose_nothing_and_count_nothing_twice(links: Bench) -> None:
    of = streams(1)
    count = 60_000
    jobs = [SenderJob(interface="g0", streams=of, count=count, cpu=cpu) for cpu in (0, 1)]
    sent, seen = links.transfer_all(jobs, ReceiverJob(flows=flows(of, count), mode="count", payload_bytes=64))
    refused = sum(one.refused for one in sent)
    assert seen.frames == 2 * count - refused
    assert sum(seen.received) == seen.frames
    assert (seen.unexpected, seen.malformed, seen.copies_max) == (0, 0, 2)
    assert seen.latency
    assert seen.latency.count == seen.delivered
    assert seen.delivered >= count - refused


def test_a_datagram_whose_payload_is_elsewhere_is_read_too(links: Bench) -> None:
    """A local sender that hands over its pages (MSG_ZEROCOPY): only the headers are where a program looks."""
    of = streams(1)
    payloads = [bytes(_stamped(of[0], number, 64, LONG_AGO_NS))[42:].hex() for number in range(50)]
    receiver = links.receiver(ReceiverJob(flows=flows(of, 50), mode="count", payload_bytes=64))
    receiver.ready()
    code = f"""
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.10.0.1"))
# Kept: the kernel reads them when it delivers, not when it is asked to send.
payloads = [bytes.fromhex(payload) for payload in {payloads!r}]
for payload in payloads:
    sender.sendto(payload, 0x4000000, ("{of[0].group}", {of[0].port}))  # MSG_ZEROCOPY
"""
    netns.run(links.lab.gen, ["python3", "-c", code])
    receiver.stop()
    seen = receiver.report()
    assert (seen.received, seen.lost, seen.drops) == ((50,), (0,), {"r0": 0})


def test_what_does_not_fit_is_captured_in_rings(links: Bench) -> None:
    receive = {"mode": "count", "ring_bytes_max": 1 << 24}
    sent, seen = links.carry(streams(2), 20_000_000, receive, rate_dps=20_000, count=1000)
    assert (seen.mode, sum(seen.received)) == ("ring", sent.offered)
    assert seen.instead
    assert "bytes: 16,777,216 allowed" in seen.instead
