"""RFC 3918's tests against the real kernel: two classes in one load, rules that come and go, many groups."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lab.journal.archive import Archive
from lab.journal.interrupt import Interrupt
from lab.journal.progress import Reporter
from lab.load.flows import Request
from lab.peers import PEERS
from lab.results import NS_PER_S, Capacity, Delay, Setting, Trial
from lab.scenario.files import parse_scenario
from lab.steps.context import BenchPool, Context
from lab.steps.plan import steps
from lab.trial.bench import bench
from lab.trial.plan import BenchPlan, divide

MCRD = {"strategy": "fanout", "workers": 1}
ATTEMPTS = 5
"""Trials until one has no loss: on a busy machine others than the subject may lose something."""


@pytest.mark.parametrize("subject", ["kernel", "mcrd"])
def test_both_classes_are_accounted_for_to_the_datagram_also_when_overloaded(subject: str) -> None:
    own = MCRD if subject == "mcrd" else {}
    plain = Setting(payload_bytes=64, outputs=4, rules=2, flows=2, **own)  # type: ignore[arg-type]
    with bench(BenchPlan(subject, plain, 1500, divide(os.sched_getaffinity(0))), f"mixed-{subject}") as ready:
        for percent, dps in ((50, 8_000), (0, 8_000), (20, None)):
            asked = plain.model_copy(update={"unicast_percent": percent})
            for _attempt in range(ATTEMPTS):
                trial = ready.measure(Request("t", "test", "case", asked, "fixed", dps, 0.2))
                assert trial.ledger.balanced, trial.warnings
                assert trial.ledger.ingress.entered == trial.offered
                assert trial.ledger.egress.left == trial.delivered
                if dps is None or trial.delivered == trial.expected:
                    break
            of = {name: [o for o in trial.outputs if o.traffic == name] for name in ("multicast", "unicast")}
            assert [o.interface for o in of["multicast"]] == ["r0", "r1", "r2", "r3"]
            assert len(of["unicast"]) == (4 if percent else 0)
            assert trial.delivered == sum(o.delivered for o in trial.outputs)
            assert trial.expected == sum(o.offered for o in trial.outputs)
            each = of["multicast"][0].offered
            routed = sum(o.offered for o in of["unicast"])
            assert each + routed == trial.offered
            turn = 2 * 100 // (100 - percent) if percent else 1
            assert abs(routed - trial.offered * percent / 100) <= 4 * turn
            if dps is None:
                continue
            assert trial.delivered == trial.expected > 0
            assert trial.latency is not None
            assert trial.latency.count == sum(o.delivered for o in of["multicast"])
            for sample in trial.outputs:
                assert sample.latency_min_ns is not None
                assert sample.latency_mean_ns is not None
                assert sample.latency_max_ns is not None
                assert 0 < sample.latency_min_ns <= sample.latency_mean_ns <= sample.latency_max_ns


SCENARIO = """
name = "probes"
title = "Delay and capacity"
default = false
subjects = ["mcrd", "kernel"]
[setting]
rules = 3
flows = 3
outputs = 2
[receive]
mcrd = ["first"]
kernel = ["softirq"]
[[case]]
name = "case"
[[latency]]
subjects = ["mcrd"]
multicast_dps = [2000, 4000]
[[delay]]
dps = 5000
[[capacity]]
subjects = ["mcrd"]
groups = [3, 60]
dps = 5000
per_group = 2
[profile.quick]
trial_ms = 100
repetitions = 6
"""


def test_latency_delay_and_capacity(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "run") as archive:
        with BenchPool("rfc3918", PEERS) as benches:
            for step in steps([parse_scenario(SCENARIO, "probes.toml")], "quick"):
                context = Context(archive, Reporter(), "rfc3918", benches, Interrupt())
                step.perform(context)
                assert not context.failures
        records = list(archive.records)
    check_delays([record for record in records if isinstance(record, Delay)])
    check_capacities([record for record in records if isinstance(record, Capacity)])
    trials = [record for record in records if isinstance(record, Trial)]
    assert all(trial.ledger.balanced for trial in trials)
    latencies = [trial for trial in trials if trial.purpose == "latency"]
    assert {trial.asked_dps for trial in latencies} == {2000, 4000}
    loaded = [trial for trial in latencies if trial.validity != "invalid"]
    assert all([output.interface for output in trial.outputs] == ["r0", "r1"] for trial in loaded)
    assert all(output.latency_max_ns for trial in loaded for output in trial.outputs if output.delivered)


def check_delays(found: list[Delay]) -> None:
    kinds = [(each.subject, each.sign, each.interface, each.change) for each in found]
    datagrams = [("datagram", output, change) for output in ("r0", "r1") for change in ("add", "remove")]
    reports = [("membership report", "in0", change) for change in ("add", "remove")]
    assert kinds == [
        *(("mcrd", *kind) for kind in [*datagrams, *reports]),
        *(("kernel", *kind) for kind in datagrams),
    ]
    for each in found:
        said = json.dumps(each.model_dump())
        assert len(each.values_ns) + each.missed == len(each.answered_ns) == 6, said
        assert len(each.values_ns) >= 3, said
        assert max(each.values_ns) < NS_PER_S, said
        assert not [warning for warning in each.warnings if "kept" in warning], said
        # Only multicast routing keeps datagrams of groups that it does not know yet.
        assert each.held_back == 0 or each.subject == "kernel", said
    joins = {(each.subject, each.interface): each for each in found if each.change == "add"}
    for (subject, interface), each in joins.items():
        # mcrd asks the network in the same request that puts the rule into force; neither can be instant.
        assert min(each.values_ns, default=1) > 0, (subject, interface)


def check_capacities(found: list[Capacity]) -> None:
    (each,) = found
    assert [step.groups for step in each.steps] == [3, 60]
    assert [step.silent for step in each.steps] == [0, 0]
    assert (each.subject, each.groups, each.bound_by, each.setting.rules) == ("mcrd", 60, "limit", 60), each
    last = each.steps[-1]
    assert last.delivered == last.expected == 2 * last.offered >= 2 * 60


TOO_MUCH = """
name = "too-much"
title = "More copies than any subject makes"
subjects = ["kernel"]
[setting]
outputs = 4
generator = "xdp"
[[case]]
name = "case"
[[capacity]]
groups = [3, 60]
dps = 2_000_000
[profile.quick]
trial_ms = 100
"""


def test_a_capacity_that_is_too_much_is_named(tmp_path: Path) -> None:
    """A rate that no subject holds: the first step loses, and nothing more is tried."""
    scenario = parse_scenario(TOO_MUCH, "probes.toml")
    with Archive.create(tmp_path / "run") as archive, BenchPool("loss", PEERS) as benches:
        for step in steps([scenario], "quick"):
            step.perform(Context(archive, Reporter(), "loss", benches, Interrupt()))
        (capacity,) = [record for record in archive.records if isinstance(record, Capacity)]
    assert capacity.groups is None
    assert capacity.bound_by in ("loss", "generator")
    assert [step.groups for step in capacity.steps] == [3]
