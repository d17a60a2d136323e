"""How long steps took in earlier runs on this machine, from the journals beside a run's directory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from lab.ci.trend import machine_of
from lab.journal.archive import JOURNAL, RESULTS, Mark
from lab.results import RunStarted, parse_line

MOST_RUNS = 8
"""Looked at, the newest first by name: older ones say less, and a directory may hold hundreds."""


def past_seconds(directory: Path, started: RunStarted) -> Mapping[str, float]:
    """The median time of each step, in runs like ``started`` whose directories are beside ``directory``.

    A run that cannot be read says nothing: it is only an estimate that is made of this.
    """
    times: dict[str, list[float]] = defaultdict(list)
    others = sorted((path for path in directory.resolve().parent.glob(f"*/{JOURNAL}")), reverse=True)
    for journal in [path for path in others if path.parent != directory.resolve()][:MOST_RUNS]:
        if _is_alike(journal.with_name(RESULTS), started):
            for mark in _marks(journal):
                if mark.finished and mark.seconds is not None:
                    times[mark.step].append(mark.seconds)
    return {step: median(values) for step, values in times.items()}


def _is_alike(results: Path, started: RunStarted) -> bool:
    try:
        with results.open(encoding="utf-8") as lines:
            first = parse_line(lines.readline())
    except (OSError, ValueError):
        return False
    return (
        isinstance(first, RunStarted)
        and first.profile == started.profile
        and machine_of(first.provenance) == machine_of(started.provenance)
    )


def _marks(journal: Path) -> Iterator[Mark]:
    try:
        lines = journal.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            yield Mark.model_validate_json(line)
        except ValidationError:
            continue
