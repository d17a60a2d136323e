"""``mcastlab trend``: where figures of many runs changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lab.cli.terminal import BadInputError, JsonOption, complain, option, out, print_json, say, writing
from lab.journal.archive import RESULTS
from lab.results import AnyRecord, ResultsError, read_results

if TYPE_CHECKING:
    from lab.results.series import Series


def trend(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Directories of runs, or directories of these, as reports/out."
        ),
    ],
    absolute: Annotated[
        bool,
        typer.Option(
            "--absolute", help="Include rates and sizes of cases that have a ratio within each run."
        ),
    ] = False,
    plot: Annotated[Path | None, option("Draw every series into this .html or .svg file.", "FILE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show where a figure has changed over many runs by more than its noise.

    A series is one figure of one scenario, case, subject and setting on one machine. Runs of different
    machines are never compared. Ratios within a run are preferred to rates, as changes of the machine cancel
    out. Needs no root.
    """
    from lab.ci.trend import series_of

    if plot is not None and plot.suffix not in (".html", ".svg"):
        raise BadInputError(f"--plot {str(plot)!r}: a file ending in .html or .svg is allowed")
    read, refused = _read(runs)
    if not read:
        where = ", ".join(map(str, runs))
        raise BadInputError("\n".join([f"RUN {where}: no {RESULTS} that can be read", *refused]))
    found = series_of(read, absolute)
    for text in refused:
        complain(f"left out: {text}")
    if plot is not None:
        from reports.figures.trend import write_plot

        with writing(plot):
            write_plot(found, plot)
    if as_json:
        print_json({"runs": len(read), "left_out": refused, "series": [_document(each) for each in found]})
        return
    _print(found, len(read))
    if plot is not None:
        say(plot)


def _read(paths: Sequence[Path]) -> tuple[list[list[AnyRecord]], list[str]]:
    """The records of each run, and why files were left out."""
    read, refused = [], []
    for path in dict.fromkeys(file.resolve() for given in paths for file in _files(given)):
        try:
            read.append(list(read_results(path)))
        except (ResultsError, OSError, UnicodeDecodeError) as error:
            refused.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    return read, refused


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif (path / RESULTS).is_file():
        yield path / RESULTS
    elif path.is_dir():
        yield from sorted(path.glob(f"*/{RESULTS}"))
    else:
        raise BadInputError(f"RUN {str(path)!r}: a run's directory, or one of runs, is allowed")


def _document(each: Series) -> dict[str, object]:
    changes = [
        {"index": change.index, "factor": change.factor, "words": each.describe(change)}
        for change in each.changes
    ]
    points = [asdict(point) for point in each.points]
    return {**asdict(each.key), "points": points, "changes": changes, "refused": each.refused}


def _print(found: Sequence[Series], runs: int) -> None:
    from lab.ci.trend import LEAST_POINTS

    machines = list(dict.fromkeys(each.key.machine for each in found))
    say(f"{runs} runs, {len(found)} series, {len(machines)} machines")
    if len(machines) > 1:
        say("Runs of different machines are never compared.")
    for machine in machines:
        say(f"\n{machine}")
        table = Table("case", "figure", "runs", "last", "changes", box=None)
        for each in found:
            if each.key.machine == machine and each.refused is None:
                changes = "; ".join(map(each.describe, each.changes)) or "none"
                last = f"{each.points[-1].value:,.4g} {each.key.unit}".strip()
                case, figure = (
                    f"{each.key.scenario}: {each.key.case}",
                    f"{each.key.metric}, {each.key.subject}",
                )
                table.add_row(case, figure, str(len(each.points)), last, changes)
        if table.row_count:
            out.print(table)
        if few := sum(each.key.machine == machine and each.refused is not None for each in found):
            say(f"{few} series with fewer than {LEAST_POINTS} runs: too few to tell a change from noise")
