"""A load that changes, and a forwarder that is changed under load: every datagram is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.journal.archive import Archive
from lab.journal.interrupt import Interrupt
from lab.journal.progress import Reporter
from lab.load.flows import Request
from lab.peers import PEERS
from lab.peers.base import Operable
from lab.results import Change, Check, Course, Trial
from lab.scenario.files import parse_scenario
from lab.steps.context import BenchPool, Context, plan_for
from lab.steps.plan import steps
from lab.trial.bench import Bench

pytestmark = pytest.mark.serial

SCENARIO = """
name = "changing"
title = "A flash crowd, then changes"
subjects = ["mcrd"]
[setting]
strategy = "dynamic"
workers = 2
flows = 16
options = ["--scale-threshold-pps", "1500", "--ring-frames", "1024"]
[receive]
mcrd = ["first"]
[[case]]
name = "1 or 2"
[[course]]
phases = [{ dps = 500, seconds = 0.2 }, { dps = 3000, seconds = 2.3 }]
most_workers = 2
[[change]]
kinds = ["grow", "remove rule"]
dps = 1300
trials = 1
trial_s = 1.0
after_ms = 100
[[change]]
kinds = ["apply"]
to = "pool"
dps = 1300
trials = 1
trial_s = 2.0
"""


def test_workers_come_with_the_load_and_each_change_has_its_account(tmp_path: Path) -> None:
    scenario = parse_scenario(SCENARIO, "changing.toml")
    with Archive.create(tmp_path / "out") as archive, BenchPool("changing", PEERS) as benches:
        for step in steps([scenario], "quick"):
            archive.begin()
            context = Context(archive, Reporter(), "changing", benches, Interrupt())
            step.perform(context)
            assert context.failures == []
            archive.finish(step.step_id)
        records = list(archive.records)
        (case,) = scenario.case
        setting = scenario.result_setting(case, "mcrd", receive="first")
        absent_for_a_while(benches.get(plan_for(scenario, case, "mcrd", setting, benches.cpus)))
    (course,) = (record for record in records if isinstance(record, Course))
    assert [(one.before, one.after) for one in course.resizes] == [(1, 2)]
    assert course.offered == sum(phase.offered for phase in course.phases)
    assert course.scaled_ns is not None
    assert [check.passed for check in records if isinstance(check, Check)] == [True]
    changes = {record.change: record for record in records if isinstance(record, Change)}
    assert list(changes) == ["grow", "remove rule", "apply"]
    assert 0 < changes["grow"].flows_moved < changes["apply"].flows_moved == 16
    for record in changes.values():
        assert (record.lost, record.duplicated, record.reordered) == ([0], [0], [0])
        assert record.took_ns[0] > 0
    assert all(trial.ledger.balanced for trial in records if isinstance(trial, Trial))


def absent_for_a_while(made: Bench) -> None:
    """Stopped and started under load: what nobody was there for is booked as that, and the rules are kept."""
    before: object = made.subject
    assert isinstance(before, Operable)
    first = before.workers()
    request = Request("t", "changing", "1 or 2", made.plan.setting, "change", 1000, 1.0)
    restarted = made.measure(request, before.restart)
    drops = {drop.reason: drop.count for drop in restarted.ledger.ingress.drops}
    assert drops == {"not running": restarted.expected - restarted.delivered}
    assert restarted.ledger.balanced
    assert drops["not running"] > 0
    assert not set(first.values()) & set(before.workers().values())
    again = made.measure(request)
    assert again.ledger.ingress.drops == []
    assert again.delivered == again.expected > 0
