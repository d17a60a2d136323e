"""Results files that are damaged, mixed or of another schema: nothing passes for what it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from paths import GOLDEN

from lab.results import ResultsError, Trial, dump_line, read_results
from reports.page.html import write_report
from reports.reading import read

EXAMPLE = GOLDEN / "reports" / "results.jsonl"
LINES = EXAMPLE.read_text(encoding="utf-8").splitlines(keepends=True)


def written(tmp_path: Path, content: str | bytes) -> Path:
    results = tmp_path / "results.jsonl"
    results.write_bytes(content.encode() if isinstance(content, str) else content)
    return results


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"results\.jsonl: no such results file"):
        write_report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"kind": "trial", "trial_id": "x"}\n',
            r"results\.jsonl:1: not a mcastlab\.results/1 record: trial",
        ),
        ("not json\n", r"results\.jsonl:1: .*not a JSON object"),
        ('{"kind": "unheard-of"}\n', r"results\.jsonl:1: .*unheard-of"),
        (b"\xff\xfe\n", r"results\.jsonl:1: not UTF-8 text \(byte 0\)"),
        (
            LINES[0].replace("mcastlab.results/1", "mcastlab.results/2"),
            r"schema mcastlab\.results/2, this version reads mcastlab\.results/1",
        ),
        (
            '{"kind": "run", "schema_version": "mcastlab.results/9", "new": 1}\n' + LINES[5],
            r"schema mcastlab\.results/9, this version reads mcastlab\.results/1",
        ),
    ],
)
def test_nothing_usable_is_one_clear_error(content: str | bytes, message: str, tmp_path: Path) -> None:
    written(tmp_path, content)
    with pytest.raises(ResultsError, match=message):
        write_report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_lines_are_left_out_and_counted_on_the_page(tmp_path: Path) -> None:
    trial = next(place for place, line in enumerate(LINES) if json.loads(line)["kind"] == "trial")
    damaged = [*LINES[:trial], LINES[trial][:80] + "\n", *LINES[trial + 1 :], "\xff\n"]
    results = written(tmp_path, "".join(damaged).encode("latin-1", errors="replace"))
    warned: list[str] = []
    write_report(results, tmp_path / "out", warn=warned.append)
    assert len(warned) == 1
    assert f"left out: 2 of {len(LINES) + 1} lines, which are no records of this schema" in warned[0]
    assert f"results.jsonl:{trial + 1}: not a mcastlab.results/1 record" in warned[0]
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8").replace("\\", "")
        assert f"2 of {len(LINES) + 1} lines, which are no records of this schema" in text
    lost = json.loads(LINES[trial])["trial_id"]
    kept = (tmp_path / "out" / "trials.csv").read_text(encoding="utf-8")
    assert f"\n{lost}," not in kept
    assert kept.count("\n") - 1 == sum('"kind":"trial"' in line for line in LINES) - 1


def test_last_line_cut_short_is_a_run_that_was_killed(tmp_path: Path) -> None:
    reading = read(written(tmp_path, "".join(LINES[:8]) + LINES[8][:40]))
    assert (len(reading.records), reading.left_out) == (8, ())


def test_of_several_runs_the_last_is_shown_and_the_others_named(tmp_path: Path) -> None:
    first = LINES[0].replace("20250102-030405-ab12", "earlier")
    foreign = LINES[0].replace("mcastlab.results/1", "mcastlab.results/2")
    content = "".join([first, *LINES[1:6], foreign, *LINES[1:3], *LINES])
    reading = read(written(tmp_path, content))
    assert [dump_line(record) for record in reading.records] == LINES
    earlier, other = reading.left_out
    assert earlier == "6 records: run earlier: a report shows one run, this is about the last one"
    assert other.startswith("3 records: run 20250102-030405-ab12 is of schema mcastlab.results/2")
    write_report(tmp_path, tmp_path)
    assert "**Left out.** The results file held more" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_trials_of_one_id_are_counted_once(tmp_path: Path) -> None:
    trials = [line for line in LINES if json.loads(line)["kind"] == "trial"]
    reading = read(written(tmp_path, "".join([*LINES[:-1], *trials[:3], LINES[-1]])))
    assert sum(isinstance(record, Trial) for record in reading.records) == len(trials)
    (told,) = reading.left_out
    assert told.startswith("3 trials whose id another trial of the run has")


def test_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    warned: list[str] = []
    write_report(written(tmp_path, ""), tmp_path, warn=warned.append)
    assert warned == [f"{tmp_path / 'results.jsonl'}: no record: nothing was measured"]
    assert "**No results.**" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_example_is_read_whole() -> None:
    reading = read(EXAMPLE)
    assert reading.left_out == ()
    assert list(reading.records) == list(read_results(EXAMPLE))
