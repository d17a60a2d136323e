"""Trials against the real kernel: every datagram has an account, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lab.load.flows import Request, Rule
from lab.load.topology import Topology
from lab.netns.build import build
from lab.peers import kernel
from lab.peers.base import PeerError
from lab.results import NONE, Receive, Setting, Trial
from lab.scenario.layout import workers_in_all
from lab.trial.bench import Bench, bench, measure_together
from lab.trial.plan import BenchPlan, divide

ATTEMPTS = 10


def request(plan: BenchPlan, dps: int | None, seconds: float = 0.2, **setting: object) -> Request:
    asked = plan.setting.model_copy(update=setting)
    return Request("t", "test", "case", asked, "fixed", dps, seconds)


def plan(subject: str, **setting: object) -> BenchPlan:
    asked = Setting(payload_bytes=64, **setting)  # type: ignore[arg-type]
    return BenchPlan(subject, asked, 1500, divide(os.sched_getaffinity(0)), workers_in_all(asked) or 1)


def accounted(trial: Trial) -> None:
    """The ledger balances, and what was delivered plus what was dropped is what was due."""
    assert trial.ledger.balanced, trial.warnings
    assert trial.ledger.ingress.entered == trial.offered
    assert trial.streams is not None
    assert trial.ledger.egress.left == trial.delivered
    assert trial.streams.duplicated == trial.streams.corrupted == 0
    for counted, of_all in (("offered", trial.offered), ("delivered", trial.delivered)):
        assert not trial.inputs or sum(getattr(sample, counted) for sample in trial.inputs) == of_all


@pytest.fixture(scope="module")
def alone() -> Iterator[Bench]:
    """The generator and its receivers; a bench serves one load after another."""
    with bench(plan(NONE), "alone") as ready:
        yield ready


@pytest.mark.parametrize(("flows", "payload"), [(1, 64), (5, 512)])
def test_the_generator_alone_delivers_everything_at_a_modest_rate(
    alone: Bench, flows: int, payload: int
) -> None:
    trial = alone.measure(request(alone.plan, 10_000, flows=flows, payload_bytes=payload))
    accounted(trial)
    assert trial.delivered == trial.expected == trial.offered > 0
    assert trial.setting.payload_bytes == payload
    assert trial.streams is not None
    assert (trial.streams.streams, trial.streams.checked) == (flows, trial.offered)
    assert trial.latency is not None
    assert trial.latency.count == trial.offered


@pytest.mark.serial
def test_other_work_on_the_generators_cpu_does_not_hold_it_up() -> None:
    alone = plan(NONE)
    busy = ["taskset", "-c", str(alone.cpus.sender), "sh", "-c", "while :; do :; done"]
    with bench(alone, "busy") as ready:
        others = [subprocess.Popen(busy) for _ in range(3)]
        try:
            trials = [ready.measure(request(alone, 50_000)) for _ in range(3)]
        finally:
            for other in others:
                other.kill()
                other.wait()
        assert os.sched_getscheduler(ready.sender.pid) == os.SCHED_OTHER, "between trials it is one of many"
    assert [trial.offered for trial in trials] == [10_000] * 3


@pytest.mark.parametrize("dps", [9_999, None])
@pytest.mark.parametrize("flows", [1, 3])
def test_bursts_arrive_as_single_datagrams_and_are_all_accounted_for(
    alone: Bench, flows: int, dps: int | None
) -> None:
    """Also when neither what is asked for nor what the flows share is a whole number of bursts."""
    for _attempt in range(ATTEMPTS):
        trial = alone.measure(request(alone.plan, dps, flows=flows, burst=8))
        accounted(trial)
        if trial.validity != "invalid":  # a generator that was held up
            break
    assert trial.validity == "valid", trial.warnings
    assert trial.offered % 8 == 0
    assert trial.delivered == trial.expected == trial.offered > 0
    assert trial.latency is not None
    assert trial.latency.count == trial.offered


@pytest.mark.parametrize(("receive", "outputs"), [("first", 1), ("first", 3), ("softirq", 3), ("sender", 3)])
def test_kernel_routing_copies_every_datagram_to_every_output(receive: Receive, outputs: int) -> None:
    routed = plan("kernel", receive=receive, outputs=outputs, rules=3)
    with bench(routed, "copies") as ready:
        for _ in range(2):
            trial = ready.measure(request(routed, 5_000, flows=6))
            accounted(trial)
            assert trial.delivered == trial.expected == trial.offered * outputs > 0


def test_every_datagram_of_an_overload_is_booked() -> None:
    overloaded = plan("kernel", receive="softirq", outputs=8)
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


@pytest.mark.serial
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: nothing runs beside it")
def test_pipelines_run_at_the_same_time_each_on_its_own_cpu() -> None:
    setting = Setting(payload_bytes=64, strategy="fanout", workers=1, receive="sender", pipelines=2)
    plans = [BenchPlan("mcrd", setting, 1500, cpus) for cpus in divide(os.sched_getaffinity(0)).each[:2]]
    with ExitStack() as stack:
        benches = [stack.enter_context(bench(each, f"pipeline-{n}")) for n, each in enumerate(plans)]
        trials = measure_together([(each, request(each.plan, None)) for each in benches])
    for each, trial in zip(plans, trials, strict=True):
        accounted(trial)
        assert trial.delivered
        assert {worker.cpu for worker in trial.workers} == set(each.cpus.bench)
        assert trial.cpu is not None
        (use,) = trial.cpu.by_cpu
        assert use.cpu == each.cpus.sender
        assert use.received >= trial.offered, "all is received there, and by the receivers again"


def test_datagrams_that_reach_the_wrong_worker_are_booked_as_that() -> None:
    """Rules are hashed to workers, datagrams go by processor: each worker holds a part, and gets any."""
    astray = plan(
        "mcrd",
        strategy="rule-hash",
        steering="cpu",
        workers=2,
        inputs=2,
        rules=32,
        flows=32,
        receive="softirq",
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
    assert f"oversubscribed: {2 * cpus} workers on {len(many.worker_cpus)} CPU(s)" in trial.warnings
    assert trial.validity != "doubtful", trial.warnings
    assert trial.delivered == trial.expected


def test_the_kernel_routes_between_32_interfaces_and_says_so_when_asked_for_more() -> None:
    outputs = tuple(f"out{number}" for number in range(32))
    rule = Rule("r", "239.1.0.0", 5001, "10.10.0.1", "in0", outputs)
    setting = Setting(payload_bytes=64, outputs=32)
    with build(Topology(outputs=32), "too-many") as lab, pytest.raises(PeerError, match="32"):
        kernel.PEER.start(lab, [rule], setting, ())
