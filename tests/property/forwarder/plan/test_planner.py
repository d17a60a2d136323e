"""What holds for every plan, whatever the strategy, the host and the rules."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.config.plan_options import described_rules
from forwarder.plan.host import Cpu, Host, Interface
from forwarder.plan.model import Plan, Sizing, SocketPlan, WorkerPlan
from forwarder.plan.placement import owner
from forwarder.plan.planner import plan
from forwarder.plan.rendering import plan_as_json, plan_as_text
from forwarder.plan.strategy import (
    PRESETS,
    Grouping,
    Hashing,
    RulePlacement,
    Steering,
    Strategy,
    Width,
    strategy_problems,
)

hosts = st.builds(
    lambda cpus, interfaces: Host(
        tuple(Cpu(number, node) for number, node in sorted(cpus.items())),
        tuple(Interface(f"eth{n}", mtu, node) for n, (mtu, node) in enumerate(interfaces)),
    ),
    st.dictionaries(st.integers(0, 40), st.integers(0, 2), min_size=1, max_size=12),
    st.lists(st.tuples(st.sampled_from([576, 1500, 9000]), st.none() | st.integers(0, 2)), max_size=6),
)
strategies = st.builds(
    Strategy.customised,
    st.sampled_from(list(PRESETS.values())),
    width=st.none() | st.sampled_from(Width),
    steering=st.none() | st.sampled_from(Steering),
    hashing=st.sampled_from(Hashing),
)
sizings = st.builds(
    Sizing,
    group_count=st.integers(1, 5),
    workers=st.none() | st.integers(1, 9),
    min_workers=st.integers(1, 3),
    max_workers=st.none() | st.integers(3, 6),
)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, Host, Strategy, list[str], int]:
    strategy = draw(strategies.filter(lambda strategy: not strategy_problems(strategy)))
    most = 1 if strategy.grouping is Grouping.ONE_INTERFACE else 6
    names = [f"eth{number}" for number in range(draw(st.integers(1, most)))]
    host, count = draw(hosts), draw(st.integers(0, 60))
    made = plan(host, names, described_rules(count, [*names, "other"]), strategy, draw(sizings))
    return made, host, strategy, names, count


def sockets(made: Plan) -> dict[str, list[tuple[WorkerPlan, SocketPlan]]]:
    by_interface: dict[str, list[tuple[WorkerPlan, SocketPlan]]] = defaultdict(list)
    for worker in made.workers:
        for socket in worker.sockets:
            by_interface[socket.interface].append((worker, socket))
    return by_interface


@settings(max_examples=100)
@given(plans())
def test_each_datagram_reaches_one_worker_and_the_one_that_has_its_rule_unless_told_otherwise(
    drawn: tuple[Plan, Host, Strategy, list[str], int],
) -> None:
    made, _, strategy, names, count = drawn
    by_interface = sockets(made)
    assert set(by_interface) == set(names)
    rules = {rule.rule_id: rule for rule in described_rules(count, [*names, "other"])}
    for name, opened in by_interface.items():
        fanouts = [socket.fanout for _, socket in opened if socket.fanout]
        filters = [socket.filter for _, socket in opened if socket.filter]
        if strategy.steering is Steering.UNGROUPED:
            assert not fanouts
            assert not filters
        elif len(opened) > 1:
            # Every socket in the one group of its interface, or every socket with a filter.
            assert len(fanouts) + len(filters) == len(opened)
            assert not (fanouts and filters)
            assert len({(f.group_key, f.mode, f.members) for f in fanouts}) <= 1
            places = [f.slot for f in fanouts] + [f.slot for f in filters]
            assert sorted(places) == list(range(len(opened)))
        holders = {
            rule_id: [w for w, _ in opened if rule_id in made.partitions[w.partition].rule_ids]
            for rule_id, rule in rules.items()
            if rule.input_interface == name
        }
        for rule_id, workers in holders.items():
            if strategy.placement is not RulePlacement.HASH:
                assert len(workers) == len(opened)
                continue
            [worker] = workers
            if not strategy.steers_by_rule:
                continue  # it reaches whoever it reaches; the plan warns
            [socket] = [s for w, s in opened if w is worker]
            place = socket.fanout.slot if socket.fanout else socket.filter.slot if socket.filter else 0
            rule = rules[rule_id]
            key = (int(rule.input_group), rule.input_port)
            assert place == owner(*key, len(opened), strategy.hashing)


@given(plans())
def test_workers_are_numbered_on_the_hosts_cpus_and_evenly_spread_within_a_group(
    drawn: tuple[Plan, Host, Strategy, list[str], int],
) -> None:
    made, host, *_ = drawn
    node_of = {cpu.cpu: cpu.node for cpu in host.cpus}
    assert [worker.worker_id for worker in made.workers] == list(range(len(made.workers)))
    assert all(node_of[worker.cpu] == worker.node for worker in made.workers)
    for group in made.groups:
        on = [worker.cpu for worker in made.workers if worker.group == group.group_id]
        assert len(on) == group.workers
        counts = [on.count(cpu) for cpu, node in node_of.items() if group.node in (None, node)]
        assert max(counts) - min(counts) <= 1


@given(plans())
def test_rings_fit_their_interfaces_and_the_budget_or_are_the_least(
    drawn: tuple[Plan, Host, Strategy, list[str], int],
) -> None:
    made, host, *_ = drawn
    for name, opened in sockets(made).items():
        found = host.interface(name)
        for _, socket in opened:
            assert socket.ring.frame_bytes > (found.mtu if found else 1500) + 14
            assert socket.ring.frames.bit_count() == 1
            assert 64 <= socket.ring.frames <= 32_768
    assert sum(worker.ring_bytes for worker in made.workers) <= Sizing().ring_budget_bytes


@given(plans())
def test_figures_add_up_over_the_workers(drawn: tuple[Plan, Host, Strategy, list[str], int]) -> None:
    made, _, _, names, count = drawn
    held = [len(made.partitions[worker.partition].rule_ids) for worker in made.workers]
    modelled, projected = made.figures.modelled, made.figures.projected
    assert modelled.workers == len(held)
    assert modelled.total_bytes == sum(held) * 1000 + len(held) * 1_000_000
    assert (modelled.rules_least, modelled.rules_most) == (min(held), max(held))
    assert projected.ring_bytes == sum(worker.ring_bytes for worker in made.workers)
    other = sum(number % (len(names) + 1) == len(names) for number in range(count))
    assert len(made.unplaced_rule_ids) == other


@given(plans())
def test_every_plan_can_be_shown(drawn: tuple[Plan, Host, Strategy, list[str], int]) -> None:
    made = drawn[0]
    assert all(len(line) <= 110 for line in plan_as_text(made).splitlines())
    document = plan_as_json(made)
    assert document["schema"] == "mcrd.plan/1"
    assert len(document["workers"]) == len(made.workers)
