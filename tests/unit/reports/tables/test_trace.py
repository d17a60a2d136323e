"""Every number of a table comes from records: its row names the trials, and they are in the results file."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas
from paths import GOLDEN

from lab.results import Comparison, Trial, ZeroLoss, read_results
from reports import quantity
from reports.figures.svg import WORTH_A_PROCESS, draw, draw_all
from reports.model import Drawing
from reports.page.html import write_report

EXAMPLE = GOLDEN / "reports" / "results.jsonl"
OF_TRIALS = (
    *("zero-loss", "partial-drop", "fixed-rates", "latency", "cpu", "worker-shares", "comparisons"),
    *("inputs", "sweeps", "soaks", "courses", "changes", "ledger", "strategies-"),
)
"""Tables, by how their names begin, all of whose numbers come from trials."""


class Rows(HTMLParser):
    """Of each table its rows: the text of each row, and the ids that it folds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[tuple[str, list[str]]]] = {}
        self._table: list[tuple[str, list[str]]] = []
        self._inside: list[str] = []
        self._body = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        if tag == "table":
            self._table = self.tables.setdefault(of["id"] or "", [])
        elif tag == "tbody":
            self._body = True
        elif tag == "tr" and self._body and of.get("class") != "note":
            self._table.append(("", []))
        elif tag == "code" and self._body:
            self._table[-1][1].append("")
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._body = self._body and tag != "tbody"
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self._body or not self._table:
            return
        text, ids = self._table[-1]
        if self._inside[-1:] == ["code"]:
            ids[-1] += data
        else:
            self._table[-1] = (text + data, ids)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traced")
    write_report(EXAMPLE, folder, parquet=True)
    return folder


@pytest.fixture(scope="module")
def rows(report: Path) -> dict[str, list[tuple[str, list[str]]]]:
    return Rows((report / "report.html").read_text(encoding="utf-8")).tables


def test_rows_of_measured_tables_name_trials_that_exist(rows: dict[str, list[tuple[str, list[str]]]]) -> None:
    known = {record.trial_id for record in read_results(EXAMPLE) if isinstance(record, Trial)}
    seen: set[str] = set()
    for name, found in rows.items():
        kind = next((start for start in OF_TRIALS if name.startswith(start)), None)
        for text, ids in found:
            assert set(ids) <= known, (name, text)
            if kind is not None:
                assert ids or "none found" in text, (name, text)
                seen.add(kind)
    assert seen >= {"zero-loss", "fixed-rates", "latency", "cpu", "comparisons", "ledger", "strategies-"}


def test_every_trial_of_the_file_is_in_a_row_of_the_ledger(
    rows: dict[str, list[tuple[str, list[str]]]],
) -> None:
    known = [record.trial_id for record in read_results(EXAMPLE) if isinstance(record, Trial)]
    listed = [
        one for name, found in rows.items() if name.startswith("ledger-") for _, ids in found for one in ids
    ]
    assert sorted(listed) == sorted(known)


def test_numbers_of_a_row_are_those_of_its_trials(rows: dict[str, list[tuple[str, list[str]]]]) -> None:
    trials = {record.trial_id: record for record in read_results(EXAMPLE) if isinstance(record, Trial)}
    checked = 0
    for name, found in rows.items():
        for text, ids in found:
            if name.startswith("ledger-"):
                due = sum(trials[one].ledger.egress.entered for one in ids)
                assert f"{due:,}" in text
                checked += 1
            elif name.startswith("fixed-rates"):
                (one,) = ids
                assert quantity.rate(trials[one].offered_dps) in text
                checked += 1
    assert checked > 20


def test_data_files_name_the_trials_too(report: Path) -> None:
    for name, kind in (("zero-loss", ZeroLoss), ("comparisons", Comparison)):
        with (report / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            found = [json.loads(row["trial_ids"]) for row in csv.DictReader(file)]
        records = [record for record in read_results(EXAMPLE) if isinstance(record, kind)]
        assert sorted(found) == sorted(record.trial_ids for record in records)


def test_ids_on_a_page_are_rows_of_the_data_beside_it(report: Path) -> None:
    with (report / "trials.csv").open(encoding="utf-8", newline="") as file:
        known = {row["trial_id"] for row in csv.DictReader(file)}
    tables = Rows((report / "report.html").read_text(encoding="utf-8")).tables
    shown = {one for found in tables.values() for _, ids in found for one in ids}
    assert shown == known


def test_parquet_holds_what_the_csv_holds(report: Path) -> None:
    tables = sorted(report.glob("*.csv"))
    assert len(tables) == len(list(report.glob("*.parquet"))) == 15
    for path in tables:
        kept = pd.read_parquet(path.with_suffix(".parquet"), engine="pyarrow")
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
        assert list(kept.columns) == header
        assert len(kept) == len(lines)
    trials = pd.read_parquet(report / "trials.parquet", engine="pyarrow")
    offered = [record.offered for record in read_results(EXAMPLE) if isinstance(record, Trial)]
    assert trials["offered"].tolist() == offered
    assert trials["offered"].dtype == "Int64"


def test_markdown_folds_the_same_trials(report: Path, rows: dict[str, list[tuple[str, list[str]]]]) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    folded = re.findall(r"<details><summary>([\d,]+) trials?</summary>(.*?)</details>", text)
    ids = [one for _, each in folded for one in re.sub(r"\\(.)", r"\1", each).split("<br>")]
    assert sorted(ids) == sorted(one for found in rows.values() for _, each in found for one in each)


def test_drawings_are_the_same_on_one_cpu_and_on_two() -> None:
    def drawing(number: int) -> Drawing:
        def plot(canvas: Canvas) -> None:
            axis = canvas.subplots()
            axis.plot([0, number], [0, 1])

        return Drawing(f"drawing-{number}", "A line", "From nothing to one", (200, 100), plot)

    drawings = [drawing(number) for number in range(2 * WORTH_A_PROCESS)]
    made = draw_all(drawings, cpus=2)
    assert made == {each.name: draw(each) for each in drawings}
    assert len(set(made.values())) == len(drawings)
