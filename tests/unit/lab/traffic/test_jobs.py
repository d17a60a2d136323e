"""What may be asked of a sender and a receiver, and how a sender judges its own rate."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lab.load.jobs import Flow, Phase, ReceiverJob, SenderJob, Stream
from lab.load.stream_order import order
from lab.traffic.receive.ring import BLOCK_BYTES, LEAST_BLOCKS, blocks_for, capture_filter
from lab.traffic.send.frames import group_mac
from lab.traffic.send.phases import phase_schedule
from lab.traffic.send.program import report_of
from lab.traffic.send.schedule import Outcome, schedule_of

STREAMS = tuple(
    Stream(stream_id=number, group="239.1.1.1", port=5001, source="10.10.0.1", source_port=4000 + number)
    for number in range(3)
)


PHASES = (Phase(dps=1000, seconds=0.5), Phase(dps=0, seconds=1), Phase(dps=3001, seconds=0.5))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 1}, "either streams or frames"),
        ({"streams": STREAMS, "frames": ("00",), "count": 1}, "either streams or frames"),
        ({"streams": STREAMS}, "count or a duration_s"),
        ({"streams": STREAMS, "count": 1, "payload_bytes": 17}, "greater than or equal to 18"),
        ({"streams": STREAMS, "count": 1, "segments": 64, "payload_bytes": 1400}, "at most 65507 bytes"),
        ({"streams": STREAMS, "count": 1, "speed": 3}, "speed"),
        ({"frames": ("00",), "segments": 2}, "segments 2"),
        ({"streams": STREAMS, "phases": PHASES, "rate_dps": 5}, "no rate_dps, count"),
        ({"frames": ("00",), "phases": PHASES}, "streams are allowed beside them"),
        ({"streams": STREAMS, "phases": ({"dps": 5, "seconds": 0},)}, "greater than 0"),
    ],
)
def test_an_impossible_sender_job_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SenderJob(interface="g0", **fields)


def test_an_impossible_receiver_job_is_refused() -> None:
    flow = Flow(interface="r0", group="239.1.1.1", port=1, stream_id=0, sequences=5)
    with pytest.raises(ValidationError, match="flows or interfaces"):
        ReceiverJob()
    with pytest.raises(ValidationError, match="given twice"):
        ReceiverJob(flows=(flow, flow.model_copy(update={"sequences": 6})))


def test_a_job_survives_its_journey() -> None:
    job = SenderJob(interface="g0", streams=STREAMS, rate_dps=1000, duration_s=0.5)
    assert SenderJob.model_validate_json(job.model_dump_json()) == job


def test_phases_ask_for_their_sum_and_each_goes_on_where_the_one_before_ended() -> None:
    job = SenderJob(interface="g0", streams=STREAMS, phases=PHASES, segments=4)
    assert job.asked == 500 + 0 + 1500
    assert SenderJob.model_validate_json(job.model_dump_json()) == job
    schedule = phase_schedule(job, PHASES[2], 125, 400_000_000)
    assert (schedule.first, schedule.frames, schedule.duration_ns) == (125, 375, 400_000_000)
    assert schedule.interval_num / schedule.interval_den == pytest.approx(4e9 / 3001)


def outcome(sent: int, duration_ns: int) -> Outcome:
    return Outcome(sent, duration_ns, started_ns=0, late_ns_mean=0, late_ns_max=0, slipped_ns=0)


def test_offered_is_split_over_the_streams_in_turn() -> None:
    job = SenderJob(interface="g0", streams=STREAMS, count=8)
    report = report_of(job, outcome(8, 1000), order([1, 1, 1]), 0)
    assert (report.offered, report.per_stream, report.ended) == (8, (3, 3, 2), "count")
    segmented = job.model_copy(update={"segments": 4, "count": 32})
    assert report_of(segmented, outcome(8, 1000), order([1, 1, 1]), 0).per_stream == (12, 12, 8)


@pytest.mark.parametrize(
    ("sent", "duration_ns", "reached", "ended"),
    [
        (1000, 999_000_000, True, "count"),
        (1000, 1_009_000_000, True, "count"),
        (1000, 1_011_000_000, False, "count"),  # all of it, but too late
        (999, 1_010_000_000, False, "duration"),
        (400, 400_000_000, False, "stopped"),
    ],
)
def test_a_rate_is_reached_or_not(sent: int, duration_ns: int, reached: bool, ended: str) -> None:
    job = SenderJob(interface="g0", streams=STREAMS, rate_dps=1000, duration_s=1)
    report = report_of(job, outcome(sent, duration_ns), order([1, 1, 1]), 0)
    assert (report.reached, report.ended) == (reached, ended)


def test_a_schedule_counts_frames_not_datagrams() -> None:
    job = SenderJob(interface="g0", streams=STREAMS, rate_dps=1000, duration_s=1, segments=8)
    schedule = schedule_of(job)
    assert schedule.frames == 125
    assert schedule.interval_num / schedule.interval_den == 8_000_000


@pytest.mark.parametrize(
    ("group", "mac"),
    [
        ("224.0.0.1", "01:00:5e:00:00:01"),
        ("239.129.2.3", "01:00:5e:01:02:03"),
        ("232.127.255.255", "01:00:5e:7f:ff:ff"),
    ],
)
def test_the_ethernet_address_of_a_group(group: str, mac: str) -> None:
    assert group_mac(group) == mac


def test_a_ring_has_room_for_what_is_expected_within_its_limit() -> None:
    assert blocks_for(0, 60, 1 << 30) == LEAST_BLOCKS
    frames = 1_000_000
    assert blocks_for(frames, 60, 1 << 30) * BLOCK_BYTES > frames * 152
    assert blocks_for(frames, 60, 64 << 20) * BLOCK_BYTES == 64 << 20
    assert blocks_for(frames, 60, 1) == LEAST_BLOCKS


def run_filter(program: Any, frame: bytes) -> int:
    """A classic BPF machine with the instructions that the filter uses."""
    accumulator, at = 0, 0
    while True:
        code, true, false, k = program[at]
        at += 1
        match code:
            case 0x28:
                accumulator = int.from_bytes(frame[k : k + 2], "big")
            case 0x30:
                accumulator = frame[k]
            case 0x54:
                accumulator &= k
            case 0x15:
                at += true if accumulator == k else false
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


@pytest.mark.parametrize(
    ("ether_type", "protocol", "destination", "kept", "with_unicast"),
    [
        ("0800", 17, 224, 60, 60),
        ("0800", 17, 239, 60, 60),
        ("0800", 17, 240, 0, 60),
        ("0800", 17, 223, 0, 60),
        ("0800", 2, 224, 0, 0),
        ("86dd", 17, 224, 0, 0),
    ],
)
def test_the_capture_filter_keeps_multicast_udp(
    ether_type: str, protocol: int, destination: int, kept: int, with_unicast: int
) -> None:
    frame = bytearray(60)
    frame[12:14] = bytes.fromhex(ether_type)
    frame[23], frame[30] = protocol, destination
    assert run_filter(capture_filter(60, everything=False), bytes(frame)) == kept
    assert run_filter(capture_filter(60, everything=False, unicast=True), bytes(frame)) == with_unicast
    assert run_filter(capture_filter(60, everything=True), bytes(frame)) == 60
