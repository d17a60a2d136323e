"""``mcrd supervisor --engine xdp``: XDP in front of the workers, each datagram forwarded once and counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from kernel_support.mcrd import (
    Relay,
    assert_intact,
    eventually,
    forwarded,
    load,
    output,
    output_group,
    relay,
    rule,
)
from kernel_support.traffic import Bench, bench, streams

from lab.load.jobs import Stream
from lab.load.topology import Topology
from lab.netns import namespaces as netns
from lab.netns.netlink import Netlink


@pytest.fixture(scope="module")
def made() -> Iterator[Bench]:
    with bench(Topology(inputs=2, outputs=2, napi=True), "xdpmcrd") as standing:
        with Netlink(standing.lab.rcv) as netlink:
            for name in ("r0", "r1"):
                netlink.set_features(name, {"rx-gro": True})
        yield standing


def attached(made: Bench) -> list[str]:
    shown = json.loads(netns.run(made.lab.fwd, ["ip", "-json", "link"]))
    return [link["ifname"] for link in shown if "xdp" in link]


@pytest.fixture
def running(made: Bench) -> Iterator[Relay]:
    with relay(made, "in0", options=("--engine", "xdp")) as started:
        yield started
    assert attached(made) == []


def carried(
    running: Relay, of: Sequence[Stream], each: int, *interfaces: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Statistics after ``each`` datagrams of every stream were forwarded whole, and how totals changed."""
    before = running.forwarder.stats()
    send, receive = load(of, each, 20_000)
    receive = receive.model_copy(update={"flows": forwarded(of, each, *interfaces)})
    _, seen = running.bench.transfer_all([send], receive)
    assert_intact(seen)
    assert sum(seen.received) == len(of) * each * max(1, len(interfaces))
    after = running.forwarder.stats()
    names = ("received", "matched", "sent")
    return after, {name: after["totals"][name] - before["totals"][name] for name in names}


def engines(running: Relay) -> set[str]:
    return {one["engine"] for one in running.ask("list")["engines"].values()}


def test_xdp_forwards_what_it_can_and_workers_the_rest(running: Relay, made: Bench) -> None:
    of = streams(2)
    single = rule(of[0], "out0", "out1")
    doubled = rule(of[1])
    doubled["outputs"].append({**output(output_group(of[1].group)), "port": 7_000})
    with running.rules(single, doubled):
        listed = running.ask("list")["engines"]
        assert listed[single["rule_id"]] == {"engine": "xdp", "engine_reason": None}
        assert listed[doubled["rule_id"]]["engine"] == "packet"
        assert "2 outputs on out0" in listed[doubled["rule_id"]]["engine_reason"]
        assert attached(made) == ["in0"]
        stats, change = carried(running, of[:1], 1_000, "r0", "r1")
        assert change == {"received": 1_000, "matched": 1_000, "sent": 2_000}
        assert (stats["xdp"]["counters"]["sent"], stats["xdp"]["inputs"]) == (2_000, ["in0"])
        assert sum(worker["counters"]["matched"] for worker in stats["workers"]) == 0
        of_rule = next(one for one in stats["rules"] if one["rule_id"] == single["rule_id"])
        assert (of_rule["matched"], of_rule["sent"], of_rule["sent_bytes"]) == (1_000, 2_000, 128_000)
        assert of_rule["first_datagram_after_ns"] > 0
        prometheus = running.ask("stats", format="prometheus")
        assert 'mcrd_xdp_total{what="sent"} 2000.0' in prometheus
    assert attached(made) == []


def test_a_rule_goes_to_workers_and_back_with_its_counts_as_its_output_can_take_frames_or_not(
    running: Relay, made: Bench
) -> None:
    of = streams(1)
    with (
        Netlink(made.lab.fwd) as near,
        Netlink(made.lab.rcv) as netlink,
        running.rules(rule(of[0])),
    ):
        carried(running, of, 500)
        beside = {link.get("ifname"): link["index"] for link in near.links()}["out1"]
        for merging, engine, mtu in ((False, "packet", 1_400), (True, "xdp", 1_500)):
            netlink.set_features("r0", {"rx-gro": merging})
            near.change(beside, mtu=mtu)  # mcrd looks at all interfaces then
            eventually(lambda expected=engine: engines(running) == {expected}, f"served by {engine}")
            carried(running, of, 500)
        stats = running.forwarder.stats()
    assert stats["xdp"]["counters"]["matched"] == 1_000
    (of_rule,) = stats["rules"]
    assert (of_rule["matched"], of_rule["sent"], of_rule["sent_bytes"]) == (1_500, 1_500, 96_000)


def test_rules_and_workers_change_beside_xdp(running: Relay) -> None:
    of = streams(2)
    running.ask("apply", config={"interface": "in0", "num_workers": 1, "rules": [rule(of[0])]})
    carried(running, of[:1], 300)
    running.ask("apply", config={"interface": "in0", "num_workers": 2, "rules": [rule(of[1])]})
    stats, change = carried(running, of[1:], 300)
    assert change == {"received": 300, "matched": 300, "sent": 300}
    assert stats["xdp"]["counters"]["matched"] == 600


def test_the_engine_is_changed_under_traffic_without_a_datagram_lost_or_doubled(
    running: Relay, made: Bench
) -> None:
    """Twice each way; a datagram in a worker's ring may be overtaken."""
    of = streams(4)
    config = {"interface": "in0", "num_workers": 1}
    with running.rules(*(rule(stream) for stream in of)):
        planned = running.ask("apply", config={**config, "engine": "packet"}, dry_run=True)
        assert (planned["engine"], planned["plan"]) == ({"now": "xdp", "wanted": "packet"}, None)
        send, receive = load(of, 10_000, 20_000)
        with made.transferring([send], receive) as transfer:
            for engine in ("packet", "xdp", "packet", "xdp"):
                running.ask("apply", config={**config, "engine": engine})
                assert engines(running) == {engine}
                assert attached(made) == (["in0"] if engine == "xdp" else [])
        stats = running.forwarder.stats()
    seen = transfer.seen
    assert (sum(seen.received), sum(seen.lost), sum(seen.duplicated)) == (40_000, 0, 0)
    matched = stats["xdp"]["counters"]["matched"]
    assert 0 < matched < 40_000
    assert matched + sum(worker["counters"]["matched"] for worker in stats["workers"]) == 40_000
    assert sum(one["matched"] for one in stats["rules"]) == stats["totals"]["sent"] == 40_000
