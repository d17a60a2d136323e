"""``mcastlab report`` and ``comparisons``: what runs have measured."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lab.cli import terminal
from lab.cli.terminal import BadInputError, JsonOption, Results, results_file, say
from lab.results import Comparison


def report(
    results: Annotated[Path, typer.Argument(metavar="A", help="A run's directory, or its results.jsonl.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[B]", help="Another run, to compare with the first.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Where to write. Default: beside the results of A.")
    ] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Also write the data as Parquet files; needs pyarrow.")
    ] = False,
) -> None:
    """Write the report of a run (HTML, Markdown, CSV, figures), or a comparison of two runs.

    `mcastlab run` writes the report by itself: this writes it again, for instance for a run that was killed.

    With two runs, compared.html and compared.md show how A differs from B: the figures of each case, subject
    and setting side by side with their ratio. There is a verdict where both runs repeated the measurement,
    and none where the machines differ.

    Lines that cannot be used are left out, and listed on stderr and in the report. Exit status 2 if nothing
    can be used.
    """
    from reports.page.html import write_comparison, write_report

    if other is not None and parquet:
        raise BadInputError("--parquet is for the report of one run: leave out B")
    path = results_file(results)
    directory = out_dir or path.parent
    warn = partial(terminal.complain, style="yellow")
    with terminal.writing(directory):
        if other is None:
            written = write_report(path, directory, parquet, warn)
        else:
            written = write_comparison(path, results_file(other), directory, warn)
    for each in written:
        say(each)


def comparisons(results: Results, as_json: JsonOption = False) -> None:
    """Show the paired comparisons of one or more runs: ratios, intervals, and targets that were promised.

    A ratio compares two subjects that were measured in turn in one run, so ratios of different runs may be
    compared with each other. Absolute rates may not.
    """
    from reports.reading import read

    readings = [(path, read(results_file(path))) for path in results]
    rows = [(path, r) for path, found in readings for r in found.records if isinstance(r, Comparison)]
    if as_json:
        terminal.print_json([{"results": str(path), **record.model_dump()} for path, record in rows])
    else:
        terminal.print_comparisons(rows, several=len(results) > 1)
