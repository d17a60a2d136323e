"""``mcastlab`` and what it cannot use: one message that names it, status 2, never a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import GOLDEN

from lab.cli.main import main

EXAMPLE = GOLDEN / "reports" / "results.jsonl"


Ends = Callable[..., str]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ends:
    """Run a command; what it says, on stderr unless its ``status`` is 0."""

    def run(*arguments: str, status: int = 2) -> str:
        monkeypatch.setattr("sys.argv", ["mcastlab", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == status
        said = capsys.readouterr()
        return said.err if status else said.out

    return run


@pytest.mark.parametrize(
    ("command", "option", "below"), [("report", "--out", ""), ("trend", "--plot", "trend.svg")]
)
def test_what_cannot_be_written_is_named(
    command: str, option: str, below: str, tmp_path: Path, ends: Ends
) -> None:
    (taken := tmp_path / "taken").write_text("a file where a directory should be")
    said = ends(command, str(EXAMPLE), option, str(taken / below))
    assert str(taken) in said
    assert "a place that can be written is allowed" in said


def test_comparisons_leave_out_damaged_lines_and_refuse_what_has_nothing_else(
    tmp_path: Path, ends: Ends
) -> None:
    (file := tmp_path / "results.jsonl").write_bytes(b"\xff\xfe\n")
    assert "not UTF-8 text (byte 0)" in ends("comparisons", str(file))
    file.write_bytes(EXAMPLE.read_bytes() + b"not json\n")
    assert '"ratio"' in ends("comparisons", str(file), "--json", status=0)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("elastic-flsh", "elastic-flash"),
        ("/nowhere/x.toml", "a file ending in .toml that is there"),
        ("zzz", "bench, capacity, "),
    ],
)
def test_a_scenario_that_is_none_is_refused_with_what_was_perhaps_meant(
    name: str, allowed: str, ends: Ends
) -> None:
    assert allowed in ends("plan", name)


@pytest.mark.parametrize("cpus", ["4095", "0-4095", "", "-1", "1-0", "0-99999999999", "first"])
def test_forwarder_cpus_that_cannot_be_had_are_named_with_what_is_allowed(
    cpus: str, tmp_path: Path, ends: Ends
) -> None:
    said = ends("run", "functional", "--out", str(tmp_path / "out"), f"--forwarder-cpus={cpus}")
    assert f"--forwarder-cpus {cpus!r}: " in said
    assert "allowed: " in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_all_cpus_leave_none_for_the_bench(ends: Ends) -> None:
    every = ",".join(map(str, os.sched_getaffinity(0)))
    said = ends("compare", "mcrd", "kernel", f"--forwarder-cpus={every}")
    assert "allowed: none" in said or "no CPU is left for generator and receivers; allowed: CPUs of " in said
