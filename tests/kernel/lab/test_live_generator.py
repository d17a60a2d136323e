"""The generator of live frames: what arrives is what a packet socket would have sent, only more of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_support.traffic import Bench, assert_perfect, bench, flows, other_fork_server, streams
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from lab.load.jobs import GeneratorName, Phase, ReceiverJob, SenderJob
from lab.load.topology import Topology
from lab.measure import since
from lab.measure.network import read_interfaces
from lab.netns.netlink import Netlink
from lab.traffic.send.frames import Stamp, datagram


@pytest.fixture(scope="module")
def live() -> Iterator[Bench]:
    with bench(Topology(direct=True, mtu=9000, napi=True), "live") as made:
        yield made


@pytest.fixture(scope="module")
def two_inputs() -> Iterator[Bench]:
    with bench(Topology(direct=True, inputs=2, outputs=2, napi=True), "live2") as made:
        yield made


def test_what_arrives_is_what_scapy_would_have_made(live: Bench) -> None:
    """Byte for byte, checksums included, when pages have gone round many times."""
    of = streams(1)
    receive = {"full": True, "keep_frames": 20_000}
    sent, seen = live.carry(of, 20_000, receive, rate_dps=50_000, count=20_000, generator="xdp")
    assert (sent.generator, sent.instead) == ("xdp", None)
    assert_perfect(sent, seen, 64)
    for sequence in (0, 1, 255, 9_999, 19_999):
        arrived = bytes.fromhex(seen.captured[sequence].data)
        stamp = Ether(arrived)[UDP].payload
        sent_ns = Stamp(bytes(stamp)).sent_ns
        source = Ether(arrived).src
        assert arrived == bytes(datagram(of[0], 64, sequence, sent_ns, source))
        assert IP(arrived[14:]).dst == "239.1.0.0"


def test_without_libbpf_packet_sockets_send_and_rings_capture_and_the_reports_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libbpf.so.1").touch()  # found first, and no library
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    of = streams(2)
    with other_fork_server(), bench(Topology(direct=True, napi=True), "nobpf") as made:
        receive = {"mode": "count"}
        sent, seen = made.carry(of, 500, receive, rate_dps=5_000, count=1_000, generator="xdp")
    assert sent.generator == "packet"
    assert "libbpf.so.1" in str(sent.instead)
    assert "libbpf.so.1" in str(seen.instead)
    assert_perfect(sent, seen, 64)


@pytest.mark.parametrize("payload_bytes", [18, 64, 512, 1472, 2958])
def test_every_payload_size_arrives_with_a_right_checksum(live: Bench, payload_bytes: int) -> None:
    of = streams(3)
    job = SenderJob(
        interface="g0", streams=of, rate_dps=20_000, count=3000, payload_bytes=payload_bytes, generator="xdp"
    )
    # An ordinary socket: the kernel drops what has a wrong checksum, and nothing marks these as verified.
    receiving = ReceiverJob(flows=flows(of, 1000), payload_bytes=payload_bytes, mode="udp")
    sent, seen = live.transfer(job, receiving)
    assert sent.generator == "xdp"
    assert_perfect(sent, seen, payload_bytes)


def test_streams_take_turns_over_several_interfaces(two_inputs: Bench) -> None:
    of = tuple(
        stream.model_copy(update={"interface": f"g{number % 2}", "share": 3 if number == 0 else 1})
        for number, stream in enumerate(streams(4))
    )
    sent, seen = two_inputs.transfer(
        SenderJob(interface="g0", streams=of, rate_dps=50_000, count=12_000, generator="xdp"),
        ReceiverJob(
            flows=tuple(flows((stream,), 6000, f"r{number % 2}")[0] for number, stream in enumerate(of)),
            payload_bytes=64,
        ),
    )
    assert sent.per_stream == (6000, 2000, 2000, 2000)
    assert_perfect(sent, seen, 64)


def test_a_rate_is_kept_and_never_exceeded(live: Bench) -> None:
    sent, seen = live.carry(streams(2), 25_000, rate_dps=100_000, duration_s=0.5, generator="xdp")
    assert sent.offered <= 50_000
    assert sent.duration_ns >= sent.offered * 10_000 - 1_000_000, "faster than asked"
    assert sent.reached == (sent.offered == 50_000 and sent.duration_ns <= 510_000_000)
    assert sum(seen.lost) == 0


@pytest.mark.parametrize("generator", ["xdp", "packet"])
def test_datagrams_without_a_udp_checksum_are_otherwise_the_same(
    live: Bench, generator: GeneratorName
) -> None:
    of = streams(2)
    job = SenderJob(
        interface="g0", streams=of, rate_dps=20_000, count=4000, generator=generator, udp_checksum=False
    )
    receiving = ReceiverJob(flows=flows(of, 2000), payload_bytes=64, keep_frames=4000)
    sent, seen = live.transfer(job, receiving)
    assert sent.generator == generator
    assert_perfect(sent, seen, 64)
    assert {bytes.fromhex(frame.data)[40:42] for frame in seen.captured} == {bytes(2)}


def test_bursts_follow_each_other_at_once(live: Bench) -> None:
    receive = {"keep_frames": 3200}
    sent, seen = live.carry(
        streams(2), 1600, receive, rate_dps=16_000, count=3200, segments=32, generator="xdp"
    )
    assert sent.per_stream == (1600, 1600)
    assert_perfect(sent, seen, 64)
    ports = [UDP(bytes.fromhex(frame.data)[34:42]).sport for frame in seen.captured]
    runs = [ports[start : start + 32] for start in range(0, len(ports), 32)]
    assert [set(run) for run in runs] == [{4000}, {4001}] * 50


def test_a_ramp_ends_at_its_rate(live: Bench) -> None:
    receive = {"keep_frames": 30_000}
    sent, seen = live.carry(
        streams(1), 30_000, receive, rate_dps=10_000, ramp_to_dps=50_000, duration_s=0.5, generator="xdp"
    )
    assert sum(seen.lost) == 0
    # 15,000 in all; a machine that holds the generator up makes it fewer, never more.
    assert sent.offered <= 15_100
    times = [frame.time_ns - seen.captured[0].time_ns for frame in seen.captured]
    first = sum(time < 250_000_000 for time in times)
    assert first < len(times) - first, "the second half has more"


def test_flat_out_nothing_is_lost_without_being_counted(live: Bench) -> None:
    of = streams(4)
    with Netlink(live.lab.gen) as sending, Netlink(live.lab.rcv) as receiving:
        before, before_there = read_interfaces(sending), read_interfaces(receiving)
        sent, seen = live.carry(of, 1_000_000, duration_s=0.3, generator="xdp")
        counted = since(read_interfaces(sending), before)["g0"]
        there = since(read_interfaces(receiving), before_there)["r0"]
    assert sent.generator == "xdp"
    assert sent.offered == counted.tx_packets + counted.tx_dropped
    assert there.rx_dropped == counted.tx_dropped
    assert sum(seen.lost) == there.rx_dropped + sum(seen.drops.values())


def test_frames_that_are_too_large_go_out_as_packets(live: Bench) -> None:
    receive = {"full": True, "mtu": 9000}
    sent, seen = live.carry(
        streams(1), 500, receive, rate_dps=5000, count=500, payload_bytes=8972, generator="xdp"
    )
    assert sent.generator == "packet"
    assert sent.instead is not None
    assert "8972 bytes" in sent.instead
    assert_perfect(sent, seen, 8972)


@pytest.mark.parametrize("generator", ["packet", "xdp"])
def test_phases_follow_each_other_without_a_gap_in_the_sequence(
    live: Bench, generator: GeneratorName
) -> None:
    phases = (Phase(dps=3_000, seconds=0.1), Phase(dps=0, seconds=0.05), Phase(dps=9_010, seconds=0.1))
    sent, seen = live.carry(streams(7), 300, phases=phases, generator=generator)
    assert (sent.generator, sent.instead) == (generator, None)
    assert sent.offered == sum(phase.offered for phase in sent.phases) <= 300 + 901
    assert_perfect(sent, seen, 64)  # no sequence number is missing between two phases, and none comes again
    assert [phase.offered > 0 for phase in sent.phases] == [True, False, True]
    starts = [phase.started_ns for phase in sent.phases]
    assert starts[1] >= 100_000_000
    assert starts[2] >= 150_000_000
    assert sum(phase.duration_ns for phase in sent.phases) + starts[0] == sent.duration_ns
