"""The model's file, and what is said of loads that it knows, hardly knows, or cannot know."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from capacity_support import COST, model
from pydantic import ValidationError

from forwarder.engines.packet import schema
from reports.capacity import cost
from reports.capacity.cost import Load
from reports.capacity.memory import Holding
from reports.capacity.model import SHIPPED, ModelError, dump_model, read_model
from reports.capacity.predict import (
    Machine,
    UnknownError,
    cost_ns,
    cpu_ns,
    latency,
    machine_dps,
    memory,
    zero_loss_dps,
)

KNOWN = Load(payload_bytes=1316, outputs=1, rules=1000, flows=16)


def test_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(dump_model(model()), encoding="utf-8")
    assert read_model(path) == model()


def test_the_shipped_model_can_be_read_and_knows_what_advice_needs() -> None:
    shipped = read_model(SHIPPED)
    assert shipped.memory is not None
    assert shipped.sources
    assert {held.what for held in shipped.held_out} == {"rate of a worker", "zero-loss rate", "memory"}


def test_the_model_and_the_engine_agree_on_what_goes_into_one_frame() -> None:
    assert cost.BATCH_FRAMES == schema.BATCH
    assert (cost.MOST_SEGMENTS, cost.MOST_PAYLOAD_BYTES) == (schema.MAX_SEGMENTS, schema.MAX_PAYLOAD)


def _document(**changes: object) -> str:
    return json.dumps({**json.loads(dump_model(model())), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (dump_model(model())[:500], "not JSON, or cut short"),
        ("[]", "schema_version: None; allowed: 'mcastlab.capacity/3'"),
        (
            _document(schema_version="mcastlab.capacity/9"),
            "'mcastlab.capacity/9'; allowed: ",
        ),
        (_document(cost={"coefficients": {"copy": -1.0}, "scatter": 0, "cases": 3}), "a cost below 0"),
        (
            _document(cost={"coefficients": {"copy": 1.0}, "resamples": [{}], "scatter": 0, "cases": 3}),
            "terms",
        ),
        (_document(ranges={"outputs": {"least": 1}}), "ranges.outputs.most"),
        (_document(trials="many"), "trials"),
        (_document(unknown=1), "unknown"),
        (_document(sources=[]), "sources"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name_and_reason(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError) as refused:
        read_model(path)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not readable"):
        read_model(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="not readable"):
        read_model(tmp_path / "binary.json")


def test_cost_is_the_sum_of_its_terms() -> None:
    load = Load(payload_bytes=1000, outputs=4, rules=100, flows=32)
    by_hand = (
        COST["receive"]
        + 4 * (COST["frame"] / 8 + COST["copy"] + 10 * COST["copy_bytes"])
        + 2 * COST["lookup"]
        + 10 * COST["receive_bytes"]
        + COST["host_stack"]
    )
    assert cost_ns(model(), load).value == pytest.approx(by_hand)


def test_what_was_measured_is_told_with_its_trials() -> None:
    told = cost_ns(model(), KNOWN)
    assert told.basis == "measured"
    assert told.reasons == ("1 trials of grid: 1,316 B",)


def test_between_what_was_measured_it_is_interpolated_beyond_it_extrapolated_and_wider() -> None:
    near = cost_ns(model(), Load(payload_bytes=700, outputs=2, rules=10, flows=4))
    assert near.basis == "interpolated"
    far = cost_ns(model(), Load(payload_bytes=5600, outputs=64, rules=10, flows=4))
    assert far.basis == "extrapolated"
    assert "a payload of 5,600 B (64 to 1,400 measured)." in far.reasons
    assert "64 outputs (1 to 16 measured)." in far.reasons
    assert far.high / far.low > 2 * near.high / near.low


def test_without_footprints_nothing_is_said_of_memory() -> None:
    with pytest.raises(UnknownError, match="no footprints"):
        memory(model().model_copy(update={"memory": None}), Holding(1, 1, 1, 1), 0)


def test_the_busiest_processor_decides() -> None:
    even = machine_dps(model(), Machine(KNOWN, cpus=4, workers_per_cpu=1, busiest_share=0.25))
    uneven = machine_dps(model(), Machine(KNOWN, cpus=4, workers_per_cpu=1, busiest_share=0.5))
    assert uneven.value == pytest.approx(even.value / 2)
    alone = machine_dps(model(), Machine(KNOWN, cpus=1, workers_per_cpu=1, busiest_share=1.0))
    assert (alone.basis, alone.reasons) == ("measured", ())
    assert alone.value == pytest.approx(zero_loss_dps(model(), KNOWN).value)


def test_threads_of_all_interfaces_of_a_processor_cost_zero_loss_rate() -> None:
    share = model().zero_loss_share.model_copy(update={"power": -0.2})
    awake = model().model_copy(update={"zero_loss_share": share})
    wide = zero_loss_dps(awake, replace(KNOWN, interfaces=4, flows=64))
    assert wide.value == pytest.approx(
        zero_loss_dps(model(), replace(KNOWN, interfaces=4, flows=64)).value / 4**0.2
    )
    crowded = Machine(KNOWN, cpus=1, workers_per_cpu=4, busiest_share=1.0)
    assert machine_dps(awake, crowded).value == pytest.approx(machine_dps(model(), crowded).value / 4**0.2)


def test_what_processors_cost_each_other_is_part_of_a_datagrams_cost() -> None:
    alone = Machine(KNOWN, cpus=1, workers_per_cpu=1, busiest_share=1.0)
    one = cpu_ns(model(), alone)
    assert one.value == pytest.approx(cost_ns(model(), KNOWN).value)
    many = cpu_ns(model(), replace(alone, cpus=96, busiest_share=1 / 96))
    crowded = cpu_ns(model(), replace(alone, workers_per_cpu=4))
    assert one.value < crowded.value < many.value
    assert many.value == pytest.approx(one.value * 96 / model().scaling.speedup(96).value)


@pytest.mark.parametrize(
    ("utilisation", "interfaces", "workers", "p50", "basis"),
    [
        (0.5, 1, 1, 60_000, "measured"),
        (0.05, 20, 1, 30_000 / 0.9 * 20, "measured"),
        (0.8, 1, 1, 300_000, "measured"),
        (0.5, 5, 1, 60_000 * 20, "extrapolated"),
        (0.5, 1, 20, 60_000, "extrapolated"),
    ],
)
def test_latency_is_that_of_a_worker_at_the_same_utilisation(
    utilisation: float, interfaces: int, workers: int, p50: float, basis: str
) -> None:
    machine = Machine(replace(KNOWN, interfaces=interfaces), 96, workers, 1 / 96)
    told = latency(model(), machine, utilisation)
    assert told is not None
    assert told.p50.value == pytest.approx(p50)
    assert told.p50.basis == basis
    assert latency(model(), machine, 1.01) is None
    assert latency(model().model_copy(update={"delays": []}), machine, utilisation) is None


def test_memory_is_workers_and_supervisor_with_rings_kernel_and_what_they_share_beside() -> None:
    told = memory(model(), Holding(workers=10, rules=1000, rules_per_worker=100, sockets=10), 5_000_000)
    assert told.total.value == pytest.approx(10 * (600_000 + 90 * 100) + 12_000_000 + 1_700 * 1000)
    assert told.rules.value == pytest.approx(10 * 90 * 100 + 1_700 * 1000)
    assert told.processes.value == pytest.approx(10 * 600_000 + 12_000_000)
    assert told.kernel is not None
    assert told.shared is not None
    assert told.shared.value == pytest.approx(180_000_000 + 400 * 1000)
    assert told.everything == pytest.approx(
        told.total.value + 5_000_000 + told.kernel.value + told.shared.value
    )
    beyond = memory(model(), Holding(4096, 1000, 100, 4096), 0)
    assert beyond.total.basis == "extrapolated"


def test_predicting_loads_nothing_numerical() -> None:
    """Which is what makes advice quick."""
    script = (
        "import sys, lab.cli.advice, lab.cli.workload, reports.capacity.model as m; m.read_model(m.SHIPPED); "
        "print([n for n in ('scipy', 'pandas', 'matplotlib', 'numba', 'scapy') if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"


def test_a_model_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        model().trials = 0
