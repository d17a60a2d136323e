"""Runs by command line: interrupted, killed, resumed, failed, and what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_support import state_of
from record_support import started_record
from scapy.layers.inet import IP, UDP
from scapy.utils import PcapNgReader

from lab.journal.archive import Archive, RunError
from lab.netns import namespaces as netns
from lab.netns import ownership
from lab.results import NONE, Check, RunEnded, RunStarted, Trial, read_results
from lab.run.run import START
from lab.run.session import resume
from lab.steps.functional_packets import Copy, Probe, datagram
from lab.steps.kinds.functional import run_checks

MCASTLAB = str(Path(sys.executable).with_name("mcastlab"))

SCENARIO = """
name = "small"
title = "One search of kernel routing"
subjects = ["kernel"]
measure = ["flat-out"]
[receive]
kernel = ["first"]
[[case]]
name = "64 B"
[profile.quick]
trial_ms = 50
"""


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _none_outlives_its_test() -> Iterator[None]:
    yield
    while _started:
        lab = _started.pop()
        if lab.poll() is None:
            os.killpg(lab.pid, signal.SIGKILL)
            lab.communicate()


def run_lab(*arguments: str) -> subprocess.Popen[str]:
    lab = subprocess.Popen(
        [MCASTLAB, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _started.append(lab)
    return lab


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
    "trial_ms = 50", "trial_ms = 150"
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
    (tmp_path / "small.toml").write_text(LONG.replace("150", "60000"))
    out = tmp_path / "out"
    lab = run_lab("run", str(tmp_path / "small.toml"), "--out", str(out))
    assert lab.stderr
    # Something runs inside: what is interrupted is a bench, not the taking down of one that was half built.
    while not any(netns.processes(name) for name in netns.names() if f"-{lab.pid}-" in name):
        assert lab.poll() is None
        time.sleep(0.05)
    os.killpg(lab.pid, signal.SIGINT)
    while "once more" not in lab.stderr.readline():
        assert lab.poll() is None
    os.killpg(lab.pid, signal.SIGINT)
    _, errors = lab.communicate(timeout=90)
    assert lab.returncode == 130, errors
    assert "Traceback" not in errors
    assert not [name for name in netns.names() if f"-{lab.pid}-" in name]


@pytest.mark.serial
def test_what_a_killed_run_leaves_is_cleaned_and_the_next_run_does_not_trip(tmp_path: Path) -> None:
    (tmp_path / "long.toml").write_text(LONG.replace("kernel", "mcrd"))
    (tmp_path / "small.toml").write_text(SCENARIO)
    lab = run_lab("run", str(tmp_path / "long.toml"), "--out", str(tmp_path / "killed"))
    wait_for_trials(tmp_path / "killed" / "results.jsonl", lab, "mcrd")
    left = {name for name in netns.names() if f"-{lab.pid}-" in name}
    inside = {pid: ownership.start_time(pid) for name in left for pid in netns.processes(name)}
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

    cleaned, errors = run_lab("clean", "--json").communicate(timeout=90)
    assert isinstance(json.loads(cleaned), list), errors
    assert not left & set(netns.names())
    assert not {pid for pid, started in inside.items() if is_running(pid, started)}


def is_running(pid: int, started: int | None) -> bool:
    """Whether the process lives; one whose parent has not taken leave of it (a zombie) does not."""
    return started is not None and ownership.start_time(pid) == started and state_of(pid) != "Z"


def test_functional_checks_pass(tmp_path: Path) -> None:
    lab = run_lab("run", "functional", "--out", str(tmp_path / "out"))
    _, errors = lab.communicate(timeout=90)
    checks = [r for r in read_results(tmp_path / "out" / "results.jsonl") if isinstance(r, Check)]
    assert len(checks) > 20
    assert not list(tmp_path.rglob("*.pcapng")), "frames are kept of failures only"
    assert not [(c.case, c.expected, c.observed) for c in checks if not c.passed]
    assert lab.returncode == 0, errors


def test_a_packet_that_comes_out_otherwise_is_kept_with_what_went_in(tmp_path: Path) -> None:
    probe = Probe("a wrong TTL", bytes(datagram(b"a wrong TTL.".ljust(64))), (Copy(ttl=99),))
    (check, sums) = run_checks("s", "wrong", "s/checks", tmp_path, [probe])
    assert (check.passed, check.expected, check.observed) == (False, "TTL 99", "TTL 15")
    assert sums.passed
    assert sums.frames is None
    assert check.frames is not None
    with PcapNgReader(f"{tmp_path}/{check.frames.file}") as reader:
        seen = {packet.sniffed_on: packet for packet in reader if UDP in packet}
    assert {name: (packet[IP].dst, packet[IP].ttl) for name, packet in seen.items()} == {
        "g0": ("239.1.1.1", 16),
        "in0": ("239.1.1.1", 16),
        "out0": ("239.2.2.2", 15),
        "r0": ("239.2.2.2", 15),
    }
    assert bytes(seen["in0"]) == probe.frame


EXPECTING = """
name = "expecting"
title = "One expectation that holds, and one that does not"
subjects = ["mcrd"]
[setting]
strategy = "pool"
inputs = 2
rules = 2
flows = 2
[receive]
mcrd = ["first"]
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
    number = ("workers = 1", True)
    first = [number, ("copies = 1", True), ("rules_held = all", True)]
    assert checks == [*first, number, ("copies = 2", False)], errors
    assert lab.returncode == 1, errors
    assert len(ended.failures) == 1
    assert "expected copies = 2" in ended.failures[0]
    failed = next(record for record in records if isinstance(record, Check) and not record.passed)
    assert failed.frames is not None
    assert failed.frames.file is not None
    assert "a repeat of the trial" in failed.frames.what
    assert failed.frames.file in ended.failures[0]
    assert failed.frames.file in (out / "report.html").read_text()
    assert [path.relative_to(out) for path in out.rglob("*.pcapng")] == [Path(failed.frames.file)]
    with PcapNgReader(str(out / failed.frames.file)) as reader:
        frames = [
            (packet.sniffed_on, packet[IP].dst, packet[UDP].dport) for packet in reader if UDP in packet
        ]
    trial = [record for record in records if isinstance(record, Trial)][-1]
    counted = Counter(interface for interface, _, _ in frames)
    assert counted["in0"] + counted["in1"] == counted["r0"] == pytest.approx(trial.offered, rel=0.05)
    assert {record.subject for record in records if isinstance(record, Trial)} == {"mcrd"}, "no calibration"


ONE_TRIAL = (
    SCENARIO.replace('measure = ["flat-out"]\n', "")
    + """
[[expect]]
case = "64 B"
subject = "kernel"
dps = 1000
copies = 1
"""
)


@pytest.mark.serial
def test_a_run_on_one_cpu_is_marked(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(ONE_TRIAL)
    out = tmp_path / "out"
    cpu = min(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(cpu), MCASTLAB, "run", str(tmp_path / "small.toml"), "--out", str(out)]
    subprocess.run(command, check=False, capture_output=True, timeout=100)
    started, *records = read_results(out / "results.jsonl")
    assert isinstance(started, RunStarted)
    assert started.forwarder_cpus is None
    assert any(doubt.startswith("one CPU: ") for doubt in started.provenance.doubts)
    assert "one CPU: " in (out / "report.md").read_text()
    (trial, *_) = (record for record in records if isinstance(record, Trial))
    assert trial.delivered > 0
    assert trial.cpu is not None
    assert [use.role for use in trial.cpu.by_cpu] == ["both"]


def test_a_run_whose_cpus_are_gone_says_which_it_had_and_which_may_be_had(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "run") as archive:
        archive.write(started_record(forwarder_cpus=[4095]))
        archive.finish(START)
    with pytest.raises(
        RunError, match=r"forwarder CPUs \[4095\]: there is no CPU 4095 here; allowed: CPUs of 0, "
    ):
        resume(tmp_path / "run")
