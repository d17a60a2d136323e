"""Rules: reading them, and what a set of them may hold."""

from __future__ import annotations

import json
import random
import sys
from ipaddress import IPv4Address
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from forwarder.engines.packet.schema import HEADER_WORDS, MESSAGE_BYTES
from forwarder.rules.book import RuleBook
from forwarder.rules.model import MOST_OUTPUTS, ForwardingRule, Output, RulesError, interface_name
from forwarder.rules.notation import load_rules, output_text, parse_outputs, parse_rules
from forwarder.workers.encoding import WorkerRule, pack_rules, rule_messages


def rule(
    interface: str = "eth0",
    group: str = "239.1.1.1",
    port: int = 5001,
    *outputs: str,
    rule_id: str | None = None,
) -> ForwardingRule:
    """A rule from short text; outputs are ``group:port:interface``."""
    written: dict[str, Any] = {"input_interface": interface, "input_group": group, "input_port": port}
    if rule_id is not None:
        written["rule_id"] = rule_id
    written["outputs"] = parse_outputs(",".join(outputs) if outputs else "239.9.9.9:9999:out0")
    return ForwardingRule.model_validate(written)


def fields(error: RulesError) -> list[str]:
    return [problem.field for problem in error.problems]


GOOD = {
    "rule_id": "a",
    "input_interface": "eth0",
    "input_group": "239.1.1.1",
    "input_port": 5001,
    "outputs": [{"group": "239.2.2.2", "port": 5002, "interface": "eth1", "ttl": 7, "source": "10.0.0.1"}],
}


def test_a_whole_rule_is_read() -> None:
    [read] = parse_rules({"rules": [GOOD]})
    assert read.rule_id == "a"
    assert read.input_group == IPv4Address("239.1.1.1")
    assert read.outputs == (Output(group="239.2.2.2", port=5002, interface="eth1", ttl=7, source="10.0.0.1"),)
    assert parse_rules([read.model_dump(mode="json")]) == [read]


def test_an_id_left_out_is_derived() -> None:
    [read] = parse_rules([{name: value for name, value in GOOD.items() if name != "rule_id"}])
    assert read.rule_id == "eth0:239.1.1.1:5001"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rule_id", ""),
        ("rule_id", "x" * 129),
        ("rule_id", "new\nline"),
        ("rule_id", None),
        ("input_interface", "sixteen-bytes-xx"),
        ("input_interface", "a/b"),
        ("input_interface", "a:0"),
        ("input_interface", "a b"),
        ("input_interface", ""),
        ("input_interface", ".."),
        ("input_interface", "éééééééé"),  # 8 characters, 16 bytes
        ("input_group", "10.0.0.1"),
        ("input_group", "223.255.255.255"),
        ("input_group", "240.0.0.0"),
        ("input_group", "ff02::1"),
        ("input_group", "239.1.1"),
        ("input_group", 0xEF010101),
        ("input_port", 0),
        ("input_port", 65536),
        ("input_port", "5001"),
        ("input_port", True),
        ("input_port", 5001.0),
        ("outputs", []),
        ("outputs", "239.2.2.2:5002:eth1"),
        ("outputs[0].group", "239.2.2.256"),
        ("outputs[0].port", -1),
        ("outputs[0].interface", "lo\0"),
        ("outputs[0].ttl", 0),
        ("outputs[0].ttl", 256),
        ("outputs[0].source", "239.1.1.1"),
        ("outputs[0].source", "0.0.0.0"),
        ("outputs[0].source", "255.255.255.255"),
        ("outputs[0].source", "keep"),
        ("outputs[0].speed", 1),
        ("input_vlan", 1),
    ],
)
def test_one_bad_value_is_one_problem_under_its_name(path: str, value: object) -> None:
    written = json.loads(json.dumps(GOOD))
    target, _, name = path.rpartition(".")
    (written["outputs"][0] if target else written)[name] = value
    with pytest.raises(RulesError) as caught:
        parse_rules({"rules": [GOOD | {"input_port": 1, "rule_id": "other"}, written]})
    [problem] = caught.value.problems
    assert problem.field == f"rules[1].{path}"
    assert problem.allowed


def test_each_missing_value_is_named() -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules([{}, {"outputs": [{}]}])
    required = ["input_interface", "input_group", "input_port"]
    assert fields(caught.value) == [
        *(f"rules[0].{name}" for name in [*required, "outputs"]),
        *(f"rules[1].{name}" for name in required),
        *(f"rules[1].outputs[0].{name}" for name in ["group", "port", "interface"]),
    ]


def test_problems_of_shape_and_of_the_set_come_together_by_place_in_the_file() -> None:
    bad = GOOD | {"input_port": 0}
    with pytest.raises(RulesError) as caught:
        parse_rules({"rules": [bad, GOOD, 7, GOOD], "comment": "x"})
    assert fields(caught.value) == [
        "comment",
        "rules[0].input_port",
        "rules[2]",
        "rules[3].rule_id",
        "rules[3]",
    ]


@pytest.mark.parametrize("data", [None, 3, "rules", {}, {"rules": {}}, {"rules": None}])
def test_what_is_no_list_of_rules_is_refused(data: object) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(data)
    assert fields(caught.value) == ["rules"]


def test_rules_are_frozen() -> None:
    with pytest.raises(ValidationError):
        rule().input_port = 3  # type: ignore[misc]


def test_interface_names_are_the_kernels() -> None:
    for name in ("lo", "a", "fifteen-bytes-x", "eth0.100", "br-é"):
        assert interface_name(name) == name


# Sets of rules


def test_two_rules_with_one_input_are_refused_naming_both() -> None:
    [problem] = RuleBook([rule(rule_id="first")]).check([rule(rule_id="second")])
    assert problem.field == "rules[0]"
    assert "'second'" in problem.value
    assert "eth0 239.1.1.1:5001" in problem.value
    assert "'first'" in problem.allowed


@pytest.mark.parametrize(
    "other", [("eth1", "239.1.1.1", 5001), ("eth0", "239.1.1.2", 5001), ("eth0", "239.1.1.1", 5002)]
)
def test_inputs_that_differ_anywhere_go_together(other: tuple[str, str, int]) -> None:
    assert RuleBook([rule()]).check([rule(*other)]) == ()


def test_an_id_is_used_once_among_old_and_new() -> None:
    added = [rule(port=1, rule_id="x"), rule(port=2, rule_id="x"), rule(port=3, rule_id="old")]
    problems = RuleBook([rule(rule_id="old")]).check(added)
    assert [(p.field, p.value) for p in problems] == [
        ("rules[1].rule_id", "'x'"),
        ("rules[2].rule_id", "'old'"),
    ]


def test_an_output_that_is_the_input_is_refused() -> None:
    [problem] = RuleBook().check(
        [rule("a", "239.1.1.1", 5, "239.1.1.1:5:b", "239.1.1.1:5:a", rule_id="self")]
    )
    assert problem.field == "rules[0].outputs[1]"
    assert "'self'" in problem.value


def test_an_output_twice_is_refused() -> None:
    [problem] = RuleBook().check([rule("a", "239.1.1.1", 5, "239.1.1.1:5:b", "239.1.1.1:5:b")])
    assert problem.field == "rules[0].outputs[1]"
    assert "outputs[0]" in problem.value


def test_two_outputs_on_one_interface_are_fine() -> None:
    assert RuleBook().check([rule("a", "239.1.1.1", 5, "239.2.2.2:5:b", "239.2.2.3:5:b")]) == ()


def test_the_same_group_both_ways_is_refused_naming_rules_and_path() -> None:
    there = rule("a", "239.1.1.1", 5, "239.1.1.1:5:b", rule_id="there")
    back = rule("b", "239.1.1.1", 5, "239.1.1.1:5:a", rule_id="back")
    for existing, added in (([there], [back]), ([], [there, back])):
        [problem] = RuleBook(existing).check(added)
        assert problem.field == "rules[0]"
        assert "'there'" in problem.allowed
        assert "'back'" in problem.allowed
        assert "a 239.1.1.1:5 -> b 239.1.1.1:5" in f"{problem.value} -> b 239.1.1.1:5"


def test_both_ways_on_different_groups_is_fine() -> None:
    there = rule("a", "239.1.1.1", 5, "239.1.1.2:5:b")
    back = rule("b", "239.1.1.3", 5, "239.1.1.4:5:a")
    assert RuleBook().check([there, back]) == ()


def test_a_diamond_is_no_loop() -> None:
    rules = [
        rule("a", "239.1.1.1", 5, "239.1.1.1:5:b", "239.1.1.1:5:c"),
        rule("b", "239.1.1.1", 5, "239.1.1.1:5:d"),
        rule("c", "239.1.1.1", 5, "239.1.1.1:5:d"),
        rule("d", "239.1.1.1", 5, "239.1.1.1:5:e"),
    ]
    assert RuleBook().check(rules) == ()


def test_every_separate_loop_is_reported() -> None:
    def ring(interface: str) -> list[ForwardingRule]:
        groups = ["239.0.0.1", "239.0.0.2", "239.0.0.3"]
        return [
            rule(interface, group, 5, f"{following}:5:{interface}", rule_id=f"{interface}{group[-1]}")
            for group, following in zip(groups, [*groups[1:], groups[0]], strict=True)
        ]

    problems = RuleBook([rule("z")]).check([*ring("x"), rule("w"), *ring("y")])
    assert [problem.field for problem in problems] == ["rules[0]", "rules[4]"]
    assert "'x1', 'x2', 'x3'" in problems[0].allowed
    assert "'y1', 'y2', 'y3'" in problems[1].allowed


def test_a_refused_batch_leaves_the_book_as_it_was() -> None:
    book = RuleBook([rule(rule_id="old")])
    assert book.add([rule(port=7, rule_id="new"), rule(rule_id="clash")])
    assert [held.rule_id for held in book] == ["old"]
    assert book.add([rule(port=7, rule_id="new")]) == ()
    assert [held.rule_id for held in book] == ["old", "new"]
    assert len(book) == 2
    assert book.get("new")
    assert book.get("new") == rule(port=7, rule_id="new")
    assert book.get("clash") is None


def test_check_changes_nothing() -> None:
    book = RuleBook()
    assert book.check([rule()]) == ()
    assert list(book) == []


def test_a_removed_rule_frees_its_input_its_id_and_its_edges() -> None:
    there = rule("a", "239.1.1.1", 5, "239.1.1.1:5:b", rule_id="x")
    back = rule("b", "239.1.1.1", 5, "239.1.1.1:5:a", rule_id="y")
    book = RuleBook([there])
    assert book.add([back])
    assert book.remove("x") == there
    assert book.add([back]) == ()
    with pytest.raises(RulesError, match="rule_id: 'x'"):
        book.remove("x")


def test_a_book_is_not_made_of_rules_that_clash() -> None:
    with pytest.raises(RulesError):
        RuleBook([rule(rule_id="a"), rule(rule_id="b")])


# Files and command lines


TOML = """
[[rules]]
rule_id = "a"
input_interface = "eth0"
input_group = "239.1.1.1"
input_port = 5001
outputs = [{ group = "239.2.2.2", port = 5002, interface = "eth1", ttl = 7, source = "10.0.0.1" }]
"""


@pytest.mark.parametrize(
    ("name", "text"), [("rules.json", json.dumps({"rules": [GOOD]})), ("rules.toml", TOML)]
)
def test_files_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert load_rules(tmp_path / name) == parse_rules([GOOD])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.json", b"{", "a JSON file"),
        ("r.toml", b"[[", "a TOML file"),
        ("r.json", b"\xff\xfe", "a JSON file in UTF-8"),
        ("r.json", b"[" * 100_000, "a JSON file"),
        ("r.json", None, "readable"),
    ],
)
def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RulesError, match=message) as caught:
        load_rules(tmp_path / name)
    assert fields(caught.value) == ["rules"]


def test_outputs_are_read_from_text() -> None:
    assert parse_outputs("239.2.2.2:5002:veth1, 239.2.2.3:5003:veth2") == [
        {"group": "239.2.2.2", "port": 5002, "interface": "veth1"},
        {"group": "239.2.2.3", "port": 5003, "interface": "veth2"},
    ]


def test_time_to_live_and_source_of_an_output_are_read_from_text_and_written_again() -> None:
    text = "239.2.2.2:5002:a:ttl=8,239.2.2.2:5002:b:source=preserve,239.2.2.2:5002:c:ttl=1:source=10.0.0.1"
    outputs = parse_outputs(text.replace("ttl=1:source=10.0.0.1", "source=10.0.0.1:ttl=1"))
    assert [(output.get("ttl"), output.get("source")) for output in outputs] == [
        (8, None),
        (None, "preserve"),
        (1, "10.0.0.1"),
    ]
    [made] = parse_rules(
        [{"input_interface": "in", "input_group": "239.1.1.1", "input_port": 1, "outputs": outputs}]
    )
    assert ",".join(map(output_text, made.model_dump(mode="json")["outputs"])) == text


def test_every_bad_output_in_text_is_named() -> None:
    with pytest.raises(RulesError) as caught:
        parse_outputs("239.2.2.2:5002,239.2.2.2:x:veth1,239.2.2.2:5:veth1,")
    assert fields(caught.value) == ["outputs[0]", "outputs[1].port", "outputs[3]"]
    for item in ("a:ttl", "a:ttl=2:ttl=3", "a:tos=1", "a:ttl=1:source=preserve:ttl=1", "a:", "a:ttl=-1"):
        with pytest.raises(RulesError) as caught:
            parse_outputs(f"239.2.2.2:5002:{item}")
        assert fields(caught.value) in (["outputs[0]"], ["outputs[0].ttl"])


# Size


def chain(length: int) -> list[ForwardingRule]:
    """Rules each of which feeds the next."""
    names = [f"239.{1 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(length + 1)]
    return [rule("a", names[n], 5, f"{names[n + 1]}:5:a", rule_id=str(n)) for n in range(length)]


def steps(work: Any) -> int:
    """Lines of Python that some work runs: its cost, whatever the machine does meanwhile."""
    count = 0

    def count_line(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return count_line

    before = sys.gettrace()
    sys.settrace(count_line)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("order", ["downstream", "upstream", "shuffled", "apart"])
def test_single_additions_stay_linear(order: str) -> None:
    def add_all(length: int) -> int:
        rules = chain(length)
        if order == "upstream":
            rules.reverse()
        elif order == "shuffled":
            random.Random(1).shuffle(rules)
        elif order == "apart":
            rules = rules[::2] + rules[1::2]
        book = RuleBook()
        added = steps(lambda: [book.add([each]) for each in rules])
        assert len(book) == length
        return added

    # Eight times the rules: 8 when linear, 64 when quadratic.
    assert add_all(1600) / add_all(200) < 24


def test_a_large_set_is_checked_in_linear_time_and_its_loop_found() -> None:
    def close(length: int) -> tuple[int, list[Any]]:
        rules = chain(length)
        last = rules[-1].outputs[0]
        closing = rule("a", str(last.group), 5, "239.1.0.0:5:a", rule_id="closing")
        book = RuleBook()
        assert book.add(rules) == ()
        problems: list[Any] = []
        return steps(lambda: problems.extend(book.add([closing]))), problems

    (small, _), (large, [problem]) = close(1000), close(8000)
    assert large / small < 12
    assert "'closing'" in problem.allowed
    assert "more" in problem.value  # a path of 8,001 hops is shortened
    assert len(str(problem)) < 2000


def test_a_rule_has_at_most_as_many_outputs_as_fit_into_one_message() -> None:
    """And the longest message fits into the worker's inbox."""
    outputs = [{"group": "239.2.2.2", "port": 1 + n, "interface": "b"} for n in range(MOST_OUTPUTS)]
    given = {"input_interface": "a", "input_group": "239.1.1.1", "input_port": 5, "outputs": outputs}
    [accepted] = parse_rules([given])
    packed = WorkerRule(1, 0, ((0, 0, 0, 0),) * len(accepted.outputs))
    assert 4 * HEADER_WORDS + len(pack_rules([packed])) <= MESSAGE_BYTES
    with pytest.raises(RulesError) as caught:
        parse_rules([{**given, "outputs": [*outputs, {**outputs[0], "port": 9999}]}])
    assert "1 to 4096 outputs" in str(caught.value)


@pytest.mark.parametrize("counts", [[1] * 2000, [MOST_OUTPUTS, 0, 1], [600, 600], [0] * 700, []])
def test_rules_go_out_in_messages_that_fit_and_none_is_left_behind(counts: list[int]) -> None:
    rules = [WorkerRule(1 + n, n, ((0, 0, 0, 0),) * count) for n, count in enumerate(counts)]
    messages = list(rule_messages(rules))
    keys = [key for count, body in messages for key in np.frombuffer(body, np.uint64, count).tolist()]
    assert keys == [rule.key for rule in rules]
    assert sum(len(body) for _, body in messages) == len(pack_rules(rules))
    assert all(4 * HEADER_WORDS + len(body) <= MESSAGE_BYTES for _, body in messages)
