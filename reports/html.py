"""A run's records to a report: one self-contained HTML page, its Markdown twin, drawings and CSV files.

Importing this imports pandas and matplotlib (about a second): a command line does so when it is asked for a
report, not before.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports import markdown, page, svg
from reports.dataset import frames, load
from reports.model import Figure, Page, Table
from reports.quantity import NONE


def write_report(results: Path, out: Path) -> list[Path]:
    """Write the report of ``results`` (a ``results.jsonl``, or its folder) into the folder ``out``.

    Returns the files written, the page first. Works for a run that was interrupted, is still going on, or
    measured nothing. Raises :class:`lab.results.ResultsError` when the file cannot be used; nothing is
    written then.
    """
    with _no_collection():
        contents = _contents(results)
    out.mkdir(parents=True, exist_ok=True)
    return [_write(out / name, text) for name, text in contents.items()]


def _contents(results: Path) -> dict[str, str]:
    """Every file of the report by its name."""
    data = load(results)
    tables = frames(data)
    files = [f"{name}.csv" for name in tables]
    report = page.build(data, files)
    figures = [part for section in report.sections for part in section.parts if isinstance(part, Figure)]
    drawings = {figure.name: f"figure-{figure.name}.svg" for figure in figures}
    drawn = svg.draw_all([one for figure in figures for one in (figure.wide, figure.narrow) if one])

    contents = {"report.html": render(report, drawn), "report.md": markdown.render(report, drawings)}
    contents |= {drawings[figure.name]: svg.standalone(drawn[figure.wide.name]) for figure in figures}
    contents |= {
        f"{name}.csv": table.to_csv(index=False, float_format="%.10g", lineterminator="\n")
        for name, table in tables.items()
    }
    return contents


@contextmanager
def _no_collection() -> Iterator[None]:
    """Ten thousand records are half a million objects that all stay: looking for garbage costs a second."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def render(report: Page, drawn: Mapping[str, str]) -> str:
    """The page as HTML: style and drawings (``drawn``, by name) inline, no script, nothing fetched."""
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        page=report,
        drawn=drawn,
        light=svg.variables(svg.LIGHT),
        dark=svg.variables(svg.DARK),
        is_table=_is_table,
        none_text=NONE,
    )


def _is_table(part: Table | Figure) -> bool:
    return isinstance(part, Table)


def _write(path: Path, text: str) -> Path:
    """Whole or not at all: a reader that reloads the page of a running run never sees half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path
