"""A load that changes, and a forwarder that is changed under load: every datagram is accounted for."""

from __future__ import annotations

from pathlib import Path

from kernel_support.traffic import Bench, assert_perfect, flows, streams
from kernel_support.traffic import bench as direct_bench

from lab.archive import Archive
from lab.execute import execute
from lab.interruption import Interruption
from lab.peers import PEERS
from lab.planning import steps
from lab.progress import Silent
from lab.results import Change, Check, Course, Trial
from lab.scenario import parse_scenario
from lab.series import BenchPool, Context
from lab.topology import Topology
from lab.traffic.jobs import Phase
from lab.traffic.receiver import ReceiverJob
from lab.traffic.sender import SenderJob

PHASES = (Phase(dps=3_000, seconds=0.1), Phase(dps=0, seconds=0.05), Phase(dps=9_010, seconds=0.1))


def in_phases(made: Bench, generator: str) -> None:
    of = streams(7)
    sent, seen = made.transfer(
        SenderJob(interface="g0", streams=of, phases=PHASES, generator=generator),
        ReceiverJob(flows=flows(of, 300), payload_bytes=64),
    )
    assert (sent.generator, sent.instead) == (generator, None)
    assert sent.offered == sum(phase.offered for phase in sent.phases) <= 300 + 901
    assert_perfect(sent, seen, 64)  # no sequence number is missing between two phases, and none comes again
    assert sent.phases[1].offered == 0
    starts = [phase.started_ns for phase in sent.phases]
    assert starts[1] >= 100_000_000
    assert starts[2] >= 150_000_000
    assert sum(phase.duration_ns for phase in sent.phases) + starts[0] == sent.duration_ns


def test_phases_follow_each_other_without_a_gap_in_the_sequence() -> None:
    with direct_bench(Topology(direct=True, napi=True), "phases") as made:
        in_phases(made, "packet")
        in_phases(made, "xdp")


SCENARIO = """
name = "changing"
title = "A flash crowd, then every change"
seed = "test"
subjects = ["mcrd"]
[setting]
strategy = "dynamic"
workers = 2
flows = 16
generator_apart = true
[rps]
mcrd = [false]
[[case]]
name = "scaled"
options = ["--scale-threshold-pps", "4000"]
[[course]]
cases = ["scaled"]
phases = [{ dps = 1000, seconds = 0.3 }, { dps = 7000, seconds = 1.2 }]
most_workers = 2
[[case]]
name = "changed"
options = ["--scale-threshold-pps", "100000000"]
[[change]]
cases = ["changed"]
kinds = ["grow", "remove rule", "crash"]
dps = 4000
trials = 1
trial_s = 0.6
after_ms = 100
[[change]]
cases = ["changed"]
kinds = ["restart"]
dps = 1000
trials = 1
trial_s = 3.0
after_ms = 100
"""


def test_workers_come_with_the_load_and_each_change_has_its_account(tmp_path: Path) -> None:
    scenario = parse_scenario(SCENARIO, "changing.toml")
    with (
        Archive.create(tmp_path / "out") as archive,
        BenchPool("changing", PEERS) as benches,
    ):
        for step in steps([scenario], "quick"):
            archive.begin()
            context = Context(archive, Silent(), "changing", benches, Interruption())
            execute(step, context)
            assert context.failures == []
            archive.finish(step.step_id)
        records = list(archive.records)
    (course,) = (record for record in records if isinstance(record, Course))
    assert [(one.before, one.after) for one in course.resizes] == [(1, 2)]
    assert course.offered == sum(phase.offered for phase in course.phases)
    assert course.scaled_ns is not None
    assert [check.passed for check in records if isinstance(check, Check)] == [True]
    changes = {record.change: record for record in records if isinstance(record, Change)}
    assert list(changes) == ["grow", "remove rule", "crash", "restart"]
    assert changes["grow"].flows_moved > 0
    for kind in ("grow", "remove rule"):
        assert (changes[kind].lost, changes[kind].duplicated, changes[kind].reordered) == ([0], [0], [0])
    assert 0 < changes["crash"].share[0] < 1
    assert changes["crash"].duplicated == [0]
    assert changes["restart"].lost[0] > 0
    assert changes["restart"].duplicated == [0]
    trials = {trial.trial_id: trial for trial in records if isinstance(trial, Trial)}
    assert all(trial.ledger.balanced for trial in trials.values())
    (restarted,) = (trials[trial_id] for trial_id in changes["restart"].trial_ids)
    absent = [d.count for d in restarted.ledger.ingress.drops if d.reason == "not running"]
    assert absent == [restarted.expected - restarted.delivered]
