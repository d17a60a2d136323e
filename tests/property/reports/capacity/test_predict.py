"""What holds of every prediction, whatever the load."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capacity_support import COST, model
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.capacity.cost import Load, terms
from reports.capacity.law import Law
from reports.capacity.memory import Holding
from reports.capacity.model import CapacityModel, dump_model
from reports.capacity.predict import Machine, cost_ns, cpu_ns, machine_dps, memory, zero_loss_dps
from reports.capacity.scaling import Coefficients, Scaling

MODEL = model(scatter=0.2)

loads = st.builds(
    Load,
    payload_bytes=st.integers(18, 8972),
    outputs=st.integers(1, 254),
    rules=st.integers(1, 1_000_000),
    flows=st.integers(1, 1_000_000),
    interfaces=st.integers(1, 256),
    burst=st.integers(1, 64),
    host_skipped=st.booleans(),
)
machines = st.builds(
    Machine,
    load=loads,
    cpus=st.integers(1, 4096),
    workers_per_cpu=st.floats(1, 64),
    busiest_share=st.floats(0.0001, 1),
    crosses_nodes=st.booleans(),
)
holdings = st.builds(
    Holding,
    workers=st.integers(1, 4096),
    rules=st.integers(1, 1_000_000),
    rules_per_worker=st.integers(0, 1_000_000),
    sockets=st.integers(1, 4096),
)


@given(loads)
def test_the_interval_holds_the_value(load: Load) -> None:
    for told in (cost_ns(MODEL, load), zero_loss_dps(MODEL, load)):
        assert 0 < told.low <= told.value <= told.high


@given(machines)
def test_the_interval_of_a_machine_holds_its_value(machine: Machine) -> None:
    for told in (machine_dps(MODEL, machine), cpu_ns(MODEL, machine)):
        assert 0 < told.low <= told.value <= told.high


@given(loads, st.integers(1, 64))
def test_more_outputs_never_cost_less(load: Load, more: int) -> None:
    assert cost_ns(MODEL, replace(load, outputs=load.outputs + more)).value >= cost_ns(MODEL, load).value


@given(loads, st.integers(1, 1000))
def test_larger_payloads_and_more_rules_and_flows_never_cost_less(load: Load, more: int) -> None:
    cost = cost_ns(MODEL, load).value
    assert cost_ns(MODEL, replace(load, payload_bytes=load.payload_bytes + more)).value >= cost - 1e-6
    assert cost_ns(MODEL, replace(load, rules=load.rules + more)).value >= cost
    assert cost_ns(MODEL, replace(load, flows=load.flows + more)).value >= cost - 1e-6


@given(loads)
def test_what_is_dropped_costs_what_receiving_it_does(load: Load) -> None:
    one, two = MODEL.cost.at(terms(load, 1.0)), MODEL.cost.at(terms(load, 2.0))
    assert two - one == pytest.approx(COST["drop"])


@given(holdings, st.integers(1, 100), st.integers(1, 1000))
def test_more_workers_and_rules_never_need_less_memory(held: Holding, workers: int, rules: int) -> None:
    least = replace(held, workers=held.workers + 1)  # alone it shares nothing, which is another law
    needs = memory(MODEL, least, 0).total.value
    assert memory(MODEL, replace(least, workers=least.workers + workers), 0).total.value >= needs
    assert memory(MODEL, replace(least, rules=least.rules + rules), 0).total.value >= needs
    told = memory(MODEL, held, 7)
    assert told.total.low <= told.total.value <= told.total.high
    assert abs(told.processes.value + told.rules.value - told.total.value) < 1


coefficients = st.builds(Coefficients, sigma=st.floats(0, 1), kappa=st.floats(0, 0.1))


@given(st.lists(coefficients, min_size=1, max_size=50), st.integers(2, 4096))
def test_a_fitted_speed_up_lies_within_its_interval(found: list[Coefficients], cpus: int) -> None:
    scaling = Scaling(kind="fitted", counts=[], usl=found[0], resamples=found, why="Fitted.")
    told = scaling.speedup(cpus)
    assert 0 < told.low <= told.value <= told.high
    assert told.value <= cpus * (1 + 1e-9)


costs = st.floats(0, 1e6, allow_nan=False)


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(["copy", "frame", "receive"]), costs, min_size=1), st.floats(0, 2))
def test_a_model_comes_back_from_its_file_as_it_was(terms_of: dict[str, float], scatter: float) -> None:
    law = Law(coefficients=terms_of, resamples=[terms_of], scatter=scatter, cases=3)
    made = MODEL.model_copy(update={"cost": law})
    assert CapacityModel.model_validate_json(dump_model(made)) == made
