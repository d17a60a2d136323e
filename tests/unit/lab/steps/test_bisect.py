"""The steps of a bisection on simulated figures: which commits they compare, skip and conclude."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from record_support import comparison_record

from lab.analysis.compare import paired_ratio, verdict
from lab.cli.bisect import conclusion
from lab.journal.archive import Archive
from lab.journal.interrupt import Interrupt
from lab.journal.progress import Reporter
from lab.peers.base import PeerError
from lab.results import Comparison
from lab.scenario.bisect import ask
from lab.scenario.profiles import PROFILES
from lab.steps.context import BenchPool, Context
from lab.steps.kinds import bisect
from lab.steps.kinds.bisect import BisectStep
from lab.steps.kinds.compare import CompareStep, Pairs
from lab.steps.step import Selection, StepError

COMMITS = [f"c{number}" for number in range(1, 9)]
SCENARIO = ask("good", COMMITS, (), "delivered", None)


@dataclass
class Machine:
    """Measures a commit against the good one: half as fast from ``slow`` on; some do not start."""

    slow: str
    broken: tuple[str, ...] = ()
    compared: list[str] = field(default_factory=list)
    random: random.Random = field(default_factory=lambda: random.Random(1))

    def measure(self, step: CompareStep, context: Context, more: Callable[[Pairs, int], int]) -> Comparison:
        commit = step.a.case.commit
        assert commit is not None
        assert (step.b.case.commit, step.reference) == ("good", step.b)
        if commit in self.broken:
            raise PeerError(f"{commit}: does not\nstart")
        self.compared.append(commit)
        level = math.log(0.5) if self.slow in COMMITS[: COMMITS.index(commit) + 1] else 0.0
        pairs: list[tuple[float, float]] = []
        while count := more(pairs, len(pairs)):
            pairs += [(math.exp(level + self.random.gauss(0, 0.02)), 1.0) for _ in range(count)]
        ratio = paired_ratio([a for a, _ in pairs], [1.0] * len(pairs))
        record = comparison_record(ratio.value, low=ratio.low, high=ratio.high, pairs=len(pairs))
        changes = {
            "scenario": step.scenario.name,
            "a_values": [a for a, _ in pairs],
            "b_values": [b for _, b in pairs],
            "verdict": verdict(ratio, higher_is_better=True),
        }
        context.archive.write(made := record.model_copy(update=changes))
        return made


def performed(archive: Archive, machine: Machine, patch: pytest.MonkeyPatch, most: int = 99) -> list[str]:
    """Perform at most so many steps that are left: what failed."""
    patch.setattr(bisect, "measure", machine.measure)
    selection, failed = Selection(SCENARIO, PROFILES["quick"]), []
    steps = list(BisectStep.for_case(selection, SCENARIO.case[0]))
    for step in [step for step in steps if step.step_id not in archive.finished][:most]:
        archive.begin()
        context = Context(archive, Reporter(), "x", BenchPool("x", {}), Interrupt())
        try:
            step.perform(context)
        except StepError as error:
            failed.append(str(error))
            archive.give_up(step.step_id)
        else:
            archive.finish(step.step_id)
    return failed


@pytest.mark.parametrize("slow", COMMITS)
def test_every_commit_is_found_in_few_comparisons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    machine = Machine(slow)
    with Archive.create(tmp_path) as archive:
        assert not performed(archive, machine, monkeypatch)
        assert conclusion(SCENARIO, archive.records)["commits"] == [slow]
    assert machine.compared[0] == "c8"
    assert len(machine.compared) == 4


def test_a_commit_that_does_not_start_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine("c5", broken=("c4", "c5"))
    with Archive.create(tmp_path) as archive:
        assert not performed(archive, machine, monkeypatch)
        found = conclusion(SCENARIO, archive.records)
    assert (found["commits"], found["skipped"]) == (["c4", "c5", "c6"], ["c4", "c5"])
    assert "c4: does not start" in (tmp_path / "results.jsonl").read_text()


def test_a_bad_commit_that_does_not_start_leaves_nothing_to_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive.create(tmp_path) as archive:
        failed = performed(archive, Machine("c5", broken=("c8",)), monkeypatch)
        assert "c8 could not be compared: c8: does not start" in failed
        assert conclusion(SCENARIO, archive.records)["ratio"] is None


def test_a_resumed_bisection_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Machine("c3"), Machine("c3")
    with Archive.create(tmp_path) as archive:
        performed(archive, first, monkeypatch, most=2)
        assert conclusion(SCENARIO, archive.records)["commits"] == ["c1", "c2", "c3", "c4"]
    with Archive.resume(tmp_path) as archive:
        assert not performed(archive, second, monkeypatch)
        assert conclusion(SCENARIO, archive.records)["commits"] == ["c3"]
    assert (first.compared, second.compared) == (["c8", "c4"], ["c2", "c3"])
