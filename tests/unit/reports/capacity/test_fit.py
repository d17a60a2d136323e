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
    pipelines,
    run,
    trial,
    zero_loss,
)

from lab.results import Latency, WorkerSample
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
    assert full.cpu is not None
    use = full.cpu.by_cpu[0].model_copy(update={"steal_ns": DURATION_NS // 2})
    (held_up,) = samples(
        [run([full.model_copy(update={"cpu": full.cpu.model_copy(update={"by_cpu": [use]})})])]
    )
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
        {"setting": {"udp_checksum": False}},
        {"setting": {"steering": "ungrouped"}},
        {"setting": {"options": ("--busy-poll-us", "5")}},
        {"setting": {"receive": "softirq"}},
        {"setting": {"pipelines": 1}},
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


@pytest.mark.parametrize("change", [{"role": "both"}, {"role": "bench"}, {"received": 1}])
def test_only_a_cpu_that_does_all_of_a_forwarders_work_shows_a_cost(change: dict[str, object]) -> None:
    made = trial(LOADS[0], overload=1.3)
    assert made.cpu is not None
    (use,) = made.cpu.by_cpu
    cpu = made.cpu.model_copy(update={"by_cpu": [use.model_copy(update=change)]})
    assert not samples([run([made.model_copy(update={"cpu": cpu})])])
    assert not samples([run([made.model_copy(update={"cpu": None})])])
    assert not samples([run([trial(LOADS[0], overload=1.3, cpus=(1, 2))])])


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


def test_a_zero_loss_rate_falls_with_the_interfaces_of_a_worker() -> None:
    wide = [
        replace(load, interfaces=count, flows=load.flows * count)
        for load, count in zip(LOADS, (4, 20), strict=False)
    ]
    trials = [*grid(), *(trial(load, number, 1.3) for load in wide for number in range(3))]
    searched = [zero_loss(load, trial(load), share=0.8 / load.interfaces**0.2) for load in (*LOADS, *wide)]
    found = fit([run(trials, searched)])
    assert found.zero_loss_share.power == pytest.approx(-0.2, abs=0.02)
    assert found.zero_loss_share.at(20) == pytest.approx(0.8 / 20**0.2, rel=0.03)
    held = {each.what: each for each in found.held_out}["zero-loss rate"]
    assert held.median_error < 0.05


def test_a_trial_that_drops_nearly_everything_shows_no_cost() -> None:
    flood = trial(LOADS[0], 1, overload=2.0).model_copy(
        update={"workers": [WorkerSample(worker_id=0, cpu=1, received=1000, matched=1000, rules=1)]}
    )
    flooded = samples([run([flood])])
    assert [each.says for each in flooded] == ["bound"]
    assert {each.trial for each in samples([run([flood, trial(LOADS[0], 2, 1.3)])])} == {
        samples([run([trial(LOADS[0], 2, 1.3)])])[0].trial
    }


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


def test_contention_is_recovered_from_pipelines_on_two_processors() -> None:
    found = [pipelines(2, [0.95 + spread for spread in (-0.02, 0, 0.02, -0.01, 0.01, 0)])]
    scaling = fit([run(grid(), pipelines=found)]).scaling
    assert scaling.usl is not None
    assert scaling.usl.sigma == pytest.approx(1 / 0.95 - 1, rel=0.02)
    assert scaling.usl.kappa == 0
    two, four = scaling.speedup(2), scaling.speedup(4)
    assert two.value == pytest.approx(1.9, rel=0.01)
    assert 1.86 < two.low < two.value < two.high < 1.94
    assert (two.basis, four.basis) == ("measured", "extrapolated")
    assert four.reasons == ("4 processors: contention was measured with 2.",)
    assert four.high / four.low > 1.2 * two.high / two.low
    assert scaling.counts[0].trials == ["20250102-030405-ab12:pipelines/2"]


def test_coherency_is_fitted_to_three_numbers_of_pipelines_or_more() -> None:
    law = Coefficients(sigma=0.03, kappa=0.001)
    found = [pipelines(cpus, [law.speedup(cpus) / cpus] * 6) for cpus in (2, 4, 8, 16)]
    scaling = fit([run(grid(), pipelines=found)]).scaling
    assert scaling.usl is not None
    assert scaling.usl.sigma == pytest.approx(0.03, abs=0.003)
    assert scaling.usl.kappa == pytest.approx(0.001, abs=0.0002)
    assert scaling.speedup(12).basis == "interpolated"
    assert scaling.speedup(64).high <= 64


def test_without_pipelines_the_speed_up_is_a_range_and_says_so() -> None:
    scaling = fit([run(grid())]).scaling
    assert (scaling.kind, scaling.usl) == ("range", None)
    told = scaling.speedup(96)
    assert told.basis == "extrapolated"
    assert (told.low, told.high) == (pytest.approx(96 / (1 + 0.05 * 95)), 96)
    assert told.value == pytest.approx(math.sqrt(told.low * told.high))
    assert "assumed" in told.reasons[0]
    assert scaling.why in told.reasons[0]


def test_intervals_of_held_out_cases_are_as_wide_as_the_errors_of_the_others() -> None:
    found = fit([run(grid(noise=0.3, repeats=2))])
    held = {each.what: each for each in found.held_out}["rate of a worker"]
    errors = [abs(math.log(case.predicted / case.measured)) for case in held.cases]
    worst = errors.index(max(errors))
    assert held.within == len(held.cases) - 1
    case = held.cases[worst]
    assert not case.low <= case.measured <= case.high
    assert math.log(case.high / case.predicted) == pytest.approx(sorted(errors)[-2], rel=1e-3)
    assert found.cost.scatter == pytest.approx(max(errors) / 1.96, abs=1e-3)


def test_latency_is_kept_by_share_interfaces_and_workers() -> None:
    delay = Latency(count=1, min=1, p50=20_000, p90=1, p99=90_000, p999=1, max=1)
    made = [
        trial(LOADS[0], number, overload=0.5).model_copy(
            update={"purpose": "latency", "load_share": 0.5, "latency": delay.model_copy(update={"p50": p50})}
        )
        for number, p50 in enumerate((10_000, 20_000, 30_000))
    ]
    (found,) = fit([run([*grid(), *made])]).delays
    assert (found.load_share, found.interfaces, found.workers) == (0.5, 1, 1)
    assert (found.p50, found.p99, len(found.trials)) == (20_000, 90_000, 3)


def test_skipping_the_host_stack_is_told_from_not_skipping_it() -> None:
    load = Load(payload_bytes=64, outputs=1, rules=1, flows=1)
    (sample,) = samples([run([trial(replace(load, host_skipped=True), overload=1.3)])])
    assert sample.load.host_skipped
    assert SKIPPED == "--skip-host-stack"
