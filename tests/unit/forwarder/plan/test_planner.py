"""Plans: who opens what, where, with which rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from forwarder.config.plan_options import described_rules
from forwarder.engines.packet.schema import SOCKETS
from forwarder.plan.document import documented
from forwarder.plan.host import Cpu, Host, HostError, Interface, described_host
from forwarder.plan.model import MAX_INTERFACES, FilterPlan, InterfaceGroup, Plan, PlanError, Sizing
from forwarder.plan.placement import MAX_MEMBERS
from forwarder.plan.planner import one_more, plan
from forwarder.plan.resources import cpu_slots, frame_bytes, ring_for, shares
from forwarder.plan.strategy import PRESETS, Grouping, Hashing, Steering, Width
from forwarder.rules.book import RuleBook

MIB = 2**20


def names(count: int) -> list[str]:
    return [f"eth{number}" for number in range(count)]


def made(
    strategy: str,
    cpus: int,
    interfaces: int,
    rules: int = 0,
    sizing: Sizing | None = None,
    steering: Steering | None = None,
) -> Plan:
    return plan(
        described_host(cpus, names(interfaces)),
        names(interfaces),
        described_rules(rules, names(interfaces)),
        PRESETS[strategy].customised(steering=steering),
        sizing,
    )


def tables(planned: Plan) -> list[tuple[str, ...]]:
    """Rule ids by worker."""
    return [planned.partitions[worker.partition].rule_ids for worker in planned.workers]


def test_fanout_is_one_group_on_one_interface() -> None:
    planned = made("fanout", cpus=4, interfaces=1, rules=10)
    assert [worker.cpu for worker in planned.workers] == [0, 1, 2, 3]
    assert [worker.worker_id for worker in planned.workers] == [0, 1, 2, 3]
    for slot, worker in enumerate(planned.workers):
        [socket] = worker.sockets
        assert socket.interface == "eth0"
        assert socket.fanout is not None
        assert (socket.fanout.mode, socket.fanout.slot, socket.fanout.members) == ("cpu", slot, 4)
    assert len(planned.partitions) == 1
    assert len(planned.partitions[0].rule_ids) == 10
    assert planned.warnings == ()


def test_a_single_worker_joins_no_fanout_group() -> None:
    planned = made("fanout", cpus=4, interfaces=1, sizing=Sizing(workers=1))
    assert [socket.fanout for worker in planned.workers for socket in worker.sockets] == [None]


def test_a_worker_may_be_given_as_many_interfaces_as_its_memory_has_room_for() -> None:
    assert MAX_INTERFACES == SOCKETS


def test_fanout_takes_one_interface() -> None:
    with pytest.raises(
        PlanError, match=r"interfaces: eth0,eth1; allowed: one interface with strategy fanout"
    ):
        made("fanout", cpus=2, interfaces=2)


def test_per_interface_groups_have_fanout_groups_and_rules_of_their_own() -> None:
    planned = made("fanout-per-interface", cpus=4, interfaces=2, rules=10)
    assert [(group.group_id, group.interfaces, group.workers) for group in planned.groups] == [
        (0, ("eth0",), 4),
        (1, ("eth1",), 4),
    ]
    assert [worker.cpu for worker in planned.workers] == [0, 1, 2, 3] * 2
    keys = {(w.group, s.fanout.group_key) for w in planned.workers for s in w.sockets if s.fanout}
    assert keys == {(0, 0), (1, 1)}
    assert [set(table) for table in tables(planned)] == [
        *[{f"rule-{number}" for number in range(0, 10, 2)}] * 4,
        *[{f"rule-{number}" for number in range(1, 10, 2)}] * 4,
    ]
    assert len(planned.partitions) == 2


def test_a_share_of_the_cpus_uses_each_once() -> None:
    strategy = PRESETS["fanout-per-interface"].customised(width=Width.SHARE)
    planned = plan(described_host(7, names(3)), names(3), [], strategy)
    assert [group.workers for group in planned.groups] == [3, 2, 2]
    assert sorted(worker.cpu for worker in planned.workers) == list(range(7))


def test_a_pool_of_one_opens_every_interface_without_fanout() -> None:
    [worker] = made("pool", cpus=4, interfaces=20, rules=40).workers
    assert [socket.interface for socket in worker.sockets] == names(20)
    assert all(socket.fanout is None for socket in worker.sockets)


@pytest.mark.parametrize(("steering", "mode"), [(None, "cpu"), (Steering.HASH, "hash"), (Steering.LB, "lb")])
def test_a_pool_of_several_shares_a_fanout_group_on_each_interface(
    steering: Steering | None, mode: str
) -> None:
    planned = made("pool", cpus=4, interfaces=3, rules=6, sizing=Sizing(workers=4), steering=steering)
    memberships = Counter(
        (socket.interface, socket.fanout.group_key, socket.fanout.mode)
        for worker in planned.workers
        for socket in worker.sockets
        if socket.fanout
    )
    assert memberships == {(f"eth{n}", n, mode): 4 for n in range(3)}
    warned = any("would forward every datagram 4 times" in warning for warning in planned.warnings)
    assert warned == (steering is None)


def test_hybrid_groups_are_runs_of_interfaces_with_cpus_of_their_own() -> None:
    planned = made("hybrid", cpus=96, interfaces=20, rules=1000)
    assert [group.interfaces[0] for group in planned.groups] == ["eth0", "eth5", "eth10", "eth15"]
    for group in planned.groups:
        workers = [worker for worker in planned.workers if worker.group == group.group_id]
        assert [worker.cpu for worker in workers] == list(
            range(24 * group.group_id, 24 * group.group_id + 24)
        )
        assert {socket.interface for worker in workers for socket in worker.sockets} == set(group.interfaces)
        assert {len(planned.partitions[worker.partition].rule_ids) for worker in workers} == {250}


def test_the_worker_on_a_cpu_is_the_one_that_the_kernel_picks_for_it() -> None:
    planned = made("hybrid", cpus=10, interfaces=3, sizing=Sizing(group_count=3))
    for worker in planned.workers:
        for socket in worker.sockets:
            assert socket.fanout is not None
            assert socket.fanout.slot == worker.cpu % socket.fanout.members


def test_hashed_rules_are_split_among_a_groups_workers() -> None:
    planned = made("hybrid-hash", cpus=8, interfaces=4, rules=1000)
    assert len(planned.partitions) == len(planned.workers) == 8
    placed = Counter(rule_id for table in tables(planned) for rule_id in table)
    assert set(placed.values()) == {1}
    assert len(placed) == 1000
    for worker in planned.workers:
        for socket in worker.sockets:
            assert socket.fanout is not None
            assert socket.fanout.mode == "cbpf"
    assert [movement.members for movement in planned.movements] == [2] * 4
    for movement in planned.movements:
        assert movement.moved_rendezvous < movement.moved_modulo < movement.rules
    second = [len(table) for table in tables(planned)[1::2]]
    assert [movement.moved_rendezvous_less for movement in planned.movements] == second


def test_a_group_of_one_worker_has_none_to_spare() -> None:
    planned = made("hybrid-hash", cpus=2, interfaces=2, rules=100, sizing=Sizing(group_count=2))
    assert {(m.moved_rendezvous_less, m.moved_modulo_less) for m in planned.movements} == {(None, None)}


def test_modulo_hashing_places_otherwise() -> None:
    host, rules = described_host(4, names(1)), described_rules(100, names(1))
    strategy = PRESETS["rule-hash"]
    rendezvous = plan(host, names(1), rules, strategy)
    modulo = plan(host, names(1), rules, replace(strategy, hashing=Hashing.MODULO))
    assert rendezvous.partitions != modulo.partitions


def test_filter_steering_has_filters_instead_of_fanout() -> None:
    planned = made("rule-hash", cpus=3, interfaces=2, rules=30, steering=Steering.FILTER)
    for slot, worker in enumerate(planned.workers):
        assert [socket.filter for socket in worker.sockets] == [FilterPlan(slot, 3)] * 2
        assert [socket.fanout for socket in worker.sockets] == [None] * 2
    assert any("every socket" in warning for warning in planned.warnings)


@pytest.mark.parametrize("steering", [Steering.NONE, Steering.CPU, Steering.HASH, Steering.UNGROUPED])
def test_hashed_rules_without_steering_by_rule_are_warned_of(steering: Steering) -> None:
    planned = made("rule-hash", cpus=2, interfaces=1, steering=steering)
    assert any("wrong_worker" in warning for warning in planned.warnings)
    assert not any("wrong_worker" in warning for warning in made("rule-hash", 2, 1).warnings)


def test_ungrouped_workers_each_have_every_datagram() -> None:
    planned = made("pool", cpus=4, interfaces=2, steering=Steering.UNGROUPED, sizing=Sizing(workers=3))
    for worker in planned.workers:
        assert [(socket.fanout, socket.filter) for socket in worker.sockets] == [(None, None)] * 2
    assert any("forward it 3 times" in warning for warning in planned.warnings)


def test_interfaces_may_come_from_the_rules() -> None:
    host, rules = described_host(2, names(3)), described_rules(9, names(3))
    following = Sizing(workers=2, follow_rules=True)
    before, after = (
        plan(host, (), [], PRESETS["pool"], following),
        plan(host, (), rules, PRESETS["pool"], following),
    )
    assert [worker.sockets for worker in before.workers] == [(), ()]
    assert before.follows_rules
    assert list(after.interfaces) == names(3)
    assert after.unplaced_rule_ids == ()
    for name, wanted in (("fanout", "one interface"), ("hybrid", "interfaces or interface groups")):
        allowed = f"{wanted} with strategy {name}: only pool and rule-hash take them from the rules"
        with pytest.raises(PlanError, match=f"interfaces: none; allowed: {allowed}"):
            plan(host, (), rules, PRESETS[name], following)


def test_groups_that_kernel_or_worker_cannot_hold_are_refused() -> None:
    with pytest.raises(PlanError, match="workers: 65,536; allowed: up to 65,535 in a fanout group"):
        made("fanout", cpus=2, interfaces=1, sizing=Sizing(workers=65_536))
    with pytest.raises(PlanError, match="interfaces: 257 of group 0; allowed: up to 256"):
        made("pool", cpus=2, interfaces=257)


def test_more_members_than_an_owner_program_holds_are_refused_unless_by_modulo() -> None:
    with pytest.raises(PlanError, match="workers: 301; allowed: up to 300"):
        made("rule-hash", cpus=2, interfaces=1, sizing=Sizing(workers=301))
    modulo = replace(PRESETS["rule-hash"], hashing=Hashing.MODULO)
    assert plan(described_host(2, names(1)), names(1), [], modulo, Sizing(workers=301)).workers


def test_dynamic_starts_small_in_a_group_that_can_grow() -> None:
    planned = made("dynamic", cpus=8, interfaces=2, rules=4, sizing=Sizing(min_workers=1, max_workers=6))
    assert [(group.workers, group.max_workers) for group in planned.groups] == [(1, 6), (1, 6)]
    for worker in planned.workers:
        [socket] = worker.sockets
        assert socket.fanout is not None  # there from the start, so that a second worker can join
        assert (socket.fanout.members, socket.fanout.max_members) == (1, 6)
    assert planned.figures.modelled.workers == 2
    assert planned.figures.modelled_at_most is not None
    assert planned.figures.modelled_at_most.workers == 12


def test_groups_asked_for_are_made_as_asked() -> None:
    sizing = Sizing(groups=(InterfaceGroup(7, ("b", "a"), 1), InterfaceGroup(3, ("c",), 2)))
    planned = plan(described_host(4, ["a", "b", "c"]), [], [], PRESETS["hybrid"], sizing)
    assert [(g.group_id, g.interfaces, g.workers) for g in planned.groups] == [
        (7, ("b", "a"), 1),
        (3, ("c",), 2),
    ]
    assert [worker.group for worker in planned.workers] == [7, 3, 3]


def test_every_problem_with_groups_is_named() -> None:
    sizing = Sizing(
        groups=(InterfaceGroup(1, ("a", "b")), InterfaceGroup(1, ("a",))), min_workers=3, max_workers=2
    )
    with pytest.raises(PlanError) as caught:
        plan(described_host(1, ["a"]), [], [], PRESETS["dynamic"], sizing)
    assert [(p.field, p.value) for p in caught.value.problems] == [
        ("interfaces", "'a'"),
        ("interface_group", "1"),
        ("interface_group", "1:a,b"),
        ("max_workers", "2"),
    ]


def test_rules_of_no_group_are_set_apart_and_warned_of() -> None:
    rules = described_rules(4, ["eth0", "eth9"])
    planned = plan(described_host(1, ["eth0"]), ["eth0"], rules, PRESETS["fanout"])
    assert planned.unplaced_rule_ids == ("rule-1", "rule-3")
    assert tables(planned) == [("rule-0", "rule-2")]
    assert any("rule-1, rule-3" in warning for warning in planned.warnings)


def test_interfaces_absent_or_down_are_warned_of() -> None:
    host = Host((Cpu(0, 0),), (Interface("a", up=False),))
    warnings = plan(host, ["a", "b"], [], PRESETS["pool"]).warnings
    assert warnings == (
        "Interfaces that do not exist; their rules wait until they appear: b.",
        "Interfaces that are down: a.",
    )


def test_more_workers_than_cpus_are_spread_evenly_and_warned_of() -> None:
    planned = made("fanout", cpus=2, interfaces=1, sizing=Sizing(workers=5))
    assert Counter(worker.cpu for worker in planned.workers) == {0: 3, 1: 2}
    assert any("up to 3 share one" in warning for warning in planned.warnings)
    # Packets are received on CPUs 0 and 1 only, so members 2 to 4 are never picked.
    assert any("3 of 5 workers get no datagrams" in warning for warning in planned.warnings)


def test_workers_go_to_the_memory_node_of_their_interfaces() -> None:
    planned = plan(
        described_host(8, names(2), nodes=2), names(2), [], PRESETS["fanout-per-interface"], Sizing(workers=4)
    )
    assert [(worker.group, worker.node) for worker in planned.workers] == [(0, 0)] * 4 + [(1, 1)] * 4
    assert planned.warnings == ()


def test_a_plan_unlike_the_document_says_so_without_explaining_its_total() -> None:
    discrepancies = documented(made("pool", cpus=4, interfaces=20, rules=10_000)).discrepancies
    assert discrepancies[:2] == (
        "Worker Count Table, row 5: The document has 4 workers, the plan 1.",
        (
            "Worker Count Table, row 5: The document has 40 MB in total, the model 10 MB of rules + 1 MB of "
            "processes = 11 MB, for another number of workers."
        ),
    )


def test_sizes_that_the_document_does_not_speak_of_have_no_documented_figures() -> None:
    stated = documented(made("pool", cpus=4, interfaces=19, rules=10_000))
    assert (stated.rows, stated.total_bytes, stated.discrepancies) == ((), None, ())


# Rings


@pytest.mark.parametrize(
    ("mtu", "size"), [(1500, 2048), (576, 1024), (1948, 2048), (1949, 4096), (9000, 16384), (65536, 131072)]
)
def test_a_frame_holds_the_interfaces_largest_datagram(mtu: int, size: int) -> None:
    assert frame_bytes(mtu) == size


def test_few_sockets_have_large_rings() -> None:
    planned = made("fanout", cpus=2, interfaces=1)
    [ring] = {socket.ring for worker in planned.workers for socket in worker.sockets}
    assert (ring.frame_bytes, ring.frames) == (2048, 32_768)


@pytest.mark.parametrize(("cpus", "interfaces"), [(33, 1), (48, 2), (96, 20)])
def test_many_sockets_share_the_budget(cpus: int, interfaces: int) -> None:
    planned = made("full-fanout", cpus, interfaces)
    total = sum(worker.ring_bytes for worker in planned.workers)
    assert total <= 256 * MIB
    assert total > 100 * MIB
    assert not any("rings" in warning for warning in planned.warnings)


def test_rings_are_never_under_64_frames_and_what_that_costs_is_said() -> None:
    ring = ring_for(9000, sockets=1920, budget_bytes=256 * MIB)
    assert (ring.frame_bytes, ring.frames) == (16384, 64)
    host = described_host(96, names(20), mtu=9000)
    warnings = plan(host, names(20), [], PRESETS["full-fanout"]).warnings
    assert any("Receive rings take 2,013.3 MB" in warning for warning in warnings)


def test_an_elastic_plan_keeps_room_for_growth() -> None:
    planned = made("dynamic", cpus=96, interfaces=20)
    assert {socket.ring.frames for worker in planned.workers for socket in worker.sockets} == {64}


def test_an_elastic_group_has_as_many_workers_as_it_had_within_its_bounds() -> None:
    def sizes(**numbers: Any) -> list[tuple[int, int]]:
        planned = made("dynamic", cpus=8, interfaces=2, sizing=Sizing(**numbers))
        return [(group.workers, group.max_workers) for group in planned.groups]

    assert sizes() == [(1, 8), (1, 8)]
    assert sizes(min_workers=2, max_workers=4, sizes=((0, 3), (1, 9))) == [(3, 4), (4, 4)]
    assert sizes(min_workers=12) == [(12, 12), (12, 12)]


def test_groups_of_several_interfaces_scale_as_they_are_grouped() -> None:
    strategy = replace(PRESETS["dynamic"], grouping=Grouping.INTERFACE_GROUPS)
    host = described_host(8, names(4))
    for sized in ((), ((0, 2), (1, 1))):
        planned = plan(host, names(4), [], strategy, Sizing(group_count=2, sizes=sized))
        assert [len(group.interfaces) for group in planned.groups] == [2, 2]
    assert [group.workers for group in planned.groups] == [2, 1]


def test_an_elastic_group_is_no_larger_than_its_steering_program_may_be() -> None:
    host = described_host(400, names(1))
    assert plan(host, names(1), [], PRESETS["dynamic"]).groups[0].max_workers == MAX_MEMBERS
    with pytest.raises(PlanError, match="up to 300 in an elastic group"):
        plan(host, names(1), [], PRESETS["dynamic"], Sizing(max_workers=MAX_MEMBERS + 1))


def test_where_no_cpu_is_left_for_one_more_worker_that_is_said() -> None:
    host = described_host(4, names(1))
    planned = plan(host, names(1), [], PRESETS["dynamic"])
    gone = replace(planned.groups[0], node=7)
    with pytest.raises(HostError, match="memory node 7 has no CPU left"):
        one_more(host, gone, planned.workers, (), 1)


def test_frames_given_override_the_budget() -> None:
    planned = made("fanout", cpus=4, interfaces=1, sizing=Sizing(ring_frames=65536))
    assert {socket.ring.frames for worker in planned.workers for socket in worker.sockets} == {65536}
    assert any("rings" in warning for warning in planned.warnings)


# Arithmetic


@pytest.mark.parametrize(
    ("cpus", "slots"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([24, 25, 26], [0, 1, 2]),
        ([4, 5, 6], [1, 2, 0]),  # 4 % 3 = 1
        ([0, 2, 4, 6], [0, 2, 1, 3]),  # 4 and 6 find 0 and 2 taken
        ([0, 0, 1], [0, 2, 1]),
    ],
)
def test_slots_follow_the_kernels_choice(cpus: list[int], slots: list[int]) -> None:
    assert cpu_slots(cpus) == slots


def test_shares() -> None:
    assert shares(96, 4) == [24] * 4
    assert shares(4, 3) == [2, 1, 1]
    assert shares(1, 3) == [1, 1, 1]


def test_described_rules_go_together_and_are_spread_evenly() -> None:
    rules = described_rules(1000, names(7))
    assert RuleBook().check(rules) == ()
    assert max(Counter(rule.input_interface for rule in rules).values()) == 143
