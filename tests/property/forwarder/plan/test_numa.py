"""What holds for every plan on every machine with memory nodes."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.config.plan_options import described_rules
from forwarder.plan.host import Cpu, Host, Interface, Node
from forwarder.plan.model import Plan, Sizing
from forwarder.plan.numa import runs_by_node
from forwarder.plan.planner import plan
from forwarder.plan.strategy import PRESETS, Grouping, Width

NODES = st.integers(0, 4)


@st.composite
def machines(draw: st.DrawFn) -> Host:
    """Up to 5 nodes, some without CPUs or memory, cores of one to three threads, numbered at will."""
    numbers = draw(st.permutations(range(24)))
    cpus = []
    for core in range(draw(st.integers(1, 8))):
        threads, node = draw(st.integers(1, 3)), draw(NODES)
        siblings = sorted(numbers[core * 3 : core * 3 + threads])
        cpus += [Cpu(number, node, siblings[0] if threads > 1 else None) for number in siblings]
    interfaces = draw(st.lists(st.none() | NODES, max_size=5))
    distances = draw(st.lists(st.lists(st.integers(11, 40), min_size=5, max_size=5), min_size=5, max_size=5))
    memory = tuple(
        Node(
            node,
            draw(st.sampled_from([None, 0, 1 << 20, 1 << 34])),
            tuple((other, 10 if other == node else distances[node][other]) for other in range(5)),
        )
        for node in range(5)
    )
    return Host(
        tuple(sorted(cpus, key=lambda cpu: cpu.cpu)),
        tuple(Interface(f"eth{number}", node=node) for number, node in enumerate(interfaces)),
        draw(st.sampled_from([memory, ()])),
    )


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, Host, bool]:
    strategy = PRESETS[draw(st.sampled_from(sorted(PRESETS)))]
    most = 1 if strategy.grouping is Grouping.ONE_INTERFACE else 5
    names = [f"eth{number}" for number in range(draw(st.integers(1, most)))]
    straddle = draw(st.booleans())
    workers = None if strategy.width is Width.ELASTIC else draw(st.none() | st.integers(1, 12))
    sizing = Sizing(workers=workers, group_count=draw(st.integers(1, 5)), straddle=straddle)
    host = draw(machines())
    made = plan(host, names, described_rules(10, names), strategy, sizing)
    assert made == plan(host, names, described_rules(10, names), strategy, sizing)
    return made, host, straddle


@settings(max_examples=200)
@given(plans())
def test_no_group_straddles_nodes_unless_told_and_every_cpu_is_of_its_workers_node(
    drawn: tuple[Plan, Host, bool],
) -> None:
    made, host, straddle = drawn
    node_of = {cpu.cpu: cpu.node for cpu in host.cpus}
    nodes: dict[int, set[int]] = defaultdict(set)
    for worker in made.workers:
        assert node_of[worker.cpu] == worker.node
        nodes[worker.group].add(worker.node)
    for group in made.groups:
        if straddle:
            assert group.node is None
        else:
            assert nodes[group.group_id] == {group.node}
    across = {group for group, found in nodes.items() if len(found) > 1}
    said = [warning for warning in made.warnings if warning.startswith("Groups with workers on several")]
    assert bool(across) == bool(said)
    assert all(f"group {group} on nodes" in said[0] for group in sorted(across)[:4])


@given(plans())
def test_a_group_is_on_the_node_of_an_interface_of_its_own_if_that_has_cpus(
    drawn: tuple[Plan, Host, bool],
) -> None:
    made, host, straddle = drawn
    for group in made.groups:
        told = [found.node for name in group.interfaces if (found := host.interface(name))]
        known = Counter(node for node in told if node is not None)
        if straddle or not known:
            continue
        most = max(known.values())
        best = {node for node, count in known.items() if count == most}
        assert group.node in best or not best <= set(host.nodes)


@given(plans())
def test_memory_is_asked_of_a_node_that_has_some_and_of_the_workers_own_if_that_has(
    drawn: tuple[Plan, Host, bool],
) -> None:
    made, host, _ = drawn
    having = {found.node for found in host.memory if found.memory_bytes != 0}
    for worker in made.workers:
        if worker.node in having:
            assert worker.memory_node == worker.node
        else:
            assert worker.memory_node in (having or {None})


@given(plans())
def test_no_core_has_two_workers_more_of_one_group_than_another_of_its_node(
    drawn: tuple[Plan, Host, bool],
) -> None:
    made, host, _ = drawn
    if len(made.groups) > 1:
        return  # groups before have taken their share of the cores
    [group] = made.groups
    on = Counter(worker.cpu for worker in made.workers)
    for cpu in host.cpus_of(group.node):
        for other in host.cpus_of(group.node):
            if on[cpu.cpu] == 1 and on[other.cpu] == 0:
                threads = [one for one in host.cpus if one.core == cpu.core and cpu.core is not None]
                rest = [one for one in host.cpus if one.core == other.core and other.core is not None]
                busy, idle = (
                    sum(on[one.cpu] for one in core) for core in (threads or [cpu], rest or [other])
                )
                assert busy <= idle + 1


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.none() | st.integers(0, 3), min_size=1),
    st.integers(1, 9),
)
def test_runs_are_of_one_node_cover_everything_once_and_are_as_many_as_asked_if_that_can_be(
    nodes: dict[str, int | None], count: int
) -> None:
    runs = runs_by_node(list(nodes), nodes, count)
    assert sorted(name for run in runs for name in run) == sorted(nodes)
    assert all(len({nodes[name] for name in run}) == 1 for run in runs)
    assert len(runs) == max(min(count, len(nodes)), len(set(nodes.values())))
