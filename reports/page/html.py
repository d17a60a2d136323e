"""Write a run's report: one self-contained HTML page, the same as Markdown, drawings and CSV files.

Importing this imports pandas and matplotlib, which takes about a second.
"""

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from lab.results import ResultsError
from reports.dataset import load
from reports.figures import svg
from reports.frames import frames
from reports.model import Figure, Page
from reports.page import compare_page, markdown
from reports.page import sections as page
from reports.page.compare import refusal
from reports.quantity import NONE

EVIDENCE = "evidence"
"""The folder with the frames of failures, in that of a run."""
Contents = dict[str, str | bytes]
"""What is to be written, by the name of its file."""


def write_report(
    results: Path, out: Path, parquet: bool = False, warn: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Write the report of ``results`` (a ``results.jsonl``, or its folder) into the folder ``out``.

    Returns the files written, the page first. Works for a run that was interrupted, is still running, or
    measured nothing; ``warn`` and the page name what was left out of the file. ``parquet``: the data as
    Parquet files too. Raises :class:`lab.results.ResultsError`, before anything is written, when the file
    cannot be used.
    """
    with _no_collection():
        data = load(results)
        files = _data_files(frames(data), parquet)
        contents = _rendered(page.build(data, files)) | files
    for each in data.left_out:
        warn(f"left out: {each}")
    if data.run is None and data.empty:
        warn(f"{results}: no record: nothing was measured")
    return _write(out, contents) + _copied(results if results.is_dir() else results.parent, out)


def _copied(run: Path, out: Path) -> list[Path]:
    """Copy the frames of failures, to which the page links, from a run's folder into another."""
    if run.resolve() == out.resolve() or not (run / EVIDENCE).is_dir():
        return []
    files = {str(path.relative_to(run)): path.read_bytes() for path in (run / EVIDENCE).glob("*.pcapng")}
    (out / EVIDENCE).mkdir(exist_ok=True)
    return _write(out, dict(files))


def _data_files(tables: Mapping[str, pd.DataFrame], parquet: bool) -> Contents:
    how: Any = {"index": False, "float_format": "%.10g", "lineterminator": "\n"}
    files: Contents = {f"{name}.csv": table.to_csv(**how) for name, table in tables.items()}
    if parquet:
        files |= {f"{name}.parquet": _parquet(table) for name, table in tables.items()}
    return files


def write_comparison(a: Path, b: Path, out: Path, warn: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Write the page of two runs against each other into ``out``: ``compared.html``, ``.md``, drawings.

    Raises :class:`lab.results.ResultsError`, before anything is written, when one of them cannot be used.
    """
    with _no_collection():
        left, right = load(a), load(b)
        contents = _rendered(compare_page.build(left, right), "compared")
    for name, data in (("A", left), ("B", right)):
        for each in data.left_out:
            warn(f"left out of {name}: {each}")
    if refused := refusal(left, right):
        warn(f"no verdicts: {refused}")
    return _write(out, contents)


def _rendered(report: Page, name: str = "report") -> Contents:
    """The page as HTML, as Markdown, and its drawings, by file name."""
    figures = [part for section in report.sections for part in section.parts if isinstance(part, Figure)]
    drawings = {figure.name: f"figure-{figure.name}.svg" for figure in figures}
    drawn = svg.draw_all([one for figure in figures for one in (figure.wide, figure.narrow) if one])
    return {
        f"{name}.html": render(report, drawn),
        f"{name}.md": markdown.render(report, drawings),
        **{drawings[figure.name]: svg.standalone(drawn[figure.wide.name]) for figure in figures},
    }


def _parquet(table: pd.DataFrame) -> bytes:
    try:
        return table.to_parquet(None, index=False, engine="pyarrow")
    except ImportError as error:
        raise ResultsError("Parquet files need pyarrow: pip install 'mcastlab[parquet]'") from error


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection: ten thousand records are half a million objects, which takes 1 s to search."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def render(report: Page, drawn: Mapping[str, str]) -> str:
    """The page as HTML with style and drawings (``drawn``, by name) inline, no script, nothing fetched."""
    how: dict[str, Any] = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=PackageLoader("reports"), undefined=StrictUndefined, **how)
    return environment.get_template("report.html.j2").render(
        page=report,
        drawn=drawn,
        light=svg.variables(svg.LIGHT),
        dark=svg.variables(svg.DARK),
        none_text=NONE,
    )


def _write(out: Path, contents: Contents) -> list[Path]:
    """Write each file atomically: whoever reloads the page of a running run never sees half of it."""
    out.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        partial = (out / name).with_name(f".{Path(name).name}.{os.getpid()}")
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        partial.replace(out / name)
    return [out / name for name in contents]
