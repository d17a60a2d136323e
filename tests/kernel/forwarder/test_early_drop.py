"""Early drop: the program by itself, and in front of a worker that does not keep up."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import pytest
from kernel_support.mcrd import (
    Relay,
    assert_intact,
    counts,
    eventually,
    forwarded,
    load,
    mcrctl,
    pid_of,
    relay,
    rule,
    runs_again,
    some_cpus,
)
from kernel_support.traffic import Bench, bench, streams
from kernel_support.wires import Port, Wiring
from packet_support.frames import Datagram
from packet_support.xdp import LOOPBACK, word
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from forwarder.abi import bpf
from forwarder.abi.bpf_object import Object, fields
from forwarder.engines.packet.schema import (
    LEVEL_ABOVE,
    LEVEL_COLUMNS,
    LEVEL_LET_THROUGH,
    LEVEL_LIMIT,
    LEVEL_PASSED,
    LEVEL_RELEASED,
)
from forwarder.engines.xdp.early_drop import OBJECT, RINGS, dropped
from lab.load.jobs import ReceiverJob, SenderJob
from lab.load.topology import SEGMENTATION, Topology
from lab.netns import namespaces as netns
from lab.netns.netlink import Netlink
from lab.peers.base import PeerError
from lab.peers.mcrd import account_of

ROW = 7
ETHER = Ether(dst="01:00:5e:01:01:01")
RING_FRAMES, LIMIT = 1_024, 896
"""A ring, and how much of it may be full."""
OFFERED = 3_000
ON = ("--ring-frames", str(RING_FRAMES), "--early-drop", "on")


# -- the program --


class Program:
    def __init__(self) -> None:
        self.object = Object(OBJECT)
        columns = [f"c{number}" for number in range(LEVEL_COLUMNS)]
        memory = self.object.array("levels", np.dtype(fields(np.uint64, *columns)))
        self.level = memory.view(np.uint64).reshape(RINGS, LEVEL_COLUMNS)[ROW]
        self.object.map("rings").update(word(LOOPBACK), word(ROW))

    def passes(self, frame: bytes) -> bool:
        run = bpf.run_on_frame(self.object.program("early"), frame)
        assert run.frame == frame
        assert run.verdict in (bpf.XDP_PASS, bpf.XDP_DROP)
        return run.verdict == bpf.XDP_PASS

    def set(self, *, passed: int, released: int, limit: int = 100) -> None:
        for column, value in ((LEVEL_PASSED, passed), (LEVEL_RELEASED, released), (LEVEL_LIMIT, limit)):
            self.level[column] = value
        self.level[LEVEL_ABOVE] = 0


@pytest.fixture(scope="module")
def program() -> Program:
    return Program()


@pytest.mark.parametrize(("passed", "released"), [(99, 0), (1_000_099, 1_000_000), (5, 9)])
def test_below_the_limit_everything_passes_and_is_counted(
    program: Program, passed: int, released: int
) -> None:
    program.set(passed=passed, released=released)
    assert program.passes(Datagram().frame())
    assert (program.level[LEVEL_PASSED], program.level[LEVEL_ABOVE]) == (passed + 1, 0)


def test_at_the_limit_all_but_a_few_are_dropped_and_how_many_is_known(program: Program) -> None:
    program.set(passed=100, released=0)
    passed = [program.passes(Datagram().frame()) for _ in range(2 * LEVEL_LET_THROUGH + 1)]
    assert [place for place, one in enumerate(passed) if one] == [0, LEVEL_LET_THROUGH, 2 * LEVEL_LET_THROUGH]
    assert program.level[LEVEL_PASSED] == 103
    assert dropped(int(program.level[LEVEL_ABOVE])) == passed.count(False)
    program.level[LEVEL_RELEASED] = 4
    assert program.passes(Datagram().frame())


@pytest.mark.parametrize(
    "frame",
    [
        bytes(ETHER / IP(dst="10.1.1.1") / UDP() / bytes(20)),
        bytes(ETHER / IP(dst="224.0.0.251") / UDP() / bytes(20)),
        bytes(ETHER / IP(dst="239.1.1.1") / TCP()),
        bytes(ETHER / IP(dst="239.1.1.1") / ICMP()),
        bytes(ETHER / IPv6(dst="ff05::1") / UDP() / bytes(20)),
        bytes(ETHER / Dot1Q(vlan=5) / IP(dst="239.1.1.1") / UDP() / bytes(20)),
        bytes(ETHER / ARP()),
        Datagram().frame()[:33],
        bytes(14),
    ],
    ids=["unicast", "local-network", "tcp", "icmp", "ipv6", "tagged", "arp", "short", "empty"],
)
def test_what_is_not_the_workers_passes_whatever_the_level(program: Program, frame: bytes) -> None:
    program.set(passed=5_000, released=0)
    assert all(program.passes(frame) for _ in range(3))
    assert (program.level[LEVEL_PASSED], program.level[LEVEL_ABOVE]) == (5_003, 0)


def test_an_interface_without_a_level_is_left_alone(program: Program) -> None:
    program.set(passed=5_000, released=0)
    program.object.map("rings").delete(word(LOOPBACK))
    try:
        assert program.passes(Datagram().frame())
        assert program.level[LEVEL_PASSED] == 5_000
    finally:
        program.object.map("rings").update(word(LOOPBACK), word(ROW))


# -- in front of a worker --


@pytest.fixture(scope="module")
def made() -> Iterator[Bench]:
    with bench(Topology(inputs=2, outputs=1, napi=True), "early") as standing:
        yield standing


def attached(made: Bench) -> list[str]:
    shown = json.loads(netns.run(made.lab.fwd, ["ip", "-json", "link"]))
    return sorted(link["ifname"] for link in shown if "xdp" in link)


@pytest.fixture
def running(made: Bench) -> Iterator[Relay]:
    with relay(made, "in0", rule(*streams(1)), options=ON) as started:
        yield started
    assert attached(made) == []


def overload(
    running: Relay,
    meanwhile: Callable[[], None] = lambda: None,
    interface: str = "g0",
    offered: int = OFFERED,
) -> int:
    """Send while the one worker is held up: more than its ring holds. How many were dropped early.

    Everything that was offered is forwarded or counted, to the datagram.
    """
    before = running.forwarder.stats()
    job = SenderJob(
        interface=interface, streams=streams(1), count=offered, rate_dps=50_000, cpu=some_cpus()[0]
    )
    receive = ReceiverJob(flows=forwarded(streams(1), offered), payload_bytes=64)
    os.kill(pid := pid_of(running, 0), signal.SIGSTOP)
    with ExitStack() as stack:
        held_up = stack.enter_context(ExitStack())
        held_up.callback(go_on, pid)
        transfer = stack.enter_context(running.bench.transferring([job], receive))
        eventually(lambda: came(running, before) >= offered, "all have arrived or been dropped")
        meanwhile()
        held_up.close()
        eventually(running.owes_nothing, "all is forwarded")
    after = running.forwarder.stats()
    counted = counts(after, before)
    assert sum(report.offered - report.refused for report in transfer.sent) == offered
    lost = [sum(account_of(stats, 1).ingress.values()) for stats in (before, after)]
    assert offered == counted.matched + lost[1] - lost[0]
    assert counted.matched == counted.sent == sum(transfer.seen.received)
    return counted.dropped.get("early", 0)


def go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def came(running: Relay, before: dict[str, Any]) -> int:
    names = ("arrived_frames", "early_drops")
    now, then = (
        sum(entry[name] for entry in stats["interfaces"] for name in names)
        for stats in (running.forwarder.stats(), before)
    )
    return now - then


def assert_forwards(running: Relay, count: int = 500) -> None:
    offered, seen, counted = running.transfer(*load(streams(1), count, 10_000))
    assert_intact(seen)
    assert (offered, sum(seen.received), counted.dropped) == (count, count, {})


FEWEST = OFFERED - LIMIT - OFFERED // LEVEL_LET_THROUGH - 2
"""Datagrams of an overload that find the ring nearly full, but for those that are let through."""


def test_a_worker_that_is_held_up_loses_datagrams_in_the_driver_and_goes_on(
    running: Relay, made: Bench
) -> None:
    assert attached(made) == ["in0"]
    assert running.forwarder.stats()["early_drop"] == {"inputs": ["in0"], "refused": {}}
    assert_forwards(running)
    assert FEWEST <= overload(running) <= OFFERED - LIMIT
    assert_forwards(running)
    early = overload(running)
    (interface,) = (one for one in running.forwarder.stats()["interfaces"] if one["name"] == "in0")
    assert interface["early_drops"] > early
    prometheus = running.ask("stats", format="prometheus")
    assert f'mcrd_early_drops_total{{interface="in0"}} {interface["early_drops"]}.0' in prometheus
    shown = mcrctl(running.forwarder.control_path, "stats")
    assert f"dropped early on in0 {interface['early_drops']:,}" in " ".join(shown.stdout.split())


def test_a_worker_that_dies_leaves_no_level_behind_that_blocks_its_successor(running: Relay) -> None:
    def replace() -> None:
        before = pid_of(running, 0)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: runs_again(running, 0, before), "another process runs")

    assert overload(running, replace) >= FEWEST
    assert_forwards(running)
    assert overload(running, offered=LIMIT - 100) == 0


def test_another_plan_is_refused_where_it_cannot_have_early_drop_and_has_its_own_otherwise(
    running: Relay, made: Bench
) -> None:
    config = {"interface": "in0", "strategy": "fanout", "ring_frames": RING_FRAMES}
    dropped_before = overload(running)
    with pytest.raises(PeerError, match="auto or off: on in0, 2 workers share it"):
        running.ask("apply", config={**config, "num_workers": 2})
    with pytest.raises(PeerError, match="on in0, XDP forwards in front of the workers"):
        running.ask("apply", config={**config, "engine": "xdp"})
    running.ask("apply", config={**config, "num_workers": 1, "busy_poll_us": 1})
    assert running.forwarder.stats()["early_drop"]["inputs"] == ["in0"]
    assert_forwards(running)
    assert overload(running) >= FEWEST
    totals = {one["name"]: one["early_drops"] for one in running.forwarder.stats()["interfaces"]}
    assert totals["in0"] >= dropped_before + FEWEST
    assert attached(made) == ["in0"]


def test_an_interface_that_goes_and_comes_back_has_early_drop_again(made: Bench, wires: Wiring) -> None:
    late = rule(*streams(1), input_interface="late")
    near, far = Port(made.lab.gen, "late-g"), Port(made.lab.fwd, "late", "10.40.0.2")
    with relay(made, "late", late, options=ON) as running:
        total = 0
        for _ in range(2):
            with wires.wire(near, far):
                eventually(
                    lambda: running.forwarder.stats()["early_drop"]["inputs"] == ["late"], "late is served"
                )
                total += overload(running, interface="late-g")
            eventually(lambda: running.forwarder.stats()["early_drop"]["inputs"] == [], "late is gone")
        (entry,) = running.forwarder.stats()["interfaces"]
        assert entry["early_drops"] == total >= 2 * FEWEST


def test_nothing_stays_attached_when_the_supervisor_is_killed(made: Bench) -> None:
    with relay(made, "in0", rule(*streams(1)), options=ON) as running:
        assert attached(made) == ["in0"]
        os.kill(running.forwarder.process.pid, signal.SIGKILL)
        eventually(lambda: attached(made) == [], "nothing is attached")


def test_on_is_refused_where_it_cannot_be_and_auto_is_not_used_on_veth(made: Bench) -> None:
    several = "--early-drop: on; allowed: auto or off: on in0, 2 workers share it"
    with pytest.raises(PeerError, match=several), relay(made, "in0", workers=2, options=ON):
        pass
    taken = "--early-drop on cannot be: input interface in0: another XDP program is attached to it"
    with (
        relay(made, "in0", options=ON),
        pytest.raises(PeerError, match=taken),
        relay(made, "in0", options=ON),
    ):
        pass
    with relay(made, "in0") as running:
        assert attached(made) == []
        early = running.forwarder.stats()["early_drop"]
        assert early["inputs"] == []
        assert "no card behind it" in early["refused"]["in0"]


def test_a_program_on_veth_switches_off_segmentation_offload_at_the_other_end(made: Bench) -> None:
    """Why "auto" leaves veth alone."""
    with Netlink(made.lab.gen) as netlink:

        def offloaded() -> bool:
            return netlink.features("g1", ["tx-udp-segmentation"])["tx-udp-segmentation"]

        before = netlink.features("g1", SEGMENTATION)
        netlink.set_features("g1", dict.fromkeys(SEGMENTATION, True))
        try:
            assert offloaded()
            with relay(made, "in1", options=ON):
                assert not offloaded()
            assert offloaded()
        finally:
            netlink.set_features("g1", before)
