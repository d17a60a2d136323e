"""Why elastic groups are steered by a program: what the ways to resize a fanout group lose, repeat and move.

With ``-s`` the figures are shown; docs/decisions/0040-elastic-groups.md has them.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from kernel_support import resize_probe
from kernel_support.mcrd import eventually, some_cpus
from kernel_support.traffic import Bench, streams

from lab.load.jobs import SenderJob
from lab.netns import namespaces as netns

pytestmark = pytest.mark.serial

STREAMS = 64
RATE_DPS = 20_000
COUNT = 12_800
"""Enough for twice the time that a probe takes until its change, and a whole number for each stream."""


@dataclass(frozen=True)
class Cost:
    lost: int
    again: int
    moved: int
    moved_between_staying: int


def cost(bench: Bench, tmp_path: Path, way: str, members: int, after: int) -> Cost:
    """Of one resize under load, in that way."""
    ready = tmp_path / way
    request = {
        "interface": "in0",
        "way": way,
        "members": members,
        "after": after,
        "ready": str(ready),
    }
    job = SenderJob(
        interface="g0", streams=streams(STREAMS), count=COUNT, rate_dps=RATE_DPS, cpu=some_cpus()[0]
    )
    sender = bench.sender(job)
    sender.ready()
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(
            netns.run,
            bench.lab.fwd,
            [sys.executable, resize_probe.__file__],
            input=json.dumps(request),
        )
        eventually(lambda: ready.exists() or probe.done(), "the probe listens")
        sender.go()
        offered = sum(sender.report().per_stream)
        found = resize_probe.Found(**json.loads(probe.result()))
    distinct, copies = sum(found.distinct.values()), sum(found.copies.values())
    made = Cost(offered - distinct, copies - distinct, found.moved, found.moved_between_staying)
    blocked_ms = made.lost / RATE_DPS * 1000
    print(f"\n{way}: {made}, blocked {blocked_ms:.2f} ms, took {found.took_ms:.0f} ms", end="")
    return made


def test_a_program_loses_and_repeats_nothing_and_moves_only_what_it_must(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    join = cost(mcrd_bench, tmp_path, "program, join", 2, 3)
    assert (join.lost, join.again, join.moved_between_staying) == (0, 0, 0)
    assert 0 < join.moved < STREAMS // 2
    leave = cost(mcrd_bench, tmp_path, "program, leave", 3, 2)
    assert leave == join


def test_the_kernels_own_steering_loses_or_repeats_and_moves_flows_of_those_who_stay(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    deaf = cost(mcrd_bench, tmp_path, "native join, then listen", 2, 3)
    assert deaf.lost > 0
    early = cost(mcrd_bench, tmp_path, "native listen, then join", 2, 3)
    leave = cost(mcrd_bench, tmp_path, "native leave", 3, 2)
    assert leave.lost > 0
    for one in (deaf, early, leave):
        assert one.moved_between_staying > 0


def test_a_spare_group_loses_and_repeats_nothing_but_moves_every_flow(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    for way, members, after in (("spare group, join", 2, 3), ("spare group, leave", 3, 2)):
        made = cost(mcrd_bench, tmp_path, way, members, after)
        assert (made.lost, made.again) == (0, 0)
        assert made.moved == STREAMS
