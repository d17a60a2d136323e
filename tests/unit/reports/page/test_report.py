"""The report: an example run as reference; runs that stopped early, measured nothing, or cannot be read."""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from paths import GOLDEN

from lab.results import RunEnded, RunStarted, Trial, dump_line, read_results
from reports.figures.svg import DARK, LIGHT
from reports.page.html import write_report

REFERENCE = GOLDEN / "reports"
EXAMPLE = REFERENCE / "results.jsonl"
UPDATE = "if this is meant: python tests/golden/reports/update.py"


@pytest.fixture(scope="module")
def update() -> ModuleType:
    spec = importlib.util.spec_from_file_location("update_reports", REFERENCE / "update.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REFERENCE)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(EXAMPLE, folder)
    return folder


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    return (report / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Every element of a page with its attributes, its text, and whether each one opened is closed."""

    VOID = ("meta", "link", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


# ----------------------------------------------------------------------------------- against the reference


def test_example_is_what_the_models_make(update: ModuleType, tmp_path: Path) -> None:
    made = update.write_results(tmp_path / "results.jsonl")
    assert made.read_text(encoding="utf-8") == EXAMPLE.read_text(encoding="utf-8"), UPDATE


def test_markdown_and_data_match_the_reference(report: Path, update: ModuleType) -> None:
    for pattern in update.REFERENCES:
        made = {path.name: path.read_text(encoding="utf-8") for path in report.glob(pattern)}
        kept = {path.name: path.read_text(encoding="utf-8") for path in REFERENCE.glob(pattern)}
        assert made, pattern
        assert made == kept, UPDATE


def test_another_process_makes_the_same_bytes_of_a_runs_folder_and_without_pyplot(
    report: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
from pathlib import Path
from reports.page.html import write_report
written = write_report(Path({str(REFERENCE)!r}), Path(sys.argv[1]))
assert written[0] == Path(sys.argv[1]) / "report.html"
assert "matplotlib.pyplot" not in sys.modules, "its state is global"
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in report.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (report / path.name).read_bytes(), path.name


# ------------------------------------------------------------------------------------------- the HTML page


def test_page_needs_nothing_but_itself(page: str) -> None:
    tags = Tags(page)
    assert tags.open == []
    assert "script" not in {tag for tag, _ in tags.found}
    for tag, attributes in tags.found:
        assert "src" not in attributes, tag
        for name in ("href", "xlink:href"):
            target = attributes.get(name)
            linked = tag == "a" and str(target).startswith("evidence/")  # it is beside the page
            assert target is None or linked or target.startswith(("#", "data:")), (tag, target)
    assert set(re.findall(r"url\(([^)])", page)) <= {"#"}
    assert "@import" not in page


def test_ids_are_unique_and_references_resolve(page: str) -> None:
    tags = Tags(page).found
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    wanted += [name for _, a in tags for name in (a.get("aria-labelledby") or "").split()]
    assert set(wanted) <= set(ids)


def test_drawings_take_the_colours_of_the_page(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 23  # eight figures at two widths, seven folded ones at one
    for drawing in drawings:
        assert not re.search(r"#[0-9a-fA-F]{6}|#[0-9a-fA-F]{3}\b|font-family", drawing.replace('href="#', ""))
        assert "var(--series-1)" in drawing or "var(--series-2)" in drawing
        title = re.search(r"<title[^>]*>([^<]+)</title><desc[^>]*>([^<]{40,})</desc>", drawing)
        assert title, drawing[:300]
    colours = set(re.findall(r"var\((--[a-z0-9-]+)\)", page))
    for palette in (page[: page.index("@media")], page[page.index("@media screen and (prefers") :]):
        assert all(f"{colour}:#" in palette for colour in colours)


def test_colours_are_readable_in_light_and_dark() -> None:
    for palette in (LIGHT, DARK):
        for name in ("ink", "muted", "good", "bad", "doubt", "series-1", "series-2", "series-3"):
            for ground in ("paper", "panel"):
                assert contrast(palette[name], palette[ground]) >= 4.5, (name, ground, palette[name])


def contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio of two ``#rrggbb`` colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_of_a_record_stays_text(tmp_path: Path) -> None:
    name = "<script>alert('|')</script> $x$ *a*\n"
    trial = next(r for r in read_results(EXAMPLE) if isinstance(r, Trial) and r.purpose == "search")
    trial = trial.model_copy(update={"case": name, "warnings": [name], "validity": "doubtful"})
    results = tmp_path / "results.jsonl"
    results.write_text(dump_line(trial), encoding="utf-8")
    write_report(results, tmp_path)
    tags = Tags((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in tags.found}
    assert "<script>alert('|')</script>" in tags.text
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| \\<script\\>alert('\\|')\\</script\\> \\$x\\$ \\*a\\*<br>(fanout" in markdown
    for table in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_every_doubt_stands_in_the_page_and_in_the_markdown(report: Path, page: str) -> None:
    text = Tags(page).text
    markdown = (report / "report.md").read_text(encoding="utf-8")
    for record in read_results(EXAMPLE):
        for doubt in (*getattr(record, "warnings", ()), *getattr(record, "discrepancies", ())):
            assert doubt in text
            assert doubt in markdown
    row = next(line for line in markdown.splitlines() if line.startswith("| 96 workers") and "138" in line)
    assert "138<br>⚠ memory read from 95 of 96 workers" in row


def test_oversubscription_is_said_once(report: Path, page: str) -> None:
    markdown = (report / "report.md").read_text(encoding="utf-8")
    for text in (Tags(page).text, markdown):
        assert text.count("96 workers planned on 2 CPUs: oversubscribed") == 1
    assert "  - fanout-per-interface and hybrid: 8 workers on 2 CPUs: oversubscribed" in markdown


def test_standalone_drawings_are_well_formed(report: Path) -> None:
    drawings = sorted(report.glob("figure-*.svg"))
    markdown = (report / "report.md").read_text(encoding="utf-8")
    assert len(drawings) == 15
    for drawing in drawings:
        root = ElementTree.parse(drawing).getroot()
        assert root.tag.endswith("svg")
        assert f"]({drawing.name})" in markdown


def test_data_holds_the_counts_as_counts(report: Path) -> None:
    with (report / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    trials = [record for record in read_results(EXAMPLE) if isinstance(record, Trial)]
    assert [row["trial_id"] for row in rows] == [trial.trial_id for trial in trials]
    for row, trial in zip(rows, trials, strict=True):
        assert row["offered"] == str(trial.offered)
        assert row["streams_lost"] == ("" if trial.streams is None else str(trial.streams.lost))
        assert float(row["delivered_copies_per_s"]) == pytest.approx(trial.delivered_dps)
    with (report / "drops.csv").open(encoding="utf-8", newline="") as file:
        open_ = [row for row in csv.DictReader(file) if row["place"] == "unattributed"]
    assert [(row["trial_id"], row["count"]) for row in open_] == [("kernel-fan-out", "3")]


# ------------------------------------------------------------------------------- runs that are not complete


def test_run_cut_at_any_line_still_gives_a_report(tmp_path: Path) -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines(keepends=True)
    results = tmp_path / "results.jsonl"
    for cut in (1, 8, len(lines) - 2):
        results.write_text("".join(lines[:cut]) + lines[cut][:25], encoding="utf-8")
        written = write_report(results, tmp_path / str(cut))
        text = Tags(written[0].read_text(encoding="utf-8")).text
        assert "has no closing record: it was cut short or is still running" in text


def test_interrupted_run_says_so(tmp_path: Path) -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines(keepends=True)[:4]
    lines.append(dump_line(RunEnded(ended_at="2025-01-02T03:05:00Z", outcome="interrupted")))
    (tmp_path / "results.jsonl").write_text("".join(lines), encoding="utf-8")
    write_report(tmp_path, tmp_path)
    assert "**Interrupted.** The quick run was stopped" in (tmp_path / "report.md").read_text(
        encoding="utf-8"
    )


def test_empty_file_and_empty_run_give_a_page_and_headed_data(tmp_path: Path) -> None:
    start = next(record for record in read_results(EXAMPLE) if isinstance(record, RunStarted))
    end = RunEnded(ended_at="2025-01-02T03:05:00Z", outcome="passed")
    for name, records in (("nothing", []), ("empty", [start, end])):
        results = tmp_path / f"{name}.jsonl"
        results.write_text("".join(map(dump_line, records)), encoding="utf-8")
        out = tmp_path / name
        written = write_report(results, out)
        assert "measured" in Tags((out / "report.html").read_text(encoding="utf-8")).text
        assert (out / "zero-loss.csv").read_text(encoding="utf-8").startswith("scenario,case,subject,")
        assert all(path.is_file() for path in written)


def test_the_frames_of_failures_go_with_a_report_that_is_written_elsewhere(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    (run / "evidence").mkdir(parents=True)
    (run / "results.jsonl").write_bytes((REFERENCE / "results.jsonl").read_bytes())
    (run / "evidence" / "a.pcapng").write_bytes(b"frames")
    written = write_report(run / "results.jsonl", out)
    assert written[-1] == out / "evidence" / "a.pcapng"
    assert written[-1].read_bytes() == b"frames"
    write_report(run, run)
    assert [path.name for path in (run / "evidence").iterdir()] == ["a.pcapng"]


@pytest.mark.parametrize("missing", ["mcrd", "kernel", "none"])
def test_run_without_one_subject(missing: str, tmp_path: Path) -> None:
    kept = [
        record
        for record in read_results(EXAMPLE)
        if missing not in (getattr(record, "subject", None), getattr(record, "b", None))
    ]
    (tmp_path / "results.jsonl").write_text("".join(map(dump_line, kept)), encoding="utf-8")
    written = write_report(tmp_path, tmp_path / "out")
    assert written[0].stat().st_size > 10_000
