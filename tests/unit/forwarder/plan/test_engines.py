"""Which rules XDP cannot serve, and how a plan says so."""

from __future__ import annotations

from forwarder.plan.engine import Engine, engine_warnings, not_for_xdp
from forwarder.rules.model import ForwardingRule


def rule(*interfaces: str) -> ForwardingRule:
    outputs = [
        {"group": "239.2.2.2", "port": 6000 + number, "interface": name}
        for number, name in enumerate(interfaces)
    ]
    fields = {"input_interface": "in0", "input_group": "239.1.1.1", "input_port": 5001, "outputs": outputs}
    return ForwardingRule.model_validate({**fields, "rule_id": "a"})


def test_two_outputs_on_one_interface_or_too_many_are_for_the_packet_engine() -> None:
    assert not_for_xdp(rule("a", "b")) is None
    assert not_for_xdp(rule(*(f"out{number}" for number in range(256)))) is None
    assert not_for_xdp(rule("a", "b", "a")) == "2 outputs on a: with XDP a rule may have one on an interface"
    many = not_for_xdp(rule(*(f"out{number}" for number in range(257))))
    assert many == "257 outputs: with XDP a rule may have 256"


def test_a_plan_says_which_rules_are_not_for_xdp_and_nothing_without_it() -> None:
    assert engine_warnings(Engine.PACKET, [rule("a", "a")]) == []
    assert engine_warnings(Engine.XDP, [rule("a", "b")]) == []
    (said,) = engine_warnings(Engine.XDP, [rule("a", "a"), rule("b")])
    assert said.startswith("1 rule is served by the packet engine, not by XDP: a has 2 outputs on a")
