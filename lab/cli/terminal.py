"""What the commands of ``mcastlab`` say, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console
from rich.table import Table

from lab.results import AnyRecord, Comparison

if TYPE_CHECKING:
    from lab.run.run import Ended
    from lab.scenario.profiles import ProfileName

PASSED, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

out = Console()


class BadInputError(Exception):
    """What the user gave cannot be used; the message says what and why."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What cannot be written there is bad input; a file's error names the file itself."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise BadInputError(
            f"{where}: not writable: {error.strerror}; a place that can be written is allowed"
        ) from error


def profile_named(name: str) -> ProfileName:
    from lab.scenario.profiles import (
        ProfileName,  # with it comes all that scenarios may name: not for every command
    )

    for known in get_args(ProfileName):
        if name == known:
            profile: ProfileName = known
            return profile
    raise BadInputError(f"--profile: {name!r}; allowed: {' or '.join(get_args(ProfileName))}")


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def comparison_table(several: bool) -> Table:
    columns = ["case", "metric", "ratio", "interval", "verdict (visible)", "promised", ""]
    return Table(*(["run", *columns] if several else columns), box=None)


def add_comparison(table: Table, record: Comparison, source: str | None = None) -> None:
    from lab.analysis.compare import is_kept

    promised = ""
    if record.target is not None:
        promised = f"{'≥' if record.higher_is_better else '≤'} {record.target:g}"
        promised += " kept" if is_kept(record) else " missed"
    note = f"bound by {record.bound_by}" if record.bound_by in ("generator", "receiver") else ""
    cells = [
        f"{record.scenario}: {record.case}",
        f"{record.metric}, {record.a} / {record.b}",
        f"{record.ratio:.2f}",
        f"{record.low:.2f} to {record.high:.2f}",
        "undecided"
        if record.verdict is None or record.detectable is None
        else f"{record.verdict} ({record.detectable:.1%})",
        promised,
        note,
    ]
    table.add_row(*([source, *cells] if source else cells))


def summarise(records: list[AnyRecord], ended: Ended, written: list[Path]) -> None:
    comparisons = [record for record in records if isinstance(record, Comparison)]
    if comparisons:
        table = comparison_table(several=False)
        for record in comparisons:
            add_comparison(table, record)
        out.print(table)
    for reason in ended.skipped:
        out.print(f"skipped: {reason}", markup=False, highlight=False, soft_wrap=True)
    for reason in ended.inconclusive:
        out.print(f"no conclusion: {reason}", markup=False, highlight=False, soft_wrap=True)
    for failure in ended.failures:
        out.print(f"FAILED {failure}", markup=False, highlight=False, soft_wrap=True)
    for path in written:
        out.print(str(path), highlight=False, soft_wrap=True)
    out.print(ended.outcome)
