"""What a setting's strategy comes to, beside what the forwarder's own plan says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.plan.host import described_host
from forwarder.plan.model import Sizing
from forwarder.plan.planner import plan
from forwarder.plan.strategy import PRESETS, Grouping, Steering, Width
from lab.results import Setting
from lab.scenario.layout import groups_in, receivers_of, strategy_of, workers_in_all

fixed = [name for name, preset in PRESETS.items() if preset.width is not Width.ELASTIC]


@given(
    preset=st.sampled_from(fixed),
    inputs=st.integers(1, 24),
    workers=st.integers(1, 6),
    groups=st.one_of(st.none(), st.integers(1, 6)),
)
def test_groups_and_workers_are_those_of_the_plan(
    preset: str, inputs: int, workers: int, groups: int | None
) -> None:
    if PRESETS[preset].grouping is Grouping.ONE_INTERFACE:
        inputs = 1
    setting = Setting(payload_bytes=64, inputs=inputs, strategy=preset, workers=workers, groups=groups)
    names = [f"in{number}" for number in range(inputs)]
    sizing = Sizing(workers=workers) if groups is None else Sizing(workers=workers, group_count=groups)
    planned = plan(described_host(4, names), names, [], PRESETS[preset], sizing)
    assert groups_in(preset, inputs, groups) == len(planned.groups)
    assert workers_in_all(setting) == len(planned.workers)


@pytest.mark.parametrize("steering", [None, *(mode.value for mode in Steering)])
def test_only_workers_without_fanout_or_filter_all_get_each_datagram(steering: str | None) -> None:
    """As the plan has it: a socket in no fanout group and without a filter gets everything."""
    setting = Setting(
        payload_bytes=64, inputs=2, strategy="pool", workers=3, placement="hash", steering=steering
    )
    chosen = strategy_of("pool", "hash", steering)
    planned = plan(described_host(4, ["in0", "in1"]), ["in0", "in1"], [], chosen, Sizing(workers=3))
    bare = [
        socket
        for worker in planned.workers
        for socket in worker.sockets
        if socket.interface == "in0" and socket.fanout is None and socket.filter is None
    ]
    assert receivers_of(setting) == max(1, len(bare))


def test_a_subject_without_workers_gets_each_datagram_once() -> None:
    setting = Setting(payload_bytes=64, inputs=4)
    assert (receivers_of(setting), workers_in_all(setting)) == (1, 0)
