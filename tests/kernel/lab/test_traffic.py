"""Calibration: generator straight into receivers over a real veth pair, counted to the datagram."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel_support.traffic import Bench, assert_perfect, bench, flows, other_fork_server, streams
from process_support import parent_of
from scapy.layers.inet import UDP
from scapy.layers.l2 import Dot1Q, Ether

from lab.load.jobs import ReceiverJob, SenderJob, TrafficError
from lab.load.topology import Topology
from lab.measure import since
from lab.measure.memory import process_memory
from lab.measure.network import read_interfaces
from lab.netns import namespaces as netns
from lab.netns.netlink import Netlink
from lab.traffic.process import start_sender
from lab.traffic.send.frames import Stamp, datagram


@pytest.fixture(scope="module")
def wire_like() -> Iterator[Bench]:
    with bench(Topology(direct=True, mtu=9000), "wire") as made:
        yield made


@pytest.fixture(scope="module")
def offload() -> Iterator[Bench]:
    with bench(Topology(direct=True, egress="offload"), "offload") as made:
        yield made


@pytest.mark.parametrize("full", [False, True])
def test_fifty_thousand_a_second_arrive_exactly(wire_like: Bench, full: bool) -> None:
    sent, seen = wire_like.carry(streams(7), 10_000, rate_dps=50_000, count=50_000, receive={"full": full})
    assert sent.offered == 50_000
    assert_perfect(sent, seen, 64)
    assert seen.frames == 50_000
    assert seen.latency is not None
    assert seen.latency.count == 50_000
    assert 0 < seen.latency.min <= seen.latency.p50 <= seen.latency.p99 <= seen.latency.max
    assert seen.latency.negative == 0
    assert seen.first_ns
    assert seen.last_ns
    assert sent.started_ns <= seen.first_ns <= seen.last_ns


def test_the_rate_is_kept(wire_like: Bench) -> None:
    """The schedule holds on average even when the machine is busy; ``reached`` says when it did not."""
    sent, _ = wire_like.carry(streams(1), 5000, rate_dps=10_000, count=5000)
    assert sent.ended == "count"
    assert sent.duration_ns >= 499_000_000, "faster than asked"
    assert sent.reached == (sent.duration_ns <= 510_000_000)
    assert sent.late_ns_max >= sent.late_ns_mean > 0


@pytest.mark.parametrize("payload_bytes", [18, 19, 46, 64, 1472, 8972])
def test_every_payload_size_arrives_whole(wire_like: Bench, payload_bytes: int) -> None:
    receive = {"full": True, "mtu": 9000}
    sent, seen = wire_like.carry(
        streams(3), 1000, receive, rate_dps=20_000, count=1000, payload_bytes=payload_bytes
    )
    assert_perfect(sent, seen, payload_bytes)


@pytest.mark.parametrize("payload_bytes", [64, 1400])
def test_ordinary_sockets_that_join_receive_it_too(wire_like: Bench, payload_bytes: int) -> None:
    of = streams(25)  # more than the kernel's default of memberships a socket
    receive = {"mode": "udp"}
    sent, seen = wire_like.carry(of, 400, receive, rate_dps=20_000, count=10_000, payload_bytes=payload_bytes)
    assert_perfect(sent, seen, payload_bytes)


def test_as_fast_as_possible_nothing_is_lost_without_being_counted(wire_like: Bench) -> None:
    of = streams(4)
    with Netlink(wire_like.lab.gen) as netlink:
        before = read_interfaces(netlink)
        sent, seen = wire_like.carry(of, 1_000_000, duration_s=0.3)
        counted = since(read_interfaces(netlink), before)["g0"]
    assert sent.ended == "duration"
    assert sent.offered == counted.tx_packets + counted.tx_dropped
    assert sum(seen.lost) == counted.tx_dropped + sum(seen.drops.values())


def test_a_ring_too_small_for_the_trial_is_emptied_on_the_way(wire_like: Bench) -> None:
    receive = {"ring_bytes_max": 1 << 20}
    sent, seen = wire_like.carry(streams(1), 28_000, receive, rate_dps=14_000, count=28_000)
    assert sent.offered * 152 > 4 << 20, "more than the ring holds"
    assert_perfect(sent, seen, 64)


@pytest.mark.parametrize("mode", ["ring", "udp"])
def test_segments_that_the_kernel_cuts_arrive_as_datagrams(wire_like: Bench, mode: Any) -> None:
    receive = {"full": True, "mode": mode}
    sent, seen = wire_like.carry(streams(2), 10_000, receive, rate_dps=50_000, count=19_200, segments=32)
    assert_perfect(sent, seen, 64)
    assert (seen.frames, seen.gso_frames) == (19_200, 0)


def test_a_gso_frame_is_accounted_segment_by_segment(offload: Bench) -> None:
    receive = {"offload": True, "full": True}
    sent, seen = offload.carry(
        streams(2), 10_000, receive, rate_dps=50_000, count=19_200, segments=32, payload_bytes=1000
    )
    assert_perfect(sent, seen, 1000)
    assert (seen.frames, seen.gso_frames) == (600, 600)


def test_gso_frames_reach_an_ordinary_socket_as_datagrams(offload: Bench) -> None:
    receive = {"mode": "udp"}
    sent, seen = offload.carry(streams(2), 10_000, receive, rate_dps=50_000, count=19_200, segments=32)
    assert_perfect(sent, seen, 64)


def test_what_the_device_refuses_is_offered_and_lost(run_id: str) -> None:
    """A token bucket on the generator's device drops most of a burst; not one is sent twice or forgotten."""
    bucket = ["tbf", "rate", "8mbit", "burst", "4kb", "limit", "20kb"]
    with bench(Topology(direct=True), run_id) as made:
        netns.run(made.lab.gen, ["tc", "qdisc", "add", "dev", "g0", "root", *bucket])
        sent, seen = made.carry(streams(3), 7000, count=20_000, receive={"full": True})
    assert sent.offered == 20_000
    assert sent.refused > 1000
    assert sum(seen.lost) == sent.refused
    assert seen.delivered == sent.offered - sent.refused
    assert (sum(seen.duplicated), sum(seen.reordered), sum(seen.corrupted)) == (0, 0, 0)


def test_frames_made_by_hand_arrive_as_they_are(wire_like: Bench) -> None:
    (stream,) = streams(1)
    tagged = datagram(stream, 30)
    frames = [
        bytes(datagram(stream, 40, sequence=3)),
        bytes(Ether(src="02:00:00:00:00:09", dst="01:00:5e:01:00:00") / Dot1Q(vlan=7) / tagged.payload),
        bytes(Ether(src="02:00:00:00:00:09", dst="02:00:0a:0a:00:02", type=0x88B5) / (b"x" * 300)),
    ]
    sent, report = wire_like.transfer(
        SenderJob(interface="g0", frames=tuple(frame.hex() for frame in frames)),
        ReceiverJob(interfaces=("r0",), everything=True, keep_frames=10),
    )
    assert sent.offered == 3
    seen = report.captured
    assert [frame.interface for frame in seen] == ["r0"] * 3
    assert [frame.vlan for frame in seen] == [None, 7, None]
    assert seen[0].data == frames[0].hex()
    assert seen[1].data == (frames[1][:12] + frames[1][16:]).hex(), "the kernel takes the tag off"
    assert seen[2].data == frames[2].hex()
    assert Stamp(bytes(Ether(bytes.fromhex(seen[0].data))[UDP].payload)).sequence == 3


def test_one_process_does_one_trial_after_another(wire_like: Bench) -> None:
    of = streams(2)
    processes = set()
    for _ in range(3):
        sent, seen = wire_like.carry(of, 500, rate_dps=20_000, count=1000)
        assert_perfect(sent, seen, 64)
        processes.add(wire_like.pids)
        _, receiver_pid = wire_like.pids
        assert process_memory(receiver_pid).ring_bytes == 0, "the ring went with its trial"
    assert len(processes) == 1


def test_a_sender_whose_datagrams_are_far_apart_leaves_its_cpu_to_others(wire_like: Bench) -> None:
    """It sleeps between them, unless it was held up; one that spun would be put off the CPU, if at all."""
    of = streams(1)
    job = SenderJob(interface="g0", streams=of, rate_dps=1000, count=300)
    wire_like.transfer(job, ReceiverJob(flows=flows(of, 300)))  # all is compiled
    pid, _ = wire_like.pids
    before = sleeps(pid)
    wire_like.transfer(job, ReceiverJob(flows=flows(of, 300)))
    assert sleeps(pid) - before > 50


def sleeps(pid: int) -> int:
    """How often a process has given up the CPU by itself (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("voluntary_ctxt_switches")]
    return int(line.split()[1])


def test_a_sender_can_be_stopped_early(wire_like: Bench) -> None:
    sender = wire_like.sender(SenderJob(interface="g0", streams=streams(1), rate_dps=1000, duration_s=60))
    sender.ready()
    sender.go()
    sender.stop()
    report = sender.report(timeout_s=30)
    assert report.ended == "stopped"
    assert report.offered < 60_000
    assert not report.reached


def test_a_job_that_cannot_be_done_is_answered_and_the_next_one_is_done(wire_like: Bench) -> None:
    job = SenderJob(interface="absent", streams=streams(1), count=1)
    with pytest.raises(TrafficError, match="interface absent: No such device"):
        wire_like.sender(job).ready()
    sender = wire_like.sender(job.model_copy(update={"interface": "g0"}))
    sender.ready()
    sender.go()
    assert sender.report().offered == 1


def test_a_process_that_is_killed_says_so() -> None:
    with netns.namespace("killed") as name:
        job = SenderJob(interface="lo", streams=streams(1), count=1)
        with start_sender(name, job) as sender:
            sender.ready()
            netns.kill_processes(name)
            sender.go()
            with pytest.raises(TrafficError, match="has ended: it said nothing"):
                sender.report()


def test_a_process_that_cannot_enter_its_namespace_says_so() -> None:
    job = SenderJob(interface="lo", streams=streams(1), count=1)
    with (
        start_sender("mcl-none", job) as sender,
        pytest.raises(TrafficError, match=r"has ended: .*No such file or directory: '/run/netns/mcl-none'"),
    ):
        sender.ready()


def test_senders_and_receivers_die_with_their_lab() -> None:
    code = (
        "import sys; from lab.traffic.fork_server import fork_server\n"
        "print(fork_server().fork(sys.argv[1], 'send', [0]).pid, flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with netns.namespace("orphans") as name:
        with subprocess.Popen([sys.executable, "-c", code, name], text=True, **pipes) as lab:
            assert lab.stdout
            sender = int(lab.stdout.readline())
            pidfd = os.pidfd_open(sender)
            lab.kill()
        try:
            assert select.select([pidfd], [], [], 10)[0], "the sender survived its lab"
        finally:
            os.close(pidfd)


def test_when_the_process_that_forks_is_killed_the_next_sender_comes_from_another_one() -> None:
    job = SenderJob(interface="lo", streams=streams(1), count=1)
    with other_fork_server(), netns.namespace("refork") as name:
        with start_sender(name, job) as sender:
            sender.ready()
            server = parent_of(sender.pid)
            os.kill(server, signal.SIGKILL)
            with pytest.raises(TrafficError, match="has ended"):
                sender.report()
        with pytest.raises(TrafficError, match="forks senders and receivers: status -9"):
            start_sender(name, job)
        with start_sender(name, job) as sender:
            sender.ready()
            assert parent_of(sender.pid) != server


@pytest.mark.parametrize("segments", [1, 4])
def test_one_sender_serves_several_interfaces_and_gives_each_its_share(segments: int) -> None:
    """As exact as on one: every stream arrives where it was sent, whole, in order, under its link's MAC."""
    shares = (3, 1, 1)
    of = tuple(
        stream.model_copy(update={"interface": f"g{number}", "share": share})
        for number, (stream, share) in enumerate(zip(streams(3), shares, strict=True))
    )
    expected = tuple(
        flow for number, stream in enumerate(of) for flow in flows((stream,), 600, interface=f"r{number}")
    )
    with bench(Topology(direct=True, inputs=3, outputs=3), "several") as made:
        sent, seen = made.transfer(
            SenderJob(interface="g0", streams=of, rate_dps=20_000, count=1000, segments=segments),
            ReceiverJob(flows=expected, payload_bytes=64, full=True, keep_frames=1000),
        )
        macs = {link.receiver.interface: link.sender.mac for link in made.lab.inputs}
    assert sent.per_stream == (600, 200, 200)
    assert_perfect(sent, seen, 64)
    assert seen.copies_max == 1
    sources = {(frame.interface, Ether(bytes.fromhex(frame.data)).src) for frame in seen.captured}
    assert sources == set(macs.items())
