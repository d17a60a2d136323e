"""Workers really started for a footprint, and what is said of them."""

from __future__ import annotations

import pytest

from forwarder.plan.resources import RING_BUDGET_BYTES
from lab.scenario.tables import FootprintCase
from lab.steps.kinds.footprint import STOP_TIMEOUT_S, run_footprint

pytestmark = pytest.mark.serial


def test_workers_of_several_groups_are_started_measured_and_gone() -> None:
    case = FootprintCase(
        name="two groups",
        strategy="hybrid",
        inputs=3,
        groups=2,
        workers=3,
        placement="hash",
        steering="rule-hash",
        hashing="modulo",
        rules=60,
        cpus=6,
        ready_target_s=60.0,
    )
    record = run_footprint("s", case, "footprint-test")
    assert (record.workers, record.interfaces, record.cpus, record.rules) == (6, 3, 6, 60)
    assert record.rules_per_worker == 16  # 10 on average; which worker holds a rule is no chance
    assert record.imbalance == pytest.approx(1.6)
    assert record.setting is not None
    assert (record.setting.groups, record.setting.placement) == (2, "hash")
    assert record.memory.workers == 6
    assert 300_000 < record.memory.private_bytes_per_worker < 1_500_000
    assert record.memory.shared_bytes is not None
    assert 100_000_000 < record.memory.shared_bytes < 400_000_000
    assert RING_BUDGET_BYTES / 2 < record.memory.ring_bytes_total <= RING_BUDGET_BYTES
    assert record.idle_ns is not None
    assert record.idle_cpu_ns is not None
    assert record.idle_cpu_ns < record.idle_ns / 10, "one of seven processes works although nothing is sent"
    assert record.stopped_ns is not None
    assert 1_000_000 < record.stopped_ns < STOP_TIMEOUT_S * 1e9
    assert record.ready_ns > 100_000_000
    assert record.ready_target_ns == 60 * 10**9
    assert record.modelled_bytes == 6 * 1_000_000 + 60 * 1000
