"""A run's directory: its results, and the journal that makes it resumable.

``results.jsonl`` holds the records of :mod:`lab.results`, flushed one by one. ``journal.jsonl`` gets a line
for each step that ended: where its records are in the results, in bytes, and what failed. A resumed run keeps
the records of finished steps and performs the others:

* The conclusions of an unfinished step are dropped. Its trials are set aside in ``unfinished.jsonl``, so that
  a second kill does not lose them. The step starts again and gets these trials back in order, as long as it
  asks for the same ones: a step is deterministic, given equal results. No trial is in the results twice.
* Nothing is kept of a step that was given up because its bench failed or its trials led to no conclusion:
  the same trials would only fail again.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.results import AnyRecord, ResultsError, RunStarted, Trial, dump_line, parse_line, read_results

RESULTS = "results.jsonl"
JOURNAL = "journal.jsonl"
UNFINISHED = "unfinished.jsonl"


class RunError(ValueError):
    """A run cannot start or be resumed; the message says why."""


class Mark(BaseModel):
    """One line of the journal: ``step`` wrote bytes ``start`` to ``end`` of the results.

    A step that is not ``finished`` was given up, and is done again when the run is resumed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    start: int
    end: int
    failures: list[str] = []
    finished: bool = True
    seconds: float | None = None
    """Duration; ``None`` if part of the step was done before the run was resumed."""


@dataclass(frozen=True)
class Done:
    """A step that finished or was given up, and the records it wrote."""

    mark: Mark
    records: tuple[AnyRecord, ...]


def steps_done(directory: Path) -> list[Done]:
    """Every step of the run in ``directory`` that finished or was given up, in order.

    Raises OSError or ValidationError if it is not a run's directory.
    """
    written = (directory / RESULTS).read_bytes()
    marks = [Mark.model_validate_json(line) for line in _whole_lines(directory / JOURNAL)]
    return [
        Done(mark, tuple(map(parse_line, written[mark.start : mark.end].decode().splitlines())))
        for mark in marks
    ]


class Archive:
    """An open run directory, made by :meth:`create` or :meth:`resume`; a context manager."""

    def __init__(
        self, directory: Path, records: list[AnyRecord], marks: list[Mark], unfinished: list[Trial]
    ) -> None:
        self.directory = directory
        self.records = records
        self.unfinished: defaultdict[str, deque[Trial]] = defaultdict(deque)
        """Trials of each step that was cut short, in order, for :meth:`recall`."""
        for trial in unfinished:
            self.unfinished[step_of(trial)].append(trial)
        self.finished = {mark.step for mark in marks}
        self.failures = [failure for mark in marks for failure in mark.failures]
        """Failures of the finished steps."""
        self._results: IO[bytes] = (directory / RESULTS).open("ab")
        self._journal: IO[bytes] = (directory / JOURNAL).open("ab")
        self._step_start = self._results.tell()

    @classmethod
    def create(cls, directory: Path) -> Archive:
        """A new archive in a directory that holds no other run. Raises RunError."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if (directory / RESULTS).exists():
                raise RunError(
                    f"{directory}: holds a run already; choose another directory, or --resume this one"
                )
            return cls(directory, [], [], [])
        except OSError as error:
            raise RunError(f"{directory}: {error.strerror}") from error

    @classmethod
    def resume(cls, directory: Path) -> Archive:
        """The archive in ``directory``, with the records of its finished steps. Raises RunError."""
        try:
            marks = [Mark.model_validate_json(line) for line in _whole_lines(directory / JOURNAL)]
            written = (directory / RESULTS).read_bytes()
            unfinished = _unfinished(directory, marks, written)
        except FileNotFoundError as error:
            raise RunError(f"{error.filename}: no such file, so there is no run to resume") from error
        except (OSError, ValidationError) as error:
            raise RunError(f"{directory}: not a run that can be resumed: {error}") from error
        kept: list[Mark] = []
        pieces: list[bytes] = []
        for mark in filter(lambda mark: mark.finished, marks):
            start = sum(map(len, pieces))
            pieces.append(written[mark.start : mark.end])
            kept.append(mark.model_copy(update={"start": start, "end": start + len(pieces[-1])}))
        # First the trials: until the results are rewritten, they hold them too.
        _replace(directory / UNFINISHED, "".join(map(dump_line, unfinished)).encode())
        _replace(directory / RESULTS, b"".join(pieces))
        _replace(directory / JOURNAL, b"".join(_line(mark) for mark in kept))
        try:
            records = list(read_results(directory / RESULTS))
        except ResultsError as error:
            raise RunError(f"{directory}: not a run that can be resumed: {error}") from error
        return cls(directory, records, kept, unfinished)

    @property
    def results(self) -> Path:
        return self.directory / RESULTS

    @property
    def started(self) -> RunStarted | None:
        first = self.records[0] if self.records else None
        return first if isinstance(first, RunStarted) else None

    def write(self, record: AnyRecord) -> None:
        """Add a record, flushed so that other processes can read it."""
        self._results.write(dump_line(record).encode())
        self._results.flush()
        self.records.append(record)

    def begin(self) -> None:
        """Start a step: records from here on belong to it."""
        self._step_start = self._results.tell()

    def recall(self, step: str, wanted: Callable[[Trial], bool]) -> Trial | None:
        """The next trial that ``step`` recorded before it was cut short, if it is ``wanted``.

        Otherwise ``None``, and the step's other trials are forgotten: the step is no longer repeating what
        it did before.
        """
        left = self.unfinished.get(step)
        if left and wanted(left[0]):
            return left.popleft()
        if self.unfinished.pop(step, None):
            trials = (trial for waiting in self.unfinished.values() for trial in waiting)
            _replace(self.directory / UNFINISHED, "".join(map(dump_line, trials)).encode())
        return None

    def finish(self, step: str, failures: Sequence[str] = (), seconds: float | None = None) -> None:
        """Mark ``step`` as finished: a resumed run keeps its records."""
        self._mark(step, failures, finished=True, seconds=seconds)
        self.finished.add(step)
        self.failures += failures

    def give_up(self, step: str) -> None:
        """Mark ``step`` as given up: a resumed run does all of it again."""
        self._mark(step, (), finished=False)

    def _mark(
        self, step: str, failures: Sequence[str], *, finished: bool, seconds: float | None = None
    ) -> None:
        os.fsync(self._results.fileno())
        mark = Mark(
            step=step,
            start=self._step_start,
            end=self._results.tell(),
            failures=list(failures),
            finished=finished,
            seconds=None if seconds is None else round(seconds, 3),
        )
        self._journal.write(_line(mark))
        self._journal.flush()

    def close(self) -> None:
        self._results.close()
        self._journal.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def step_of(trial: Trial) -> str:
    """The step of a trial, whose id is that of the step and a number: see :mod:`lab.steps.context`."""
    return trial.trial_id.rpartition("/")[0]


def _unfinished(directory: Path, marks: Sequence[Mark], written: bytes) -> list[Trial]:
    """Trials of steps that neither finished nor were given up, each once.

    First those in the results, then those set aside by an earlier resume that the step had not got back yet.
    """
    outside: list[bytes] = []
    reached = 0
    for mark in marks:
        outside.append(written[reached : mark.start])
        reached = mark.end
    lines = b"".join([*outside, written[reached:]]).split(b"\n")[:-1]
    if (aside := directory / UNFINISHED).exists():
        lines += aside.read_bytes().split(b"\n")[:-1]
    ended = {mark.step for mark in marks}
    found: dict[str, Trial] = {}
    for line in lines:
        record = parse_line(line.decode())
        if isinstance(record, Trial) and step_of(record) not in ended:
            found.setdefault(record.trial_id, record)
    return list(found.values())


def _line(mark: Mark) -> bytes:
    return mark.model_dump_json().encode() + b"\n"


def _whole_lines(path: Path) -> list[str]:
    """All lines but a last one that a killed run cut short."""
    *lines, _rest = path.read_text(encoding="utf-8").split("\n")
    return lines


def _replace(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that a resume that is killed can be resumed."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)
