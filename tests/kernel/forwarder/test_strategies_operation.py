"""Running strategies as an operator does: configuration, live plan and rates, starts that must fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_support import fanout_holder
from kernel_support.mcrd import (
    Relay,
    assert_delivered,
    forwarded,
    mcrctl,
    program,
    relay,
    rule,
)
from kernel_support.traffic import Bench, streams
from paths import ROOT

from lab.load.jobs import ReceiverJob, SenderJob
from lab.netns import namespaces as netns

CONFIGURATION = """\
placement = "hash"
steering = "filter"
hashing = "modulo"

[[interface_group]]
id = 7
interfaces = ["in0", "in2"]
workers = 3

[[interface_group]]
id = 9
interfaces = ["in1"]
workers = 2
"""


def test_a_configuration_with_groups_and_axes_runs(mcrd_bench: Bench, tmp_path: Path) -> None:
    of = [streams(12, 12 * number) for number in range(3)]
    rules = [
        rule(stream, input_interface=f"in{number}") for number, flows in enumerate(of) for stream in flows
    ]
    (tmp_path / "mcrd.toml").write_text(CONFIGURATION)
    options = ["--config", str(tmp_path / "mcrd.toml")]
    with relay(mcrd_bench, "", *rules, strategy="hybrid", options=options) as running:
        offered, seen, counted = running.transfer(
            [
                SenderJob(interface=f"g{number}", streams=flows, count=6000, rate_dps=5000)
                for number, flows in enumerate(of)
            ],
            ReceiverJob(flows=forwarded([s for flows in of for s in flows], 500), payload_bytes=64),
        )
        assert offered == 18_000
        assert_delivered(offered, seen, counted)
        assert len(counted.per_worker) == 5
        assert all(counted.per_worker)
        workers = running.ask("list-workers")["workers"]
        assert [worker["group"] for worker in workers] == [7, 7, 7, 9, 9]
        assert sorted(workers[0]["interfaces"]) == ["in0", "in2"]
        plan = running.ask("plan")
        held = {part["partition_id"]: len(part["rule_ids"]) for part in plan["partitions"]}
        rules_held = [held[worker["partition"]] for worker in plan["workers"]]
        assert rules_held == [worker["rules"] for worker in workers]
        stats = running.forwarder.stats()
        assert rules_held == [worker["rules"] for worker in stats["workers"]]
        assert stats["distribution"] == running.ask("list-workers")["distribution"]
        assert [(d["group"], d["rules"], d["most"]) for d in stats["distribution"]] == [
            (7, 24, max(rules_held[:3])),
            (9, 12, max(rules_held[3:])),
        ]
        assert "most / mean" in mcrctl(running.forwarder.control_path, "list-workers").stdout
        exposition = mcrctl(running.forwarder.control_path, "stats", "--prometheus").stdout
        for number, count in enumerate(rules_held):
            assert f'mcrd_worker_rules{{worker="{number}"}} {float(count)}' in exposition
        less = stats["distribution"][1]["moved_by_one_less"]
        assert f'mcrd_rules_moved{{by="one_less",group="9"}} {float(less)}' in exposition


def test_the_live_plan_follows_the_rules(mcrd_bench: Bench) -> None:
    of = streams(4)
    with relay(mcrd_bench, "", strategy="rule-hash", workers=2) as running:
        path = running.forwarder.control_path
        assert "those with rules" in mcrctl(path, "plan").stdout
        with running.rules(*map(rule, of)):
            answer = mcrctl(path, "plan", "--json")
            plan = json.loads(answer.stdout)
            assert sorted(i for part in plan["partitions"] for i in part["rule_ids"]) == sorted(
                rule(stream)["rule_id"] for stream in of
            )
            sockets = [worker["sockets"] for worker in running.forwarder.stats()["workers"]]
            for worker, opened in zip(plan["workers"], sockets, strict=True):
                assert [(s["interface"], s["fanout"]["slot"]) for s in worker["sockets"]] == [
                    (s["interface"], s["fanout_slot"]) for s in opened
                ]
                rings = [s["ring"]["frame_bytes"] * s["ring"]["frames"] for s in worker["sockets"]]
                assert rings == [s["ring_bytes"] for s in opened]
            shown = mcrctl(path, "plan").stdout
            assert "in0" in shown
            assert "cbpf" in shown


def test_rates_are_shown_as_they_are(shared_relay: Relay) -> None:
    of = streams(4)
    path = shared_relay.forwarder.control_path
    job = SenderJob(interface="g0", streams=of, count=60_000, rate_dps=5000)
    with (
        shared_relay.rules(*map(rule, of)),
        shared_relay.bench.transferring([job], ReceiverJob(flows=forwarded(of, 15_000))) as transfer,
    ):
        answer = mcrctl(path, "top", "--json", "--interval", "0.5")
        assert answer.returncode == 0, answer.stderr
        found = json.loads(answer.stdout)
        # Who starts these tests in the background may have them ignore it.
        command = ["env", "--default-signal=INT", program("mcrctl"), "--socket-path", str(path)]
        command += ["top", "--interval", "0.1"]
        live = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert live.stdout is not None
        assert any("received/s" in line for line in live.stdout)
        live.send_signal(signal.SIGINT)
        live.communicate(timeout=60)
        assert live.returncode == 0
        transfer.stop()
    assert found["seconds"] >= 0.5
    assert found["totals"]["matched_dps"] > 0
    assert found["totals"]["matched_dps"] == pytest.approx(found["totals"]["sent_dps"], rel=0.2)
    assert sum(worker["share"] for worker in found["workers"]) == pytest.approx(1)
    assert all(worker["cpu_fraction"] >= 0 for worker in found["workers"])
    assert [entry["name"] for entry in found["interfaces"]] == ["in0"]
    assert found["interfaces"][0]["frames_per_s"] > 0


@pytest.mark.parametrize("arguments", [["top"], ["plan"], ["top", "--json"]])
def test_asking_nobody_says_so(tmp_path: Path, arguments: list[str]) -> None:
    answer = mcrctl(tmp_path / "nothing", *arguments)
    assert answer.returncode == 1
    assert "is a supervisor running" in answer.stderr


# Starts that cannot be, and ones that look it


def failing(bench: Bench, directory: Path, *arguments: str, descriptors: int) -> tuple[int, str]:
    """Status and errors of a supervisor that may have so many open files, and no more."""
    limit = f"ulimit -n {descriptors}; exec "
    command = [program("mcrd"), "supervisor", "--control-socket-path", str(directory / "control")]
    process = netns.spawn(
        bench.lab.fwd,
        ["sh", "-c", limit + " ".join([*command, *arguments])],
        stderr=subprocess.PIPE,
        text=True,
    )
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize("descriptors", [60, 150, 260])
def test_without_descriptors_for_all_there_is_nothing_and_the_limit_is_named(
    mcrd_bench: Bench, tmp_path: Path, descriptors: int
) -> None:
    before = left_over(mcrd_bench)
    options = ["--interfaces", "in0,in1", "--num-workers", "60", "--strategy", "pool", "--ring-frames", "64"]
    status, errors = failing(mcrd_bench, tmp_path, *options, descriptors=descriptors)
    assert status == 1
    assert "60 workers with 120 receive sockets need about" in errors
    assert f"the limit is {descriptors} (RLIMIT_NOFILE)" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "control").exists()
    assert left_over(mcrd_bench) == before


def left_over(bench: Bench) -> tuple[list[int], int]:
    """Processes, and packet sockets, in the forwarder's namespace."""
    sockets = netns.run(bench.lab.fwd, ["cat", "/proc/net/packet"]).splitlines()[1:]
    return sorted(netns.processes(bench.lab.fwd)), len(sockets)


def test_another_programs_fanout_groups_are_left_alone(mcrd_bench: Bench) -> None:
    """The kernel numbers groups for the whole namespace: one that is taken is not joined, wherever it is."""
    of = streams(30)
    holder = netns.spawn(
        mcrd_bench.lab.fwd,
        [sys.executable, fanout_holder.__file__, "in0", "40"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith("holds 41 groups")
        with relay(mcrd_bench, "in0", *map(rule, of), strategy="rule-hash", workers=3) as running:
            offered, seen, counted = running.transfer(
                SenderJob(interface="g0", streams=of, count=6000, rate_dps=6000),
                ReceiverJob(flows=forwarded(of, 200), payload_bytes=64),
            )
            assert_delivered(offered, seen, counted)
            assert all(counted.per_worker)
    finally:
        holder.communicate(timeout=60)


def test_more_workers_than_processors_are_allowed_and_warned_of(mcrd_bench: Bench) -> None:
    workers = 2 * len(os.sched_getaffinity(0)) + 1
    with relay(mcrd_bench, "in0", strategy="fanout", workers=workers) as running:
        said = (running.forwarder.directory / "stderr").read_text()
        assert len(running.ask("list-workers")["workers"]) == workers
    assert f"warning: {workers} workers on" in said
    assert "get no datagrams" in said
