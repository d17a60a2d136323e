"""Laws fitted to records of machines whose laws are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from capacity_support import (
    CODE,
    COST,
    DURATION_NS,
    FOOTPRINTS,
    LOADS,
    PRIVATE,
    RULE,
    SHARED,
    SHARED_RULE,
    TEMPLATE_RULE,
    cost_ns,
    footprint,
    grid,
    run,
    trial,
    zero_loss,
)

from lab.results import Cpu
from reports.capacity.cost import Load, terms
from reports.capacity.fit.model import fit
from reports.capacity.fit.regression import FitError, Observation, fit_law
from reports.capacity.fit.samples import SKIPPED, samples
from reports.capacity.memory import holding_of, memory_terms
from reports.capacity.predict import cost_ns as predicted_cost
from reports.capacity.predict import zero_loss_dps
from reports.capacity.scaling import Coefficients


def test_a_known_law_is_recovered() -> None:
    found = fit([run(grid(), footprints=FOOTPRINTS)])
    for load in LOADS:
        assert found.cost.at(terms(load)) == pytest.approx(cost_ns(load), rel=0.01)
    for name in ("frame", "copy", "copy_bytes", "host_stack"):
        assert found.cost.coefficients[name] == pytest.approx(COST[name], rel=0.05), name
    assert found.memory is not None
    assert found.memory.private.coefficients["process"] == pytest.approx(PRIVATE, rel=0.01)
    assert found.memory.private.coefficients["rule"] == pytest.approx(RULE, rel=0.01)
    assert found.memory.template.coefficients == pytest.approx(
        {"code": CODE, "rule": TEMPLATE_RULE, "worker": 0}, rel=0.01, abs=1000
    )
    assert found.memory.shared is not None
    for each in FOOTPRINTS:
        told = found.memory.shared.at(memory_terms(holding_of(each))["shared"])
        assert told == pytest.approx(SHARED + SHARED_RULE * each.rules, rel=0.01), each.case


def test_footprints_that_do_not_tell_what_is_shared_leave_it_out() -> None:
    old = [
        each.model_copy(update={"memory": each.memory.model_copy(update={"shared_bytes": None})})
        for each in FOOTPRINTS
    ]
    found = fit([run(grid(), footprints=old)]).memory
    assert found is not None
    assert found.shared is None
    assert found.template.coefficients["code"] == pytest.approx(CODE, rel=0.01)


def test_noise_widens_the_interval_and_held_out_cases_say_how_far_off_it_is() -> None:
    calm, noisy = fit([run(grid(noise=0.01))]), fit([run(grid(noise=0.3, repeats=6))])
    load = Load(payload_bytes=700, outputs=3, rules=50, flows=8)
    near, wide = predicted_cost(calm, load), predicted_cost(noisy, load)
    assert near.high / near.low < wide.high / wide.low
    assert wide.low < cost_ns(load) < wide.high
    error = {held.what: held.median_error for held in noisy.held_out}["rate of a worker"]
    assert 0.01 < error < 0.2
    assert {held.what: held.median_error for held in calm.held_out}["rate of a worker"] < 0.03


def test_a_stall_in_one_trial_moves_nothing_far() -> None:
    trials = grid()
    stalled = trial(LOADS[0], 99, overload=1.3, noise=5.0)
    found, clean = fit([run([*trials, stalled])]), fit([run(trials)])
    assert found.cost.at(terms(LOADS[0])) == pytest.approx(clean.cost.at(terms(LOADS[0])), rel=0.05)


def test_a_rate_that_the_generator_bounds_is_a_bound_and_no_point() -> None:
    idle = trial(LOADS[0], overload=0.2)
    (sample,) = samples([run([idle])])
    assert sample.says == "bound"
    assert sample.cost_ns == pytest.approx(5 * cost_ns(LOADS[0]), rel=0.01)
    # As a point, five times the cost would pull the law up; as a bound it changes nothing.
    others = [each for each in grid() if str(LOADS[0]) not in each.trial_id]
    found, without = fit([run([idle, *others])]), fit([run(others)])
    assert found.cost.at(terms(LOADS[0])) == pytest.approx(without.cost.at(terms(LOADS[0])), rel=0.01)
    assert LOADS[0] not in [point.load for point in found.points]


def test_a_bound_that_contradicts_the_law_pulls_it_down() -> None:
    points = [Observation(n, {"x": float(n)}, 100.0 * n) for n in range(1, 6)]
    free = fit_law(points, "x")
    bounded = fit_law([*points, Observation("b", {"x": 10.0}, 500.0, at_most=True)], "x")
    loose = fit_law([*points, Observation("b", {"x": 10.0}, 5000.0, at_most=True)], "x")
    assert bounded.coefficients["x"] < 0.99 * free.coefficients["x"]
    assert loose.coefficients["x"] == pytest.approx(free.coefficients["x"], rel=1e-6)


def test_a_machine_that_stood_still_is_told_from_a_worker_that_cannot_keep_up() -> None:
    full = trial(LOADS[0], 0, overload=1.3)
    # Long draining, at a rate far below what the worker has shown that it can do.
    stall = trial(LOADS[0], 1, overload=0.3).model_copy(update={"drain_ns": DURATION_NS // 2})
    assert [sample.trial for sample in samples([run([full, stall])])] == [samples([run([full])])[0].trial]
    drained = trial(LOADS[0], 2, overload=1.0).model_copy(update={"drain_ns": DURATION_NS // 5})
    assert len(samples([run([full, drained])])) == 2
    stolen = Cpu(busy_ns=DURATION_NS, softirq_ns=0, steal_ns=DURATION_NS // 2, copies=1)
    (held_up,) = samples([run([full.model_copy(update={"cpu": stolen})])])
    assert held_up.says == "bound"


def test_of_the_bounds_of_a_case_the_best_one_counts() -> None:
    trials = [trial(LOADS[0], number, overload=share) for number, share in enumerate((0.2, 0.9, 0.5))]
    (sample,) = samples([run(trials)])
    assert sample.cost_ns == pytest.approx(cost_ns(LOADS[0]) / 0.9, rel=0.01)


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "kernel"},
        {"setting": {"egress": "offload"}},
        {"setting": {"commit": "abc"}},
        {"setting": {"skew": 4}},
        {"setting": {"unicast_percent": 10}},
        {"setting": {"steering": "ungrouped"}},
        {"setting": {"options": ("--busy-poll-us", "5")}},
        {"ended": "mcrd: exited 1"},
    ],
)
def test_what_the_law_does_not_describe_is_left_out(change: dict[str, object]) -> None:
    made = trial(LOADS[0], overload=1.3)
    part = change.get("setting")
    if isinstance(part, dict):
        change = {"setting": made.setting.model_copy(update=part)}
    assert len(samples([run([made])])) == 1
    assert not samples([run([made.model_copy(update=change)])])


def test_workers_beside_the_generator_say_nothing_of_their_cost() -> None:
    beside = trial(LOADS[0], overload=1.3, cpus=(0, 1))
    assert not samples([run([beside], cpus=2)])
    assert len(samples([run([beside], cpus=3)])) == 1


def test_too_little_is_refused_with_what_is_there_and_what_is_needed() -> None:
    with pytest.raises(FitError, match=r"2 loads at which a worker could not keep up; allowed: 6 or more"):
        fit([run([trial(LOADS[0], overload=1.3), trial(LOADS[2], overload=1.3)])])


def test_runs_of_two_machines_are_refused() -> None:
    with pytest.raises(FitError, match="2 machines"):
        fit([run(grid()), run(grid(), machine="another")])


def test_a_zero_loss_rate_is_a_share_of_what_a_worker_can_do() -> None:
    trials = grid()
    searched = {str(load): (load, made) for load, made in zip(LOADS, trials[::3], strict=True)}
    found = fit([run(trials, [zero_loss(load, made) for load, made in searched.values()])])
    assert found.zero_loss_share.value == pytest.approx(0.8, rel=0.02)
    rate = zero_loss_dps(found, LOADS[1])
    assert rate.value == pytest.approx(0.8e9 / cost_ns(LOADS[1]), rel=0.03)
    assert rate.basis == "measured"
    held = {each.what: each for each in found.held_out}["zero-loss rate"]
    assert held.median_error < 0.05
    assert all(case.records for case in held.cases)


def test_memory_of_a_worker_that_is_alone_is_its_own_law() -> None:
    alone = [footprint(1, rules) for rules in (1, 1000, 5000)]
    alone = [
        each.model_copy(
            update={
                "memory": each.memory.model_copy(
                    update={"private_bytes_per_worker": 8_000_000 + 1400 * each.rules}
                )
            }
        )
        for each in alone
    ]
    found = fit([run(grid(), footprints=[*FOOTPRINTS, *alone])]).memory
    assert found is not None
    assert found.private.coefficients["alone"] == pytest.approx(8_000_000 - PRIVATE, rel=0.02)
    assert found.private.coefficients["process"] == pytest.approx(PRIVATE, rel=0.02)


COUNTS = (1, 2, 4, 8, 16)


def _scaled(counts: tuple[int, ...], law: Coefficients) -> list:
    load = Load(payload_bytes=512, outputs=2, rules=1, flows=1, steered=False)
    return [
        trial(load, number, 1.3, cpus=tuple(range(1, cpus + 1)), speedup=law.speedup(cpus))
        for cpus in counts
        for number in range(3)
    ]


def test_usl_is_recovered_from_enough_numbers_of_processors() -> None:
    law = Coefficients(sigma=0.05, kappa=0.002)
    scaling = fit([run([*grid(), *_scaled(COUNTS, law)], cpus=32)]).scaling
    assert scaling.kind == "fitted"
    assert scaling.usl is not None
    assert scaling.usl.sigma == pytest.approx(0.05, abs=0.02)
    assert scaling.usl.kappa == pytest.approx(0.002, abs=0.001)
    assert scaling.amdahl is not None
    assert scaling.amdahl.kappa == 0
    assert scaling.speedup(16).basis == "measured"
    assert scaling.speedup(12).basis == "interpolated"
    assert scaling.speedup(64).basis == "extrapolated"
    for cpus in COUNTS:
        told = scaling.speedup(cpus)
        assert told.value == pytest.approx(law.speedup(cpus), rel=0.05)
        assert told.low <= told.value <= told.high


def test_usl_is_refused_from_too_few_numbers_and_says_so() -> None:
    scaling = fit([run([*grid(), *_scaled((1, 2, 4), Coefficients(sigma=0, kappa=0))], cpus=32)]).scaling
    assert scaling.kind == "range"
    assert scaling.usl is None
    assert "3 of at least 4 numbers of processors (1, 2, 4)" in scaling.why
    told = scaling.speedup(96)
    assert told.basis == "extrapolated"
    assert told.high == 96
    assert told.low == pytest.approx(96 / (1 + 0.05 * 95))
    assert told.value == pytest.approx(math.sqrt(told.low * told.high))
    assert scaling.why in told.reasons[0]


def test_skipping_the_host_stack_is_told_from_not_skipping_it() -> None:
    load = Load(payload_bytes=64, outputs=1, rules=1, flows=1)
    (sample,) = samples([run([trial(replace(load, host_skipped=True), overload=1.3)])])
    assert sample.load.host_skipped
    assert SKIPPED == "--skip-host-stack"
