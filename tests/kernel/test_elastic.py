"""Elastic groups: workers join and leave under load.

Nothing is lost or repeated, and nothing reordered in a flow that keeps its worker.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kernel_support.mcrd import Relay, counts, eventually, forwarded, mcrctl, relay, rule, some_cpus
from kernel_support.traffic import Bench, streams

from forwarder.placement import flow_owner
from lab.traffic.jobs import Stream
from lab.traffic.receiver import ReceiverJob
from lab.traffic.sender import SenderJob

NEVER = ("--scale-threshold-pps", "1000000000")
"""Only who asks resizes."""


def stays(stream: Stream, sizes: Sequence[int]) -> bool:
    """Whether a stream has the same worker in groups of all these sizes."""
    flow = (int(stream.source), int(stream.group), stream.source_port, stream.port)
    return len({flow_owner(*flow, size) for size in sizes}) == 1


@contextmanager
def dynamic(bench: Bench, of: Sequence[Stream], *options: str) -> Iterator[Relay]:
    """``dynamic`` on ``in0``, one to three workers."""
    bounds = ("--min-workers-per-interface", "1", "--max-workers-per-interface", "3")
    rules = [rule(stream) for stream in of]
    with relay(bench, "in0", *rules, strategy="dynamic", workers=0, options=(*bounds, *options)) as running:
        yield running


def matched(running: Relay) -> int:
    return counts(running.forwarder.stats()).matched


def scaling(running: Relay) -> dict[str, Any]:
    (group,) = running.forwarder.stats()["scaling"]
    return dict(group)


def test_workers_join_and_leave_under_load_and_no_datagram_is_lost(mcrd_bench: Bench) -> None:
    of = streams(32)
    job = SenderJob(interface="g0", streams=of, count=64_000, rate_dps=16_000, cpu=some_cpus()[0])
    receiver = ReceiverJob(flows=forwarded(of, 2000), payload_bytes=64)
    with dynamic(mcrd_bench, of, *NEVER) as running:
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: matched(running), "the first datagram is forwarded")
            for workers in (2, 3, 1, 3, 2):
                assert running.ask("resize", group=0, workers=workers)["after"] == workers
                assert scaling(running)["workers"] == workers
            assert matched(running) < 64_000, "all of that was under load"
            plan, workers = running.ask("plan"), running.ask("list-workers")["workers"]
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        assert (transfer.offered, counted.dropped) == (64_000, {})
        assert (counted.received, counted.sent) == (64_000, 64_000)
        assert (sum(seen.lost), sum(seen.duplicated), sum(seen.corrupted)) == (0, 0, 0)
        kept = [number for number, stream in enumerate(of) if stays(stream, (1, 2, 3))]
        assert 0 < len(kept) < len(of)
        assert [seen.reordered[number] for number in kept] == [0] * len(kept)
        stats = running.forwarder.stats()
        assert [worker["state"] for worker in workers] == ["running", "running", "parked"]
        assert all(worker["counters"]["matched"] for worker in stats["workers"]), "each had its part"
        changes = [(c["before"], c["after"], c["failed"]) for c in scaling(running)["changes"]]
        assert changes[:5] == [(1, 2, None), (2, 3, None), (3, 1, None), (1, 3, None), (3, 2, None)]
        assert [group["workers"] for group in plan["groups"]] == [2]
        assert [worker["worker_id"] for worker in plan["workers"]] == [0, 1]


def test_a_hot_interface_gets_workers_and_an_idle_one_gives_them_back(mcrd_bench: Bench) -> None:
    of = streams(16)
    job = SenderJob(interface="g0", streams=of, count=160_000, rate_dps=16_000, cpu=some_cpus()[0])
    receiver = ReceiverJob(flows=forwarded(of, 10_000), payload_bytes=64)
    with dynamic(mcrd_bench, of, "--scale-threshold-pps", "2000") as running:
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: scaling(running)["workers"] == 3, "a load for eight workers makes three")
            transfer.stop()
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        assert (counted.dropped, sum(seen.lost), sum(seen.duplicated)) == ({}, 0, 0)
        assert counted.sent == transfer.offered
        eventually(lambda: scaling(running)["workers"] < 3, "without load there is one less")
        first = scaling(running)["changes"][0]
        assert "datagrams/s, more than 1 × 2,000" in first["reason"]
        top = mcrctl(running.forwarder.control_path, "top", "--interval", "0.1", "--json")
        assert json.loads(top.stdout)["scaling"][0]["changes"][0] == first


def test_a_worker_that_dies_while_it_joins_is_replaced_and_none_is_left_when_the_group_shrinks(
    mcrd_bench: Bench,
) -> None:
    of = streams(8)
    with dynamic(mcrd_bench, of, *NEVER) as running:
        running.ask("resize", group=0, workers=3)
        victim = running.ask("list-workers")["workers"][2]["pid"]
        os.kill(victim, signal.SIGKILL)
        running.ask("resize", group=0, workers=1)
        pids = [worker["pid"] for worker in running.ask("list-workers")["workers"]]
        assert [pid is not None for pid in pids] == [True, False, False]
        job = SenderJob(interface="g0", streams=of, count=800, rate_dps=8000)
        offered, seen, counted = running.transfer(
            [job], ReceiverJob(flows=forwarded(of, 100), payload_bytes=64)
        )
        assert (counted.sent, sum(seen.lost), sum(seen.reordered)) == (offered, 0, 0)


def test_a_resize_that_cannot_be_is_refused(mcrd_bench: Bench) -> None:
    with dynamic(mcrd_bench, streams(1), *NEVER) as running:
        path = running.forwarder.control_path
        for arguments, complaint in (
            (("--group", "0", "--workers", "4"), "workers: 4; allowed: an integer from 1 to 3"),
            (("--group", "7", "--workers", "2"), "group: 7; allowed: the id of an elastic group: 0"),
        ):
            refused = mcrctl(path, "resize", *arguments)
            assert refused.returncode == 2
            assert complaint in refused.stderr
