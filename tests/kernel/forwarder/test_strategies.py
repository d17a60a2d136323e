"""Every strategy forwards every datagram exactly once: flows over several inputs, several workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest
from kernel_support.mcrd import (
    Relay,
    Rule,
    assert_delivered,
    assert_intact,
    eventually,
    forwarded,
    relay,
    rule,
    spread,
)
from kernel_support.traffic import Bench, streams

from lab.load.jobs import ReceiverJob, SenderJob, Stream

FLOWS = 12
"""On each input. Enough that two workers both get some, whichever hash shares them out."""
DATAGRAMS = 3600
"""On each input: 300 a flow."""
RATE_DPS = 40_000
"""Of all inputs together."""


def on_inputs(inputs: int) -> list[tuple[Stream, ...]]:
    """Flows for each input, all of them to groups of their own."""
    return [streams(FLOWS, number * FLOWS) for number in range(inputs)]


def rules(of: Sequence[Sequence[Stream]]) -> list[Rule]:
    return [
        rule(stream, f"out{number % 3}", input_interface=f"in{number}")
        for number, flows in enumerate(of)
        for stream in flows
    ]


def carry(running: Relay, of: Sequence[Sequence[Stream]]) -> tuple[int, ...]:
    """Send on every input at once; all must be delivered, once. Datagrams matched by each worker."""
    jobs = [
        job
        for number, flows in enumerate(of)
        for job in spread(
            SenderJob(interface=f"g{number}", streams=flows, count=DATAGRAMS, rate_dps=RATE_DPS // len(of))
        )
    ]
    expected = [
        flow
        for number, flows in enumerate(of)
        for flow in forwarded(flows, DATAGRAMS // FLOWS, f"r{number % 3}")
    ]
    offered, seen, counted = running.transfer(jobs, ReceiverJob(flows=tuple(expected), payload_bytes=64))
    assert offered == DATAGRAMS * len(of)
    assert_delivered(offered, seen, counted)
    assert seen.received == (DATAGRAMS // FLOWS,) * len(expected)
    return counted.per_worker


@pytest.mark.parametrize(
    ("strategy", "inputs", "workers", "options", "processes"),
    [
        pytest.param("fanout", 1, 2, (), 2, id="fanout"),
        pytest.param("fanout-per-interface", 2, 2, (), 4, id="fanout per interface"),
        pytest.param("full-fanout", 3, 2, (), 6, id="full fanout"),
        pytest.param("pool", 3, 1, (), 1, id="pool of one"),
        pytest.param("pool", 3, 2, (), 2, id="pool of two"),
        pytest.param("pool", 2, 2, ("--steering", "hash"), 2, id="pool of two by flow hash"),
        pytest.param("hybrid", 3, 2, ("--groups", "2"), 4, id="hybrid"),
        pytest.param("hybrid-hash", 3, 2, ("--groups", "2"), 4, id="hybrid hash"),
        pytest.param("rule-hash", 2, 2, (), 2, id="rule hash"),
        pytest.param("rule-hash", 3, 5, (), 5, id="rule hash of five"),
        pytest.param("rule-hash", 2, 3, ("--hashing", "modulo"), 3, id="rule hash by modulo"),
        pytest.param("rule-hash", 2, 3, ("--steering", "filter"), 3, id="filter"),
        pytest.param(
            "rule-hash", 2, 2, ("--steering", "filter", "--hashing", "modulo"), 2, id="filter by modulo"
        ),
    ],
)
def test_every_datagram_is_delivered_once_and_every_worker_has_its_share(
    mcrd_bench: Bench, strategy: str, inputs: int, workers: int, options: tuple[str, ...], processes: int
) -> None:
    of = on_inputs(inputs)
    interfaces = ",".join(f"in{number}" for number in range(inputs))
    with relay(
        mcrd_bench, interfaces, *rules(of), strategy=strategy, workers=workers, options=options
    ) as running:
        shares = carry(running, of)
    assert len(shares) == processes
    assert all(shares), f"a worker without any: {shares}"


def test_workers_in_no_group_each_forward_a_copy(mcrd_bench: Bench) -> None:
    """What a pool comes to that leaves fanout out: the kernel hands every socket every datagram."""
    of = streams(2)
    options = ["--steering", "ungrouped"]
    with relay(mcrd_bench, "in0", *map(rule, of), strategy="pool", workers=3, options=options) as running:
        offered, seen, counted = running.transfer(
            SenderJob(interface="g0", streams=of, count=2000, rate_dps=5000),
            ReceiverJob(flows=forwarded(of, 1000), payload_bytes=64),
        )
    assert counted.per_worker == (2000, 2000, 2000)
    assert counted.sent == 3 * offered
    assert sum(seen.duplicated) == 2 * offered
    assert sum(seen.lost) == 0


@pytest.mark.parametrize("steering", ["cpu", "hash", "ungrouped"])
def test_what_reaches_the_wrong_worker_is_counted_as_that(mcrd_bench: Bench, steering: str) -> None:
    """Hashed rules without steering by rule: matched where the rule is, wrong_worker elsewhere, all told."""
    of, strangers = streams(FLOWS), streams(4, 100)
    options = ["--steering", steering]
    with relay(
        mcrd_bench, "in0", *map(rule, of), strategy="rule-hash", workers=2, options=options
    ) as running:
        offered, seen, counted = running.transfer(
            [
                *spread(SenderJob(interface="g0", streams=of, count=DATAGRAMS, rate_dps=24_000)),
                SenderJob(interface="g0", streams=strangers, count=1200, rate_dps=8000),
            ],
            ReceiverJob(flows=forwarded(of, DATAGRAMS // FLOWS), payload_bytes=64),
        )
        copies = 2 if steering == "ungrouped" else 1
        assert counted.received == copies * offered
        assert counted.dropped["no_rule"] == copies * 1200, "nobody has a rule for those"
        wrong = counted.dropped["wrong_worker"]
        assert counted.matched == counted.sent == copies * DATAGRAMS - wrong
        if steering == "ungrouped":
            assert counted.matched == DATAGRAMS
            assert_intact(seen)
        assert sum(seen.received) == counted.sent
        assert sum(seen.duplicated) == 0
        removed = f"in0-{of[0].group}"
        running.ask("remove", rule_id=removed)
        _, _, counted = running.transfer(
            SenderJob(interface="g0", streams=of[:1], count=500, rate_dps=5000),
            ReceiverJob(flows=forwarded(of[:1], 500), payload_bytes=64),
        )
    assert counted.dropped == {"no_rule": copies * 500}, "a rule that is gone is nobody's"


@pytest.mark.parametrize("options", [(), ("--steering", "filter")], ids=["kernel steering", "filter"])
def test_rules_come_and_go_where_they_are_hashed(mcrd_bench: Bench, options: tuple[str, ...]) -> None:
    of = on_inputs(2)
    with relay(mcrd_bench, "in0,in1", strategy="rule-hash", workers=3, options=options) as running:
        for _ in range(2):
            with running.rules(*rules(of)):
                assert all(carry(running, of))
                held = [worker["rules"] for worker in running.ask("list-workers")["workers"]]
                assert sum(held) == 2 * FLOWS
            assert [worker["rules"] for worker in running.ask("list-workers")["workers"]] == [0, 0, 0]


@pytest.mark.parametrize("options", [(), ("--steering", "filter")], ids=["kernel steering", "filter"])
def test_a_worker_that_was_killed_comes_back_to_its_own_share(
    mcrd_bench: Bench, options: tuple[str, ...]
) -> None:
    """Its socket kept its place among the members, so every rule still has its datagrams."""
    of = on_inputs(2)
    with relay(
        mcrd_bench, "in0,in1", *rules(of), strategy="rule-hash", workers=3, options=options
    ) as running:
        shares = carry(running, of)
        for number in range(3):
            victim = running.ask("list-workers")["workers"][number]
            os.kill(victim["pid"], signal.SIGKILL)

            def back(number: int = number, gone: int = victim["pid"]) -> bool:
                worker = running.ask("list-workers")["workers"][number]
                return worker["state"] == "running" and worker["pid"] != gone

            eventually(back, f"worker {number} is back")
            assert carry(running, of) == shares
