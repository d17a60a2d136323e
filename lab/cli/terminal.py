"""What the commands of ``mcastlab`` share: exit statuses, options, messages, and tables on the terminal."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lab.results import Comparison

PASSED, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
EXIT_STATUS = {"passed": PASSED, "failed": FAILED, "interrupted": INTERRUPTED}
"""By the outcome of a run."""

out = Console()

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Results = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Directories of runs, or their results.jsonl.")
]


def option(help_text: str, metavar: str | None = None) -> Any:
    """An option that is called like its parameter."""
    return typer.Option(help=help_text, metavar=metavar)


class BadInputError(Exception):
    """The user's input cannot be used; the message says what is wrong and what is allowed."""


def say(text: object) -> None:
    """Print one line as it is, without markup, highlighting or wrapping."""
    out.print(str(text), markup=False, highlight=False, soft_wrap=True)


def complain(text: str, style: str | None = None) -> None:
    """Print one line to stderr, after the name of the program."""
    console = Console(stderr=True)
    console.print(f"mcastlab: {text}", style=style, markup=False, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError in the ``with`` block into a BadInputError that names its file, or ``path``."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise BadInputError(
            f"{where}: not writable: {error.strerror}; a place that can be written is allowed"
        ) from error


def results_file(path: Path) -> Path:
    """The ``results.jsonl`` that the user means by ``path``. Raises BadInputError."""
    found = path / "results.jsonl" if path.is_dir() else path
    if not found.is_file():
        raise BadInputError(f"{found}: no such file; a run's directory or its results.jsonl is allowed")
    return found


def print_comparisons(records: Iterable[tuple[Path | None, Comparison]], several: bool = False) -> None:
    """Print comparisons as a table, in which ``several`` runs are told apart by their path."""
    columns = ["case", "metric", "ratio", "interval", "verdict (visible)", "promised", ""]
    table = Table(*(["run", *columns] if several else columns), box=None)
    for path, record in records:
        table.add_row(*([str(path)] if several else []), *_cells(record))
    out.print(table)


def _cells(record: Comparison) -> Iterator[str]:
    from lab.analysis.compare import promise

    yield f"{record.scenario}: {record.case}"
    yield f"{record.figure}, {record.a} / {record.b}"
    yield f"{record.ratio:.2f}"
    yield f"{record.low:.2f} to {record.high:.2f}"
    decided = record.verdict is not None and record.detectable is not None
    yield f"{record.verdict} ({record.detectable:.1%})" if decided else "undecided"
    if record.target is None:
        yield ""
    else:
        sign = "≥" if record.higher_is_better else "≤"
        yield f"{sign} {record.target:g} {promise(record)}"
    yield f"limited by the {record.bound_by}" if record.bound_by in ("generator", "receiver") else ""
