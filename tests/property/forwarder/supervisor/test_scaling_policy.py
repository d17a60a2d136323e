"""Decisions about elastic groups, for any load: within bounds, settled on a steady one, replayable."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from forwarder.supervisor.scaling_policy import (
    MS,
    Decision,
    Limits,
    Load,
    Memory,
    Overload,
    decide,
    replay,
    settled,
)

STEP_NS = 100 * MS

bounds = st.tuples(st.integers(1, 6), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))
limits = st.builds(
    lambda least_most, threshold, overload_ns: Limits(*least_most, threshold, overload_ns=overload_ns),
    bounds,
    st.integers(1, 1_000_000),
    st.sampled_from([100 * MS, 1000 * MS, 60_000 * MS]),
)
rates = st.floats(0, 1e7)
traces = st.lists(st.tuples(rates, st.floats(0, 1), st.integers(0, 3)), max_size=200)


def loads(trace: Sequence[tuple[float, float, int]]) -> list[Load]:
    return [Load(number * STEP_NS, *values) for number, values in enumerate(trace)]


def grows(decision: Decision) -> bool:
    return decision.after > decision.before


def sizes(decisions: Sequence[Decision], limits: Limits) -> list[int]:
    return [limits.min_workers, *(decision.after for decision in decisions)]


@given(limits, traces)
def test_a_group_stays_within_its_bounds_and_each_change_starts_where_the_last_one_ended(
    bounds: Limits, trace: list[tuple[float, float, int]]
) -> None:
    made = list(replay(loads(trace), bounds))
    found = sizes([decision for _, decision in made], bounds)
    assert all(bounds.min_workers <= size <= bounds.max_workers for size in found)
    assert [decision.before for _, decision in made] == found[:-1]
    assert all(decision.after - decision.before in (-1, *range(1, 40)) for _, decision in made)
    for (before, former), (after, latter) in pairwise(made):
        needed_after_all = grows(latter) and not grows(former)
        least_ns = bounds.grow_after_ns if needed_after_all else bounds.cool_down_ns
        assert after.at_ns - before.at_ns >= least_ns
    assert made == list(replay(loads(trace), bounds))


@given(limits, rates, st.lists(st.floats(-0.15, 0.15), min_size=100, max_size=300))
def test_a_noisy_constant_load_makes_a_group_grow_only(
    bounds: Limits, rate: float, noise: list[float]
) -> None:
    trace = [(rate * (1 + share), 0.0, 0) for share in noise]
    made = [decision for _, decision in replay(loads(trace), bounds)]
    assert all(grows(decision) for decision in made)


@given(limits, st.integers(1, 30))
def test_a_steady_overload_gets_the_workers_that_it_needs_within_a_second(bounds: Limits, times: int) -> None:
    rate = float(times * bounds.threshold_dps)
    made = list(replay(loads([(rate, 0.0, 0)] * 11), bounds))
    wanted = min(bounds.max_workers, max(bounds.min_workers, times))
    assert sizes([decision for _, decision in made], bounds)[-1] == wanted


@given(limits)
def test_without_load_a_group_goes_back_to_its_least(bounds: Limits) -> None:
    hot = [(1e12, 1.0, 1)] * 10
    cold = [(0.0, 0.0, 0)] * (31 * (bounds.max_workers - bounds.min_workers + 1))
    made = [decision for _, decision in replay(loads(hot + cold), bounds)]
    assert sizes(made, bounds)[-1] == bounds.min_workers


def test_a_full_ring_calls_for_one_more_at_a_time_and_what_was_too_few_at_a_rate_stays_so() -> None:
    bounds = Limits(1, 4, 1_000_000)
    full = [(50_000.0, 0.9, 0)] * 5
    calm = [(50_000.0, 0.0, 0)] * 100
    made = [decision for _, decision in replay(loads(full + calm), bounds)]
    assert [(d.before, d.after, d.reason) for d in made] == [(1, 2, "a ring is 90% full")]
    slower = [(34_000.0, 0.0, 0)] * 40
    made = [decision for _, decision in replay(loads(full + calm + slower), bounds)]
    assert [(d.before, d.after) for d in made] == [(1, 2), (2, 1)]
    assert made[1].reason == "34,000 datagrams/s, less than the 35,000 that 1 can be left with"


def test_that_workers_did_not_keep_up_is_remembered_for_a_minute_and_longer_when_it_happens_again() -> None:
    bounds = Limits(1, 2, 1_000_000)
    memory, changes = Memory(bounds.min_workers), []
    for second in range(600):
        alone = memory.workers == 1  # one worker never keeps up, two always do
        memory, decision = decide(memory, Load(second * 1000 * MS, 50_000.0, 0.9 if alone else 0.0), bounds)
        if decision:
            changes.append((second, decision.after))
    assert changes == [(1, 2), (64, 1), (66, 2), (189, 1), (191, 2), (434, 1), (436, 2)]


def test_that_it_happened_before_is_forgotten_when_it_has_not_for_as_long_as_that_counted() -> None:
    bounds = Limits(1, 2, 1_000_000)
    overload = Overload(0.0, 0, 0).again(Load(0, 500.0), bounds)
    assert (overload.until_ns, overload.times) == (60_000 * MS, 1)
    again = overload.again(Load(120_000 * MS, 900.0), bounds)
    assert (again.offered_dps, again.until_ns, again.times) == (900.0, 240_000 * MS, 2)
    later = overload.again(Load(120_001 * MS, 900.0), bounds)
    assert (later.until_ns, later.times) == (180_001 * MS, 1)


def test_of_two_rates_that_were_too_much_the_lower_one_counts() -> None:
    bounds = Limits(1, 3, 1_000_000)
    first = Overload(0.0, 0, 0).again(Load(0, 30_000.0), bounds)
    assert first.again(Load(1000 * MS, 55_000.0), bounds).offered_dps == 30_000.0
    assert first.again(Load(60_000 * MS, 55_000.0), bounds).offered_dps == 55_000.0


def test_growth_that_failed_says_nothing_of_who_keeps_up() -> None:
    bounds = Limits(1, 2, 1_000_000)
    memory, decided = Memory(bounds.min_workers), 0
    for load in loads([(50_000.0, 0.9, 0)] * 100):
        memory, decision = decide(memory, load, bounds)
        if decision:
            decided += 1
            memory = settled(memory, 1, load.at_ns)
    assert decided > 4
    assert memory.overloads == {}


def test_one_worker_too_few_is_noticed_without_a_cool_down() -> None:
    bounds = Limits(1, 2, 1000)
    trace = [(1500.0, 0.0, 0)] * 5 + [(0.0, 0.0, 0)] * 32 + [(1500.0, 0.0, 0)] * 5
    times = {decision.after: load.at_ns for load, decision in replay(loads(trace), bounds)}
    assert times[2] - times[1] < bounds.cool_down_ns


@given(limits, traces)
def test_whatever_came_before_an_idle_group_goes_back_to_its_least(
    bounds: Limits, past: list[tuple[float, float, int]]
) -> None:
    until_ns = len(past) * STEP_NS
    idle = [Load(until_ns + second * 1000 * MS, 0.0) for second in range(0, 70 * 60, 10)]
    made = [decision for _, decision in replay([*loads(past), *idle], bounds)]
    assert sizes(made, bounds)[-1] == bounds.min_workers


def test_a_change_that_failed_is_tried_again_after_the_cool_down() -> None:
    bounds = Limits(1, 2, 1000)
    memory, at = Memory(bounds.min_workers), []
    for load in loads([(5000.0, 0.0, 0)] * 40):
        memory, decision = decide(memory, load, bounds)
        if decision:
            at.append(load.at_ns)
            memory = settled(memory, 1, load.at_ns)
    assert len(at) > 1
    assert all(b - a >= bounds.cool_down_ns for a, b in pairwise(at))


@given(limits, traces, st.floats(1.01, 30))
def test_whatever_came_before_an_overload_has_its_workers_within_two_seconds(
    bounds: Limits, past: list[tuple[float, float, int]], times: float
) -> None:
    rate = times * bounds.threshold_dps
    wanted = min(bounds.max_workers, -(-int(rate) // bounds.threshold_dps))
    made = list(replay(loads([*past, *[(rate, 0.0, 0)] * 21]), bounds))
    assert sizes([decision for _, decision in made], bounds)[-1] >= wanted


@given(limits, traces, rates, st.lists(st.floats(-0.15, 0.15), min_size=100, max_size=300))
def test_whatever_came_before_a_noisy_constant_load_changes_a_group_in_one_direction_only(
    bounds: Limits, past: list[tuple[float, float, int]], rate: float, noise: list[float]
) -> None:
    trace = [*past, *((rate * (1 + share), 0.0, 0) for share in noise)]
    began_ns = len(past) * STEP_NS
    made = [one for load, one in replay(loads(trace), bounds) if load.at_ns >= began_ns]
    assert len({grows(decision) for decision in made}) <= 1


@given(limits, traces, st.data())
def test_changes_that_fail_or_are_made_by_others_count_for_bounds_and_cool_down(
    bounds: Limits, trace: list[tuple[float, float, int]], data: st.DataObject
) -> None:
    memory, changed_ns = Memory(bounds.min_workers), None
    for load in loads(trace):
        shrank = memory.shrank
        memory, decision = decide(memory, load, bounds)
        if decision:
            assert bounds.min_workers <= decision.after <= bounds.max_workers
            least_ns = bounds.grow_after_ns if shrank and grows(decision) else bounds.cool_down_ns
            assert changed_ns is None or load.at_ns - changed_ns >= least_ns
            changed_ns = load.at_ns
            if data.draw(st.booleans()):
                memory = settled(memory, decision.before, load.at_ns)
        elif data.draw(st.integers(0, 50)) == 0:
            size = data.draw(st.integers(bounds.min_workers, bounds.max_workers))
            memory, changed_ns = settled(memory, size, load.at_ns), load.at_ns


@given(limits)
def test_a_threshold_that_nothing_reaches_leaves_a_group_at_its_least(bounds: Limits) -> None:
    assert not list(replay(loads([(0.0, 0.0, 0)] * 60), bounds))
