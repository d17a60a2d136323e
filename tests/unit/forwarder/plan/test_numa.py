"""Machines with several memory nodes: read from sysfs, kept in files, and where a plan puts what."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from paths import GOLDEN

from forwarder.config.detect import propose
from forwarder.config.files import OptionsError, read_options
from forwarder.config.options import SupervisorOptions, resolve
from forwarder.config.plan_options import described_rules
from forwarder.plan.host import Cpu, Host, Interface, Node, cpu_list, described_host, read_host
from forwarder.plan.host_file import HostFileError, as_text, load_host
from forwarder.plan.model import InterfaceGroup, Plan, PlanError, Sizing
from forwarder.plan.numa import homes, runs_by_node
from forwarder.plan.planner import one_more, plan
from forwarder.plan.strategy import PRESETS

HOSTS = GOLDEN / "hosts"
RECORDED = sorted(path.stem for path in HOSTS.glob("*.json"))


def recorded(name: str) -> Host:
    return load_host(HOSTS / f"{name}.json")


def lay_out(host: Host, root: Path) -> Path:
    """The machine as sysfs shows it."""
    files = {"devices/system/cpu/online": cpu_list([cpu.cpu for cpu in host.cpus])}
    cores: dict[int, list[int]] = {}
    for cpu in host.cpus:
        cores.setdefault(cpu.cpu if cpu.core is None else cpu.core, []).append(cpu.cpu)
    for siblings in cores.values():
        for number in siblings:
            files[f"devices/system/cpu/cpu{number}/topology/thread_siblings_list"] = cpu_list(siblings)
    files["devices/system/node/online"] = cpu_list([found.node for found in host.memory])
    for found in host.memory:
        place = f"devices/system/node/node{found.node}"
        files[f"{place}/cpulist"] = cpu_list([cpu.cpu for cpu in host.cpus_of(found.node)])
        files[f"{place}/distance"] = " ".join(str(distance) for _, distance in found.distances)
        if found.memory_bytes is not None:
            kilobytes = found.memory_bytes // 1024
            files[f"{place}/meminfo"] = (
                f"Node {found.node} MemTotal:       {kilobytes} kB\nNode {found.node} MemFree: 1 kB"
            )
    for interface in host.interfaces:
        place = f"class/net/{interface.name}"
        files[f"{place}/mtu"] = str(interface.mtu)
        files[f"{place}/operstate"] = "up" if interface.up else "down"
        files[f"{place}/flags"] = "0x1003" if interface.up else "0x1002"
        for queue in range(interface.rx_queues):
            files[f"{place}/queues/rx-{queue}/rps_cpus"] = "0"
        if interface.physical:
            files[f"{place}/device/numa_node"] = str(-1 if interface.node is None else interface.node)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


# Reading


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_machine_is_read_from_sysfs_and_kept_in_a_file_as_it_is(name: str, tmp_path: Path) -> None:
    host = recorded(name)
    assert read_host(lay_out(host, tmp_path / "sys")) == host
    (tmp_path / "host.json").write_text(as_text(host, "copied"))
    assert load_host(tmp_path / "host.json") == host


def test_recorded_machines_have_what_they_are_kept_for() -> None:
    eight = recorded("8-nodes-64-cpus")
    assert eight.nodes == tuple(range(8))
    assert eight.memory[0].distances[3] == (3, 22)
    assert eight.memory[5].memory_bytes == 8 * 2**30
    assert eight.cpus[9] == Cpu(9, 1, 8)
    gpus = recorded("8-nodes-6-without-cpus")
    assert gpus.nodes == (0, 8)
    assert [found.node for found in gpus.memory] == [0, 8, 250, 251, 252, 253, 254, 255]
    assert {interface.node for interface in recorded("4-nodes-40-cpus-unknown").interfaces} == {None, 2}


def test_a_vlan_a_bond_and_a_virtio_card_are_where_the_cards_beneath_are(tmp_path: Path) -> None:
    host = described_host(4, ["eth0", "eth1", "eth2"], nodes=2)
    cards = tuple(replace(card, physical=True) for card in host.interfaces)
    root = lay_out(replace(host, interfaces=cards), tmp_path)
    assert [interface.node for interface in read_host(root).interfaces] == [0, 0, 1]

    def add(name: str, *beneath: str) -> None:
        place = root / "class/net" / name
        place.mkdir()
        for file, text in {"mtu": "1500", "operstate": "up", "flags": "0x1003"}.items():
            (place / file).write_text(text)
        for lower in beneath:
            (place / f"lower_{lower}").symlink_to(f"../{lower}")

    add("bond0", "eth0", "eth1")
    add("bond0.5", "bond0")
    add("br0", "eth0", "eth2")
    add("veth0")
    add("ens5")
    virtio = root / "devices/pci0000:00/0000:00:05.0/virtio2"
    virtio.mkdir(parents=True)
    (virtio.parent / "numa_node").write_text("1")
    (root / "class/net/ens5/device").symlink_to(virtio)
    nodes = {interface.name: interface.node for interface in read_host(root).interfaces}
    assert nodes == {
        "eth0": 0,
        "eth1": 0,
        "eth2": 1,
        "bond0": 0,
        "bond0.5": 0,
        "br0": None,
        "veth0": None,
        "ens5": 1,
    }


def test_distances_that_do_not_fit_the_nodes_are_not_taken(tmp_path: Path) -> None:
    root = lay_out(described_host(4, [], nodes=2), tmp_path)
    (root / "devices/system/node/node0/distance").write_text("10 20 30\n")
    assert read_host(root).memory == (Node(0), Node(1))


def test_nearest_is_by_distance_then_by_number() -> None:
    eight = recorded("8-nodes-64-cpus")
    assert eight.nearest(3, [3, 4]) == 3
    assert eight.nearest(3, [0, 4, 5]) == 4
    assert eight.nearest(3, [0, 6, 7]) == 0
    assert described_host(4, [], nodes=4).nearest(3, [2, 1]) == 1


# Files


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": "mcrd.host/2"}, ["schema: 'mcrd.host/2'"]),
        ({"nodes": []}, ["nodes: no CPU"]),
        ({"nodes": [{"node": -1, "cpus": "3-x"}]}, ["nodes[0].node: -1", "nodes[0].cpus: '3-x'"]),
        ({"nodes": [{"node": 0, "cpus": "0-3"}, {"node": 1, "cpus": "3-4"}]}, ["nodes[1].cpus: 3"]),
        ({"nodes": [{"node": 0, "cpus": "0"}, {"node": 0, "cpus": "1"}]}, ["nodes[1].node: 0"]),
        ({"cores": ["0,9"]}, ["cores[0]: 0,9"]),
        ({"interfaces": [{"name": "a b"}, {"name": "c", "node": 7}]}, ["interfaces[0].name: 'a b'"]),
        ({"interfaces": [{"name": "c", "node": 7}] * 2}, ["interfaces[0].node: 7", "interfaces[1].name: c"]),
        ({"colour": 1}, ["colour: 1"]),
    ],
)
def test_a_file_that_describes_no_machine_is_refused_with_every_problem(
    tmp_path: Path, change: dict[str, object], named: list[str]
) -> None:
    document = {"schema": "mcrd.host/1", "nodes": [{"node": 0, "cpus": "0-3"}], **change}
    path = tmp_path / "host.json"
    path.write_text(json.dumps(document))
    with pytest.raises(HostFileError) as caught:
        load_host(path)
    said = [f"{problem.field}: {problem.value}" for problem in caught.value.problems]
    for text in named:
        assert f"host.json: {text}" in said


@pytest.mark.parametrize("text", [None, "[1]", "{", "\xff"])
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "host.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(HostFileError, match="--host: "):
        load_host(path)


# Where groups are


def test_a_group_is_on_the_node_of_most_of_its_interfaces_or_where_there_is_room() -> None:
    host = recorded("2-nodes-16-cpus")
    nodes = {"a": 0, "b": 1, "c": 1, "d": None}
    assert homes(host, [["a", "b"], ["a", "b", "c"], ["b", "d"]], nodes) == [0, 1, 1]
    assert homes(host, [["a"], ["d"], ["d"], ["d"]], nodes) == [0, 1, 0, 1]
    assert homes(host, [[]], nodes) == [0]


def test_a_node_without_cpus_is_served_from_the_nearest_that_has_some() -> None:
    host = recorded("8-nodes-6-without-cpus")
    assert homes(host, [["a"], ["b"]], {"a": 8, "b": 253}) == [8, 0]


def test_groups_that_are_made_are_of_one_node_each() -> None:
    nodes = {"a": 0, "b": 1, "c": 0, "d": None, "e": 0}
    assert runs_by_node(list(nodes), nodes, 1) == [("a", "c", "e"), ("b",), ("d",)]
    assert runs_by_node(list(nodes), nodes, 4) == [("a", "c"), ("e",), ("b",), ("d",)]
    assert runs_by_node(list(nodes), nodes, 9) == [("a",), ("c",), ("e",), ("b",), ("d",)]
    assert runs_by_node(list(nodes), dict.fromkeys(nodes), 2) == [("a", "b", "c"), ("d", "e")]


def planned(host: Host, strategy: str, names: list[str], sizing: Sizing | None = None) -> Plan:
    return plan(host, names, described_rules(20, names), PRESETS[strategy], sizing)


def test_more_workers_than_the_node_has_cpus_share_them_and_the_plan_says_so() -> None:
    host = recorded("2-nodes-16-cpus")
    made = planned(host, "fanout", ["ib0"], Sizing(workers=12))
    assert {worker.cpu for worker in made.workers} == set(range(8, 16))
    assert any(
        "Memory node 1: 12 workers share its 8 CPUs, while 8 CPUs" in warning for warning in made.warnings
    )
    allowed = planned(host, "fanout", ["ib0"], Sizing(workers=12, straddle=True))
    assert {worker.cpu for worker in allowed.workers} == {0, 1, 2, 3, *range(8, 16)}
    assert any("group 0 on nodes 0, 1" in warning for warning in allowed.warnings)
    assert [worker.memory_node for worker in allowed.workers] == [worker.node for worker in allowed.workers]


def test_the_elastic_groups_next_worker_stays_on_its_node() -> None:
    host = recorded("2-nodes-16-cpus")
    made = planned(host, "dynamic", ["eth0", "ib0"], Sizing(sizes=((0, 9), (1, 9)), max_workers=12))
    group = made.groups[1]
    inside = [worker for worker in made.workers if worker.group == 1]
    others = [worker for worker in made.workers if worker.group == 0]
    more = one_more(host, group, inside, others, 18)
    assert (more.cpu, more.node, more.memory_node) == (9, 1, 1)
    assert group.max_workers == 12
    assert planned(host, "dynamic", ["eth0"]).groups[0].max_workers == 8


def test_a_core_gets_a_second_worker_when_every_core_has_one() -> None:
    host = recorded("8-nodes-6-without-cpus").with_interfaces(["a", "b"])
    made = planned(host, "fanout-per-interface", ["a", "b"], Sizing(workers=3))
    assert [worker.cpu for worker in made.workers] == [0, 4, 8, 88, 92, 96]
    shared = planned(host, "pool", ["a", "b"], Sizing(workers=6))
    assert [worker.cpu for worker in shared.workers] == [0, 1, 4, 5, 8, 12]
    assert any("2 cores have workers on more than one" in warning for warning in shared.warnings)


def test_memory_is_asked_of_the_nearest_node_that_has_some_and_a_lack_is_said() -> None:
    far = (Node(0, 2**34, ((0, 10), (1, 20))), Node(1, 0, ((0, 20), (1, 10))))
    cpus = tuple(Cpu(number, number // 2) for number in range(4))
    host = Host(cpus, (Interface("a", node=1),), far)
    made = planned(host, "fanout", ["a"])
    assert {(worker.node, worker.memory_node) for worker in made.workers} == {(1, 0)}
    assert any("Memory node 1 has no memory" in warning for warning in made.warnings)
    poor = replace(host, memory=(far[0], replace(far[1], memory_bytes=2**20)))
    warnings = planned(poor, "fanout", ["a"]).warnings
    assert any("Memory node 1: rings and workers take" in warning for warning in warnings)
    without = replace(host, memory=())
    assert {worker.memory_node for worker in planned(without, "fanout", ["a"]).workers} == {None}


def test_where_numbers_modulo_workers_would_pass_workers_over_a_program_looks_cpus_up() -> None:
    host = recorded("4-nodes-40-cpus-unknown")
    made = planned(host, "fanout", ["ib0"], Sizing(workers=4))
    # CPUs 2, 6, … 38 are all 2 modulo 4.
    fanouts = [socket.fanout for worker in made.workers for socket in worker.sockets]
    assert {fanout.mode for fanout in fanouts if fanout} == {"cpu-map"}
    assert [fanout.slot for fanout in fanouts if fanout] == [0, 1, 2, 3]
    assert {fanout.cpus for fanout in fanouts if fanout} == {tuple(range(2, 40, 4))}
    assert [worker.cpu for worker in made.workers] == [2, 6, 10, 14]
    in_a_run = planned(recorded("2-nodes-16-cpus"), "fanout", ["ib0"])
    assert {
        socket.fanout.mode for worker in in_a_run.workers for socket in worker.sockets if socket.fanout
    } == {"cpu"}
    crowded = planned(host, "fanout", ["ib0"], Sizing(workers=12))
    assert any("2 of 12 in group 0" in warning for warning in crowded.warnings)


def test_interfaces_that_are_bound_are_where_they_are_bound_to() -> None:
    host = recorded("2-nodes-16-cpus")
    options, rules = read_options(SupervisorOptions, {"interface": "eth0", "interface_node": ["eth0:1"]})
    assert {worker.node for worker in resolve(options, host, rules).workers} == {1}
    with pytest.raises(
        PlanError, match="--interface-node: eth0:7; allowed: a memory node of this machine: 0, 1"
    ):
        plan(host, ["eth0"], [], PRESETS["fanout"], Sizing(interface_nodes=(("eth0", 7),)))


@pytest.mark.parametrize(
    ("bound", "named"),
    [
        (["eth0"], "--interface-node: 'eth0'"),
        (["eth0:x"], "--interface-node: 'eth0:x'"),
        (["eth0:-1"], "--interface-node: 'eth0:-1'"),
        ([":1"], "--interface-node: ':1'"),
        (["eth0:0", "eth0:1"], "each interface once: not eth0"),
    ],
)
def test_a_binding_that_says_nothing_is_refused(bound: list[str], named: str) -> None:
    with pytest.raises(OptionsError, match=re.escape(named)):
        read_options(SupervisorOptions, {"interface": "eth0", "interface_node": bound})


def test_bindings_from_a_file_and_not_with_straddling(tmp_path: Path) -> None:
    file = tmp_path / "mcrd.toml"
    file.write_text('interface = "eth0"\n[[interface_node]]\ninterface = "eth0"\nnode = 1\n')
    options, _ = read_options(SupervisorOptions, {}, file)
    assert options.interface_node == (("eth0", 1),)
    with pytest.raises(OptionsError, match="--numa-straddle: True; allowed: left out"):
        read_options(SupervisorOptions, {"numa_straddle": True}, file)
    file.write_text('interface = "eth0"\n[[interface_node]]\ninterface = "eth0"\n')
    with pytest.raises(OptionsError, match=r"mcrd\.toml: interface_node"):
        read_options(SupervisorOptions, {}, file)


def test_groups_stay_where_they_are_when_interfaces_come_or_rules_bring_others() -> None:
    host = recorded("2-nodes-16-cpus")
    options, _ = read_options(SupervisorOptions, {"strategy": "rule-hash"})
    before = resolve(options, host, described_rules(4, ["eth0"]))
    after = resolve(options, host, described_rules(4, ["ib0"]))
    assert [(worker.cpu, worker.node) for worker in before.workers] == [
        (worker.cpu, worker.node) for worker in after.workers
    ]
    assert any("come with the rules" in warning for warning in before.warnings)
    late, _ = read_options(SupervisorOptions, {"interface": "new0"})
    appeared = replace(host, interfaces=(*host.interfaces, Interface("new0", node=1)))
    assert {worker.node for worker in resolve(late, host, []).workers} == {0}
    assert {worker.node for worker in resolve(late, appeared, []).workers} == {1}
    assert {worker.node for worker in resolve(late, appeared, [], homes={0: 0}).workers} == {0}


def test_use_case_4_on_four_nodes_is_as_the_document_recommends() -> None:
    names = [f"eth{number}" for number in range(20)]
    host = recorded("4-nodes-96-cpus").with_interfaces(names)
    cards = replace(host, interfaces=tuple(replace(one, physical=True) for one in host.interfaces))
    proposal = propose(cards, described_rules(10_000, names))
    assert proposal.options["strategy"] == "hybrid-hash"
    groups = tuple(InterfaceGroup(n, tuple(names[n * 5 : n * 5 + 5])) for n in range(4))
    assert proposal.options["interface_group"] == groups
    assert any("4 groups by memory node (use case 4)" in reason for reason in proposal.reasons)
    options, _ = read_options(SupervisorOptions, proposal.options)
    made = resolve(options, cards, described_rules(10_000, names))
    assert [(worker.cpu, worker.group, worker.node) for worker in made.workers] == [
        (number, number // 24, number // 24) for number in range(96)
    ]
    assert made.warnings == ()
