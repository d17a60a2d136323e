"""A run's directory: results as they come, and what makes a run resumable.

``results.jsonl`` holds the records of :mod:`lab.results`, flushed one by one. ``journal.jsonl`` gets a line
for each finished step: its place in the results, in bytes, and what failed in it. To resume is to keep what
finished steps wrote, so that a step half done leaves nothing behind, and to go on with the others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.results import AnyRecord, ResultsError, RunStarted, dump_line, read_results

RESULTS = "results.jsonl"
JOURNAL = "journal.jsonl"


class ArchiveError(ValueError):
    """A directory that cannot be written to, or not resumed; the message says why."""


class Mark(BaseModel):
    """One line of the journal: ``step`` wrote the results from byte ``start`` up to ``end``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    start: int
    end: int
    failures: list[str] = []


class Archive:
    """An open run directory; made by :meth:`create` or :meth:`resume`, a context manager."""

    def __init__(self, directory: Path, records: list[AnyRecord], marks: list[Mark]) -> None:
        self.directory = directory
        self.records = records
        self.finished = {mark.step for mark in marks}
        self.failures = [failure for mark in marks for failure in mark.failures]
        """What failed in the finished steps."""
        self._results: IO[bytes] = (directory / RESULTS).open("ab")
        self._journal: IO[bytes] = (directory / JOURNAL).open("ab")
        self._step_start = self._results.tell()

    @classmethod
    def create(cls, directory: Path) -> Archive:
        """An empty archive in a directory that holds no other run."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if (directory / RESULTS).exists():
                raise ArchiveError(f"{directory}: holds a run already; choose another, or --resume it")
            return cls(directory, [], [])
        except OSError as error:
            raise ArchiveError(f"{directory}: {error.strerror}") from error

    @classmethod
    def resume(cls, directory: Path) -> Archive:
        """The archive in ``directory``, with what its finished steps wrote and nothing else."""
        try:
            marks = [Mark.model_validate_json(line) for line in _whole_lines(directory / JOURNAL)]
            written = (directory / RESULTS).read_bytes()
        except FileNotFoundError as error:
            raise ArchiveError(f"{error.filename}: no such file, so there is no run to resume") from error
        except (OSError, ValidationError) as error:
            raise ArchiveError(f"{directory}: not a run that can be resumed: {error}") from error
        kept: list[Mark] = []
        pieces: list[bytes] = []
        for mark in marks:
            start = sum(map(len, pieces))
            pieces.append(written[mark.start : mark.end])
            kept.append(mark.model_copy(update={"start": start, "end": start + len(pieces[-1])}))
        _replace(directory / RESULTS, b"".join(pieces))
        _replace(directory / JOURNAL, b"".join(_line(mark) for mark in kept))
        try:
            records = list(read_results(directory / RESULTS))
        except ResultsError as error:
            raise ArchiveError(f"{directory}: not a run that can be resumed: {error}") from error
        return cls(directory, records, kept)

    @property
    def results(self) -> Path:
        return self.directory / RESULTS

    @property
    def started(self) -> RunStarted | None:
        first = self.records[0] if self.records else None
        return first if isinstance(first, RunStarted) else None

    def write(self, record: AnyRecord) -> None:
        """Add a record; another process can read it when this returns."""
        self._results.write(dump_line(record).encode())
        self._results.flush()
        self.records.append(record)

    def begin(self) -> None:
        """What is written from now on belongs to the next step that is finished."""
        self._step_start = self._results.tell()

    def finish(self, step: str, failures: Sequence[str] = ()) -> None:
        """Mark ``step`` as finished: its records survive a resume."""
        os.fsync(self._results.fileno())
        end = self._results.tell()
        self._journal.write(_line(Mark(step=step, start=self._step_start, end=end, failures=list(failures))))
        self._journal.flush()
        self.finished.add(step)
        self.failures += failures

    def close(self) -> None:
        self._results.close()
        self._journal.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _line(mark: Mark) -> bytes:
    return mark.model_dump_json().encode() + b"\n"


def _whole_lines(path: Path) -> list[str]:
    """Lines but for a last one that a killed run cut short."""
    *lines, _rest = path.read_text(encoding="utf-8").split("\n")
    return lines


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a resume that is killed can be resumed."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)
