"""What ``mcrd plan`` says for recorded machines with several memory nodes (``hosts/``), kept as files.

The facts of each machine and their source are in its file. To accept a change after reading it:
``GOLDEN_UPDATE=1 pytest tests/golden``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from forwarder.cli.mcrd import plan_command

HERE = Path(__file__).parent
CASES = {
    "2-nodes-16-cpus share": "--strategy fanout-per-interface --width share --interfaces eth0,eth1,ib0 "
    "--rules-count 300",
    "2-nodes-16-cpus two-nodes-in-a-group": "--interface-group 0:eth0,ib0 --num-workers 16",
    "4-nodes-96-cpus use-case-4": "--strategy hybrid --interface-count 20 --rules-count 10000",
    "8-nodes-64-cpus hybrid": "--strategy hybrid --interface-count 16 --rules-count 1600",
    "8-nodes-64-cpus elastic": "--auto-scale --interface-count 4 --max-workers-per-interface 8 "
    "--rules-count 400",
    "8-nodes-64-cpus straddling": "--strategy fanout --interface-count 1 --num-workers 36 --numa-straddle",
    "8-nodes-6-without-cpus far": "--interface eth0 --interface-node eth0:250 --num-workers 6",
    "4-nodes-40-cpus-unknown fanout": "--interface eth0",
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_command_prints_for_a_recorded_machine_is_as_it_was(case: str) -> None:
    host, name = case.split()
    arguments = CASES[case].split()
    app = typer.Typer()
    app.command()(plan_command)
    result = CliRunner().invoke(app, ["--host", str(HERE / "hosts" / f"{host}.json"), *arguments])
    assert result.exit_code == 0, result.output
    printed = f"$ mcrd plan --host {host}.json {CASES[case]}\n{result.stdout}"
    path = HERE / "numa" / f"{host}-{name}.txt"
    if os.environ.get("GOLDEN_UPDATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(printed, encoding="utf-8")
    assert printed == path.read_text(encoding="utf-8")
