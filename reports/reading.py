"""Read a results file: the records of one run, and what in the file cannot be used.

A line may be damaged, a file may hold several runs, or records of one run twice. What is left out is named,
never guessed at.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from lab.results import SCHEMA, AnyRecord, ResultsError, RunStarted, Trial, first_problem, parse_line

NAMED = 3
"""Damaged lines that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Records of one run, in the order they were written, and what was left out of the file."""

    records: tuple[AnyRecord, ...]
    left_out: tuple[str, ...] = ()


def read(results: Path) -> Reading:
    """Read a ``results.jsonl``, or the one in a folder.

    A last line cut short is ignored: the run was killed. Raises :class:`lab.results.ResultsError` when the
    file cannot be read, or has lines and none can be used.
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
    usable = [run for run in runs if not isinstance(run[0], Foreign)]
    if not usable and (problems or runs):
        foreign = [f"{path}: {run[0].why}" for run in runs if isinstance(run[0], Foreign)]
        raise ResultsError((foreign or problems)[0])
    shown = usable[-1] if usable else []
    # Each trial once, as readers find the trial of a figure by its id.
    kept: dict[str | int, AnyRecord] = {}
    for place, record in enumerate(shown):
        if not isinstance(record, Foreign):
            kept.setdefault(record.trial_id if isinstance(record, Trial) else place, record)
    left_out = [_other_run(run) for run in runs if run is not shown]
    if problems:
        more = f"; and {len(problems) - NAMED:,} more" if len(problems) > NAMED else ""
        what = f"{len(problems):,} of {len(lines):,} lines, which are no records of this schema"
        left_out.insert(0, f"{what}: {'; '.join(problems[:NAMED])}{more}")
    if repeated := len(shown) - len(kept):
        left_out.append(
            f"{repeated:,} trials whose id another trial of the run has, the first of each was kept: "
            "are these results of several runs in one file?"
        )
    return Reading(tuple(kept.values()), tuple(left_out))


@dataclass(frozen=True, slots=True)
class Foreign:
    """The opening record of a run of another schema, whose other fields are unknown."""

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
        other = f"run {record.run_id} is of schema {record.schema_version}"
        return Foreign(f"{other}, this version reads {SCHEMA}")
    return record


def _schema(line: str) -> str | None:
    """The schema that an opening record names."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found.get("schema_version") if isinstance(found, dict) and found.get("kind") == "run" else None


def _runs(records: Iterable[Line]) -> list[list[Line]]:
    """Each run from its opening record on; records before the first one are a run without it."""
    runs: list[list[Line]] = []
    for record in records:
        if not runs or isinstance(record, RunStarted | Foreign):
            runs.append([])
        runs[-1].append(record)
    return runs


def _other_run(run: Sequence[Line]) -> str:
    """A run that is not shown: a report shows the last one of a file."""
    first = run[0]
    if isinstance(first, Foreign):
        return f"{len(run):,} records: {first.why}"
    name = first.run_id if isinstance(first, RunStarted) else "one without its opening record"
    return f"{len(run):,} records: run {name}: a report shows one run, this is about the last one"
