"""A results file to the records of one run: what cannot be used is left out, and said, never guessed at.

A line may be damaged, a file may hold several runs, or records of one run twice. A figure made from such a
mix would look as good as any other, so what is in doubt about the file stands at the top of the page.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pydantic import ValidationError

from lab.results import SCHEMA, AnyRecord, ResultsError, RunStarted, Trial, first_problem, parse_line

NAMED = 3
"""So many damaged lines are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Records of one run, in the order they were written, and what of the file is not among them."""

    records: tuple[AnyRecord, ...]
    left_out: tuple[str, ...] = ()


def read(results: Path) -> Reading:
    """Read a ``results.jsonl``, or the one in a folder.

    A last line cut short belongs to a run that was killed: it is left out without a word. Raises
    :class:`lab.results.ResultsError` when the file cannot be read, or has lines and none can be used.
    """
    path = results / "results.jsonl" if results.is_dir() else results
    if not path.is_file():
        raise ResultsError(f"{path}: no such results file")
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}") from error
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    good: list[Line] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            good.append(_parse(line))
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    runs = _runs(good)
    usable = [run for run in runs if _foreign(run) is None]
    if not usable and (problems or runs):
        foreign = [f"{path}: {told}" for run in runs if (told := _foreign(run))]
        raise ResultsError((foreign or problems)[0])
    records: tuple[Line, ...] = usable[-1] if usable else ()
    kept, repeated = _without_repeated([each for each in records if not isinstance(each, Foreign)])
    left_out = [*_damaged(problems, len(lines)), *_other_runs(runs, usable)]
    if repeated:
        left_out.append(
            f"{repeated:,} trials whose id another trial of the run has, the first of each was kept: "
            "are these results of several runs in one file?"
        )
    return Reading(kept, tuple(left_out))


@dataclass(frozen=True, slots=True)
class Foreign:
    """The opening record of a run of another schema, whose other fields nobody here knows."""

    why: str


Line = AnyRecord | Foreign


def _parse(line: bytes) -> Line:
    """Raises :class:`ValueError` with what is wrong."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start})") from error
    try:
        record = parse_line(text)
    except ValidationError as error:
        schema = _schema(text)
        if schema not in (None, SCHEMA):
            return Foreign(f"a run of schema {schema}, this version reads {SCHEMA}")
        raise ValueError(f"not a {SCHEMA} record: {first_problem(error, text)}") from error
    if isinstance(record, RunStarted) and record.schema_version != SCHEMA:
        return Foreign(
            f"run {record.run_id} is of schema {record.schema_version}, this version reads {SCHEMA}"
        )
    return record


def _schema(line: str) -> str | None:
    """The schema that an opening record names."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found.get("schema_version") if isinstance(found, dict) and found.get("kind") == "run" else None


def _runs(records: list[Line]) -> list[tuple[Line, ...]]:
    """Each run from its opening record on; what stands before the first one is a run without it."""
    starts = [place for place, record in enumerate(records) if isinstance(record, RunStarted | Foreign)]
    if not records:
        return []
    bounds = [*([0] if not starts or starts[0] else []), *starts, len(records)]
    return [tuple(records[begin:end]) for begin, end in pairwise(bounds)]


def _name(run: tuple[Line, ...]) -> str:
    return run[0].run_id if isinstance(run[0], RunStarted) else "one without its opening record"


def _foreign(run: tuple[Line, ...]) -> str | None:
    """Why this version does not read the run, if it does not."""
    return run[0].why if isinstance(run[0], Foreign) else None


def _damaged(problems: list[str], lines: int) -> list[str]:
    if not problems:
        return []
    more = f"; and {len(problems) - NAMED:,} more" if len(problems) > NAMED else ""
    told = f"{'; '.join(problems[:NAMED])}{more}"
    return [f"{len(problems):,} of {lines:,} lines, which are no records of this schema: {told}"]


def _other_runs(runs: list[tuple[Line, ...]], usable: list[tuple[Line, ...]]) -> list[str]:
    """The file should hold one run; of several the last is shown."""
    shown = usable[-1] if usable else None
    told = []
    for run in runs:
        if run is not shown:
            why = _foreign(run) or f"run {_name(run)}: a report shows one run, this is about the last one"
            told.append(f"{len(run):,} records: {why}")
    return told


def _without_repeated(records: list[AnyRecord]) -> tuple[tuple[AnyRecord, ...], int]:
    """Each trial once: two of one id cannot be told apart by those who follow a figure to its trial."""
    seen: set[str] = set()
    kept = []
    for record in records:
        if isinstance(record, Trial):
            if record.trial_id in seen:
                continue
            seen.add(record.trial_id)
        kept.append(record)
    return tuple(kept), len(records) - len(kept)
