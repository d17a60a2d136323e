"""What is shown of a run, and how long it says that is left."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from record_support import started_record

from lab.journal.archive import Archive, Mark
from lab.journal.eta import Eta, ExpectedStep, duration, past_seconds
from lab.journal.progress import Live, Plain, Reporter, reporter_for

STEPS = [
    ExpectedStep("a/one", 10.0),
    ExpectedStep("a/two", 20.0),
    ExpectedStep("b/three", 30.0, known_s=40.0),
]


def test_plain_progress_is_one_line_for_each_step_and_no_control_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as CI has it
    stream = io.StringIO()
    reporter = reporter_for(stream)
    assert isinstance(reporter, Plain)
    reporter.begin(STEPS)
    for step, seconds in zip(STEPS, (10.0, 20.0, 40.0), strict=True):
        reporter.step(step.step_id)
        reporter.outcome(f"[bold]{step.step_id} came\nout " + "x" * 200)
        reporter.outcome("and more")
        reporter.done(seconds)
    reporter.end()
    text = stream.getvalue()
    assert text.isprintable() or set(text) - {"\n"} == {c for c in text if c.isprintable()}
    first, *lines = text.splitlines()
    assert first == "3 steps, about 70 s"
    assert len(lines) == 3
    assert lines[0].startswith("[1/3] a/one: [bold]a/one came out xxx")
    assert lines[0].endswith("x; and more (10 s; about 60 s left)")
    assert lines[2].endswith("(40 s)")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_what_moves_and_a_dumb_one_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    live = reporter_for(stream)
    assert isinstance(live, Live)
    live.begin(STEPS)
    live.step("a/one")
    live.outcome("1,000 copies/s")
    live.done(10.0)
    live.step("a/two")
    live.end()
    assert "1,000 copies/s" in stream.getvalue()
    assert "1/3" in stream.getvalue()
    assert "about 60 s left" in stream.getvalue()
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(reporter_for(Terminal()), Plain)
    assert type(reporter_for(Terminal(), silent=True)) is Reporter


def test_an_estimate_starts_from_what_is_known_and_is_revised() -> None:
    estimate = Eta(STEPS)
    assert estimate.left_s() == 70.0
    assert estimate.left_s(4.0) == 66.0
    estimate.done(20.0)  # twice as long as planned
    assert 60.0 < estimate.left_s() < 2 * 20.0 + 40.0, "partly believed; what is known is not touched by it"
    estimate.done(40.0)
    assert estimate.left_s() == 40.0
    assert estimate.left_s(50.0) == pytest.approx(10.0), "overdue: never nothing"
    estimate.done(40.0)
    assert estimate.left_s() == 0.0
    with pytest.raises(IndexError, match="all 3 steps"):
        estimate.done(1.0)


def test_the_more_has_been_seen_the_more_it_counts() -> None:
    off = Eta([ExpectedStep(str(number), 10.0) for number in range(20)])
    errors = []
    for done in range(19):
        off.done(30.0)
        errors.append(abs(off.left_s() - 30.0 * (19 - done)) / (30.0 * (19 - done)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (45, "45 s"), (100, "2 min"), (5400, "1 h 30 min"), (7260, "2 h 01 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_times_come_from_runs_of_this_machine_and_profile(tmp_path: Path) -> None:
    for name, first, seconds in (
        ("1", started_record(), 10.0),
        ("2", started_record(), 30.0),
        ("3", started_record(), 20.0),
        ("4", started_record("another"), 500.0),
        ("5", started_record(profile="full"), 500.0),
        ("now", started_record(), 500.0),
    ):
        with Archive.create(tmp_path / name) as archive:
            archive.write(first)
            archive.finish("(start)")
            archive.begin()
            archive.finish("a/one", (), seconds)
            archive.finish("a/resumed", (), None)
            archive.give_up("a/broken")
    (tmp_path / "6").mkdir()
    (tmp_path / "6" / "journal.jsonl").write_text("no journal")
    assert past_seconds(tmp_path / "now", started_record()) == {"a/one": 20.0}


def test_a_journal_of_before_has_no_times() -> None:
    assert Mark.model_validate_json('{"step": "a", "start": 0, "end": 1}').seconds is None
