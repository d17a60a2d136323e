"""A run's directory: what survives an interrupt, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_support import trial_record

from lab.journal.archive import JOURNAL, RESULTS, Archive, RunError
from lab.results import Check, RunEnded, Trial, read_results


def check(case: str, passed: bool = True) -> Check:
    return Check(scenario="s", case=case, passed=passed, expected="", observed="")


def trial(step: str, number: int, dps: int = 1000) -> Trial:
    return trial_record(trial_id=f"{step}/mcrd-{number}", asked_dps=dps)


def trials(archive: Archive) -> list[Trial]:
    return [record for record in read_results(archive.results) if isinstance(record, Trial)]


def anything(_: Trial) -> bool:
    return True


def test_records_are_readable_as_soon_as_they_are_written(tmp_path: Path) -> None:
    with Archive.create(tmp_path) as archive:
        archive.write(check("one"))
        assert [record.case for record in read_results(archive.results) if isinstance(record, Check)] == [
            "one"
        ]


def test_a_resumed_run_keeps_finished_steps_only(tmp_path: Path) -> None:
    with Archive.create(tmp_path) as archive:
        archive.begin()
        archive.write(check("first"))
        archive.finish("step 1")
        archive.begin()
        archive.write(check("broken"))  # this step fails: it is never finished
        archive.begin()
        archive.write(check("third", passed=False))
        archive.finish("step 3", ["third: failed"])
        archive.begin()
        archive.write(check("half done"))
        archive.write(RunEnded(ended_at="", outcome="interrupted"))
    with Archive.resume(tmp_path) as again:
        assert again.finished == {"step 1", "step 3"}
        assert again.failures == ["third: failed"]
        assert [record.case for record in again.records if isinstance(record, Check)] == ["first", "third"]
        again.begin()
        again.write(check("fourth"))
        again.finish("step 4")
    with Archive.resume(tmp_path) as last:
        assert last.finished == {"step 1", "step 3", "step 4"}
        assert [r.case for r in last.records if isinstance(r, Check)] == ["first", "third", "fourth"]


def test_a_journal_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    with Archive.create(tmp_path) as archive:
        archive.write(check("first"))
        archive.finish("step 1")
    with (tmp_path / JOURNAL).open("a") as journal:
        journal.write('{"step": "st')
    with Archive.resume(tmp_path) as again:
        assert again.finished == {"step 1"}


def test_a_directory_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    Archive.create(tmp_path).close()
    with pytest.raises(RunError, match="--resume"):
        Archive.create(tmp_path)


def test_a_directory_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run to resume"):
        Archive.resume(tmp_path)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    Archive.create(tmp_path).close()
    (tmp_path / JOURNAL).write_text('{"step": 7}\n')
    with pytest.raises(RunError, match="not a run that can be resumed"):
        Archive.resume(tmp_path)


def test_a_step_cut_short_gets_its_trials_back_in_order_and_none_is_there_twice(tmp_path: Path) -> None:
    done, first, second = trial("done", 1), trial("cut", 1), trial("cut", 2)
    with Archive.create(tmp_path) as archive:
        archive.begin()
        archive.write(done)
        archive.finish("done")
        archive.begin()
        archive.write(first)
        archive.write(check("a conclusion of the step"))
        archive.write(second)
    with Archive.resume(tmp_path) as again:
        assert trials(again) == [done]
        again.begin()
        assert again.recall("done", anything) is None
        assert again.recall("cut", anything) == first
        again.write(first)
        assert again.recall("cut", lambda trial: trial.asked_dps == 1000) == second
        again.write(second)
        assert again.recall("cut", anything) is None
        again.finish("cut")
        assert trials(again) == [done, first, second]
    with Archive.resume(tmp_path) as last:
        assert not last.unfinished
        assert trials(last) == [done, first, second]


def test_a_second_kill_while_trials_are_given_back_loses_none(tmp_path: Path) -> None:
    recorded = [trial("cut", number) for number in (1, 2, 3)]
    with Archive.create(tmp_path) as archive:
        archive.begin()
        for each in recorded:
            archive.write(each)
    with Archive.resume(tmp_path) as again:
        again.begin()
        assert again.recall("cut", anything) == recorded[0]
        again.write(recorded[0])
    with (tmp_path / RESULTS).open("a") as results:
        results.write('{"kind": "trial", "tri')
    with Archive.resume(tmp_path) as last:
        assert [last.recall("cut", anything) for _ in recorded] == recorded
        assert trials(last) == []


def test_a_step_that_asks_for_something_else_gets_nothing_more_back(tmp_path: Path) -> None:
    with Archive.create(tmp_path) as archive:
        archive.begin()
        for number in (1, 2, 3):
            archive.write(trial("cut", number))
    with Archive.resume(tmp_path) as again:
        again.begin()
        assert again.recall("cut", anything) == trial("cut", 1)
        again.write(trial("cut", 1))
        assert again.recall("cut", lambda trial: trial.asked_dps == 2000) is None
        assert again.recall("cut", anything) is None
        again.write(trial("cut", 2, dps=2000))
    with Archive.resume(tmp_path) as last:
        assert last.recall("cut", anything) == trial("cut", 1)
        assert last.recall("cut", anything) == trial("cut", 2, dps=2000)
        assert last.recall("cut", anything) is None


def test_a_step_that_was_given_up_begins_from_nothing(tmp_path: Path) -> None:
    with Archive.create(tmp_path) as archive:
        archive.begin()
        archive.write(trial("noisy", 1))
        archive.give_up("noisy")
        archive.begin()
        archive.write(trial("next", 1))
    with Archive.resume(tmp_path) as again:
        assert not again.finished
        assert again.recall("noisy", anything) is None
        assert again.recall("next", anything) == trial("next", 1)
