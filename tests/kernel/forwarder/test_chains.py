"""Several forwarders in one path, and one forwarder in two paths at once.

::

    gen  g0 ── in0  fwd  up0 ── port0            hop
         g1 ── in1       up1 ── port1  bridge ── in0    out0 ── r0  rcv
         g2 ── in2       up2 ── port2
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
from kernel_support.mcrd import (
    Relay,
    assert_delivered,
    counts,
    forwarded,
    output,
    relay,
    rule,
    some_cpus,
    spread,
)
from kernel_support.traffic import Bench, bench, streams
from kernel_support.wires import Port, Wiring

from lab.load.jobs import Flow, ReceiverJob, SenderJob
from lab.load.topology import Topology

BETWEEN = "239.3.0.0"
"""What the first forwarders send to, and the second takes in."""


@dataclass(frozen=True)
class Chain:
    first: tuple[Relay, ...]
    second: Relay
    ends: Bench
    """Senders where the first forwarders' inputs are, receivers behind the second."""


@pytest.fixture(scope="module")
def chain(mcrd_bench: Bench, wires: Wiring) -> Iterator[Chain]:
    with ExitStack() as stack:
        hop = stack.enter_context(bench(Topology(), "hop"))
        switch = hop.lab.gen
        for n in range(3):
            up = Port(mcrd_bench.lab.fwd, f"up{n}", f"10.30.{n}.1")
            stack.enter_context(wires.wire(up, Port(switch, f"port{n}")))
        stack.enter_context(wires.bridge(switch, "bridge", "g0", "port0", "port1", "port2"))
        first = tuple(stack.enter_context(relay(mcrd_bench, f"in{n}")) for n in range(3))
        (between,) = streams(1, group=BETWEEN)
        between = between.model_copy(update={"port": 5002})
        second = stack.enter_context(relay(hop, "in0", rule(between), workers=2))
        ends = Bench(replace(hop.lab, gen=mcrd_bench.lab.gen), stack)
        yield Chain(first, second, ends)


def test_two_forwarders_in_a_row_over_a_bridge(chain: Chain) -> None:
    (stream,) = of = streams(1)
    start, end = chain.first[0], chain.second
    before = start.forwarder.stats(), end.forwarder.stats()
    with start.rules(rule(stream, outputs=[output(BETWEEN, "up0")])):
        (sent,), seen = chain.ends.transfer_all(
            spread(SenderJob(interface="g0", streams=of, count=30_000, rate_dps=50_000)),
            ReceiverJob(flows=(_behind(0, 30_000),), payload_bytes=64),
        )
        ingress, egress = counts(start.forwarder.stats(), before[0]), counts(end.forwarder.stats(), before[1])
    assert (ingress.received, ingress.dropped) == (30_000, {})
    assert_delivered(sent.offered, seen, egress)
    assert egress.sent == ingress.received


def test_three_forwarders_into_one_group_and_one_after_them(chain: Chain) -> None:
    of, cpu = streams(3), some_cpus()[0]
    before = [one.forwarder.stats() for one in (*chain.first, chain.second)]
    with ExitStack() as stack:
        for n, (start, stream) in enumerate(zip(chain.first, of, strict=True)):
            to_one_group = rule(stream, input_interface=f"in{n}", outputs=[output(BETWEEN, f"up{n}")])
            stack.enter_context(start.rules(to_one_group))
        sent, seen = chain.ends.transfer_all(
            [
                SenderJob(interface=f"g{n}", streams=(stream,), count=6000, rate_dps=10_000, cpu=cpu)
                for n, stream in enumerate(of)
            ],
            ReceiverJob(flows=tuple(_behind(n, 6000) for n in range(3)), payload_bytes=64),
        )
        after = [one.forwarder.stats() for one in (*chain.first, chain.second)]
    *starts, end = (counts(now, then) for now, then in zip(after, before, strict=True))
    assert [(start.matched, start.sent, start.dropped) for start in starts] == [(6000, 6000, {})] * 3
    assert_delivered(sum(report.offered for report in sent), seen, end)
    assert seen.received == (6000, 6000, 6000)


def _behind(stream_id: int, sequences: int) -> Flow:
    """A stream as it leaves the second forwarder."""
    (between,) = streams(1, group=BETWEEN)
    (flow,) = forwarded((between,), sequences)
    return flow.model_copy(update={"stream_id": stream_id})


def test_both_ways_between_two_interfaces(mcrd_bench: Bench) -> None:
    """Each way's output leaves where the other way's input is: it must not come back in."""
    there, back = of = streams(2)
    rules = [
        rule(there, "in1", input_interface="in0"),
        rule(back, "in0", input_interface="in1"),
        # Would send on what the first rule sent, if the forwarder heard itself.
        rule(
            there.model_copy(update={"group": "239.2.0.0", "port": 5002}),
            input_interface="in1",
            outputs=[output("239.4.0.0", "in0")],
        ),
    ]
    jobs = [
        SenderJob(interface=f"g{n}", streams=(stream,), count=6000, rate_dps=10_000, cpu=some_cpus()[-n])
        for n, stream in enumerate(of)
    ]
    expected = (*forwarded((there,), 6000, "g1"), *forwarded((back,), 6000, "g0"))
    with ExitStack() as stack:
        around = Bench(replace(mcrd_bench.lab, rcv=mcrd_bench.lab.gen), stack)
        running = stack.enter_context(relay(around, "in0,in1", *rules, strategy="fanout-per-interface"))
        offered, seen, counted = running.transfer(jobs, ReceiverJob(flows=expected, payload_bytes=64))
        by_rule = running.forwarder.stats()["rules"]
    assert offered == 12_000
    assert_delivered(offered, seen, counted)
    assert [entry["matched"] for entry in by_rule] == [6000, 6000, 0]
