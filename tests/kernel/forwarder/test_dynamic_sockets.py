"""Input interfaces that come with rules: opened for the first, closed with the last, nobody restarted."""

from __future__ import annotations

from collections import Counter

import pytest
from kernel_support.mcrd import Relay, assert_delivered, eventually, forwarded, relay, rule
from kernel_support.traffic import Bench, streams
from kernel_support.wires import Port, Wiring

from lab.load.jobs import ReceiverJob, SenderJob
from lab.netns import namespaces as netns
from lab.netns.netlink import Netlink
from lab.peers.base import PeerError

WORKERS = 2


def packet_sockets(bench: Bench) -> Counter[str]:
    """The kernel's own list of packet sockets in the forwarder's namespace, by interface."""
    with Netlink(bench.lab.fwd) as netlink:
        names = {str(link["index"]): link.get("ifname") for link in netlink.links()}
    _, *lines = netns.run(bench.lab.fwd, ["cat", "/proc/net/packet"]).splitlines()
    bound = (line.split()[4] for line in lines)
    return Counter(names[index] for index in bound if index in names)


def pids(running: Relay) -> list[int]:
    return [worker["pid"] for worker in running.ask("list-workers")["workers"]]


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        pytest.param("pool", (), id="pool"),
        pytest.param("rule-hash", (), id="rule hash"),
        pytest.param("rule-hash", ("--steering", "filter"), id="filter"),
    ],
)
def test_sockets_come_with_the_first_rule_and_go_with_the_last(
    mcrd_bench: Bench, strategy: str, options: tuple[str, ...]
) -> None:
    first, second = streams(8), streams(8, 8)
    on_second = [rule(stream, input_interface="in1") for stream in second]
    others = packet_sockets(mcrd_bench)
    with relay(mcrd_bench, "", strategy=strategy, workers=WORKERS, options=options) as running:
        began = pids(running)

        def sockets() -> Counter[str]:
            return packet_sockets(mcrd_bench) - others

        assert sockets() == {}
        assert running.forwarder.stats()["interfaces"] == []
        with running.rules(*map(rule, first)):
            assert sockets() == {"in0": WORKERS}
            # While in0 is busy, in1 comes and goes.
            before = running.forwarder.stats()["totals"]
            job = SenderJob(interface="g0", streams=first, count=160_000, rate_dps=10_000)
            receiving = ReceiverJob(flows=forwarded(first, 20_000), payload_bytes=64)
            with running.bench.transferring([job], receiving) as transfer:
                for _ in range(3):
                    added = running.ask("add", rules=on_second)
                    assert {entry["state"] for entry in added["added"]} == {"running"}
                    assert added["in_force_after_ns"] > 0
                    assert sockets() == {"in0": WORKERS, "in1": WORKERS}
                    for entry in on_second:
                        running.ask("remove", rule_id=entry["rule_id"])
                    assert sockets() == {"in0": WORKERS}
                transfer.stop()
            after = running.forwarder.stats()["totals"]
            assert after["matched"] - before["matched"] == transfer.offered < 160_000
            assert sum(transfer.seen.received) == transfer.offered
            with running.rules(*on_second):
                offered, seen, counted = running.transfer(
                    [
                        SenderJob(interface="g0", streams=first, count=8000, rate_dps=20_000),
                        SenderJob(interface="g1", streams=second, count=8000, rate_dps=20_000),
                    ],
                    ReceiverJob(flows=forwarded((*first, *second), 1000), payload_bytes=64),
                )
            assert offered == 16_000
            assert_delivered(offered, seen, counted)
        assert sockets() == {}
        assert pids(running) == began
        assert running.forwarder.stats()["memberships"] == 0


def test_rules_that_come_together_bring_all_of_their_interfaces(mcrd_bench: Bench) -> None:
    first, second = streams(4), streams(4, 4)
    entries = [*map(rule, first), *(rule(stream, input_interface="in1") for stream in second)]
    others = packet_sockets(mcrd_bench)
    with relay(mcrd_bench, "", strategy="pool", workers=WORKERS) as running:
        added = running.ask("add", rules=entries)["added"]
        assert {entry["state"] for entry in added} == {"running"}
        assert packet_sockets(mcrd_bench) - others == {"in0": WORKERS, "in1": WORKERS}
        config = {"strategy": "pool", "num_workers": WORKERS, "rules": []}
        assert len(running.ask("apply", config=config)["rules_removed"]) == 8
        assert packet_sockets(mcrd_bench) - others == {}
        config["rules"] = entries
        assert len(running.ask("apply", config=config)["rules_added"]) == 8
        assert packet_sockets(mcrd_bench) - others == {"in0": WORKERS, "in1": WORKERS}


def test_a_rule_waits_for_its_interface_and_gets_its_sockets_when_that_appears(
    mcrd_bench: Bench, wires: Wiring
) -> None:
    of = streams(8)
    near, far = Port(mcrd_bench.lab.gen, "dyn-g"), Port(mcrd_bench.lab.fwd, "dyn", "10.77.0.2")
    entries = [rule(stream, input_interface="dyn") for stream in of]
    with relay(mcrd_bench, "", strategy="rule-hash", workers=WORKERS) as running, running.rules(*entries):
        began = pids(running)

        def states() -> set[str]:
            return {entry["state"] for entry in running.forwarder.stats()["rules"]}

        assert states() == {"waiting"}
        for _ in range(2):
            with wires.wire(near, far):
                eventually(lambda: states() == {"running"}, "rules run")
                assert packet_sockets(mcrd_bench)["dyn"] == WORKERS
                offered, seen, counted = running.transfer(
                    SenderJob(interface="dyn-g", streams=of, count=8000, rate_dps=20_000),
                    ReceiverJob(flows=forwarded(of, 1000), payload_bytes=64),
                )
                assert_delivered(offered, seen, counted)
                assert all(counted.per_worker)
            eventually(lambda: states() == {"waiting"}, "rules wait")
        assert pids(running) == began


def test_steering_by_rule_outlives_an_interface_that_goes_down_and_up(
    mcrd_bench: Bench, wires: Wiring
) -> None:
    """The kernel takes the sockets out of their group and puts them back: in the order they were made."""
    of = streams(30)
    port = Port(mcrd_bench.lab.fwd, "in2")
    entries = [rule(stream, input_interface="in2") for stream in of]
    with relay(mcrd_bench, "in2", *entries, strategy="rule-hash", workers=5) as running:
        for _ in range(3):
            wires.switch(port, "down")
            wires.switch(port, "up")
            wires.await_up(port)
            offered, seen, counted = running.transfer(
                SenderJob(interface="g2", streams=of, count=3000, rate_dps=15_000),
                ReceiverJob(flows=forwarded(of, 100), payload_bytes=64),
            )
            assert_delivered(offered, seen, counted)


def test_a_rule_outside_the_configuration_is_refused_naming_both(mcrd_bench: Bench) -> None:
    of = streams(1)
    with relay(mcrd_bench, "in0,in1", strategy="pool") as running:
        with pytest.raises(PeerError, match=r"'in2' of rule 'in2-239.1.0.0'.*workers serve: in0, in1"):
            running.ask("add", rules=[rule(of[0], input_interface="in2")])
        assert running.ask("list")["rules"] == []
    refused = pytest.raises(PeerError, match=r"'in2' of rule 'in2-239.1.0.0'; allowed: .*serve: in0")
    with refused, relay(mcrd_bench, "in0", rule(of[0], input_interface="in2")):
        pass
