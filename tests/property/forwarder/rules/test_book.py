"""The rule book against plain definitions, for any sequence of additions and removals."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.problems import Problem
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule, Output, RulesError
from forwarder.rules.notation import parse_rules

Node = tuple[str, int]

# Few nodes, so that clashes and loops are common.
nodes = st.tuples(st.sampled_from("abc"), st.integers(1, 3))
edges = st.tuples(nodes, st.lists(nodes, min_size=1, max_size=3))


def rule(rule_id: str, node: Node, targets: list[Node]) -> ForwardingRule:
    group = IPv4Address("239.0.0.1")
    return ForwardingRule(
        rule_id=rule_id,
        input_interface=node[0],
        input_group=group,
        input_port=node[1],
        outputs=tuple(Output(group=group, port=port, interface=name) for name, port in targets),
    )


def allowed(rules: list[ForwardingRule]) -> bool:
    """The definition: inputs and ids differ, no output is repeated, and no path leads back."""
    inputs = [held.node for held in rules]
    if len(set(inputs)) < len(inputs) or len({held.rule_id for held in rules}) < len(rules):
        return False
    following = {held.node: {output.node for output in held.outputs} for held in rules}
    if any(len(following[held.node]) < len(held.outputs) for held in rules):
        return False
    reach = {node: set(targets) for node, targets in following.items()}
    for _ in following:  # after n steps all paths of up to n + 1 edges are in
        for seen in reach.values():
            seen |= {far for near in tuple(seen) for far in following.get(near, ())}
    return not any(node in seen for node, seen in reach.items())


@settings(max_examples=150)
@given(st.lists(st.one_of(st.lists(edges, min_size=1, max_size=4), st.integers(0, 5)), max_size=10))
def test_a_book_takes_what_the_definition_allows_and_nothing_else(steps: list[object]) -> None:
    book, held, number = RuleBook(), list[ForwardingRule](), 0
    for step in steps:
        if isinstance(step, int):
            if step < len(held):
                gone = held.pop(step)
                assert book.remove(gone.rule_id) == gone
            continue
        assert isinstance(step, list)
        batch = []
        for node, targets in step:
            number += 1
            batch.append(rule(f"r{number}", node, targets))
        assert bool(book.check(batch)) != allowed([*held, *batch])
        if not book.add(batch):
            held += batch
        assert list(book) == held


@given(st.lists(edges, min_size=1, max_size=6))
def test_problems_name_a_rule_of_the_batch(batch: list[tuple[Node, list[Node]]]) -> None:
    rules = [rule(f"r{number}", node, targets) for number, (node, targets) in enumerate(batch)]
    for problem in RuleBook().check(rules):
        place = int(problem.field.removeprefix("rules[").partition("]")[0])
        assert repr(rules[place].rule_id) in problem.value + problem.allowed


@given(st.lists(edges, min_size=1, max_size=6))
def test_a_reported_loop_is_one(batch: list[tuple[Node, list[Node]]]) -> None:
    rules = [rule(f"r{number}", node, targets) for number, (node, targets) in enumerate(batch)]
    following: dict[str, set[str]] = {}
    for (name, port), targets in batch:
        seen = following.setdefault(f"{name} 239.0.0.1:{port}", set())
        seen |= {f"{other} 239.0.0.1:{number}" for other, number in targets}
    for problem in RuleBook().check(rules):
        if problem.allowed.startswith("no loop"):
            path = problem.value.split(" -> ")
            assert path[0] == path[-1]
            assert len(path) > 2
            assert all(there in following[here] for here, there in itertools.pairwise(path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["rules", "rule_id", "input_interface", "input_group", "input_port", "outputs", "x"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_json_is_read_or_refused_with_problems(data: object) -> None:
    problems = problems_of(data)
    assert problems is None or problems
    assert all(problem.field and problem.allowed for problem in problems or ())


def problems_of(data: object) -> tuple[Problem, ...] | None:
    try:
        parse_rules(data)
    except RulesError as error:
        return error.problems
    return None
