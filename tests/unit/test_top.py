"""Rates between two readings."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from forwarder import top


def reading(second: int, matched: dict[int, int], frames: int, drops: int) -> dict[str, Any]:
    def counters(count: int) -> dict[str, Any]:
        return {"received": count + 10, "matched": count, "sent": 3 * count, "dropped": {"no_rule": 10}}

    return {
        "time_ns": second * 10**9,
        "totals": counters(sum(matched.values())),
        "workers": [
            {
                "worker_id": number,
                "group": 0,
                "pid": 100 + number,
                "cpu": number,
                "state": "running",
                "restarts": 0,
                "counters": counters(count),
                "sockets": [{"interface": "eth0", "received_frames": frames, "ring_fill": 0.25}],
            }
            for number, count in matched.items()
        ],
        "interfaces": [{"name": "eth0", "state": "up", "kernel_drops": drops}],
        "scaling": [],
    }


def test_rates_shares_and_processor_time() -> None:
    before, after = reading(5, {0: 100, 1: 100}, 1000, 3), reading(7, {0: 700, 1: 300}, 1400, 7)
    found = top.sample(before, after, ({100: 0}, {100: 10**9, 101: 5}))
    assert found["seconds"] == 2
    assert found["totals"]["matched_dps"] == 400
    assert found["totals"]["sent_dps"] == 1200
    first, second = found["workers"]
    assert (first["matched_dps"], first["share"], first["cpu_fraction"]) == (300, 0.75, 0.5)
    assert (second["matched_dps"], second["share"], second["cpu_fraction"]) == (100, 0.25, None)
    assert found["interfaces"] == [
        {"name": "eth0", "state": "up", "sockets": 2, "frames_per_s": 400, "kernel_drops_per_s": 2}
    ]


def test_a_socket_that_was_opened_again_counts_from_zero_and_an_idle_forwarder_has_no_shares() -> None:
    before, after = reading(0, {0: 5}, 1000, 0), reading(1, {0: 5, 1: 0}, 40, 0)
    found = top.sample(before, after, ({}, {}))
    assert found["interfaces"][0]["frames_per_s"] == 80
    assert [worker["share"] for worker in found["workers"]] == [None, None]
    console = Console(file=io.StringIO(), width=top.COLUMNS)
    console.print(top.view(found))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert all(word in shown for word in ("received/s", "eth0", "running", "all"))
