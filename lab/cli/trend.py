"""``mcastlab trend``: where figures of many runs changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lab.cli.terminal import BadInputError, out, print_json, writing
from lab.journal.archive import RESULTS
from lab.results import AnyRecord, ResultsError, read_results

if TYPE_CHECKING:
    from lab.ci.trend import Trend


def trend(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Runs' directories, or directories of such, as reports/out."),
    ],
    absolute: Annotated[
        bool,
        typer.Option(
            "--absolute", help="Also rates and sizes of cases of which there are ratios within each run."
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw every series into this file: .html or .svg."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Show where a figure has changed over many runs, beyond its noise.

    A series is one figure of one scenario, case, subject and setting, on one machine: runs of other machines
    are a series of their own. Ratios within a run are preferred: the machine's own changes are not in them.
    Needs no root. Exit status: 0; 2 bad input.
    """
    from lab.ci.trend import trends

    if plot is not None and plot.suffix not in (".html", ".svg"):
        raise BadInputError(f"--plot {str(plot)!r}: a file ending in .html or .svg is allowed")
    read, refused = _read(runs)
    if not read:
        where = ", ".join(map(str, runs))
        raise BadInputError("\n".join([f"RUN {where}: no {RESULTS} that can be read", *refused]))
    found = trends(read, absolute)
    for text in refused:
        typer.echo(f"mcastlab: left out: {text}", err=True)
    if plot is not None:
        from reports.figures.trend import write_plot

        with writing(plot):
            write_plot(found, plot)
    if as_json:
        print_json({"runs": len(read), "left_out": refused, "series": [_document(each) for each in found]})
        return
    _print(found, len(read))
    if plot is not None:
        out.print(str(plot), highlight=False, soft_wrap=True)


def _read(paths: Sequence[Path]) -> tuple[list[list[AnyRecord]], list[str]]:
    """The records of each run, and of each file that cannot be used why."""
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


def _document(each: Trend) -> dict[str, object]:
    return {
        **asdict(each.key),
        "points": [asdict(point) for point in each.points],
        "changes": [
            {"index": change.index, "factor": change.factor, "words": each.words(change)}
            for change in each.changes
        ],
        "refused": each.refused,
    }


def _print(found: Sequence[Trend], runs: int) -> None:
    from lab.ci.trend import LEAST_POINTS

    machines = list(dict.fromkeys(each.key.machine for each in found))
    out.print(f"{runs} runs, {len(found)} series, {len(machines)} machines", highlight=False)
    if len(machines) > 1:
        out.print("Runs of different machines are never set beside each other.", highlight=False)
    for machine in machines:
        out.print(f"\n{machine}", markup=False, highlight=False, soft_wrap=True)
        table = Table("case", "figure", "runs", "last", "changes", box=None)
        for each in found:
            if each.key.machine == machine and each.refused is None:
                table.add_row(*_row(each))
        if table.row_count:
            out.print(table)
        few = sum(each.key.machine == machine and each.refused is not None for each in found)
        if few:
            what = f"{few} series with fewer than {LEAST_POINTS} runs"
            out.print(f"{what}: too few to tell a change from noise", highlight=False, soft_wrap=True)


def _row(each: Trend) -> tuple[str, ...]:
    changes = "; ".join(map(each.words, each.changes)) or "none"
    last = f"{each.points[-1].value:,.4g} {each.key.unit}".strip()
    figure = f"{each.key.metric}, {each.key.subject}"
    return f"{each.key.scenario}: {each.key.case}", figure, str(len(each.points)), last, changes
