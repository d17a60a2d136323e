"""What is proposed for a machine is what the seed document recommends, and its file says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from forwarder.config.detect import as_toml, propose
from forwarder.config.files import read_options
from forwarder.config.options import SupervisorOptions, resolve
from forwarder.config.plan_options import described_rules
from forwarder.plan.host import Cpu, Host, Interface
from forwarder.plan.model import InterfaceGroup


def host(cpus: int, *interfaces: Interface) -> Host:
    return Host(tuple(Cpu(number, 0) for number in range(cpus)), interfaces)


def cards(count: int, nodes: int = 1) -> list[Interface]:
    return [Interface(f"eth{n}", node=n * nodes // count, physical=True) for n in range(count)]


@pytest.mark.parametrize(
    ("cpus", "interfaces", "rules", "strategy", "workers"),
    [
        (48, 1, 1000, "fanout", 48),
        (96, 4, 2000, "fanout-per-interface", 96),
        (4, 20, 2000, "pool", 4),
        (1, 20, 10, "pool", 1),
        (96, 20, 200, "hybrid", 96),
        (96, 20, 10_000, "hybrid-hash", 96),
    ],
)
def test_the_documents_use_cases_come_out(
    tmp_path: Path, cpus: int, interfaces: int, rules: int, strategy: str, workers: int
) -> None:
    machine = host(cpus, *cards(interfaces))
    given = described_rules(rules, [f"eth{n}" for n in range(interfaces)])
    proposal = propose(machine, given)
    assert proposal.options["strategy"] == strategy
    (tmp_path / "mcrd.toml").write_text(as_toml(proposal.options))
    options, _ = read_options(SupervisorOptions, {}, tmp_path / "mcrd.toml")
    plan = resolve(options, machine, given)
    assert plan.strategy.name == strategy
    assert len(plan.workers) == workers
    assert plan.unplaced_rule_ids == ()
    assert options == read_options(SupervisorOptions, proposal.options)[0]


def test_without_rules_it_is_the_network_cards_that_are_up() -> None:
    card, tunnel = Interface("eth0", physical=True), Interface("tun0")
    down = Interface("eth1", physical=True, up=False)
    proposal = propose(host(2, card, tunnel, down), [])
    assert proposal.options == {"strategy": "fanout", "interface": "eth0"}
    nothing = propose(host(2, tunnel, down), [])
    assert nothing.options == {"strategy": "pool"}
    assert "come with the rules" in nothing.reasons[-1]


def test_interfaces_with_rules_are_served_whether_they_exist_or_not() -> None:
    proposal = propose(host(8, *cards(1)), described_rules(6, ["eth0", "vlan7"]))
    assert proposal.options["interfaces"] == ("eth0", "vlan7")
    assert "do not exist yet: vlan7" in proposal.reasons[1]


def test_groups_keep_to_a_memory_node() -> None:
    interfaces = cards(6, nodes=2)
    interfaces[0] = replace(interfaces[0], node=1)
    groups = propose(host(16, *interfaces), []).options["interface_group"]
    assert groups == (
        InterfaceGroup(0, ("eth0", "eth3")),
        InterfaceGroup(1, ("eth4",)),
        InterfaceGroup(2, ("eth5",)),
        InterfaceGroup(3, ("eth1", "eth2")),
    )
