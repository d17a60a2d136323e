"""The changes from one state to another lead there, and there are none between equal ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from paths import GOLDEN

from forwarder.plan.host_file import load_host
from forwarder.plan.model import Sizing
from forwarder.plan.planner import plan
from forwarder.plan.strategy import PRESETS
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule
from forwarder.rules.notation import parse_rules
from forwarder.supervisor.difference import Shape, State, as_dict, difference, shape


def some_rule(name: int, group: int, output: int) -> ForwardingRule:
    (made,) = parse_rules(
        [
            {
                "rule_id": f"rule{name}",
                "input_interface": "in0",
                "input_group": f"239.1.0.{group}",
                "input_port": 5000,
                "outputs": [{"group": f"239.2.0.{output}", "port": 5000, "interface": "out0"}],
            }
        ]
    )
    return made


rules = st.builds(some_rule, st.integers(0, 5), st.integers(0, 5), st.integers(0, 2))
rule_sets = st.lists(
    rules, max_size=6, unique_by=(lambda rule: rule.rule_id, lambda rule: rule.input_group)
).map(lambda found: {rule.rule_id: rule for rule in found})
shapes = st.sampled_from(["fanout", "pool"]).map(lambda name: Shape({"name": name}, (), (), {}))
states = st.builds(State, shapes, rule_sets)


@given(states, states)
def test_applied_to_the_old_state_they_give_the_new(now: State, wanted: State) -> None:
    found = difference(now, wanted)
    applied = {name: rule for name, rule in now.rules.items() if name not in found.remove}
    applied.update((rule.rule_id, rule) for rule in found.add)
    assert State(found.shape or now.shape, applied) == wanted
    assert bool(found) == (now != wanted)


@given(states, states)
def test_rules_added_beside_those_in_force_do_not_collide_with_them(now: State, wanted: State) -> None:
    found = difference(now, wanted)
    if not found.switchover:
        assert found.shape is None
        assert not RuleBook(list(now.rules.values())).check(found.add)
        assert not {rule.rule_id for rule in found.add} & set(found.remove)


def test_rules_are_told_in_the_order_of_the_file() -> None:
    now = State(Shape({"name": "pool"}, (), (), {}), {})
    wanted = {f"rule{number}": some_rule(number, number, 0) for number in (5, 3, 4, 1, 2, 0)}
    found = as_dict(difference(now, State(now.shape, wanted)), now, 0)
    assert found["rules_added"] == list(wanted)


def test_where_workers_may_be_that_are_to_come_is_a_change() -> None:
    host = load_host(GOLDEN / "hosts" / "2-nodes-16-cpus.json")
    shapes = {
        straddle: shape(
            plan(host, ["eth0"], [], PRESETS["dynamic"], Sizing(max_workers=4, straddle=straddle)), {}
        )
        for straddle in (False, True)
    }
    group = {"group": 0, "interfaces": ("eth0",), "min_workers": 1, "max_workers": 4}
    assert shapes[False].groups == ({**group, "memory_node": 0},)
    assert shapes[True].groups == ({**group, "memory_node": None},)


@given(states)
def test_between_equal_states_there_are_none(state: State) -> None:
    assert not difference(state, State(state.shape, dict(state.rules)))
