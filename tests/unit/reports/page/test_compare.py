"""Two runs against each other: what is matched, when there is a verdict, and what forbids one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from paths import GOLDEN

from lab.results import (
    AnyRecord,
    Comparison,
    RunStarted,
    Trial,
    ZeroLoss,
    dump_line,
    read_results,
)
from reports.dataset import Dataset, sort_records
from reports.page import compare
from reports.page.compare import DELIVERED, RATE, ComparedFigure, Key, Measured
from reports.page.html import write_comparison

EXAMPLE = GOLDEN / "reports" / "results.jsonl"
KEY = Key("s", "c", "mcrd", "{}", "")


def run(**changes: object) -> list[AnyRecord]:
    """The example run, its machine changed."""
    records = list(read_results(EXAMPLE))
    first = records[0]
    assert isinstance(first, RunStarted)
    provenance = first.provenance.model_copy(update=changes)
    return [first.model_copy(update={"run_id": "other", "provenance": provenance}), *records[1:]]


def data(records: list[AnyRecord]) -> Dataset:
    return sort_records(records)


def pair(a: tuple[float, ...], b: tuple[float, ...], refused: str = "") -> ComparedFigure:
    return ComparedFigure(KEY, DELIVERED, Measured(a), Measured(b), refused)


def test_verdict_follows_the_interval_of_repeated_figures() -> None:
    assert pair((100, 101, 102), (80, 81, 82)).verdict == "better"
    assert pair((80, 81, 82), (100, 101, 102)).verdict == "worse"
    apart = pair((80, 100, 125), (81, 100, 120))
    assert apart.verdict == "no difference"
    assert apart.interval is not None
    low, high = apart.interval
    assert low < 1 < high


def test_one_measurement_each_is_no_verdict() -> None:
    alone = pair((100,), (50,))
    assert alone.ratio == pytest.approx(2)
    assert alone.verdict is None
    assert alone.verdict_text == "one measurement each: no verdict"
    assert pair((100, 101), (50, 51, 52)).verdict_text == "2 and 3 measurements: no verdict"
    assert (
        pair((100, 101, 102), (80, 81, 82), "different machines").verdict_text
        == "no verdict: different machines"
    )


def test_interval_is_that_of_welch() -> None:
    """Against the textbook's own arithmetic, on logarithms of 1, 2, 3 and 2, 4, 6, 8."""
    found = pair(tuple(map(math.exp, (1, 2, 3))), tuple(map(math.exp, (2, 4, 6, 8)))).interval
    assert found is not None
    error = math.sqrt(1 / 3 + (20 / 3) / 4)
    freedom = error**4 / ((1 / 3) ** 2 / 2 + (5 / 3) ** 2 / 3)
    assert freedom == pytest.approx(4.075, abs=0.001)
    student = 2.7587  # of 4.075 degrees of freedom at 95 %, between 2.776 (4) and 2.571 (5)
    assert math.log(found[0]) == pytest.approx(-3 - student * error, abs=0.01)
    assert math.log(found[1]) == pytest.approx(-3 + student * error, abs=0.01)


def test_same_run_against_itself_is_alike_everywhere() -> None:
    found = compare.compared_figures(data(run()), data(run()))
    assert {c.metric for c in found} >= {RATE, DELIVERED, compare.CPU, compare.P99, compare.PRIVATE}
    assert all(c.ratio == pytest.approx(1) for c in found)
    assert not any(c.verdict in ("better", "worse") for c in found)
    assert compare.missing(data(run()), data(run())) == []


def test_only_what_is_the_same_is_matched() -> None:
    doubled = [
        record.model_copy(update={"lower_dps": (record.lower_dps or 0) * 2, "upper_dps": None})
        if isinstance(record, ZeroLoss)
        else record
        for record in run()
    ]
    found = [
        c for c in compare.compared_figures(data(doubled), data(run())) if c.metric == RATE and not c.key.load
    ]
    assert found
    assert all(c.ratio == pytest.approx(2) for c in found)
    assert all(c.a.open_end for c in found)
    larger = [
        record.model_copy(update={"setting": record.setting.model_copy(update={"payload_bytes": 99})})
        if isinstance(record, ZeroLoss | Trial | Comparison)
        else record
        for record in run()
    ]
    left = compare.compared_figures(data(larger), data(run()))
    assert {c.metric for c in left} <= {compare.PRIVATE, compare.READY}
    assert compare.missing(data(larger), data(run()))


def test_another_machine_refuses_verdicts_and_other_differences_are_named() -> None:
    ours, theirs = data(run()), data(run(cpus=96, commit="f" * 16, sysctls={"net.core.rmem_max": "1"}))
    assert compare.refusal(ours, data(run(commit="f" * 16))) == ""
    assert compare.refusal(ours, theirs) == "different machines"
    told = {each.what: each.machine for each in compare.differences(ours, theirs)}
    assert told["cpus"]
    assert not told["commit"]
    assert not told["sysctls: net.core.rmem_max"]
    assert all(c.verdict is None for c in compare.compared_figures(ours, theirs))


def test_page_of_two_machines_says_so_first(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(map(dump_line, run(cpu_model="Other CPU"))), encoding="utf-8")
    warned: list[str] = []
    written = write_comparison(EXAMPLE, other, tmp_path / "out", warned.append)
    assert written[0].name == "compared.html"
    assert warned == ["no verdicts: different machines"]
    text = (tmp_path / "out" / "compared.md").read_text(encoding="utf-8")
    summary = text[text.index("## Summary") : text.index("## Contents")]
    assert "**Different machines.** Figures are shown beside each other, and none is judged:" in summary
    assert "cpu\\_model: Example CPU 2000 @ 2.40GHz in A, Other CPU in B" in summary
    assert "better in" not in summary
