"""What is made of the readings of a trial: the use of each CPU, and work that strayed."""

from __future__ import annotations

import pytest

from lab.ledger.observe import strays
from lab.measure.cpu import CpuTime
from lab.results import Setting
from lab.trial.plan import BenchPlan, Cpus
from lab.trial.record import Usage

APART = Cpus(bench=(0,), forwarder=(1,))


def usage(seconds: int) -> Usage:
    """After so many: CPU 0 busy in ticks, CPU 1 idle in ticks but half taken, of which a tenth is stolen."""
    times = {
        0: CpuTime(seconds * 700, seconds * 100, 0, seconds * 200, 0, 0),
        1: CpuTime(seconds * 500, 0, 0, seconds * 20, seconds * 100, seconds * 380),
    }
    return Usage(times, {1: seconds * 600}, {0: seconds * 10, 1: seconds * 40}, {1: seconds * 200})


def test_a_watched_cpu_is_as_busy_as_the_watch_says_less_what_was_stolen() -> None:
    bench, forwarder = usage(5).since(usage(2)).by_cpu(APART)
    assert (bench.cpu, bench.role, bench.busy_ns, bench.received) == (0, "bench", 3000, 30)
    assert (forwarder.cpu, forwarder.role, forwarder.busy_ns) == (1, "forwarder", 3 * 500)
    assert (forwarder.softirq_ns, forwarder.steal_ns, forwarder.received) == (60, 300, 120)
    assert (bench.napi_ns, bench.processes_ns) == (None, 3000 - 600)
    assert (forwarder.napi_ns, forwarder.processes_ns) == (600, 1500 - 60 - 600)


def test_cpus_that_are_not_kept_apart_are_both() -> None:
    assert {use.role for use in usage(1).by_cpu(APART.shared)} == {"both"}


@pytest.mark.parametrize(
    ("arrived", "received", "doubted"),
    [(10_000, 10_000, False), (10_000, 9_900, False), (10_000, 9_700, True), (50, 0, False)],
)
def test_datagrams_received_elsewhere_are_a_reason_for_doubt(
    arrived: int, received: int, doubted: bool
) -> None:
    assert bool(strays(arrived, received)) == doubted


def plan(cpus: Cpus, subject: str = "mcrd", workers: int = 1, **setting: object) -> BenchPlan:
    return BenchPlan(subject, Setting(payload_bytes=64, **setting), 1500, cpus, workers)  # type: ignore[arg-type]


def test_threads_are_dealt_from_the_last_cpu_on_and_workers_from_the_first() -> None:
    wide = plan(Cpus((0, 1), (2, 3, 4)), inputs=2, workers=2)
    assert wide.worker_cpus == (2, 3)
    assert wide.topology.threads == {"fwd": {"in0": 4, "in1": 3}, "rcv": {"r0": 1}}
    assert wide.topology.threads_first
    assert wide.topology.rps_cpus == (2, 3), "fewer inputs than CPUs: flows are spread behind the threads"
    cpus = Cpus((0, 1), (2, 3))
    assert plan(cpus, inputs=4, workers=4).topology.rps_cpus == ()
    each = plan(cpus, inputs=4, strategy="full-fanout").setting.model_copy(update={"workers": 2})
    assert BenchPlan("mcrd", each, 1500, cpus, 8).topology.rps_cpus == (2, 3), "two workers of each interface"


def test_one_cpu_of_the_forwarders_needs_no_steering() -> None:
    assert plan(APART).topology.rps_cpus == ()
    assert plan(APART, receive="softirq").topology.rps_cpus == (1,)
    assert plan(APART, receive="softirq").topology.thread_cpus == ()
    assert not plan(APART, receive="in turn").topology.threads_first
    assert plan(APART, receive="sender").topology.threads == {"rcv": {"r0": 0}}


def test_gso_frames_reach_receivers_without_threads_and_a_generator_alone_has_no_forwarder() -> None:
    assert "rcv" not in plan(APART, egress="offload").topology.threads
    assert plan(APART, "none").topology.threads == {"rcv": {"r0": 0}}
