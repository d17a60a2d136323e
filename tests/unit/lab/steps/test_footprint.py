"""What footprints start, and which of their promises they miss."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from report_support import footprint as footprint_record

from forwarder.plan.document import ROWS, WORKER_COUNT_TABLE, DocumentRow, documented
from forwarder.plan.memory import MB, megabytes
from lab.journal.archive import Archive
from lab.journal.interrupt import Interrupt
from lab.journal.progress import Reporter
from lab.load.flows import rules_of
from lab.measure.processes import processor_ns, user_and_kernel_ns
from lab.peers.mcrd import rules_document
from lab.results import Check, Footprint, Memory
from lab.scenario.files import load_scenarios, parse_scenario
from lab.scenario.layout import workers_in_all
from lab.steps.context import BenchPool, Context
from lab.steps.kinds import footprint
from lab.steps.kinds.footprint import _plan, compared, misses, ready_text, sampled
from lab.steps.plan import steps

TWO_WORKERS = """
name = "s"
title = "Two workers"
[[footprint]]
name = "c"
workers = 2
rules = 1
"""
TABLE_ROW = re.compile(
    r"row (\d): \| (\d+) \| (\d+) \| ([^|]+) \| (\d+) \| (\d+) rules \| (\d+) MB \|(?:;|$)"
)
"""A row of the Worker Count Table as a scenario quotes it: the document's own text."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.source)
def test_the_default_run_starts_every_row_with_its_workers_rules_and_memory(row: DocumentRow) -> None:
    """The document's figures against those of a plan; a difference must be one that the plan names."""
    sizes = (row.strategy, row.interfaces, row.cpus, row.rules)
    started = [
        case
        for scenario in load_scenarios([])
        for case in scenario.footprint
        if sizes == (case.strategy, case.inputs, case.cpus or case.workers, case.rules)
    ]
    if row.workers is None:  # it grows and shrinks
        assert any(
            scenario.course and sizes[:2] + sizes[3:] == (values.strategy, values.inputs, values.rules)
            for scenario in load_scenarios([])
            for values in map(scenario.settings_of, scenario.case)
        )
        return
    (case,) = started
    names = [f"in{number}" for number in range(case.inputs)]
    planned = _plan(case, names, rules_document(rules_of(case.setting, ["out0"])))
    stated, modelled = documented(planned), planned.figures.modelled
    assert row in stated.rows
    assert workers_in_all(case.setting) == modelled.workers == row.workers
    assert row.total_bytes in (None, stated.total_bytes)
    named = " ".join(text for text in stated.discrepancies if text.startswith(row.source))
    held = modelled.rules_least <= (row.rules_per_worker or 0) <= modelled.rules_most
    assert held or f"{row.rules_per_worker:,} rules a worker" in named
    assert row.total_bytes in (None, modelled.total_bytes) or megabytes(row.total_bytes) in named


def test_the_rows_are_those_of_the_documents_table() -> None:
    seeds = [scenario.seed for scenario in load_scenarios([])]
    quoted = {found[1]: found for seed in seeds if (found := TABLE_ROW.search(seed))}
    assert sorted(quoted) == [str(number) for number in range(1, 8)]
    for number, found in quoted.items():
        (row,) = (row for row in ROWS if row.source == f"{WORKER_COUNT_TABLE}, row {number}")
        stated = (row.interfaces, row.cpus, row.workers, row.rules_per_worker, row.total_bytes)
        interfaces, cpus, _, workers, rules, size = found.groups()[1:]
        assert stated == (*map(int, (interfaces, cpus, workers, rules)), int(size) * MB)


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


def test_an_aim_is_told_with_the_kernels_part_and_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = parse_scenario(f"{TWO_WORKERS}ready_aim_s = 19.0\n", "s.toml")
    (step,) = steps([scenario], "quick")
    measured = record(ready_user_ns=1_000_000_000, ready_kernel_ns=3_000_000_000)
    monkeypatch.setattr(footprint, "run_footprint", lambda *_: measured)
    with Archive.create(tmp_path / "run") as archive:
        context = Context(archive, Reporter(), "r", BenchPool("r", {}), Interrupt())
        step.perform(context)
        (aim,) = (check for check in archive.records if isinstance(check, Check) and check.aim)
    assert context.failures == []
    assert (aim.passed, aim.expected) == (False, "ready in 19 s at most")
    assert aim.observed == "20.00 s (the kernel's part 75% of 4.00 s of CPU time)"
    assert ready_text(record()) == "20.00 s"


def test_processor_time_is_divided_into_a_processes_own_and_the_kernels() -> None:
    before = user_and_kernel_ns([os.getpid()])
    sum(range(5_000_000))
    user = user_and_kernel_ns([os.getpid()])
    for _ in range(300):
        mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
    kernel = user_and_kernel_ns([os.getpid()])
    assert user[0] - before[0] > user[1] - before[1]
    assert kernel[1] - user[1] > kernel[0] - user[0]


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
