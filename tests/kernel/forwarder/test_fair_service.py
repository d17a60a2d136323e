"""One worker, several interfaces: what floods one of them takes nothing from another."""

from __future__ import annotations

import pytest
from kernel_support.mcrd import assert_intact, counts, forwarded, output, relay, rule, rule_counts, some_cpus
from kernel_support.traffic import Bench, streams

from lab.load.jobs import ReceiverJob, SenderJob

pytestmark = pytest.mark.serial

QUIET = 4000
QUIET_DPS = 4000
FLOODED_S = 1.5
"""Longer than the quiet ones take."""
COPIES = 8


def test_a_flooded_interface_takes_nothing_from_another_of_the_same_worker(mcrd_bench: Bench) -> None:
    """More arrives on in0 than one worker can send eight times; in1 has a datagram now and then."""
    (flood,), quiet = streams(1), streams(4, 1)
    groups = [f"239.9.0.{number}" for number in range(COPIES)]
    flooded = rule(flood, outputs=[output(group, "out1") for group in groups])
    served = [rule(stream, input_interface="in1") for stream in quiet]
    rings = ("--ring-frames", "2048")  # half of what the quiet ones send: some of it is lost if it must wait
    with relay(mcrd_bench, "in0,in1", flooded, *served, strategy="pool", workers=1, options=rings) as running:
        [worker] = running.ask("list-workers")["workers"]
        # Who sends on the worker's own CPU shares it with the worker: the flood may, the others not.
        elsewhere = next((cpu for cpu in some_cpus() if cpu != worker["cpu"]), worker["cpu"])
        before = running.forwarder.stats()
        sent, seen = mcrd_bench.transfer_all(
            [
                SenderJob(interface="g0", streams=(flood,), duration_s=FLOODED_S, cpu=worker["cpu"]),
                SenderJob(
                    interface="g1", streams=quiet, count=QUIET, rate_dps=QUIET_DPS, cpu=elsewhere, batch=1
                ),
            ],
            ReceiverJob(flows=forwarded(quiet, QUIET // len(quiet)), payload_bytes=64),
        )
        after = running.forwarder.stats()
        counted = counts(after, before)
    per_rule = rule_counts(after)
    flooding = sent[0].offered - sent[0].refused
    drops = {entry["name"]: entry["kernel_drops"] for entry in after["interfaces"]}
    assert drops["in0"] > flooding / 10  # it was too much
    assert drops["in1"] == 0
    assert per_rule[flooded["rule_id"]] == (flooding - drops["in0"], (flooding - drops["in0"]) * COPIES)
    assert counted.dropped == {"kernel": drops["in0"]}
    assert sent[1].offered == QUIET
    assert [per_rule[one["rule_id"]] for one in served] == [(QUIET // 4, QUIET // 4)] * 4
    assert_intact(seen)
    assert sum(seen.received) == QUIET
