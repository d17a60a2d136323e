"""What a forwarder does with traffic: every datagram is delivered once, or counted with a reason."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from kernel_support import udp_receiver, udp_sender
from kernel_support.mcrd import (
    Client,
    Relay,
    assert_delivered,
    assert_intact,
    counts,
    eventually,
    forwarded,
    output,
    output_group,
    relay,
    rule,
    rule_counts,
    some_cpus,
    spread,
)
from kernel_support.traffic import Bench, bench, streams
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from lab.load.jobs import Frame, ReceiverJob, SenderJob, Stream
from lab.load.topology import Topology
from lab.netns import namespaces as netns
from lab.netns.netlink import Netlink
from lab.steps.functional_packets import datagram, observe

HEADER_BYTES = 42
SMALL_RING = ("--ring-frames", "1024")
"""Of 16 KiB each."""


@pytest.mark.parametrize(
    ("count", "payload_bytes", "rate_dps"),
    [
        pytest.param(1, 100, 1000, id="one of 100 bytes"),
        pytest.param(1000, 1400, 10_000, id="1,000 of 1,400 bytes"),
        pytest.param(200_000, 64, 50_000, id="200k at 50k/s"),
    ],
)
def test_all_is_delivered(shared_relay: Relay, count: int, payload_bytes: int, rate_dps: int) -> None:
    of = streams(1)
    with shared_relay.rules(rule(of[0])):
        offered, seen, counted = shared_relay.transfer(
            SenderJob(
                interface="g0", streams=of, count=count, rate_dps=rate_dps, payload_bytes=payload_bytes
            ),
            ReceiverJob(flows=forwarded(of, count), payload_bytes=payload_bytes),
        )
    assert offered == count
    assert_delivered(offered, seen, counted)
    assert counted.matched_bytes == counted.sent_bytes == count * payload_bytes
    assert sum(seen.received_bytes) == count * payload_bytes


@pytest.fixture(scope="module")
def jumbo() -> Iterator[Relay]:
    with bench(Topology(mtu=9000), "jumbo") as made, relay(made, "in0", options=SMALL_RING) as running:
        yield running


def test_every_size_passes_neither_padded_nor_cut(shared_relay: Relay) -> None:
    assert_sizes_pass(shared_relay, (0, 1, 18, 46, 64, 1472))


def test_jumbo_datagrams_pass_neither_padded_nor_cut(jumbo: Relay) -> None:
    assert_sizes_pass(jumbo, (0, 1, 1472, 1473, 8972))


def assert_sizes_pass(running: Relay, sizes: Sequence[int]) -> None:
    of = streams(1)
    payloads = [bytes((size + i + n) & 0xFF for i in range(size)) for size in sizes for n in range(20)]
    with running.rules(rule(of[0])):
        frames = send_frames(running, [bytes(datagram(p, group="239.1.0.0")) for p in payloads])
    arrived = [bytes.fromhex(frame.data) for frame in frames]
    assert [frame[HEADER_BYTES:] for frame in arrived] == payloads
    assert [Ether(frame)[UDP].len for frame in arrived] == [8 + len(payload) for payload in payloads]


def send_frames(running: Relay, frames: Sequence[bytes]) -> Sequence[Frame]:
    """Send ``frames`` as they are; what came out at ``r0``, once all of it was forwarded."""
    offered, seen, counted = running.transfer(
        SenderJob(interface="g0", frames=tuple(frame.hex() for frame in frames), rate_dps=10_000),
        ReceiverJob(
            interfaces=("r0",),
            full=True,
            keep_frames=2 * len(frames),
            mtu=running.bench.lab.topology.mtu,
        ),
    )
    assert offered == counted.received == counted.matched == counted.sent == len(frames)
    assert counted.dropped == {}
    return seen.captured


def test_a_copy_on_each_of_three_interfaces(shared_relay: Relay) -> None:
    of = streams(1)
    with shared_relay.rules(rule(of[0], "out0", "out1", "out2")):
        offered, seen, counted = shared_relay.transfer(
            SenderJob(interface="g0", streams=of, count=5000, rate_dps=10_000),
            ReceiverJob(flows=forwarded(of, 5000, "r0", "r1", "r2"), payload_bytes=64),
        )
    assert offered == 5000
    assert_delivered(offered, seen, counted, copies=3)
    assert seen.received == (5000, 5000, 5000)


def test_two_groups_on_one_interface(shared_relay: Relay) -> None:
    (stream,) = of = streams(1)
    groups = (output_group(stream.group), output_group(stream.group) + 1)
    outputs = [output(group) for group in groups]
    expected = forwarded(of, 10_000)
    with shared_relay.rules(rule(stream, outputs=outputs)):
        offered, seen, counted = shared_relay.transfer(
            SenderJob(interface="g0", streams=of, count=10_000, rate_dps=20_000),
            ReceiverJob(flows=(*expected, expected[0].model_copy(update={"group": groups[1]}))),
        )
    assert_delivered(offered, seen, counted, copies=2)
    assert seen.received == (10_000, 10_000)


def test_three_rules_at_once_count_for_themselves(shared_relay: Relay) -> None:
    of = streams(3)
    with shared_relay.rules(*map(rule, of)):
        offered, seen, counted = shared_relay.transfer(
            SenderJob(interface="g0", streams=of, count=30_000, rate_dps=60_000),
            ReceiverJob(flows=forwarded(of, 10_000), payload_bytes=64),
        )
        by_rule = rule_counts(shared_relay.forwarder.stats())
    assert_delivered(offered, seen, counted)
    assert by_rule == {rule(stream)["rule_id"]: (10_000, 10_000) for stream in of}
    assert seen.received == (10_000, 10_000, 10_000)


@pytest.mark.parametrize("count", [1, 2, 10, 50])
def test_streams_of_2k_a_second_lose_nothing(shared_relay: Relay, count: int) -> None:
    of = streams(count)
    with shared_relay.rules(*map(rule, of)):
        assert shared_relay.forwarder.stats()["memberships"] == count
        offered, seen, counted = shared_relay.transfer(
            SenderJob(interface="g0", streams=of, count=1000 * count, rate_dps=2000 * count),
            ReceiverJob(flows=forwarded(of, 1000), payload_bytes=64),
        )
        by_rule = rule_counts(shared_relay.forwarder.stats())
    assert_delivered(offered, seen, counted)
    assert seen.received == (1000,) * count
    assert set(by_rule.values()) == {(1000, 1000)}


def test_what_has_no_rule_is_counted_until_it_has_one(shared_relay: Relay) -> None:
    of = streams(2)
    before = shared_relay.forwarder.stats()

    def send(chosen: Sequence[Stream]) -> None:
        count = 2000 * len(chosen)
        shared_relay.bench.transfer_all(
            spread(SenderJob(interface="g0", streams=tuple(chosen), count=count, rate_dps=20_000)),
            ReceiverJob(interfaces=("r0",)),
        )

    send(of[:1])
    with shared_relay.rules(rule(of[0])):
        send(of[:1])
        with shared_relay.rules(rule(of[1])):
            send(of)
            stats = shared_relay.forwarder.stats()
    counted = counts(stats, before)
    assert counted.dropped == {"no_rule": 2000}
    assert (counted.received, counted.matched, counted.sent) == (8000, 6000, 6000)
    assert sorted(rule_counts(stats).values()) == [(2000, 2000), (4000, 4000)]


def test_every_worker_has_its_share_of_32_flows(shared_relay: Relay) -> None:
    if len(some_cpus()) < 2:
        pytest.skip("steering to another CPU needs two")
    (first,) = streams(1)
    of = tuple(first.model_copy(update={"stream_id": n, "source_port": 4000 + n}) for n in range(32))
    with shared_relay.rules(rule(first)):
        offered, seen, counted = shared_relay.transfer(
            SenderJob(interface="g0", streams=of, count=32_000, rate_dps=100_000),
            ReceiverJob(flows=forwarded(of, 1000), payload_bytes=64),
        )
    assert offered == 32_000
    assert_delivered(offered, seen, counted)
    assert min(counted.per_worker) > 0


def test_a_rule_removed_under_traffic_stops_and_others_go_on(shared_relay: Relay) -> None:
    kept, removed = of = streams(2)
    before = shared_relay.forwarder.stats()
    shared_relay.ask("add", rules=[rule(kept), rule(removed)])

    def matched(stream: Stream) -> int:
        return rule_counts(shared_relay.forwarder.stats())[rule(stream)["rule_id"]][0]

    job = SenderJob(interface="g0", streams=of, count=320_000, rate_dps=40_000)
    with shared_relay.bench.transferring(spread(job), ReceiverJob(flows=forwarded(of, 160_000))) as transfer:
        eventually(lambda: matched(removed) >= 1000, "1,000 datagrams matched")
        shared_relay.ask("remove", rule_id=rule(removed)["rule_id"])
        so_far = matched(kept)
        eventually(lambda: matched(kept) >= so_far + 1000, "the other one goes on")
        transfer.stop()
    stats = shared_relay.forwarder.stats()
    shared_relay.ask("remove", rule_id=rule(kept)["rule_id"])
    seen, counted = transfer.seen, counts(stats, before)
    assert rule_counts(stats) == {rule(kept)["rule_id"]: (seen.received[0], seen.received[0])}
    assert seen.lost[0] == 0
    assert seen.received[1] >= 1000
    assert counted.dropped == {"no_rule": seen.lost[1]}
    assert seen.lost[1] > 0
    assert counted.matched == counted.sent == sum(seen.received) == transfer.offered - seen.lost[1]
    assert (sum(seen.duplicated), sum(seen.reordered), sum(seen.corrupted)) == (0, 0, 0)


def test_rules_come_and_go_while_traffic_flows(shared_relay: Relay) -> None:
    (first,) = streams(1)
    of = tuple(first.model_copy(update={"stream_id": n, "source_port": 4000 + n}) for n in range(32))
    others = [rule(stream) for stream in streams(64, first=1)]
    job = SenderJob(interface="g0", streams=of, count=320_000, rate_dps=40_000)
    before = shared_relay.forwarder.stats()
    with shared_relay.rules(rule(first)), Client(shared_relay.forwarder.control_path) as client:
        receiving = ReceiverJob(flows=forwarded(of, 10_000), payload_bytes=64)
        with shared_relay.bench.transferring(spread(job), receiving) as transfer:
            eventually(lambda: counts(shared_relay.forwarder.stats(), before).matched, "traffic flows")
            for _ in range(5):
                assert client.ask("add", rules=others)["ok"]
                for one in others:
                    assert client.ask("remove", rule_id=one["rule_id"])["ok"]
            transfer.stop()
        counted = counts(shared_relay.forwarder.stats(), before)
    assert transfer.offered < 320_000, "all of that was under load"
    assert_delivered(transfer.offered, transfer.seen, counted)


@contextmanager
def held_up(running: Relay) -> Iterator[None]:
    """Workers that are stopped for the length of a ``with`` block, so that their rings fill."""
    pids = [worker["pid"] for worker in running.forwarder.stats()["workers"]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_an_ordinary_socket_gets_every_payload_as_it_was(shared_relay: Relay) -> None:
    """Also of what was coalesced: a worker that was held up finds its ring full and sends GSO frames."""
    of, cpu = streams(2), some_cpus()[0]
    stats = shared_relay.forwarder.stats()
    receiving = ReceiverJob(flows=forwarded(of, 1000), payload_bytes=1400, mode="udp")
    with shared_relay.rules(*map(rule, of)):
        with shared_relay.bench.transferring([], receiving) as transfer:
            job = SenderJob(
                interface="g0", streams=of, count=2000, rate_dps=20_000, payload_bytes=1400, cpu=cpu
            )
            with held_up(shared_relay):
                sender = shared_relay.bench.sender(job)
                sender.ready()
                sender.go()
                sender.report()
            eventually(
                lambda: counts(shared_relay.forwarder.stats(), stats).sent == 2000, "2,000 copies sent"
            )
        after = shared_relay.forwarder.stats()
    assert_intact(transfer.seen)
    assert transfer.seen.received == (1000, 1000)
    assert counts(after, stats).dropped == {}
    frames = after["totals"]["frames_sent"] - stats["totals"]["frames_sent"]
    assert frames <= 200, "2,000 datagrams of 1,400 bytes fit into 44 frames"


def test_ordinary_sockets_at_both_ends(shared_relay: Relay) -> None:
    """Nothing of the lab's takes part: sockets send and receive payloads of every kind of size."""
    chance = random.Random(5)
    sizes = [0, 1, 2, 18, 46, 64, 1471, 1472, *(chance.randrange(1473) for _ in range(500))]
    payloads = [chance.randbytes(size) for size in sizes]
    lab, of = shared_relay.bench.lab, streams(1)
    receive = [sys.executable, udp_receiver.__file__, "10.20.0.2", "239.2.0.0", "5002"]
    send = [sys.executable, udp_sender.__file__, "10.10.0.1", "239.1.0.0", "5001", "-"]
    with (
        shared_relay.rules(rule(of[0])),
        netns.spawn(lab.rcv, receive, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as receiver,
    ):
        assert receiver.stdout
        assert receiver.stdout.readline() == "ready\n"
        netns.run(lab.gen, send, input="".join(payload.hex() + "\n" for payload in payloads))
        eventually(
            lambda: rule_counts(shared_relay.forwarder.stats())[rule(of[0])["rule_id"]][1] == len(payloads),
            "every copy sent",
        )
        received, _ = receiver.communicate(timeout=30)
    assert [bytes.fromhex(line) for line in received.split("\n")[:-1]] == payloads


def send_held_up(running: Relay, frames: Sequence[bytes]) -> Sequence[Frame]:
    """The same for a worker that finds all of them in its ring at once."""
    stats = running.forwarder.stats()
    receiving = ReceiverJob(interfaces=("r0",), full=True, keep_frames=2 * len(frames))
    job = SenderJob(
        interface="g0",
        frames=tuple(frame.hex() for frame in frames),
        rate_dps=10_000,
        cpu=some_cpus()[0],
    )
    with running.bench.transferring([], receiving) as transfer:
        with held_up(running):
            sender = running.bench.sender(job)
            sender.ready()
            sender.go()
            sender.report()
        eventually(
            lambda: (
                counts(running.forwarder.stats(), stats).matched == len(frames) and running.owes_nothing()
            ),
            "all copies sent",
        )
    return transfer.seen.captured


@contextmanager
def feature(namespace: str, interface: str, name: str, on: bool) -> Iterator[None]:
    """A device feature of ``interface`` other than it is in a lab."""
    with Netlink(namespace) as netlink:
        netlink.set_features(interface, {name: on})
        try:
            yield
        finally:
            netlink.set_features(interface, {name: not on})


@pytest.mark.parametrize(
    ("options", "filled", "frames_sent"),
    [
        pytest.param((), True, (70, 90), id="filled in"),
        pytest.param(("--zero-checksum", "keep"), False, (200, 220), id="kept"),
        pytest.param(("--no-coalesce",), True, (300, 300), id="each by itself"),
    ],
)
def test_checksums_leave_right_or_filled_in_or_as_wrong_as_they_came(
    mcrd_bench: Bench, options: Sequence[str], filled: bool, frames_sent: tuple[int, int]
) -> None:
    """On one output the capture sees what is on the wire, as nothing is left to a device. On the other an
    ordinary socket gets it.

    Three flows: without checksums, with right ones, and by turns right, missing and wrong. A wrong one leaves
    alone: together with others it would get a right one, from the kernel that cuts the frame.
    """
    kinds = {4000: ["absent"], 4001: ["right"], 4002: ["right", "absent", "wrong"]}
    frames, expected = [], []
    for number in range(300):
        port = 4000 + number % 3
        kind = kinds[port][number // 3 % len(kinds[port])]
        packet = datagram(b"datagram %4d" % number, group="239.1.0.0", sport=port)
        if kind == "absent":
            packet[UDP].chksum = 0
        frame = bytearray(bytes(packet))
        frame[-1] ^= 0xFF if kind == "wrong" else 0
        frames.append(bytes(frame))
        expected.append((frame[HEADER_BYTES:].hex(), "right" if kind == "absent" and filled else kind))
    lab = mcrd_bench.lab
    receive = [sys.executable, udp_receiver.__file__, "10.20.1.2", "239.2.0.0", "5002"]
    with (
        feature(lab.fwd, "out0", "tx-checksum-ip-generic", on=False),
        feature(lab.fwd, "out1", "tx-checksum-ip-generic", on=False),
        relay(mcrd_bench, "in0", rule(streams(1)[0], "out0", "out1"), options=options) as running,
        netns.spawn(lab.rcv, receive, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as receiver,
    ):
        assert receiver.stdout
        assert receiver.stdout.readline() == "ready\n"
        captured = send_held_up(running, frames)
        received, _ = receiver.communicate(timeout=30)
        totals = running.forwarder.stats()["totals"]
    assert all(frame.checksum_ready for frame in captured)
    seen = [observe(frame.interface, bytes.fromhex(frame.data), True) for frame in captured]
    assert sorted((one["payload"], one["UDP checksum"]) for one in seen) == sorted(expected)
    assert {one["IP checksum"] for one in seen} == {"right"}
    assert sorted(received.split()) == sorted(payload for payload, kind in expected if kind != "wrong")
    assert frames_sent[0] <= totals["frames_sent"] / 2 <= frames_sent[1]


@pytest.mark.parametrize("segment_bytes", [None, 103], ids=["partial checksums", "GSO of 103 bytes"])
def test_a_local_socket_with_offloads_is_forwarded_intact(
    shared_relay: Relay, segment_bytes: int | None
) -> None:
    of = streams(1)
    datagrams = 400
    payloads = [udp_sender.payload(number, 103) for number in range(datagrams)]
    before = shared_relay.forwarder.stats()
    receiving = ReceiverJob(interfaces=("r0",), full=True, keep_frames=2 * datagrams)
    with (
        feature(shared_relay.bench.lab.gen, "g0", "tx-udp-segmentation", on=True),
        shared_relay.rules(rule(of[0])),
        shared_relay.bench.transferring([], receiving) as transfer,
    ):
        command = [sys.executable, udp_sender.__file__, "10.10.0.1", "239.1.0.0", "5001", str(datagrams)]
        command += [str(segment_bytes)] if segment_bytes else []
        with held_up(shared_relay):
            netns.run(shared_relay.bench.lab.gen, command)
        eventually(
            lambda: counts(shared_relay.forwarder.stats(), before).sent == datagrams, "all copies sent"
        )
    after = shared_relay.forwarder.stats()
    frames = after["totals"]["frames_received"] - before["totals"]["frames_received"]
    assert frames == (datagrams if segment_bytes is None else -(-datagrams // udp_sender.SEGMENTS))
    assert after["totals"]["frames_sent"] - before["totals"]["frames_sent"] <= 10, "datagrams leave together"
    seen = [
        observe(frame.interface, bytes.fromhex(frame.data), frame.checksum_ready)
        for frame in transfer.seen.captured
    ]
    assert [one["payload"] for one in seen] == [payload.hex() for payload in payloads]
    assert {(one["UDP checksum"], one["IP checksum"]) for one in seen} == {("right", "right")}
    assert counts(after, before).dropped == {}


def test_busy_polling_spares_the_wake_ups(mcrd_bench: Bench) -> None:
    of = streams(1)
    options = ["--busy-poll-us", "5000"]
    with relay(mcrd_bench, "in1", rule(of[0], input_interface="in1"), options=options) as running:
        before = running.forwarder.stats()
        offered, seen, counted = running.transfer(
            SenderJob(interface="g1", streams=of, count=10_000, rate_dps=20_000),
            ReceiverJob(flows=forwarded(of, 10_000), payload_bytes=64),
        )
        after = running.forwarder.stats()
    assert_delivered(offered, seen, counted)
    wakeups = after["totals"]["wakeups"] - before["totals"]["wakeups"]
    assert wakeups < 1000, "datagrams 50 µs apart, and a worker that looks for 5 ms before it sleeps"
