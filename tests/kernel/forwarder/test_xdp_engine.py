"""The XDP engine on real interfaces: what leaves, what is counted, and that nothing stays attached."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from kernel_support import udp_sender
from kernel_support.mcrd import eventually
from kernel_support.traffic import Bench, bench, streams
from kernel_support.xdp_probe import Probe, probe
from packet_support.frames import Datagram
from packet_support.outputs import Output as Expected
from paths import TESTS

from forwarder.abi.netdev import XDP_REDIRECT, XDP_TRANSMIT
from forwarder.engines.xdp.engine import XdpEngine
from forwarder.engines.xdp.suitability import UnsuitedError
from forwarder.net.links import InterfaceState
from forwarder.rules.model import ForwardingRule
from lab.load.jobs import Flow, ReceiverJob, ReceiverReport, SenderJob, SenderReport, Stream
from lab.load.topology import Topology
from lab.netns import namespaces as netns
from lab.netns.netlink import Netlink
from lab.steps.functional_packets import observe

OUTPUTS = 8


@pytest.fixture(scope="module")
def made() -> Iterator[Bench]:
    with bench(Topology(outputs=OUTPUTS, napi=True), "xdp") as standing:
        # A veth end takes redirected frames only while its peer uses NAPI.
        with Netlink(standing.lab.rcv) as netlink:
            for link in standing.lab.outputs:
                netlink.set_features(link.receiver.interface, {"rx-gro": True})
        yield standing


@pytest.fixture
def engine(made: Bench) -> Iterator[Probe]:
    with probe(made.lab.fwd, str(TESTS)) as running:
        yield running
    assert attached(made) == []


def attached(made: Bench) -> list[str]:
    """Interfaces of the forwarder with an XDP program."""
    shown = json.loads(netns.run(made.lab.fwd, ["ip", "-json", "link"]))
    return [link["ifname"] for link in shown if "xdp" in link]


def rule(stream: Stream, outputs: Sequence[int], **more: Any) -> ForwardingRule:
    """A rule for a stream; its copies go to 239.2.2.N:6000+N on output N."""
    return ForwardingRule.model_validate(
        {
            "input_interface": "in0",
            "input_group": str(stream.group),
            "input_port": stream.port,
            "outputs": [
                {"group": f"239.2.2.{number}", "port": 6000 + number, "interface": f"out{number}", **more}
                for number in outputs
            ],
        }
    )


def flows(of: Sequence[Stream], outputs: Sequence[int], sequences: int) -> tuple[Flow, ...]:
    return tuple(
        Flow(
            interface=f"r{number}",
            group=IPv4Address(f"239.2.2.{number}"),
            port=6000 + number,
            stream_id=stream.stream_id,
            sequences=sequences,
        )
        for number in outputs
        for stream in of
    )


def carry(
    made: Bench, of: Sequence[Stream], outputs: Sequence[int], count: int, generator: str, **receive: Any
) -> tuple[SenderReport, ReceiverReport]:
    send = SenderJob(interface="g0", streams=of, count=count, rate_dps=20_000, generator=generator, batch=16)
    job = ReceiverJob(flows=flows(of, outputs, count), payload_bytes=64, **receive)
    return made.transfer(send, job)


@pytest.mark.parametrize("generator", ["xdp", "packet"])
@pytest.mark.parametrize("outputs", [[0], [*range(OUTPUTS)]], ids=["one", "eight"])
def test_every_datagram_arrives_once_at_each_output_and_every_copy_is_accounted_for(
    made: Bench, engine: Probe, outputs: list[int], generator: str
) -> None:
    of = streams(4)
    assert engine.add(*(rule(stream, outputs) for stream in of)) == {}
    sent, seen = carry(made, of, outputs, 4_000, generator)
    assert sent.generator == generator
    assert (sum(seen.lost), sum(seen.duplicated), sum(seen.corrupted)) == (0, 0, 0)
    assert (seen.unexpected, seen.malformed, sum(seen.received)) == (0, 0, 4_000 * len(outputs))
    counts = engine.ask("counts")
    assert counts["matched"] == 4_000
    assert counts["due"] == counts["sent"] == 4_000 * len(outputs)
    assert {name: count for name, count in counts["reasons"].items() if count} == {}
    assert [each["matched"] for each in counts["rules"]] == [1_000] * 4
    assert [each["handed_over"] for each in counts["rules"]] == [1_000 * len(outputs)] * 4
    assert counts["rules"][0]["matched_bytes"] == 64_000


@pytest.mark.parametrize("generator", ["xdp", "packet"])
def test_rules_that_share_outputs_keep_their_headers_apart(
    made: Bench, engine: Probe, generator: str
) -> None:
    """Byte for byte what scapy builds, with datagrams of eight rules in every queue of the kernel's."""
    of, outputs = streams(8), [*range(OUTPUTS)]
    rules = [rule(stream, outputs, ttl=10 + stream.stream_id) for stream in of]
    preserved = rules[3].model_dump(mode="json")
    for output in preserved["outputs"]:
        output["source"] = "preserve"
    rules[3] = ForwardingRule.model_validate(preserved)
    assert engine.add(*rules) == {}
    _, seen = carry(made, of, outputs, 800, generator, full=True, keep_frames=6_400)
    assert (sum(seen.received), len(seen.captured)) == (6_400, 6_400)
    links = {link.receiver.interface: link.sender for link in made.lab.outputs}
    for captured in seen.captured:
        frame = bytes.fromhex(captured.data)
        stream = of[int.from_bytes(frame[44:46], "big")]
        end = links[captured.interface]
        number = int(captured.interface[1:])
        output = Expected(
            group=f"239.2.2.{number}",
            port=6000 + number,
            ttl=10 + stream.stream_id,
            source="preserve" if stream.stream_id == 3 else "interface",
            link_source=end.address,
            link_mac=end.mac,
        )
        arrived = Datagram(
            source=stream.source,
            source_port=stream.source_port,
            payload=frame[42:],
            dont_fragment=bool(frame[20] & 0x40),
        )
        identification = int.from_bytes(frame[18:20], "big")
        assert frame == output.forwarded(arrived, identification), captured.interface


def test_a_rule_that_is_removed_or_replaced_under_traffic_loses_and_doubles_nothing(
    made: Bench, engine: Probe
) -> None:
    of = streams(2)
    first, second = rule(of[0], [0, 1]), rule(of[1], [0, 1])
    engine.add(first, second)
    send = SenderJob(interface="g0", streams=of, count=400_000, rate_dps=20_000, generator="xdp")
    job = ReceiverJob(flows=flows(of, [0, 1], 200_000), payload_bytes=64)
    with made.transferring([send], job) as transfer:
        for _ in range(10):
            engine.add(first)
        engine.remove(second)
        removed = engine.ask("counts")
        eventually(lambda: engine.ask("counts")["reasons"]["no_rule"] > 500, "datagrams without a rule")
        transfer.stop()
    counts, received = engine.ask("counts"), transfer.seen.received
    kept, taken = transfer.sent[0].per_stream
    assert sum(transfer.seen.duplicated) == 0
    assert (received[0], received[2]) == (kept, kept)
    assert 0 < received[1] == received[3] < taken
    assert removed["matched"] < counts["matched"] == kept + received[1]
    assert sum(received) == counts["sent"] == counts["due"] == 2 * counts["matched"]


def test_copies_to_outputs_that_cannot_take_them_are_counted(made: Bench, engine: Probe) -> None:
    of = streams(1)
    engine.add(rule(of[0], [0, 1, 2]))
    with Netlink(made.lab.rcv) as netlink:
        netlink.set_features("r1", {"rx-gro": False})
        try:
            with pytest.raises(UnsuitedError, match="out1 takes no redirected frames"):
                engine.add(rule(of[0], [0, 1]))
            _, seen = carry(made, of, [0, 2], 500, "packet")
        finally:
            netlink.set_features("r1", {"rx-gro": True})
    assert sum(seen.received) == 1_000
    counts = engine.ask("counts")
    assert (counts["due"], counts["sent"], counts["reasons"]["output_absent"]) == (1_500, 1_000, 500)
    engine.ask("refit")
    _, seen = carry(made, of, [0, 1, 2], 500, "packet")
    assert sum(seen.received) == 1_500


def test_a_spent_ttl_a_long_datagram_and_a_missing_output_each_have_their_count(
    made: Bench, engine: Probe
) -> None:
    of = streams(1)
    engine.add(rule(of[0], [0, 1]))
    one = replace(Datagram(), group=str(of[0].group), port=of[0].port, source="10.10.0.1", source_port=4000)
    frames = [replace(one, ttl=1), replace(one, payload=bytes(1_400)), replace(one, ttl=7)]
    with Netlink(made.lab.fwd) as netlink:
        index = {link.get("ifname"): link["index"] for link in netlink.links()}["out1"]
        netlink.change(index, mtu=1_300)
        try:
            engine.ask("refit")
            sender = SenderJob(interface="g0", frames=tuple(each.frame().hex() for each in frames), count=3)
            made.transfer(sender, ReceiverJob(flows=flows(of, [0], 1)))
        finally:
            netlink.change(index, mtu=1_500)
    counts = engine.ask("counts")
    assert (counts["matched"], counts["due"], counts["sent"]) == (3, 6, 3)
    reasons = {name: count for name, count in counts["reasons"].items() if count}
    assert reasons.pop("no_rule", 0) >= 0
    assert reasons == {"ttl_expired": 2, "too_big": 1}


@pytest.mark.parametrize("segment_bytes", [[], ["103"]], ids=["", "segments"])
def test_a_local_sockets_datagrams_leave_with_whole_checksums(
    made: Bench, engine: Probe, segment_bytes: list[str]
) -> None:
    """It leaves checksums and segmentation to the device, and XDP sees neither of it."""
    engine.add(rule(streams(1)[0], [0]))
    payloads = [udp_sender.payload(number).hex() for number in range(200)]
    receiving = ReceiverJob(interfaces=("r0",), full=True, keep_frames=400)
    with made.transferring([], receiving) as transfer:
        command = [sys.executable, udp_sender.__file__, "10.10.0.1", "239.1.0.0", "5001", "200"]
        netns.run(made.lab.gen, [*command, *segment_bytes])
        eventually(lambda: engine.ask("counts")["sent"] == 200, "all copies sent")
    seen = [
        observe("r0", bytes.fromhex(frame.data), frame.checksum_ready) for frame in transfer.seen.captured
    ]
    assert [one["payload"] for one in seen] == payloads
    assert {(one["UDP checksum"], one["IP checksum"]) for one in seen} == {("right", "right")}
    assert engine.ask("counts")["completed"] == 200


def test_an_output_interface_that_goes_and_comes_back_is_used_again(made: Bench, engine: Probe) -> None:
    of = streams(1)
    engine.add(rule(of[0], [0, 7]))
    link = made.lab.outputs[7]
    with Netlink(made.lab.fwd) as near, Netlink(made.lab.rcv) as far:
        netns.run(made.lab.fwd, ["ip", "link", "del", "out7"])
        _, seen = carry(made, of, [0], 300, "packet")
        assert sum(seen.received) == 300
        assert engine.ask("counts")["reasons"]["output_absent"] == 300
        engine.ask("refit")
        near.add_veth(
            {"ifname": "out7", "address": link.sender.mac, "mtu": 1_500},
            {"ifname": "r7", "address": link.receiver.mac, "mtu": 1_500},
            made.lab.rcv,
        )
        far.set_features("r7", {"rx-gro": True})
        for netlink, end in ((near, link.sender), (far, link.receiver)):
            there = {each.get("ifname"): each["index"] for each in netlink.links()}[end.interface]
            netlink.add_address(there, end.address, end.prefix_length)
            netlink.set_up(there)
    assert engine.ask("refit") == {}
    _, seen = carry(made, of, [0, 7], 300, "packet")
    assert sum(seen.received) == 600


def test_an_interface_with_another_program_is_refused_and_so_is_one_that_xdp_cannot_serve(
    made: Bench, engine: Probe
) -> None:
    of = streams(1)
    engine.add(rule(of[0], [0]))
    with probe(made.lab.fwd, str(TESTS)) as second:
        refused = second.add(rule(of[0], [0]))
        assert refused == {"in0": "input interface in0: another XDP program is attached to it"}
        with pytest.raises(UnsuitedError, match="2 outputs on out0"):
            second.add(rule(of[0], [0, 0]))
        loop = rule(of[0], [0]).model_copy(update={"input_interface": "lo"})
        assert "no native XDP" in second.add(loop)["lo"]
    assert attached(made) == ["in0"]
    engine.remove(rule(of[0], [0]))
    assert attached(made) == []


def test_nothing_stays_attached_when_the_process_is_killed(made: Bench) -> None:
    with probe(made.lab.fwd, str(TESTS)) as engine:
        engine.add(rule(streams(1)[0], [0, 1]))
        assert attached(made) == ["in0"]
        os.kill(engine.process.pid, signal.SIGKILL)
        engine.process.wait(20)
        assert attached(made) == []


@pytest.mark.parametrize(("outputs", "error"), [(8, UnsuitedError), (4, OSError)])
def test_an_addition_that_finds_no_room_changes_nothing(outputs: int, error: type[Exception]) -> None:
    """Whether rules or outputs are too many."""
    loopback = InterfaceState(1, "lo", up=True, mtu=1_500, mac=bytes(6), ipv4=bytes([127, 0, 0, 1]))
    able = XDP_REDIRECT | XDP_TRANSMIT
    rules = [rule(stream, [0]) for stream in streams(9)]
    with XdpEngine(
        {"out0": loopback}.get, rules=4 if outputs == 8 else 16, outputs=outputs, features=lambda _: able
    ) as engine:
        engine.add(rules[:3])
        with pytest.raises(error):
            engine.add(rules[3:])
        assert [one for one in rules if one in engine] == rules[:3]
        engine.add(rules[3:4])
        engine.remove(rules[:2])
        engine.add(rules[5:7])
        assert [one for one in rules if one in engine] == [*rules[2:4], *rules[5:7]]
