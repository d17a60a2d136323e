"""Elastic scaling in the report: steps drawn as they were, in words too, promises kept and missed."""

from __future__ import annotations

import pytest
from paths import GOLDEN
from report_support import rows

from lab.results import Change, Course, read_results
from reports.dataset import Dataset, sort_records
from reports.figures import load_profiles as drawn
from reports.figures.svg import draw
from reports.tables import load_profiles

EXAMPLE = GOLDEN / "reports" / "results.jsonl"


@pytest.fixture(scope="module")
def data() -> Dataset:
    return sort_records(read_results(EXAMPLE))


def test_a_course_is_drawn_with_every_change_that_was_carried_out(data: Dataset) -> None:
    hot, alone = data.courses
    assert load_profiles.offered_steps(hot) == [(0.0, 5000.0), (1.0, 55_000.0), (4.0, 55_000.0)]
    assert load_profiles.worker_steps(hot, 0) == [(0.0, 1), (1.42, 3), (4.0, 3)]
    assert load_profiles.worker_steps(hot, 1) == [(0.0, 1), (4.0, 1)]
    figures = drawn.load_profiles(data)
    assert [figure.name for figure in figures] == ["course-1", "course-2"]
    text = figures[0].description
    assert "workers of the group: 1 from 0.0 s on, 3 from 1.4 s on." in text
    assert "Offered between 5,000 and 55,000 datagrams a second in 4.00 s" in text
    assert text.endswith("1 other group: at most 1 worker.")
    assert "other group" not in drawn.description(alone)
    drawing = draw(figures[0].wide)
    assert "datagrams/s" in drawing
    assert "workers" in drawing


def test_the_table_of_courses_says_what_was_promised(data: Dataset) -> None:
    (table,) = load_profiles.load_profiles(data)
    scaled, never = rows(table)
    assert scaled["Overload to scaled"] == "0.42"
    assert scaled["Workers"] == "1 / 3 / 3"
    assert scaled["Changes"] == "1"
    assert never["Overload to scaled"] == "–"
    assert [row.cells[5].tone for row in table.rows] == ["good", "bad"]
    assert [row.cells[6].tone for row in table.rows] == ["good", "bad"]
    assert table.rows[0].trials == ("mcrd-course-1",)


def test_the_table_of_changes_says_for_how_long_and_of_how_much(data: Dataset) -> None:
    (table,) = load_profiles.changes(data)
    grow, shrink, crash, restart = rows(table)
    assert (grow["Lost"], grow["Out of order"], grow["Blocked"]) == ("0", "0 / 3", "0.00 / 0.00")
    assert (shrink["Lost"], shrink["Blocked"]) == ("4", "0.00 / 0.04")
    assert crash["Blocked"] == "21.15 / 25.00"
    assert restart["Blocked"] == "740.00 / 740.00"
    assert [row.cells[7].tone for row in table.rows] == ["good", "bad", "good", "plain"]
    assert "of 48 % to 52 % of the load" in table.rows[2].cells[7].detail
    assert table.rows[1].cells[0].doubts == ("2 trials left out, the last: x",)


def test_a_run_without_either_has_no_such_section() -> None:
    bare = sort_records(record for record in read_results(EXAMPLE) if not isinstance(record, Course | Change))
    assert drawn.load_profiles(bare) == []
    assert load_profiles.load_profiles(bare) == []
    assert load_profiles.changes(bare) == []
