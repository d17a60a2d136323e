"""Which rules XDP cannot serve, and how a plan says so."""

from __future__ import annotations

import pytest

from forwarder.config.options import SupervisorOptions, resolve
from forwarder.plan.engine import (
    EarlyDrop,
    Engine,
    early_drop_text,
    engine_warnings,
    no_early_drop,
    not_for_xdp,
)
from forwarder.plan.host import described_host
from forwarder.plan.model import Plan, PlanError
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


def planned(**options: object) -> Plan:
    interfaces = {"interfaces": ["a", "b"]}
    return resolve(SupervisorOptions.model_validate({**interfaces, **options}), described_host(4, []), [])


def test_early_drop_needs_one_worker_for_an_interface_and_the_packet_engine() -> None:
    alone = planned(strategy="fanout-per-interface", num_workers=1)
    assert no_early_drop(alone, Engine.PACKET) == {}
    assert no_early_drop(planned(strategy="pool", num_workers=1), Engine.PACKET) == {}
    assert set(no_early_drop(alone, Engine.XDP).values()) == {"XDP forwards in front of the workers"}
    shared = planned(strategy="fanout-per-interface", num_workers=2)
    assert no_early_drop(shared, Engine.PACKET) == dict.fromkeys("ab", "2 workers share it")
    elastic = planned(strategy="dynamic", auto_scale=True, max_workers_per_interface=3)
    assert no_early_drop(elastic, Engine.PACKET) == dict.fromkeys("ab", "1 to 3 workers share it")


def test_a_plan_says_where_early_drop_is_and_why_it_is_not() -> None:
    alone = planned(strategy="fanout-per-interface", num_workers=1)
    said = {choice: early_drop_text(alone, Engine.PACKET, choice) for choice in EarlyDrop}
    assert said[EarlyDrop.AUTO] == "Early drop on a, b, if they are network cards."
    assert said[EarlyDrop.ON] == "Early drop on a, b."
    assert said[EarlyDrop.OFF] == "No early drop: it is off."
    shared = planned(strategy="pool", num_workers=2)
    why = "No early drop: 2 workers share it (a, b)."
    assert early_drop_text(shared, Engine.PACKET, EarlyDrop.AUTO) == why


def test_early_drop_that_cannot_be_is_refused_where_it_is_asked_for() -> None:
    with pytest.raises(PlanError, match="--early-drop: on; allowed: auto or off: on a, 2 workers share it"):
        planned(strategy="pool", num_workers=2, early_drop="on")
    planned(strategy="pool", num_workers=1, early_drop="on")
