"""Options from the command line and from a file, through the command that takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from forwarder.cli.mcrd import plan_command
from forwarder.config.arguments import takes_options
from forwarder.config.files import OptionsError, read_config, read_options
from forwarder.config.options import SupervisorOptions, resolve
from forwarder.plan.host import described_host
from forwarder.plan.model import InterfaceGroup, Plan
from forwarder.plan.strategy import PRESETS, Steering, Width
from forwarder.rules.model import ForwardingRule

RULES = {
    "rules": [
        {
            "rule_id": "a",
            "input_interface": "eth0",
            "input_group": "239.1.1.1",
            "input_port": 5001,
            "outputs": [{"group": "239.2.2.2", "port": 5002, "interface": "eth1"}],
        }
    ]
}


class Taken:
    """What a command was called with."""

    options: SupervisorOptions
    rules: Sequence[ForwardingRule]
    word: str


def run(*arguments: str) -> tuple[Taken, list[str], int]:
    """Run a command with the supervisor's options: what it got, its errors, its exit status."""
    taken = Taken()
    app = typer.Typer()
    app.command("plan")(plan_command)

    @app.command("supervisor")
    @takes_options(SupervisorOptions)
    def supervisor(
        options: SupervisorOptions,
        rules: Sequence[ForwardingRule],
        word: Annotated[str, typer.Option("--word")] = "none",
    ) -> None:
        taken.options, taken.rules, taken.word = options, rules, word

    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return taken, result.stderr.splitlines(), result.exit_code


def supervisor_plan(*arguments: str) -> Plan:
    taken, errors, status = run("supervisor", *arguments)
    assert (errors, status) == ([], 0)
    return resolve(taken.options, described_host(4, ["eth0", "eth1", "eth2", "eth3"]), taken.rules)


# The command lines of the document and of the design


def test_one_interface_is_fanout() -> None:
    planned = supervisor_plan("--interface", "eth0", "--num-workers", "48")
    assert planned.strategy == PRESETS["fanout"]
    assert len(planned.workers) == 48


def test_interface_groups_of_one_pair_with_their_workers() -> None:
    planned = supervisor_plan(
        *("--interface-group", "0:eth0", "--workers-per-group", "3"),
        *("--interface-group", "1:eth1", "--workers-per-group", "2"),
    )
    assert planned.strategy == PRESETS["fanout-per-interface"]
    assert [(g.group_id, g.interfaces, g.workers) for g in planned.groups] == [
        (0, ("eth0",), 3),
        (1, ("eth1",), 2),
    ]


def test_interface_groups_of_several_are_hybrid() -> None:
    planned = supervisor_plan("--interface-group", "0:eth0,eth1,eth2", "--num-workers", "24")
    assert planned.strategy == PRESETS["hybrid"]
    assert [(g.interfaces, g.workers) for g in planned.groups] == [(("eth0", "eth1", "eth2"), 24)]


def test_several_interfaces_are_a_pool() -> None:
    planned = supervisor_plan("--interfaces", "eth0,eth1,eth2")
    assert planned.strategy == PRESETS["pool"]
    assert len(planned.workers) == 1
    assert len(supervisor_plan("--interfaces", "eth0,eth1", "--num-workers", "4").workers) == 4


def test_auto_scale_is_dynamic() -> None:
    arguments = "--auto-scale --interfaces eth0,eth1 --min-workers-per-interface 2"
    limits = "--max-workers-per-interface 24 --scale-threshold-pps 50000"
    planned = supervisor_plan(*arguments.split(), *limits.split())
    assert planned.strategy == PRESETS["dynamic"]
    assert [(group.workers, group.max_workers) for group in planned.groups] == [(2, 24), (2, 24)]
    taken, _, _ = run("supervisor", *arguments.split(), *limits.split())
    assert taken.options.scale_threshold_pps == 50_000


@pytest.mark.parametrize("name", PRESETS)
def test_any_strategy_by_name_on_one_interface(name: str) -> None:
    assert supervisor_plan("--strategy", name, "--interface", "eth0").strategy == PRESETS[name]


def test_axes_by_name() -> None:
    arguments = "--strategy rule-hash --interfaces eth0,eth1 --steering filter --width share --hashing modulo"
    strategy = supervisor_plan(*arguments.split()).strategy
    assert (strategy.steering, strategy.width, strategy.hashing) == (Steering.FILTER, Width.SHARE, "modulo")


def test_the_other_options_arrive(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(RULES))
    taken, errors, status = run(
        *("supervisor", "--interface", "eth0", "--control-socket-path", "/run/x.sock", "--engine", "packet"),
        *(
            "--rules",
            str(tmp_path / "r.json"),
            "--ring-frames",
            "128",
            "--busy-poll-us",
            "50",
            "--zero-checksum",
            "keep",
            "--no-coalesce",
            "--word",
            "own",
        ),
    )
    assert (errors, status) == ([], 0)
    assert taken.options.control_socket_path == Path("/run/x.sock")
    assert (taken.options.ring_frames, taken.options.busy_poll_us, taken.options.engine) == (
        128,
        50,
        "packet",
    )
    assert (taken.options.zero_checksum, taken.options.no_coalesce) == ("keep", True)
    assert [rule.rule_id for rule in taken.rules] == ["a"]
    assert taken.word == "own"


# What is refused


def test_every_problem_is_told_at_once_under_the_name_that_was_written(tmp_path: Path) -> None:
    rules = json.loads(json.dumps(RULES))
    rules["rules"][0]["input_port"] = 0
    (tmp_path / "r.json").write_text(json.dumps(rules))
    _, errors, status = run(
        *("supervisor", "--strategy", "best", "--num-workers", "0", "--interfaces", "eth0,no/name"),
        *("--ring-frames", "100", "--busy-poll-us", "-1", "--engine", "dpdk", "--steering", "left"),
        *("--scale-threshold-pps", "many", "--rules", str(tmp_path / "r.json")),
    )
    assert status == 2
    named = {line.split(": ")[1] for line in errors}
    assert named == {
        *("--strategy", "--num-workers", "--interfaces", "--ring-frames", "--busy-poll-us", "--engine"),
        *("--steering", "--scale-threshold-pps", "r.json"),
    }
    assert all(line.startswith("error: ") and "allowed: " in line for line in errors)
    assert "error: r.json: rules[0].input_port: 0; allowed: an integer from 1 to 65535" in errors


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--strategy fanout", ["--interfaces"]),
        ("--num-workers 0", ["--num-workers"]),
        ("--num-workers -3", ["--num-workers"]),
        ("--interface a --placement nowhere --grouping none", ["--grouping", "--placement"]),
        ("--interface a --interfaces b,c", ["--interfaces"]),
        ("--interface a --interfaces b,c --interface-group 0:d", ["--interfaces", "--interface-group"]),
        ("--interfaces a,b,a", ["--interfaces"]),
        ("--interfaces a,,b", ["--interfaces"]),
        ("--interface-group 0:a --interface-group 1:a", ["--interface-group"]),
        ("--interface-group 0:a --interface-group 0:b", ["--interface-group"]),
        ("--interface-group a", ["--interface-group"]),
        ("--interface-group x:a", ["--interface-group"]),
        ("--interface-group 65536:a", ["--interface-group"]),
        ("--interface-group 0:", ["--interface-group"]),
        ("--interface-group 0:a/b", ["--interface-group"]),
        ("--interface-group 0:a --workers-per-group 1 --workers-per-group 2", ["--workers-per-group"]),
        ("--interface-group 0:a --workers-per-group 1 --num-workers 2", ["--num-workers"]),
        ("--interface a --workers-per-group 1", ["--workers-per-group"]),
        ("--strategy hybrid --interfaces a,b,c --groups 9", ["--groups"]),
        ("--interface a --num-workers 4097", ["--num-workers"]),
        ("--interface a --num-workers 2.5", ["--num-workers"]),
        ("--interface a --max-workers-per-interface 3", ["--max-workers-per-interface"]),
        ("--interface a --scale-threshold-pps 3", ["--scale-threshold-pps"]),
        ("--interface a --zero-checksum drop", ["--zero-checksum"]),
        ("--auto-scale --interface a --num-workers 3", ["--num-workers"]),
        ("--auto-scale --interface a --strategy pool", ["--auto-scale"]),
        ("--auto-scale --interface-group 0:a --workers-per-group 2", ["--workers-per-group"]),
        ("--auto-scale", ["--interfaces"]),
        ("--auto-scale --grouping all-interfaces", ["--interfaces"]),
        ("--interface a --interface-node b:0", ["--interface-node"]),
        ("--interface-node b:0", ["--interface-node"]),
        (
            "--auto-scale --interface a --min-workers-per-interface 3 --max-workers-per-interface 2",
            ["--max-workers-per-interface"],
        ),
        ("--strategy fanout --interfaces a,b", ["--interfaces"]),
        ("--strategy pool --interface-group 0:a", ["--interface-group"]),
        ("--strategy pool --interface a --steering rule-hash", ["--steering"]),
        ("--strategy hybrid-hash --interfaces a,b --width elastic", ["--width"]),
        ("--interface a --ring-frames 32", ["--ring-frames"]),
        ("--interface a --ring-frames 524288", ["--ring-frames"]),
        ("--interface a --rules /nowhere/r.json", ["--rules"]),
        ("--interface a --config /nowhere/c.toml", ["--config"]),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: str, named: list[str]) -> None:
    _, errors, status = run("supervisor", *arguments.split())
    assert status == 2
    assert [line.split(": ")[1] for line in errors] == named


def test_an_unknown_option_is_refused() -> None:
    _, errors, status = run("supervisor", "--interface", "a", "--workers", "3")
    assert status == 2
    assert any("--workers" in line for line in errors)


# The file


def configured(path: Path, text: str, **given: object) -> tuple[SupervisorOptions, list[ForwardingRule]]:
    (path / "mcrd.toml").write_text(text)
    return read_options(SupervisorOptions, given, path / "mcrd.toml")


def test_a_file_says_what_the_command_line_can(tmp_path: Path) -> None:
    options, rules = configured(
        tmp_path,
        """
        strategy = "hybrid"
        ring_frames = 256
        auto_scale = false
        [[interface_group]]
        id = 3
        interfaces = ["eth0", "eth1"]
        workers = 2
        [[interface_group]]
        id = 4
        interfaces = ["eth2"]
        [[rules]]
        rule_id = "inline"
        input_interface = "eth0"
        input_group = "239.1.1.1"
        input_port = 5001
        outputs = [{ group = "239.2.2.2", port = 5002, interface = "eth1" }]
        """,
    )
    assert options.sizing.groups == (InterfaceGroup(3, ("eth0", "eth1"), 2), InterfaceGroup(4, ("eth2",)))
    assert options.ring_frames == 256
    assert [rule.rule_id for rule in rules] == ["inline"]


def test_a_number_of_workers_is_not_for_a_group_that_scales(tmp_path: Path) -> None:
    text = 'auto_scale = true\ninterface_group = [{ id = 0, interfaces = ["a"], workers = 8 }]\n'
    with pytest.raises(OptionsError) as caught:
        configured(tmp_path, text)
    assert [problem.field for problem in caught.value.problems] == ["mcrd.toml: interface_group"]


def test_a_file_that_does_not_end_with_a_line_may_be_half_written(tmp_path: Path) -> None:
    file = tmp_path / "mcrd.toml"
    file.write_text('interface = "eth0"\nring_frames = 64')
    assert read_config(file)["ring_frames"] == 64
    with pytest.raises(OptionsError, match="half-written"):
        read_config(file, whole=True)
    file.write_text(file.read_text() + "\n")
    assert read_config(file, whole=True) == read_config(file)


def test_what_a_file_says_beside_a_choice_that_the_command_line_replaces_is_no_contradiction(
    tmp_path: Path,
) -> None:
    text = 'strategy = "hybrid-hash"\ninterfaces = ["a", "b"]\ninterface_node = ["b:0"]\n'
    text += 'hashing = "modulo"\ngroups = 2\n'
    options, _ = configured(tmp_path, text, strategy="pool", interface="a")
    assert options.sizing.interface_nodes == ()
    with pytest.raises(OptionsError) as caught:
        configured(tmp_path, text.replace("hybrid-hash", "pool"))
    assert {problem.field for problem in caught.value.problems} == {"mcrd.toml: hashing", "mcrd.toml: groups"}


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    text = (
        'interface_group = ["0:a", "1:b"]\nworkers_per_group = [1, 2]\nbusy_poll_us = 5\nring_frames = 64\n'
        'zero_checksum = "keep"\nno_coalesce = true\n'
    )
    options, _ = configured(tmp_path, text, interface="eth0", busy_poll_us="9")
    assert (options.zero_checksum, options.no_coalesce) == ("keep", True)
    assert options.input_interfaces == ("eth0",)
    assert (options.busy_poll_us, options.ring_frames) == (9, 64)


def test_a_rules_file_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text(json.dumps(RULES))
    _, rules = configured(tmp_path, 'interface = "eth0"\nrules = "rules.json"\n')
    assert [rule.rule_id for rule in rules] == ["a"]


def test_problems_of_a_file_name_it(tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        configured(
            tmp_path,
            'num_workers = true\nspeed = 3\ninterfaces = ["a", 4]\ninterface_group = [{ id = 1 }]\n'
            'auto_scale = "often"\n[[rules]]\nrule_id = ""\n',
            engine="dpdk",
        )
    found = [(problem.field, problem.value) for problem in caught.value.problems]
    assert found[0] == ("mcrd.toml: rules[0].input_interface", "(missing)")
    assert ("mcrd.toml: rules[0].rule_id", "''") in found
    assert [each for each in found if "rules" not in each[0]] == [
        ("mcrd.toml: interfaces", "4"),
        ("mcrd.toml: interface_group", "{'id': 1}"),
        ("mcrd.toml: num_workers", "true"),
        ("mcrd.toml: auto_scale", "'often'"),
        ("--engine", "'dpdk'"),
        ("mcrd.toml: speed", "3"),
    ]


@pytest.mark.parametrize("content", [b"[[", b"\xff", b"a = 1\na = 2"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(OptionsError, match="--config"):
        read_options(SupervisorOptions, {"interface": "a"}, tmp_path / "c.toml")


def test_a_key_that_is_nearly_one_is_told_which_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "mcrd.toml").write_text('num-workers = 2\ninterface = "eth0"\nbogus = 1\n')
    with pytest.raises(OptionsError) as refused:
        read_options(SupervisorOptions, {}, tmp_path / "mcrd.toml")
    assert [(problem.field, problem.allowed) for problem in refused.value.problems] == [
        ("mcrd.toml: num-workers", "no such option; num_workers?"),
        ("mcrd.toml: bogus", "no such option: leave it out"),
    ]


@pytest.mark.parametrize("command", ["mcrd plan --interface eth0", "mcrd host", "mcastlab list"])
def test_output_for_which_there_is_no_room_is_one_sentence(command: str) -> None:
    name, *arguments = command.split()
    words = [Path(sys.executable).with_name(name), *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: output, or a file, could not be written: No space left on device\n"
