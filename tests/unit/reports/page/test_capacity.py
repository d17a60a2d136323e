"""The capacity model on the page: sections of a run that has enough for a model, none of one that has not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capacity_support import FOOTPRINTS, LOADS, footprint, grid, pipelines, run, zero_loss

from lab.results import RunEnded
from reports.capacity.layouts import read_layouts
from reports.dataset import Dataset, sort_records
from reports.figures.svg import draw
from reports.model import Figure, Section, Table
from reports.page.capacity.model import TERMS, sections
from reports.tables.trials import pipelines as pipelines_table


@pytest.fixture(scope="module")
def data() -> Dataset:
    trials = grid(noise=0.1)
    searched = [zero_loss(load, made) for load, made in zip(LOADS, trials[::3], strict=True)]
    row = footprint(96, 1000, name="96 workers")
    records = run(trials, searched, [*FOOTPRINTS, row])
    assert records.run is not None
    ended = RunEnded(ended_at="2025-01-02T04:04:05Z", outcome="passed")
    return sort_records([records.run, *trials, *searched, *records.footprints, ended])


@pytest.fixture(scope="module")
def made(data: Dataset) -> tuple[Section, ...]:
    return sections(data)


def _table(section: Section, name: str) -> Table:
    return next(part for part in section.parts if isinstance(part, Table) and part.name == name)


def test_a_run_with_too_little_has_no_such_section(data: Dataset) -> None:
    assert sections(replace(data, trials=data.trials[:3])) == ()
    assert sections(replace(data, run=None)) == ()


def test_errors_of_held_out_cases_are_said_with_what_is_promised(made: tuple[Section, ...]) -> None:
    rows = _table(made[0], "capacity-errors").rows
    assert [row.cells[0].text for row in rows] == ["Rate of a worker", "Zero-loss rate", "Memory"]
    assert [row.cells[2].detail.split(":")[0] for row in rows] == ["at most 7%", "at most 7%", "at most 5%"]
    assert all(row.cells[4].detail.startswith("90% to 99%: ") for row in rows)


def test_every_rate_names_its_trials_as_the_run_does(data: Dataset, made: tuple[Section, ...]) -> None:
    known = {trial.trial_id for trial in data.trials}
    for name in ("capacity-cases-rate-of-a-worker", "capacity-cases-zero-loss-rate"):
        rows = _table(made[0], name).rows
        assert len(rows) == len(LOADS)
        for row in rows:
            assert row.trials
            assert set(row.trials) <= known
    assert set(_table(made[0], "capacity-errors").rows[0].trials) == known


def test_all_terms_are_shown(made: tuple[Section, ...]) -> None:
    assert len(_table(made[0], "capacity-terms").rows) == len(TERMS)


def test_drawings_can_be_drawn_and_say_what_they_show(made: tuple[Section, ...]) -> None:
    figures = [part for part in made[0].parts if isinstance(part, Figure)]
    assert [figure.name for figure in figures] == ["capacity-predicted", "capacity-scaling"]
    for figure in figures:
        assert figure.narrow is not None
        for drawing in (figure.wide, figure.narrow):
            assert draw(drawing).startswith("<svg")
    assert figures[1].doubts
    assert "17 to 96, extrapolated" in figures[1].description


def test_pipelines_say_what_another_cpu_adds_with_or_without_a_model() -> None:
    (made,) = pipelines_table(run([], pipelines=[pipelines(2, [0.9, 0.95, 1.0])]))
    (row,) = made.rows
    assert [cell.text for cell in row.cells[1:]] == ["2", "100,000", "95,000", "0.95", "1.90", "3"]
    assert row.trials == ("pipelines/2",)
    assert pipelines_table(run([])) == []


def test_each_row_of_the_worker_count_table_stands_beside_its_measurement(
    data: Dataset, made: tuple[Section, ...]
) -> None:
    table = _table(made[1], "seed-workers")
    layouts = read_layouts()
    assert len(table.rows) == len(layouts.rows) == 7
    measured = next(f for f in data.footprints if f.case == "96 workers")
    second = table.rows[1]
    assert second.cells[6].text == f"{measured.memory.own_bytes / 1e6:.1f}"
    assert second.cells[6].detail == "grid: 96 workers"
    rings = layouts.rows[1].planned.rings_bytes
    everything = measured.memory.held_bytes + (measured.memory.kernel_bytes or 0) + rings
    assert second.cells[8].text == f"{everything / 1e6:.0f}"
    assert any("within its interval" in note for note in second.notes)
    assert table.rows[6].cells[6].text == table.rows[6].cells[8].text == "not in this run"
    for row, layout in zip(table.rows, layouts.rows, strict=True):
        for sentence in layout.discrepancies:
            assert sentence in row.notes
        assert all(note.endswith(".") for note in row.notes)


def test_stars_become_figures_and_use_cases_have_an_answer_with_its_reason(
    made: tuple[Section, ...],
) -> None:
    performance = _table(made[1], "seed-performance")
    assert [row.cells[1].text.count("★") for row in performance.rows] == [5, 1, 4, 5]
    assert all(
        "extrapolated" in row.cells[1].detail for row in performance.rows if row.cells[0].text[0] == "2"
    )
    usage = [row.cells[3].text for row in performance.rows]
    assert len(set(usage)) == 4, usage
    cases = _table(made[1], "seed-use-cases")
    assert len(cases.rows) == 4
    for row in cases.rows:
        assert row.notes[0].endswith(".")
        assert row.cells[4].text.startswith("--")
