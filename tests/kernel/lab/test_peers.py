"""Other programs as subjects: what they forward, what they account for, and what is left when they end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.load.flows import Request
from lab.peers import PEERS, mcr, socat
from lab.peers.base import Peer
from lab.results import Setting, Trial
from lab.scenario.layout import workers_in_all
from lab.trial.bench import Bench, bench
from lab.trial.plan import BenchPlan, divide

pytestmark = pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")

BINARIES = Path(sys.executable).parent
"""Of this project: they take the words that upstream's take."""


def plan(subject: str, **setting: object) -> BenchPlan:
    asked = Setting(payload_bytes=64, **setting)  # type: ignore[arg-type]
    return BenchPlan(subject, asked, 1500, divide(os.sched_getaffinity(0)), workers_in_all(asked) or 1)


def request(plan: BenchPlan, dps: int | None, seconds: float = 0.2, **setting: object) -> Request:
    return Request("t", "test", "case", plan.setting.model_copy(update=setting), "fixed", dps, seconds)


@contextmanager
def standing(peer: Peer, **setting: object) -> Iterator[tuple[Bench, BenchPlan]]:
    asked = plan(peer.name, **setting)
    with bench(asked, f"peers-{peer.name}", {**PEERS, peer.name: peer}) as ready:
        yield ready, asked


def balanced(trial: Trial) -> None:
    assert trial.ledger.balanced, (trial.warnings, trial.ledger)
    assert trial.ledger.ingress.entered == trial.offered
    assert trial.ledger.egress.left == trial.delivered
    assert trial.ended is None


def test_socat_copies_every_datagram_of_every_rule_to_every_output() -> None:
    with standing(socat.PEER, rules=3, outputs=2) as (ready, asked):
        trial = ready.measure(request(asked, 2_000, flows=6, payload_bytes=1472))
    balanced(trial)
    assert trial.delivered == trial.expected == 2 * trial.offered > 0
    assert trial.streams is not None
    assert (trial.streams.duplicated, trial.streams.corrupted) == (0, 0)


def test_the_relay_that_a_user_has_binaries_of_is_driven_by_its_command_lines() -> None:
    with standing(mcr.PEER.at(BINARIES), rules=2, outputs=2) as (ready, asked):
        trial = ready.measure(request(asked, 5_000, flows=4))
        balanced(trial)
        assert trial.delivered == trial.expected == 2 * trial.offered > 0


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_peer_that_exits_at_once_delivers_nothing_and_says_why(tmp_path: Path) -> None:
    broken = socat.PEER.at(script(tmp_path / "socat", "echo no such option >&2; exit 3"))
    with standing(broken) as (ready, asked):
        trial = ready.measure(request(asked, 2_000))
    assert trial.delivered == 0 < trial.offered == trial.expected
    assert trial.validity != "doubtful", trial.warnings
    assert trial.ended == "socat: not ready, exited 3: no such option"
    assert trial.ended in trial.warnings
    assert trial.ledger.balanced
    assert [(d.place, d.reason, d.count) for d in trial.ledger.egress.drops] == [
        ("socat", "ended", trial.offered)
    ]


def test_a_peer_that_hangs_delivers_nothing_and_one_that_is_killed_is_started_again() -> None:
    with standing(socat.PEER) as (ready, asked):
        assert ready.subject is not None
        (pid,) = ready.subject.pids
        os.kill(pid, signal.SIGSTOP)
        hanging = ready.measure(request(asked, 2_000))
        os.kill(pid, signal.SIGCONT)
        assert hanging.delivered == 0
        assert "nothing was delivered" in hanging.warnings
        assert hanging.ended is None

        seconds = 0.5
        killer = threading.Timer(seconds / 2, os.kill, (pid, signal.SIGKILL))
        killer.start()
        cut_short = ready.measure(request(asked, 2_000, seconds))
        killer.join()
        assert cut_short.delivered < cut_short.expected, cut_short.warnings
        assert cut_short.ended == "socat: killed by SIGKILL"
        assert cut_short.ledger.balanced
        again = ready.measure(request(asked, 2_000))
        balanced(again)
        assert again.delivered == again.expected > 0


FLOODS: dict[str, dict[str, object]] = {
    "socat": {"outputs": 2, "rules": 2, "receive": "softirq"},
    "mcrd": {"outputs": 4, "workers": 1, "strategy": "fanout", "options": ("--ring-frames", "64")},
}


@pytest.mark.parametrize("flood", FLOODS)
def test_of_a_flood_every_datagram_is_accounted_for(flood: str) -> None:
    with standing(PEERS[flood], **FLOODS[flood]) as (ready, asked):
        for load in ({}, {"burst": 16}):
            trial = ready.measure(request(asked, None, 0.15, flows=4, **load))
            balanced(trial)
            assert trial.expected == trial.offered * asked.setting.outputs > 0
            lost = sum(drop.count for drop in trial.ledger.egress.drops)
            assert trial.delivered + lost == trial.ledger.egress.entered
