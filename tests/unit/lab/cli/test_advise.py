"""``mcastlab advise`` and ``mcastlab model``: what is ranked, what is said, what is refused.

The text for the document's four use cases is kept under ``tests/golden/advice``; to accept a change after
reading it: ``GOLDEN_UPDATE=1 pytest tests/unit/lab/cli/test_advise.py``.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from capacity_support import FOOTPRINTS, grid, model, run
from paths import GOLDEN
from typer.testing import CliRunner

from forwarder.cli.mcrd import plan_command
from forwarder.plan.host import described_host
from forwarder.plan.host_file import as_text
from forwarder.problems import ProblemsError
from lab.cli.advice import advise, unevenness
from lab.cli.advise import advise_command, model_command
from lab.cli.document_layouts import layouts
from lab.cli.terminal import BadInputError
from lab.cli.workload import Workload, workload_from
from lab.results import dump_line
from reports.capacity.layouts import read_layouts
from reports.capacity.model import dump_model, read_model
from reports.capacity.rank import Verdict

ADVICE = GOLDEN / "advice"

USE_CASES = {
    "use-case-1": "--interfaces 1 --gbps 100 --payload-bytes 1316 --cpus 48 --rules 1000",
    "use-case-2": "--interfaces 4 --gbps 100 --payload-bytes 1316 --cpus 96 --rules 2000 --numa-nodes 2",
    "use-case-3": "--interfaces 20 --gbps 1 --payload-bytes 1316 --cpus 4 --rules 2000",
    "use-case-4": "--interfaces 20 --gbps 200 --payload-bytes 1316 --cpus 96 --rules 10000 --numa-nodes 4",
}
OTHERS = {
    "one CPU": "--interfaces 20 --rate-dps 1000 --payload-bytes 64 --cpus 1 --rules 20",
    "jumbo": "--interfaces 2 --rate-dps 1000 --payload-bytes 8972 --cpus 8 --rules 3 --outputs 16",
    "host skipped": "--interfaces 3 --rate-dps 500000 --payload-bytes 64 --cpus 7 --skip-host-stack",
    "huge": "--interfaces 100 --gbps 400 --payload-bytes 1400 --cpus 256 --numa-nodes 8 --rules 100000",
    "more nodes than groups fit": "--interfaces 3 --rate-dps 9 --payload-bytes 64 --cpus 64 --numa-nodes 64",
}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.json"
    path.write_text(dump_model(model()), encoding="utf-8")
    return path


def _output(command: Any, *words: object) -> str:
    """What a command prints that succeeds; its exceptions pass."""
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, (words, result.output)
    return result.stdout


def _advised(words: str, model_file: Path, *more: str) -> str:
    return _output(advise_command, *shlex.split(words), "--model", model_file, *more)


def _rows(words: str, model_file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_advised(words, model_file, "--json"))["strategies"]
    return found


@pytest.mark.parametrize("name", USE_CASES)
def test_advice_for_the_documents_use_cases_is_as_it_was(name: str, model_file: Path) -> None:
    printed = _advised(USE_CASES[name], model_file).replace(str(model_file), "model.json")
    printed = f"$ mcastlab advise {USE_CASES[name]} --model model.json\n{printed}"
    path = ADVICE / f"{name}.txt"
    if os.environ.get("GOLDEN_UPDATE"):
        path.write_text(printed, encoding="utf-8")
    assert printed == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [*USE_CASES.values(), *OTHERS.values()], ids=[*USE_CASES, *OTHERS])
def test_every_command_line_is_one_that_mcrd_plans_as_predicted(
    words: str, model_file: Path, tmp_path: Path
) -> None:
    interfaces, cpus, nodes = (
        int(words.split(f"--{name} ")[1].split()[0]) if f"--{name} " in words else 1
        for name in ("interfaces", "cpus", "numa-nodes")
    )
    machine = described_host(cpus, [f"eth{number}" for number in range(interfaces)], nodes)
    (tmp_path / "host.json").write_text(as_text(machine))
    rows = _rows(words, model_file)
    assert rows
    for row in rows:
        program, command, *options = shlex.split(row["command"])
        assert (program, command) == ("mcrd", "supervisor")
        planned = json.loads(_output(plan_command, *options, "--host", tmp_path / "host.json", "--json"))
        found = row["candidate"]
        assert len(planned["workers"]) == found["workers"], row["command"]
        assert len(planned["groups"]) == found["groups"]
        most = sum(group["max_workers"] for group in planned["groups"])
        assert most == found["workers_most"], row["command"]


@pytest.mark.parametrize("words", [*USE_CASES.values(), *OTHERS.values()], ids=[*USE_CASES, *OTHERS])
def test_rows_are_ranked_and_say_all_that_is_asked_of_them(words: str, model_file: Path) -> None:
    rows = _rows(words, model_file)
    meeting = [row["verdict"] == "meets it" for row in rows]
    assert meeting == sorted(meeting, reverse=True)
    assert len({row["command"] for row in rows}) == len(rows)
    for row in rows:
        rate = row["zero_loss_dps"]
        assert 0 < rate["low"] <= rate["value"] <= rate["high"]
        assert row["verdict"] in get_args(Verdict)
        assert rate["basis"] in ("measured", "interpolated", "extrapolated")
        if rate["basis"] == "extrapolated":
            assert rate["reasons"]


def test_what_meets_it_on_fewest_processors_comes_first_and_of_those_what_takes_least_memory() -> None:
    rows = advise(Workload(interfaces=4, cpus=64, payload_bytes=64, rate_dps=2_000_000), model()).rows
    meeting = [row for row in rows if row.verdict == "meets it"]
    assert len(meeting) > 2
    assert rows[0] is meeting[0]
    cpus = [row.candidate.machine.cpus for row in meeting]
    assert cpus[0] == min(cpus) < 64
    alike = [row for row in meeting if row.candidate.machine.cpus == cpus[0]]
    assert rows[0].memory.everything <= 1.06 * min(row.memory.everything for row in alike)


def test_a_recorded_machine_is_advised_on_as_it_is(tmp_path: Path, model_file: Path) -> None:
    host = GOLDEN / "hosts" / "2-nodes-16-cpus.json"
    load = f"--rate-dps 100000 --payload-bytes 64 --host {host}"
    rows = _rows(load, model_file)
    assert any("--interfaces eth0,ib0" in row["command"] for row in rows)
    told = _advised(load, model_file)
    assert "2 interfaces" in told, "eth1 is down"
    assert "16 CPUs in 2 memory nodes" in told
    assert "4 interfaces" in _advised(f"{load} --interfaces 4", model_file)
    with pytest.raises(BadInputError, match="--cpus 4: leave it out, as --host has it"):
        _advised(f"{load} --cpus 4", model_file)
    (wrong := tmp_path / "host.json").write_text("{}")
    with pytest.raises(ProblemsError):
        _advised(f"--rate-dps 1 --payload-bytes 64 --host {wrong}", model_file)


def test_a_rate_out_of_reach_is_said_to_be_with_what_would_meet_it() -> None:
    advice = advise(Workload(interfaces=1, cpus=2, payload_bytes=1316, rate_dps=3e6), model())
    assert not advice.met
    text = " ".join(advice.conclusion)
    assert "cannot be forwarded without loss by any strategy here" in text
    assert "CPUs instead of 2 would do" in text
    assert "such machines that share the interfaces" in text
    assert "--skip-host-stack keeps datagrams from" in text


def test_more_is_never_had_from_fewer_processors_or_more_copies() -> None:
    def best(**changes: Any) -> float:
        asked = {"interfaces": 4, "cpus": 16, "payload_bytes": 512, "rate_dps": 1e9, "rules": 10_000}
        return advise(Workload(**{**asked, **changes}), model()).rows[0].zero_loss_dps.value

    assert best(cpus=32) > best() > best(cpus=8)
    assert best() > best(outputs=2) > best(outputs=8)


def test_flows_fall_on_workers_by_chance() -> None:
    assert unevenness(1000, 1) == 1
    assert unevenness(1e9, 96) == pytest.approx(1, abs=1e-3)
    assert 1.5 < unevenness(20, 48) < 1.7
    assert unevenness(0.5, 8) == pytest.approx(1 + (2 * 2.0794 / 0.5) ** 0.5, rel=1e-3)
    assert unevenness(0.01, 8) == 8


def test_gigabits_are_those_on_the_wire() -> None:
    workload = workload_from({"cpus": 1, "payload_bytes": 18, "gbps": 1})
    assert workload.dps == pytest.approx(1_488_095, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, ["--cpus", "--payload-bytes", "--rate-dps"]),
        ({"cpus": "x", "payload_bytes": "7", "rate_dps": "-1"}, ["--cpus", "--payload-bytes", "--rate-dps"]),
        ({"cpus": 2, "payload_bytes": 64, "rate_dps": 1, "gbps": 1}, ["--gbps"]),
        ({"cpus": 2, "payload_bytes": 64, "rate_dps": 1, "numa_nodes": 4}, ["--numa-nodes"]),
        ({"cpus": 5000, "payload_bytes": 64, "rate_dps": "nan", "outputs": 0}, ["--cpus", "--outp", "--ra"]),
        ({"cpus": 2, "payload_bytes": 9000, "gbps": "inf", "rules": 0}, ["--payload", "--rules", "--gbps"]),
        (
            {"cpus": 2, "payload_bytes": 64, "rate_dps": 1, "interfaces": 257, "flows": 0},
            ["--int", "--flows"],
        ),
    ],
)
def test_all_that_is_wrong_is_said_at_once(given: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ProblemsError) as refused:
        workload_from(given)
    lines = str(refused.value).splitlines()
    assert len(lines) == len(named)
    for name in named:
        assert any(line.startswith(name) and "; allowed: " in line for line in lines), (name, lines)


def test_bad_input_ends_with_status_2_and_no_traceback() -> None:
    program = [sys.executable, "-m", "lab.cli.main", "advise", "--cpus", "0", "--outputs", "many"]
    found = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    assert "--cpus: '0'; allowed: an integer from 1 to 4,096" in found.stderr
    assert "--outputs: 'many'" in found.stderr
    assert "--payload-bytes: (missing)" in found.stderr


def test_a_model_that_cannot_be_used_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"schema_version": "mcastlab.capacity/0"}')
    with pytest.raises(BadInputError, match=r"schema_version: 'mcastlab\.capacity/0'; allowed"):
        _advised(USE_CASES["use-case-3"], tmp_path / "old.json")


def test_the_command_fits_a_model_that_advice_then_uses(tmp_path: Path) -> None:
    records = run(grid(noise=0.05), footprints=FOOTPRINTS)
    assert records.run is not None
    results = tmp_path / "results.jsonl"
    written = [records.run, *records.trials, *records.footprints]
    results.write_text("".join(map(dump_line, written)), encoding="utf-8")
    path = tmp_path / "own.json"
    said = _output(model_command, results, "-o", path)
    assert "held out, rate of a worker: off by" in said
    assert "held out, memory: off by" in said
    assert records.run.run_id in said
    assert read_model(path).sources[0].run_id == records.run.run_id
    assert str(path) in _advised(USE_CASES["use-case-3"], path)
    told = json.loads(_output(model_command, results, "-o", path, "--json"))
    assert {each["what"] for each in told["held_out"]} == {"rate of a worker", "memory"}


def test_a_run_with_too_little_gives_no_model(tmp_path: Path) -> None:
    records = run(grid()[:3])
    assert records.run is not None
    results = tmp_path / "results.jsonl"
    results.write_text("".join(map(dump_line, [records.run, *records.trials])), encoding="utf-8")
    few = "1 loads at which a worker could not keep up; allowed: 6 or more"
    with pytest.raises(BadInputError, match=few):
        _output(model_command, results, "-o", tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_what_the_report_has_of_the_documents_rows_is_what_is_planned() -> None:
    """To accept a change after reading it: ``python -m lab.cli.document_layouts``."""
    assert layouts() == read_layouts()
