"""A run's directory: what survives an interruption, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.archive import JOURNAL, Archive, ArchiveError
from lab.results import Check, RunEnded, read_results


def check(case: str, passed: bool = True) -> Check:
    return Check(scenario="s", case=case, passed=passed, expected="", observed="")


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
    with pytest.raises(ArchiveError, match="--resume"):
        Archive.create(tmp_path)


def test_a_directory_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no run to resume"):
        Archive.resume(tmp_path)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    Archive.create(tmp_path).close()
    (tmp_path / JOURNAL).write_text('{"step": 7}\n')
    with pytest.raises(ArchiveError, match="not a run that can be resumed"):
        Archive.resume(tmp_path)
