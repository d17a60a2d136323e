"""``mcastlab`` and what it cannot use: one message that names it, status 2, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from paths import GOLDEN

from lab.cli.main import main

EXAMPLE = GOLDEN / "reports" / "results.jsonl"


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr("sys.argv", ["mcastlab", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option", "below"), [("report", "--out", ""), ("trend", "--plot", "trend.svg")]
)
def test_what_cannot_be_written_is_named(
    command: str,
    option: str,
    below: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (taken := tmp_path / "taken").write_text("a file where a directory should be")
    said = refused(monkeypatch, capsys, command, str(EXAMPLE), option, str(taken / below))
    assert str(taken) in said
    assert "a place that can be written is allowed" in said


def test_comparisons_leave_out_damaged_lines_and_refuse_what_has_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "results.jsonl").write_bytes(b"\xff\xfe\n")
    assert "not UTF-8 text (byte 0)" in refused(monkeypatch, capsys, "comparisons", str(file))
    file.write_bytes(EXAMPLE.read_bytes() + b"not json\n")
    monkeypatch.setattr("sys.argv", ["mcastlab", "comparisons", str(file), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert '"ratio"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("elastic-flsh", "elastic-flash"),
        ("/nowhere/x.toml", "a file ending in .toml that is there"),
        ("zzz", "bench, capacity-workers, "),
    ],
)
def test_a_scenario_that_is_none_is_refused_with_what_was_perhaps_meant(
    name: str, allowed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert allowed in refused(monkeypatch, capsys, "plan", name)
