"""What footprints start, and which of their promises they miss."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from report_support import footprint as footprint_record

from forwarder.plan.document import ROWS, DocumentRow
from lab.journal.archive import Archive
from lab.journal.interrupt import Interrupt
from lab.journal.progress import Reporter
from lab.measure.processes import processor_ns
from lab.results import Footprint, Memory
from lab.scenario.files import DIRECTORY, load_scenarios, parse_scenario
from lab.scenario.layout import workers_in_all
from lab.scenario.tables import FootprintCase
from lab.steps.context import BenchPool, Context
from lab.steps.kinds import footprint
from lab.steps.kinds.footprint import compared, misses, sampled
from lab.steps.plan import steps

TWO_WORKERS = """
name = "s"
title = "Two workers"
[[footprint]]
name = "c"
workers = 2
rules = 1
"""
STARTED = [row for row in ROWS if row.workers is not None]


@pytest.fixture(scope="module")
def cases() -> list[FootprintCase]:
    paths = [str(path) for path in DIRECTORY.glob("table-row-*.toml")]
    return [case for scenario in load_scenarios(paths) for case in scenario.footprint]


@pytest.mark.parametrize("row", STARTED, ids=lambda row: row.source)
def test_every_row_of_the_document_is_really_started(row: DocumentRow, cases: list[FootprintCase]) -> None:
    same = [
        case
        for case in cases
        if (case.strategy, case.inputs, case.cpus or case.workers, case.rules)
        == (row.strategy, row.interfaces, row.cpus, row.rules)
    ]
    assert [workers_in_all(case.setting) for case in same] == [row.workers]


def memory(**changes: int) -> Memory:
    sizes = {"pss_bytes_total": 1, "ring_bytes_total": 1, "template_bytes": 1}
    return Memory(workers=2, **{"private_bytes_per_worker": 1_200_000, **sizes, **changes})


def record(**changes: object) -> Footprint:
    measured = footprint_record(
        "c",
        workers=2,
        memory=memory(),
        idle_cpu_ns=10_000_000,
        idle_ns=1_000_000_000,
        ready_ns=20_000_000_000,
        stopped_ns=10_000_000_000,
    )
    return measured.model_copy(update=changes)


@pytest.mark.parametrize(
    ("target", "met", "missed", "words"),
    [
        ("ready_target_ns", 20_000_000_000, 19_000_000_000, "ready in 20.00 s, at most 19 s promised"),
        ("stop_target_ns", 10_000_000_000, 9_500_000_000, "stopped in 10.00 s, at most 9.5 s promised"),
        ("private_target_bytes", 1_200_000, 1_100_000, "1.20 MB private per worker, at most 1.1 MB promised"),
        ("idle_target", 0.01, 0.005, "1.00% of a CPU busy when idle, at most 0.50% promised"),
    ],
)
def test_a_promise_is_missed_beyond_it_and_only_then(
    target: str, met: float, missed: float, words: str
) -> None:
    assert misses(record()) == []
    assert misses(record(**{target: met})) == []
    assert misses(record(**{target: missed})) == [words]


def test_a_wrong_number_of_workers_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = parse_scenario(TWO_WORKERS, "s.toml")
    (step,) = steps([scenario], "quick")
    failures = []
    for workers in (2, 1):
        measured = record(workers=workers)
        monkeypatch.setattr(footprint, "run_footprint", lambda *_, of=measured: of)
        with Archive.create(tmp_path / str(workers)) as archive:
            context = Context(archive, Reporter(), "r", BenchPool("r", {}), Interrupt())
            step.perform(context)
        failures.append(context.failures)
    assert failures == [[], ["s/c/footprint: expected 2 workers, observed 1 workers"]]


def test_a_sample_goes_from_end_to_end() -> None:
    assert sampled(range(5), 8) == range(5)
    assert sampled(range(8), 8) == range(8)
    assert sampled(range(1920), 4) == [0, 639, 1279, 1919]


def test_processor_time_grows_with_work_and_is_not_had_of_the_dead() -> None:
    before = processor_ns([os.getpid()])
    sum(range(2_000_000))
    assert processor_ns([os.getpid()]) - before > 1_000_000
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(ProcessLookupError, match=f"process {ended.pid} is gone"):
        processor_ns([ended.pid])


def test_memory_is_compared_without_rings_which_are_told() -> None:
    """And by what these processes hold, whoever else maps the same libraries."""

    def of(held_bytes: int, ring_bytes: int, case: str) -> Footprint:
        held = memory(
            private_bytes_per_worker=1_000_000,
            pss_bytes_total=100_000_000 - held_bytes,
            ring_bytes_total=ring_bytes,
            template_bytes=3_000_000,
            shared_bytes=held_bytes - 5_000_000,
        )
        return record(case=case, memory=held)

    small, large = of(10_000_000, 9_000_000, "small"), of(11_000_000, 1_000_000, "large")
    check = compared(large, small, 1.1)
    assert check.passed
    assert (check.case, check.expected) == ("large", "memory at most 1.1 × that of: small")
    assert check.observed == "11.0 MB, 1.100 × 10.0 MB; rings of 1.0 and 9.0 MB beside"
    assert not compared(large, small, 1.09).passed
