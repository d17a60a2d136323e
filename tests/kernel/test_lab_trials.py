"""Trials against the real kernel: every datagram has an account, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import netns
from lab.build import build
from lab.load import Request
from lab.peers import kernel
from lab.peers.base import PeerError, Rule
from lab.results import Check, RunEnded, Setting, Trial, read_results
from lab.strategies import workers_in_all
from lab.topology import Topology
from lab.trial import NONE, BenchPlan, bench, place

MCASTLAB = str(Path(sys.executable).with_name("mcastlab"))


def request(plan: BenchPlan, dps: int | None, seconds: float = 0.2, **setting: object) -> Request:
    asked = plan.setting.model_copy(update=setting)
    return Request("t", "test", "case", asked, "fixed", dps, seconds)


def plan(subject: str, **setting: object) -> BenchPlan:
    asked = Setting(payload_bytes=64, **setting)  # type: ignore[arg-type]
    sender, workers = place(workers_in_all(asked) or 1)
    return BenchPlan(subject, asked, 1500, sender, workers)


def accounted(trial: Trial) -> None:
    """The ledger balances, and what was delivered plus what was dropped is what was due."""
    assert trial.ledger.balanced, trial.warnings
    assert trial.ledger.ingress.entered == trial.offered
    assert trial.streams is not None
    assert trial.ledger.egress.left == trial.delivered
    assert trial.streams.duplicated == trial.streams.corrupted == 0
    for counted, of_all in (("offered", trial.offered), ("delivered", trial.delivered)):
        assert not trial.inputs or sum(getattr(sample, counted) for sample in trial.inputs) == of_all


def test_the_generator_alone_delivers_everything_at_a_modest_rate() -> None:
    alone = plan(NONE)
    with bench(alone, "alone") as ready:
        for flows, payload in ((1, 64), (5, 512)):  # a bench serves one load after another
            trial = ready.measure(request(alone, 10_000, flows=flows, payload_bytes=payload))
            accounted(trial)
            assert trial.delivered == trial.expected == trial.offered > 0
            assert trial.setting.payload_bytes == payload
            assert trial.streams is not None
            assert (trial.streams.streams, trial.streams.checked) == (flows, trial.offered)
            assert trial.latency is not None
            assert trial.latency.count == trial.offered


@pytest.mark.parametrize("dps", [9_999, None])
@pytest.mark.parametrize("flows", [1, 3])
def test_bursts_arrive_as_single_datagrams_and_are_all_accounted_for(flows: int, dps: int | None) -> None:
    """Also when neither what is asked for nor what the flows share is a whole number of bursts."""
    alone = plan(NONE)
    with bench(alone, "bursts") as ready:
        trial = ready.measure(request(alone, dps, flows=flows, burst=8))
    accounted(trial)
    assert trial.validity == "valid"
    assert trial.offered % 8 == 0
    assert trial.delivered == trial.expected == trial.offered > 0
    assert trial.latency is not None
    assert trial.latency.count == trial.offered


@pytest.mark.parametrize("rps", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_kernel_routing_copies_every_datagram_to_every_output(rps: bool, outputs: int) -> None:
    routed = plan("kernel", rps=rps, outputs=outputs, rules=3)
    with bench(routed, "copies") as ready:
        for _ in range(2):
            trial = ready.measure(request(routed, 5_000, flows=6))
            accounted(trial)
            assert trial.delivered == trial.expected == trial.offered * outputs > 0


def test_every_datagram_of_an_overload_is_booked() -> None:
    overloaded = plan("kernel", rps=True, outputs=8)
    with bench(overloaded, "overload") as ready:
        trial = ready.measure(request(overloaded, None, seconds=0.3))
    accounted(trial)
    assert trial.delivered < trial.expected
    assert trial.bound_by == "forwarder"


@pytest.mark.parametrize("subject", [NONE, "kernel", "mcrd"])
def test_every_input_gets_its_share_and_has_an_account(subject: str) -> None:
    """The first of three inputs gets four datagrams for each one of the others."""
    forwards = {"strategy": "pool", "workers": 1} if subject == "mcrd" else {}
    outputs = 1 if subject == NONE else 2
    several = plan(subject, inputs=3, outputs=outputs, rules=6, flows=6, **forwards)
    with bench(several, "inputs") as ready:
        for skew in (1, 4):
            trial = ready.measure(request(several, 12_000, skew=skew))
            accounted(trial)
            assert trial.validity != "doubtful", trial.warnings
            assert trial.delivered == trial.expected == trial.offered * outputs > 0
            assert [sample.interface for sample in trial.inputs] == ["in0", "in1", "in2"]
            first, *others = (sample.offered for sample in trial.inputs)
            assert max(abs(first - skew * other) for other in others) <= 2 * skew
            for sample in trial.inputs:
                assert sample.expected == sample.delivered == sample.offered * outputs
                assert sample.duplicated == 0


def test_a_pool_without_fanout_sends_a_copy_for_each_worker_and_the_ledger_says_so() -> None:
    ungrouped = plan(
        "mcrd", strategy="pool", steering="ungrouped", workers=3, inputs=2, rules=2, flows=4, outputs=2
    )
    with bench(ungrouped, "ungrouped") as ready:
        trial = ready.measure(request(ungrouped, 5_000))
    assert trial.ledger.balanced, trial.warnings
    assert trial.ledger.ingress.entered == 3 * trial.offered
    assert trial.delivered == trial.expected == 2 * trial.offered > 0
    assert trial.ledger.egress.left == 3 * trial.expected
    assert trial.streams is not None
    assert (trial.streams.copies_max, trial.streams.duplicated) == (3, 2 * trial.expected)
    assert [sample.duplicated for sample in trial.inputs] == [2 * s.expected for s in trial.inputs]
    assert trial.validity != "doubtful", trial.warnings
    assert [worker.matched for worker in trial.workers] == [trial.offered] * 3


def test_datagrams_that_reach_the_wrong_worker_are_booked_as_that() -> None:
    """Rules are hashed to workers, datagrams go by processor: each worker holds a part, and gets any."""
    astray = plan(
        "mcrd", strategy="rule-hash", steering="cpu", workers=2, inputs=2, rules=32, flows=32, rps=True
    )
    with bench(astray, "astray") as ready:
        trial = ready.measure(request(astray, 5_000))
    accounted(trial)
    wrong = sum(drop.count for drop in trial.ledger.ingress.drops if drop.reason == "wrong_worker")
    assert 0 < wrong == trial.expected - trial.delivered
    held = [worker.rules for worker in trial.workers]
    assert sum(held) == 32
    assert max(held) < 32


def test_more_workers_than_processors_is_said_and_no_reason_for_doubt() -> None:
    cpus = len(os.sched_getaffinity(0))
    many = plan("mcrd", strategy="fanout-per-interface", workers=cpus, inputs=2, rules=2, flows=2)
    with bench(many, "many") as ready:
        trial = ready.measure(request(many, 5_000))
    accounted(trial)
    assert f"oversubscribed: {2 * cpus} workers on {cpus} CPUs" in trial.warnings
    assert trial.validity != "doubtful", trial.warnings
    assert trial.delivered == trial.expected


def test_the_kernel_routes_between_32_interfaces_and_says_so_when_asked_for_more() -> None:
    outputs = tuple(f"out{number}" for number in range(32))
    rule = Rule("r", "239.1.0.0", 5001, "10.10.0.1", "in0", outputs)
    setting = Setting(payload_bytes=64, outputs=32)
    with build(Topology(outputs=32), "too-many") as lab, pytest.raises(PeerError, match="32"):
        kernel.PEER.start(lab, [rule], setting, ())


SCENARIO = """
name = "small"
title = "One search of kernel routing"
seed = "test"
subjects = ["kernel"]
measure = ["flat-out"]
[rps]
kernel = [false]
[[case]]
name = "64 B"
[profile.quick]
trial_ms = 50
"""


def run_lab(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [MCASTLAB, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_trials(results: Path, lab: subprocess.Popen[str], subject: str, count: int = 1) -> None:
    """Return once the run has recorded so many trials of ``subject``; it writes each one as it ends."""
    while lab.poll() is None:
        if results.exists() and len(trials_of(results, subject)) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run ended before {count} trials of {subject}: {lab.communicate()}")


def trials_of(results: Path, subject: str) -> list[Trial]:
    return [r for r in read_results(results) if isinstance(r, Trial) and r.subject == subject]


LONG = SCENARIO.replace('measure = ["flat-out"]', 'measure = ["zero-loss", "flat-out"]').replace(
    "trial_ms = 50", "trial_ms = 300"
)


def test_a_run_that_is_killed_or_interrupted_goes_on_within_the_step(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(LONG)
    out = tmp_path / "out"
    results = out / "results.jsonl"
    recorded: dict[str, Trial] = {}

    def note() -> None:
        """What is in the results now must stay as it is, whatever happens to the run."""
        found = [r for r in read_results(results) if isinstance(r, Trial)]
        assert len({trial.trial_id for trial in found}) == len(found)
        for trial in found:
            assert recorded.setdefault(trial.trial_id, trial) == trial, "measured again"

    lab = run_lab("run", str(tmp_path / "small.toml"), "--out", str(out))
    wait_for_trials(results, lab, NONE)
    os.killpg(lab.pid, signal.SIGINT)
    assert_interrupted(lab, out)
    note()

    lab = run_lab("run", "--resume", str(out))
    wait_for_trials(results, lab, "kernel")
    lab.kill()
    lab.communicate(timeout=60)
    for name in netns.names():
        if f"-{lab.pid}-" in name:
            netns.remove(name)
    note()

    lab = run_lab("run", "--resume", str(out))
    wait_for_trials(results, lab, "kernel", len([t for t in recorded.values() if t.subject == "kernel"]) + 1)
    os.killpg(lab.pid, signal.SIGTERM)
    assert_interrupted(lab, out)
    note()

    again = run_lab("run", "--resume", str(out), "--json")
    text, errors = again.communicate(timeout=90)
    assert again.returncode == 0, errors
    assert json.loads(text)["outcome"] == "passed"
    note()
    assert set(recorded) == {r.trial_id for r in read_results(results) if isinstance(r, Trial)}


def assert_interrupted(lab: subprocess.Popen[str], out: Path) -> None:
    """It ended as asked, left no namespace, and its results and report say that it was interrupted."""
    _, errors = lab.communicate(timeout=60)
    assert lab.returncode == 130, errors
    assert "Traceback" not in errors
    assert not [name for name in netns.names() if f"-{lab.pid}-" in name]
    last = list(read_results(out / "results.jsonl"))[-1]
    assert isinstance(last, RunEnded)
    assert last.outcome == "interrupted"
    assert (out / "report.html").exists()


def test_a_second_interruption_ends_a_run_at_once(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(LONG.replace("300", "60000"))
    out = tmp_path / "out"
    lab = run_lab("run", str(tmp_path / "small.toml"), "--out", str(out))
    assert lab.stderr
    while not [name for name in netns.names() if f"-{lab.pid}-" in name]:
        assert lab.poll() is None
        time.sleep(0.05)
    os.killpg(lab.pid, signal.SIGINT)
    while "once more" not in lab.stderr.readline():
        assert lab.poll() is None
    os.killpg(lab.pid, signal.SIGINT)
    _, errors = lab.communicate(timeout=30)
    assert lab.returncode == 130, errors
    assert "Traceback" not in errors
    assert not [name for name in netns.names() if f"-{lab.pid}-" in name]


def test_what_a_killed_run_leaves_is_cleaned_and_the_next_run_does_not_trip(tmp_path: Path) -> None:
    (tmp_path / "long.toml").write_text(LONG.replace("kernel", "mcrd"))
    (tmp_path / "small.toml").write_text(SCENARIO)
    lab = run_lab("run", str(tmp_path / "long.toml"), "--out", str(tmp_path / "killed"))
    wait_for_trials(tmp_path / "killed" / "results.jsonl", lab, "mcrd")
    left = {name for name in netns.names() if f"-{lab.pid}-" in name}
    inside = {pid: netns.start_time(pid) for name in left for pid in netns.processes(name)}
    assert len(inside) >= 6, "two benches, the supervisor and its worker"
    lab.kill()
    lab.communicate()
    after = run_lab("run", str(tmp_path / "small.toml"), "--out", str(tmp_path / "next"), "--json")
    out, errors = after.communicate(timeout=90)
    assert after.returncode == 0, errors
    assert json.loads(out)["outcome"] == "passed"
    records = list(read_results(tmp_path / "next" / "results.jsonl"))
    assert {record.subject for record in records if isinstance(record, Trial)} == {NONE, "kernel"}
    assert isinstance(records[-1], RunEnded)
    assert not [name for name in netns.names() if f"-{after.pid}-" in name]

    cleaned, errors = run_lab("clean", "--json").communicate(timeout=30)
    assert isinstance(json.loads(cleaned), list), errors
    assert not left & set(netns.names())
    assert not {pid for pid, started in inside.items() if is_running(pid, started)}


def is_running(pid: int, started: int | None) -> bool:
    """Whether the process lives; one whose parent has not taken leave of it (a zombie) does not."""
    if started is None or netns.start_time(pid) != started:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_functional_checks_pass(tmp_path: Path) -> None:
    lab = run_lab("run", "functional", "--out", str(tmp_path / "out"))
    _, errors = lab.communicate(timeout=90)
    checks = [r for r in read_results(tmp_path / "out" / "results.jsonl") if isinstance(r, Check)]
    assert len(checks) > 20
    assert not [(c.case, c.expected, c.observed) for c in checks if not c.passed]
    assert lab.returncode == 0, errors


EXPECTING = """
name = "expecting"
title = "One expectation that holds, and one that does not"
seed = "test"
subjects = ["mcrd"]
[setting]
strategy = "pool"
inputs = 2
rules = 2
flows = 2
[rps]
mcrd = [false]
[[case]]
name = "a pool"
[[expect]]
case = "a pool"
dps = 2000
copies = 1
rules_held = "all"
[[expect]]
case = "a pool"
dps = 2000
copies = 2
"""


def test_an_expectation_that_is_missed_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "expecting.toml").write_text(EXPECTING)
    for attempt in range(10):  # a generator that is held up offers too little, which concludes nothing
        out = tmp_path / f"out{attempt}"
        lab = run_lab("run", str(tmp_path / "expecting.toml"), "--out", str(out))
        _, errors = lab.communicate(timeout=90)
        records = list(read_results(out / "results.jsonl"))
        ended = records[-1]
        assert isinstance(ended, RunEnded)
        if not ended.inconclusive:
            break
    checks = [(r.expected, r.passed) for r in records if isinstance(r, Check)]
    assert checks == [("copies = 1", True), ("rules_held = all", True), ("copies = 2", False)], errors
    assert lab.returncode == 1, errors
    assert len(ended.failures) == 1
    assert "expected copies = 2" in ended.failures[0]
    assert {record.subject for record in records if isinstance(record, Trial)} == {"mcrd"}, "no calibration"
