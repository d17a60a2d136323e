"""The control socket and the command lines: bad input is refused whole, and nobody holds up anybody else."""

from __future__ import annotations

import json
import random
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kernel_support.mcrd import (
    Client,
    Relay,
    Rule,
    counts,
    eventually,
    mcrctl,
    output,
    program,
    prompt_answers,
    rule,
    rule_counts,
    some_cpus,
)
from kernel_support.traffic import Bench, streams

from lab.load.jobs import SenderJob
from lab.netns import namespaces as netns

LINE_BYTES = 16 << 20
"""The longest request."""


@pytest.fixture
def client(shared_relay: Relay) -> Iterator[Client]:
    with Client(shared_relay.forwarder.control_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_applied(shared_relay: Relay) -> Iterator[None]:
    """No test here leaves a rule behind, whatever it asked for."""
    yield
    left = [one["rule_id"] for one in shared_relay.ask("list")["rules"]]
    for rule_id in left:
        shared_relay.ask("remove", rule_id=rule_id)
    assert left == []
    assert shared_relay.forwarder.stats()["memberships"] == 0


def fields(answer: dict[str, Any]) -> list[str]:
    """The fields that a refusal names; each error has a value and says what is allowed."""
    assert answer["ok"] is False
    for error in answer["errors"]:
        assert error.keys() == {"field", "value", "allowed"}
        assert all(error.values()), error
    return [error["field"] for error in answer["errors"]]


# What is not a request


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"garbage", "request"),
        (b"\x00\xff\xfe\x80", "request"),
        (b"{", "request"),
        (b"[" * 100_000, "request"),
        (b'{"command": ' + b"9" * 5000 + b"}", "request"),
        (b"[]", "request"),
        (b"null", "request"),
        (b'"ping"', "request"),
        (b"{}", "command"),
        (b'{"command": 7}', "command"),
        (b'{"command": ["ping"]}', "command"),
        (b'{"command": "dance"}', "command"),
        (b'{"command": "ping", "loudly": true}', "loudly"),
        (b'{"command": "stats", "format": "xml"}', "format"),
        (b'{"command": "remove"}', "rule_id"),
        (b'{"command": "remove", "rule_id": 7}', "rule_id"),
        (b'{"command": "remove", "rule_id": "nobody"}', "rule_id"),
        (b'{"command": "add"}', "rules"),
        (b'{"command": "add", "rules": 7}', "rules"),
        (b'{"command": "add", "rules": [7]}', "rules[0]"),
    ],
)
def test_what_is_no_request_is_answered_and_the_conversation_goes_on(
    client: Client, line: bytes, field: str
) -> None:
    assert fields(client.say(line)) == [field]
    assert client.ask("ping")["ok"]


def test_empty_lines_are_no_requests(client: Client) -> None:
    assert client.say(b"\n  \n" + b'{"command": "ping"}')["ok"]


def test_requests_in_one_packet_are_answered_in_order(client: Client) -> None:
    first = client.say(b'{"command": "ping"}\n{"command": "list"}\nnonsense')
    assert first["ok"]
    assert client.answer() == {"ok": True, "result": {"rules": [], "timing": {}, "engines": {}}}
    assert fields(client.answer()) == ["request"]


@pytest.mark.serial
def test_a_line_without_end_is_refused_when_it_is_too_long(shared_relay: Relay) -> None:
    with Client(shared_relay.forwarder.control_path) as endless, prompt_answers(shared_relay):
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            endless.socket.sendall(b"x" * (4 * LINE_BYTES))
        assert fields(endless.answer()) == ["request"]


# Rules that cannot be


GOOD = rule(streams(1)[0])


def bad(name: str, value: Any, *, of_output: bool = False) -> Rule:
    if of_output:
        return {**GOOD, "outputs": [{**GOOD["outputs"][0], name: value}]}
    return {**GOOD, name: value}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (bad("input_group", "10.1.1.1"), "rules[0].input_group"),
        (bad("input_group", "239.1.1"), "rules[0].input_group"),
        (bad("input_group", 7), "rules[0].input_group"),
        (bad("input_group", "ff02::1"), "rules[0].input_group"),
        (bad("input_port", 0), "rules[0].input_port"),
        (bad("input_port", 65536), "rules[0].input_port"),
        (bad("input_port", "5001"), "rules[0].input_port"),
        (bad("input_port", True), "rules[0].input_port"),
        (bad("input_interface", ""), "rules[0].input_interface"),
        (bad("input_interface", "x" * 16), "rules[0].input_interface"),
        (bad("input_interface", "a/b"), "rules[0].input_interface"),
        (bad("input_interface", "elsewhere0"), "rules[0].input_interface"),
        (bad("outputs", []), "rules[0].outputs"),
        (bad("outputs", "239.2.2.2:5002:out0"), "rules[0].outputs"),
        (bad("rule_id", ""), "rules[0].rule_id"),
        (bad("rule_id", "two\nlines"), "rules[0].rule_id"),
        (bad("colour", "red"), "rules[0].colour"),
        (bad("group", "192.0.2.1", of_output=True), "rules[0].outputs[0].group"),
        (bad("port", -1, of_output=True), "rules[0].outputs[0].port"),
        (bad("interface", "no spaces", of_output=True), "rules[0].outputs[0].interface"),
        (bad("ttl", 0, of_output=True), "rules[0].outputs[0].ttl"),
        (bad("source", "239.1.1.1", of_output=True), "rules[0].outputs[0].source"),
        (bad("weight", 1, of_output=True), "rules[0].outputs[0].weight"),
    ],
)
def test_a_bad_rule_is_named_and_none_is_applied(client: Client, wrong: Rule, field: str) -> None:
    good = rule(streams(1, first=1)[0])
    refused = client.ask("add", rules=[wrong, good])
    assert fields(refused) == [field]
    name = field.rpartition(".")[2].partition("[")[0]
    value = (wrong["outputs"][0] if "outputs[0]" in field else wrong)[name]
    shown = refused["errors"][0]["value"]
    assert any(words(value) in shown for words in (str, repr, json.dumps))


def test_everything_that_is_wrong_is_said_at_once(client: Client) -> None:
    wrong = {
        **bad("group", "10.0.0.1", of_output=True),
        "input_port": 0,
        "input_group": "1.2.3.4",
        "speed": "high",
    }
    assert sorted(fields(client.ask("add", rules=[wrong, bad("input_port", 70_000)]))) == [
        "rules[0].input_group",
        "rules[0].input_port",
        "rules[0].outputs[0].group",
        "rules[0].speed",
        "rules[1].input_port",
    ]


def test_two_rules_for_one_input_are_refused(client: Client, shared_relay: Relay) -> None:
    with shared_relay.rules(GOOD):
        twin = {**GOOD, "rule_id": "twin"}
        refused = client.ask("add", rules=[twin])
        assert fields(refused) == ["rules[0]"]
        assert GOOD["rule_id"] in refused["errors"][0]["allowed"]
        assert len(shared_relay.ask("list")["rules"]) == 1


@pytest.mark.parametrize("in_force", [False, True])
def test_a_loop_is_refused_and_both_rules_are_named(
    client: Client, shared_relay: Relay, in_force: bool
) -> None:
    """The same group both ways between two interfaces, whether the other rule came before or comes along."""
    there = {**GOOD, "rule_id": "there", "outputs": [output("239.1.0.0", "out0", port=5001)]}
    back = {
        **GOOD,
        "rule_id": "back",
        "input_interface": "out0",
        "outputs": [output("239.1.0.0", "in0", port=5001)],
    }
    with shared_relay.rules(*([there] if in_force else [])):
        (error,) = client.ask("add", rules=[back] if in_force else [there, back])["errors"]
    assert "loop" in error["allowed"]
    assert "'there'" in error["allowed"]
    assert "'back'" in error["allowed"]


# Clients that hold up


@pytest.mark.serial
def test_silent_clients_hold_up_nobody(shared_relay: Relay) -> None:
    with ExitStack() as stack:
        for number in range(200):
            client = stack.enter_context(Client(shared_relay.forwarder.control_path))
            client.socket.sendall((b"", b"{", b'{"command": "ping"}')[number % 3])
        with prompt_answers(shared_relay):
            for _ in range(20):
                with Client(shared_relay.forwarder.control_path) as new:
                    assert new.ask("stats")["ok"]


@pytest.mark.serial
def test_a_client_that_does_not_read_its_answers_holds_up_nobody(shared_relay: Relay) -> None:
    with Client(shared_relay.forwarder.control_path) as deaf, prompt_answers(shared_relay):
        deaf.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            deaf.socket.sendall(b'{"command": "stats"}\n' * 4_000_000)


def test_clients_that_go_in_the_middle_leave_nothing(shared_relay: Relay) -> None:
    pid = shared_relay.forwarder.process.pid
    descriptors = Path(f"/proc/{pid}/fd")
    before = len(list(descriptors.iterdir()))
    for number in range(100):
        with Client(shared_relay.forwarder.control_path) as client:
            client.socket.sendall((b'{"comm', b'{"command": "stats"}\n' * 10)[number % 2])
    eventually(lambda: len(list(descriptors.iterdir())) <= before, "their descriptors are closed")


# Many at once


def test_concurrent_changes_leave_the_workers_with_the_supervisors_rules(shared_relay: Relay) -> None:
    """Five clients at a time add and remove; after each round a datagram of every flow tells who has what."""
    of = streams(10)
    rules = {rule(stream)["rule_id"]: rule(stream) for stream in of}
    flows = tuple(
        stream.model_copy(update={"stream_id": 10 * port + stream.stream_id, "source_port": 6000 + port})
        for stream in of
        for port in range(len(some_cpus()))
    )
    chance = random.Random(16)
    held: set[str] = set()
    with ExitStack() as stack, ThreadPoolExecutor(5) as pool:
        clients = [stack.enter_context(Client(shared_relay.forwarder.control_path)) for _ in range(5)]
        for _ in range(100):
            changed = chance.sample(sorted(rules), 5)
            asked = [
                ("remove", {"rule_id": one}) if one in held else ("add", {"rules": [rules[one]]})
                for one in changed
            ]
            answers = pool.map(lambda client, ask: client.ask(ask[0], **ask[1]), clients, asked)
            assert all(answer["ok"] for answer in answers)
            held ^= set(changed)
            listed = [one["rule_id"] for one in shared_relay.ask("list")["rules"]]
            assert sorted(listed) == sorted(held)
            assert {worker["rules"] for worker in shared_relay.ask("list-workers")["workers"]} == {len(held)}
            _assert_workers_hold(shared_relay, held, flows)
        for rule_id in held:
            shared_relay.ask("remove", rule_id=rule_id)


def _assert_workers_hold(relay: Relay, held: set[str], flows: Sequence[Any]) -> None:
    before = relay.forwarder.stats()
    # The same streams from every CPU: each worker gets one datagram of each group.
    for number, cpu in enumerate(some_cpus()):
        share = tuple(flow for flow in flows if flow.source_port == 6000 + number)
        sender = relay.bench.sender(
            SenderJob(interface="g0", streams=share, count=len(share), rate_dps=100_000, cpu=cpu),
            number=number,
        )
        sender.ready()
        sender.go()
        assert sender.report().offered == len(share)

    def done() -> bool:
        now = counts(relay.forwarder.stats(), before)
        return now.received == len(flows) and now.sent == now.matched

    eventually(done, "every datagram received, every copy sent")
    after = relay.forwarder.stats()
    counted = counts(after, before)
    workers = len(some_cpus())
    assert counted.matched == counted.sent == workers * len(held)
    assert counted.per_worker == (len(held),) * workers
    assert counted.dropped == ({"no_rule": workers * (10 - len(held))} if len(held) < 10 else {})
    then, now = rule_counts(before), rule_counts(after)
    assert {name: now[name][0] - then.get(name, (0, 0))[0] for name in now} == dict.fromkeys(held, workers)


def test_a_rule_changed_under_the_same_name_all_the_time(shared_relay: Relay) -> None:
    """Two clients fight over one rule: either is refused now and then, and one rule is held at most."""

    def fight(_: int) -> None:
        with Client(shared_relay.forwarder.control_path) as client:
            for _ in range(200):
                client.ask("add", rules=[GOOD])
                client.ask("remove", rule_id=GOOD["rule_id"])

    with ThreadPoolExecutor(2) as pool:
        watching = [pool.submit(fight, number) for number in range(2)]
        while not all(future.done() for future in watching):
            assert len(shared_relay.forwarder.stats()["rules"]) <= 1
        for future in watching:
            future.result()
    with shared_relay.rules(GOOD):
        (held,) = shared_relay.forwarder.stats()["rules"]
        assert held["matched"] == 0


# The command lines


def test_mcrctl_does_what_the_control_socket_does(shared_relay: Relay) -> None:
    path = shared_relay.forwarder.control_path

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [program("mcrctl"), "--socket-path", str(path), *arguments]
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)

    wrong = command(
        *("add", "--input-interface", "in0", "--input-group", "10.1.1.1", "--input-port", "70000"),
        *("--outputs", "239.2.2.2:5002:out0"),
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert [line.split(":")[1].strip() for line in wrong.stderr.splitlines()] == [
        "--input-group",
        "--input-port",
    ]
    right = command(
        *("add", "--input-interface", "in0", "--input-group", "239.1.1.1", "--input-port", "5001"),
        *("--outputs", "239.2.2.2:5002:out0,239.2.2.3:5002:out1", "--rule-id", "mine", "--json"),
    )
    assert (right.returncode, right.stderr) == (0, "")
    served = {"state": "running", "reason": None, "engine": "packet", "engine_reason": None}
    assert json.loads(right.stdout)["added"] == [{"rule_id": "mine", **served}]
    assert "239.2.2.3:5002:out1" in command("list").stdout
    removed = command("remove", "--rule-id", "mine")
    assert (removed.returncode, removed.stdout) == (0, "removed mine\n")
    again = command("remove", "--rule-id", "mine")
    assert (again.returncode, again.stdout) == (2, "")
    assert "rule_id: 'mine'" in again.stderr


def test_mcrctl_says_when_nobody_answers(tmp_path: Path) -> None:
    asked = mcrctl(tmp_path / "nothing", "ping")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert str(tmp_path / "nothing") in asked.stderr
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    asked = mcrctl(tmp_path / "left", "ping")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert str(tmp_path / "left") in asked.stderr


def start(bench: Bench, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """``mcrd supervisor``, which must end by itself."""
    command = [program("mcrd"), "supervisor", "--control-socket-path", str(path), *options]
    return subprocess.run(
        netns.command(bench.lab.fwd, command), capture_output=True, text=True, timeout=60, check=False
    )


def test_a_supervisor_with_bad_options_and_rules_says_all_and_does_not_start(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"rules": [bad("input_port", 0), bad("ttl", 256, of_output=True)]}))
    ended = start(
        mcrd_bench,
        tmp_path / "control",
        *("--interface", "a/b", "--num-workers", "0", "--strategy", "fastest", "--rules", str(rules)),
        *("--ring-frames", "100"),
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    named = [line.removeprefix("error: ").rpartition("; allowed:")[0] for line in ended.stderr.splitlines()]
    assert sorted(named) == [
        "--interface: 'a/b'",
        "--num-workers: '0'",
        "--ring-frames: '100'",
        "--strategy: 'fastest'",
        "rules.json: rules[0].input_port: 0",
        "rules.json: rules[1].outputs[0].ttl: 256",
    ]
    assert not (tmp_path / "control").exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("not json", "rules.json"),
        ('{"rules": [], "extra": 1}', "extra.json"),
        ("rules = ]", "rules.toml"),
        (None, "missing.json"),
    ],
)
def test_a_supervisor_with_a_bad_rules_file_does_not_start(
    mcrd_bench: Bench, tmp_path: Path, text: str | None, name: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    ended = start(mcrd_bench, tmp_path / "control", "--interface", "in0", "--rules", str(tmp_path / name))
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "; allowed: " in line
    assert name in line
    assert not (tmp_path / "control").exists()


def test_a_supervisor_with_a_rule_for_another_interface_does_not_start(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "rules.json").write_text(
        json.dumps([GOOD, {**GOOD, "input_interface": "in1", "rule_id": "b"}])
    )
    ended = start(
        mcrd_bench, tmp_path / "control", "--interface", "in0", "--rules", str(tmp_path / "rules.json")
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "'b'" in ended.stderr
    assert "in0" in ended.stderr
    assert not (tmp_path / "control").exists()


def test_a_second_supervisor_on_a_control_socket_in_use_does_not_start(
    mcrd_bench: Bench, shared_relay: Relay
) -> None:
    path = shared_relay.forwarder.control_path
    ended = start(mcrd_bench, path, "--interface", "in1")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert str(path) in ended.stderr
    assert shared_relay.ask("ping")["pid"] == shared_relay.forwarder.process.pid


def test_a_control_socket_path_that_is_a_file_is_left_alone(mcrd_bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    ended = start(mcrd_bench, path, "--interface", "in1")
    assert ended.returncode == 2
    assert f"--control-socket-path: '{path}'; allowed: a path in a directory" in ended.stderr
    assert "it exists and is no socket" in ended.stderr
    assert path.read_text() == "data"


@pytest.mark.parametrize("path", ["/nonexistent/control", "/etc/hostname/control", "/tmp/" + 120 * "x"])
def test_a_path_where_there_can_be_no_control_socket_is_refused(mcrd_bench: Bench, path: str) -> None:
    ended = start(mcrd_bench, Path(path), "--interface", "in1")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--control-socket-path: " in ended.stderr
