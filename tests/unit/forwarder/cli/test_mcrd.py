"""``mcrd plan`` as a command: tables, JSON, supposed machines, and refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from forwarder.cli.mcrd import plan_command
from forwarder.config.plan_options import this_host


def run(*arguments: str) -> tuple[str, str, int]:
    app = typer.Typer()
    app.command()(plan_command)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout, result.stderr, result.exit_code


def test_a_supposed_machine_as_json() -> None:
    out, err, status = run(
        *(
            "--strategy",
            "hybrid",
            "--cpus",
            "96",
            "--interface-count",
            "20",
            "--rules-count",
            "10000",
            "--json",
        )
    )
    assert (err, status) == ("", 0)
    document = json.loads(out)
    assert document["schema"] == "mcrd.plan/1"
    assert document["cpus"] == 96
    assert document["strategy"]["steering"] == "cpu"
    assert len(document["workers"]) == 96
    assert document["workers"][30]["sockets"][0]["fanout"] == {
        "group_key": 5,
        "mode": "cpu",
        "slot": 6,
        "members": 24,
        "max_members": 24,
        "cpus": [],
    }
    assert sum(len(partition["rule_ids"]) for partition in document["partitions"]) == 10_000
    assert document["figures"]["modelled"]["total_bytes"] == 336_000_000
    assert document["figures"]["documented_bytes"] == 192_000_000


def test_this_machine_is_planned_for_and_left_alone(tmp_path: Path) -> None:
    socket = tmp_path / "mcrd.sock"
    out, err, status = run("--interface", "lo", "--control-socket-path", str(socket), "--json")
    assert (err, status) == ("", 0)
    assert json.loads(out)["cpus"] == len(os.sched_getaffinity(0))
    assert not socket.exists()
    assert this_host().interface("lo") is not None


def test_sizes_given_change_the_model() -> None:
    out, _, _ = run(
        *("--cpus", "2", "--interface-count", "1", "--rules-count", "10", "--strategy", "fanout", "--json"),
        *("--rule-size", "100", "--process-overhead", "5000"),
    )
    modelled = json.loads(out)["figures"]["modelled"]
    assert (modelled["rules_bytes"], modelled["process_bytes"]) == (2000, 10_000)


def test_rules_from_a_file_count_their_outputs_in_the_projection(tmp_path: Path) -> None:
    outputs = [{"group": f"239.2.2.{n}", "port": 1, "interface": "b"} for n in range(8)]
    rule = {"input_interface": "eth0", "input_group": "239.1.1.1", "input_port": 1, "outputs": outputs}
    (tmp_path / "r.json").write_text(json.dumps({"rules": [rule]}))
    out, _, _ = run(
        *("--cpus", "2", "--interface-count", "1", "--strategy", "fanout", "--json"),
        *("--rules", str(tmp_path / "r.json")),
    )
    figures = json.loads(out)["figures"]
    assert figures["projected"]["rules_bytes"] == 2 * 8 * 64
    assert figures["modelled"]["rules_bytes"] == 2 * 1000


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--cpus 0 --interface-count x --rules-count -1", ["--cpus", "--interface-count", "--rules-count"]),
        ("--interface-count 2 --interface eth0", ["--interface-count"]),
        ("--interface eth0 --rules-count 3 --rules /nowhere", ["--rules", "--rules-count"]),
        ("--interface eth0 --rule-size 1KB --process-overhead -5", ["--rule-size", "--process-overhead"]),
        ("--interface-count 301 --strategy fanout", ["--interface-count"]),
        ("--rules-count 10", ["--rules-count"]),
        ("--cpus 4096 --interface-count 256 --strategy full-fanout", ["workers"]),
        ("--interface-count 2 --strategy pool --groups 2", ["--groups"]),
        ("--interface-count 2 --hashing modulo", ["--hashing"]),
        ("--interface-count 2 --strategy best --hashing modulo --groups 2", ["--strategy"]),
        ("--interface-count 2 --strategy dynamic --placement hash", ["--placement"]),
        ("--interface eth0 --strategy rule-hash --num-workers 301", ["workers"]),
    ],
)
def test_bad_suppositions_are_refused_together(arguments: str, named: list[str]) -> None:
    out, err, status = run(*arguments.split())
    assert (out, status) == ("", 2)
    assert [line.split(": ")[1] for line in err.splitlines()] == named


def test_help_lists_every_option() -> None:
    out, _, status = run("--help")
    assert status == 0
    for name in ("--interface-group", "--cpus", "--scale-threshold-pps", "--config", "--json"):
        assert name in out


def test_a_proposal_is_shown_with_its_reasons_and_its_configuration(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    entry = {
        "input_interface": "nowhere0",
        "input_group": "239.1.0.1",
        "input_port": 5001,
        "outputs": [{"group": "239.2.0.1", "port": 5002, "interface": "out0"}],
    }
    rules.write_text(json.dumps({"rules": [entry]}))
    out, _, status = run("--detect", "--cpus", "8", "--rules", str(rules))
    assert status == 0
    assert 'strategy = "fanout"\ninterface = "nowhere0"' in out
    assert "do not exist yet: nowhere0" in out
    assert "8 workers on 8 CPUs" in out
    out, _, _ = run("--detect", "--rules", str(rules), "--json")
    assert json.loads(out)["proposal"]["options"] == {"strategy": "fanout", "interface": "nowhere0"}


@pytest.mark.parametrize("other", ["--interface a", "--strategy pool", "--interface-group 0:a"])
def test_a_proposal_is_not_asked_for_beside_a_choice(other: str) -> None:
    _, err, status = run("--detect", *other.split())
    assert status == 2
    assert f"error: {other.split()[0]}: " in err
    assert "left out, as --detect is there" in err
