"""Change points: a step is found, noise is none, machines and settings stay apart."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_support import comparison_record, started_record
from report_support import rate
from typer.testing import CliRunner

from lab.ci.trend import LEAST_LENGTH, LEAST_POINTS, changes, noise, series_of
from lab.cli.main import app
from lab.cli.terminal import BadInputError
from lab.results import AnyRecord, Comparison, Setting, dump_line
from reports.figures.trend import draw


@pytest.mark.parametrize("points", [LEAST_POINTS, 20, 60, 200])
@pytest.mark.parametrize("spread", [0.01, 0.2])
def test_of_noise_alone_at_most_one_series_in_twenty_has_a_change(points: int, spread: float) -> None:
    random = np.random.default_rng(points)
    series = np.exp(random.normal(0, spread, (300, points)))
    assert sum(bool(changes(list(values))) for values in series) <= 300 / 20


@settings(max_examples=60, deadline=None)
@given(
    before=st.integers(8, 40),
    after=st.integers(8, 40),
    factor=st.sampled_from([0.5, 0.8, 0.9, 1.12, 1.5]),
    level=st.floats(1e-3, 1e9),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_step_far_beyond_the_noise_is_found_where_it_is(
    before: int, after: int, factor: float, level: float, seed: int
) -> None:
    spread = abs(math.log(factor)) / 8
    scatter = np.random.default_rng(seed).normal(0, spread, before + after).clip(-2 * spread, 2 * spread)
    values = level * np.exp(scatter)
    values[before:] *= factor
    found = changes(list(values))
    at_the_step = [change for change in found if change.index == before]
    assert len(at_the_step) == 1
    assert at_the_step[0].factor == pytest.approx(factor, rel=abs(factor - 1))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(1e-3, 1e3), min_size=LEAST_POINTS, max_size=40),
    st.floats(1e-3, 1e3),
)
def test_the_unit_does_not_matter_and_stretches_have_a_length(values: list[float], unit: float) -> None:
    found = changes(values)
    bounds = [0, *(change.index for change in found), len(values)]
    assert all(end - start >= LEAST_LENGTH for start, end in pairwise(bounds))
    assert noise(values) == pytest.approx(noise([value * unit for value in values]))
    for change, start, end in zip(found, bounds, bounds[2:], strict=False):
        before, after = np.log(values[start : change.index]), np.log(values[change.index : end])
        assert change.factor == pytest.approx(math.exp(after.mean() - before.mean()))


def test_equal_values_have_no_change_and_two_levels_without_noise_one() -> None:
    assert changes([5.0] * LEAST_POINTS) == ()
    (found,) = changes([5.0] * 8 + [6.0] * 8)
    assert (found.index, found.factor) == (8, pytest.approx(1.2))


@pytest.mark.parametrize("values", [[1.0] * (LEAST_POINTS - 1), [0.0] * 20, [float("nan")] * 20, [-1.0] * 20])
def test_too_few_or_impossible_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values"):
        changes(values)


def run(number: int, ratio: float, cpu: str = "CPU", scenario: str = "bench") -> list[AnyRecord]:
    return [
        started_record(
            cpu,
            commit=f"{number:040x}",
            run_id=f"run-{number:03}",
            started_at=f"2026-01-{number % 28 + 1:02}T00:00:{number // 28:02}+00:00",
            scenarios=[scenario],
        ),
        rate("1→1", 1e5, Setting(payload_bytes=64), scenario=scenario),
        comparison_record(ratio, scenario=scenario, metric="zero-loss rate"),
    ]


def steps(count: int, cpu: str = "CPU", scenario: str = "bench") -> list[list[AnyRecord]]:
    """The ratio falls from 2 to 1.5 in the middle."""
    return [
        run(number, (2.0 if number < count // 2 else 1.5) * (1 + number % 3 / 100), cpu, scenario)
        for number in range(count)
    ]


def test_machines_are_apart_and_runs_are_in_the_order_of_time() -> None:
    found = series_of([*reversed(steps(20)), *steps(6, "another")])
    assert [(len(each.points), bool(each.changes), each.refused is None) for each in found] == [
        (20, True, True),
        (6, False, False),
    ]
    (change,) = found[0].changes
    assert (change.index, "worse" in found[0].describe(change)) == (10, True)
    assert "run-010" in found[0].describe(change)
    assert [point.at for point in found[0].points] == sorted(point.at for point in found[0].points)
    assert "6 values" in (found[1].refused or "")


def test_a_ratio_stands_for_the_rate_of_its_case_unless_that_is_asked_for() -> None:
    runs = steps(12)
    assert {each.key.kind for each in series_of(runs)} == {"ratio"}
    assert {each.key.kind for each in series_of(runs, absolute=True)} == {"ratio", "absolute"}
    alone = [[record for record in each if not isinstance(record, Comparison)] for each in runs]
    assert {each.key.kind for each in series_of(alone)} == {"absolute"}


def test_the_gate_is_no_series_and_a_run_counts_once() -> None:
    assert {each.key.kind for each in series_of(steps(12, scenario="gate"))} == {"absolute"}
    (once,) = series_of([*steps(12), *steps(12)])
    assert len(once.points) == 12


def test_a_drawing_shows_every_series_and_the_same_each_time() -> None:
    found = series_of([*steps(20), *steps(6, "another")])
    text = draw(found)
    ElementTree.fromstring(text)
    assert text == draw(found)
    assert "× 0.75" in text
    assert "too few runs" in text
    ElementTree.fromstring(draw([]))


def test_the_command_leaves_out_what_cannot_be_read_and_says_so(tmp_path: Path) -> None:
    for number, records in enumerate(steps(12)):
        (tmp_path / f"{number:02}").mkdir()
        (tmp_path / f"{number:02}" / "results.jsonl").write_text("".join(map(dump_line, records)))
    (tmp_path / "99").mkdir()
    (tmp_path / "99" / "results.jsonl").write_text('{"kind": "unknown"}\n')
    plot = tmp_path / "trend.html"
    done = CliRunner().invoke(app, ["trend", str(tmp_path), "--json", "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["runs"], len(document["left_out"])) == (12, 1)
    assert "results.jsonl:1" in done.stderr
    assert [change["index"] for change in document["series"][0]["changes"]] == [6]
    assert plot.read_text().startswith("<!doctype html>")

    told = CliRunner().invoke(app, ["trend", str(tmp_path)])
    assert "worse" in " ".join(told.stdout.split())


@pytest.mark.parametrize("arguments", [["none-such"], ["."], [".", "--plot", "x.png"]])
def test_bad_input_is_named(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["trend", *arguments])
    assert isinstance(done.exception, BadInputError)
    assert arguments[-1] in str(done.exception)
