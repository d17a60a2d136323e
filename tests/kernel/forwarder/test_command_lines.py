"""The command lines of the architecture document, each with the workers that it names really started."""

from __future__ import annotations

import pytest
from kernel_support.mcrd import RING_FRAMES, Relay, assert_delivered, forwarded, rule
from kernel_support.traffic import Bench, streams

from lab.load.jobs import ReceiverJob, SenderJob
from lab.peers.mcrd import start_forwarder

GROUPS_OF_24 = "--interface-group 0:in0 --workers-per-group 24 --interface-group 1:in1 --workers-per-group 24"


@pytest.mark.parametrize(
    ("line", "strategy", "workers", "inputs"),
    [
        ("--interface in0 --num-workers 48", "fanout", 48, 1),
        (GROUPS_OF_24, "fanout-per-interface", 48, 2),
        ("--interface-group 0:in0,in1,in2 --num-workers 24", "hybrid", 24, 3),
        ("--interfaces in0,in1,in2", "pool", 1, 3),
        ("--interfaces in0,in1,in2 --num-workers 4", "pool", 4, 3),
        ("--strategy rule-hash --interfaces in0,in1,in2 --num-workers 4", "rule-hash", 4, 3),
    ],
)
def test_a_command_line_of_the_document_forwards(
    mcrd_bench: Bench, line: str, strategy: str, workers: int, inputs: int
) -> None:
    of = [streams(8, 8 * number) for number in range(inputs)]
    rules = [
        rule(stream, input_interface=f"in{number}") for number, flows in enumerate(of) for stream in flows
    ]
    rings = RING_FRAMES if workers < 24 else 4096
    forwarder = start_forwarder(
        mcrd_bench.lab.fwd,
        [],
        {"rules": rules},
        strategy=None,
        workers=None,
        options=[*line.split(), "--ring-frames", str(rings)],
    )
    try:
        running = Relay(mcrd_bench, forwarder)
        assert running.ask("plan")["strategy"]["name"] == strategy
        assert len(running.ask("list-workers")["workers"]) == workers
        offered, seen, counted = running.transfer(
            [
                SenderJob(interface=f"g{number}", streams=flows, count=4000, rate_dps=10_000)
                for number, flows in enumerate(of)
            ],
            ReceiverJob(flows=forwarded([s for flows in of for s in flows], 500), payload_bytes=64),
        )
        assert offered == 4000 * inputs
        assert_delivered(offered, seen, counted)
    finally:
        forwarder.stop()
