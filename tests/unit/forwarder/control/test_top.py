"""Rates between two readings."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from forwarder.control import top


def reading(
    second: int, matched: dict[int, int], frames: int, drops: int, fill: float = 0.25
) -> dict[str, Any]:
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
                "sockets": [{"interface": "eth0", "ring_fill": fill}],
            }
            for number, count in matched.items()
        ],
        "interfaces": [
            {
                "name": "eth0",
                "state": "up",
                "served": True,
                "arrived_frames": frames,
                "kernel_drops": drops,
            },
        ],
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
        {"name": "eth0", "state": "up", "sockets": 2, "frames_per_s": 200, "kernel_drops_per_s": 2}
    ]


def test_an_interface_that_has_come_counts_from_zero_and_an_idle_forwarder_has_no_shares() -> None:
    before, after = reading(0, {0: 5}, 1000, 0), reading(1, {0: 5, 1: 0}, 80, 0)
    before["interfaces"][0]["name"] = "eth9"
    found = top.sample(before, after, ({}, {}))
    assert found["interfaces"][0]["frames_per_s"] == 80
    assert [worker["share"] for worker in found["workers"]] == [None, None]
    shown = printed(found)
    assert all(word in shown for word in ("received/s", "eth0", "running", "all"))
    assert "last change" not in shown


def printed(found: Mapping[str, Any]) -> str:
    file = io.StringIO()
    Console(file=file, width=top.COLUMNS).print(top.view(found))
    return file.getvalue()


def test_what_xdp_forwards_has_a_row_of_its_own_and_none_without_it() -> None:
    def counted(second: int, matched: int) -> dict[str, Any]:
        counters = {"matched": matched, "sent": 2 * matched, "dropped": {"ttl_expired": matched // 10}}
        return {**reading(second, {0: 0}, 0, 0), "xdp": {"counters": counters}}

    found = top.sample(counted(5, 100), counted(7, 700), ({}, {}))
    assert found["xdp"] == {"received_dps": 300, "matched_dps": 300, "sent_dps": 600, "dropped_dps": 30}
    assert "XDP" in printed(found)
    without = top.sample(reading(5, {0: 0}, 0, 0), reading(7, {0: 0}, 0, 0), ({}, {}))
    assert without["xdp"] is None
    assert "XDP" not in printed(without)


def test_elastic_groups_are_shown_with_their_last_change_and_what_is_too_much_for_them() -> None:
    def group(number: int, **fields: object) -> dict[str, object]:
        bounds = {"min_workers": 1, "max_workers": 3, "threshold_dps": 1000}
        return {"group": number, "interfaces": [f"eth{number}"], **bounds, **fields}

    grown = {"before": 1, "after": 2, "reason": "1,900 datagrams/s offered", "failed": None}
    refused = {"before": 2, "after": 3, "reason": "asked for", "failed": "Cannot allocate memory"}
    after = reading(1, {0: 5}, 40, 0)
    after["scaling"] = [
        group(0, workers=2, offered_dps=3001.0, ring_fill=0.5, changes=[grown, refused]),
        group(1, workers=3, offered_dps=3000.0, ring_fill=0.0, changes=[grown]),
        group(2, workers=1, offered_dps=0.0, ring_fill=0.0, changes=[]),
    ]
    found = top.sample(reading(0, {0: 5}, 40, 0), after, ({}, {}))
    rows = {
        line.split()[1]: " ".join(line.split()) for line in printed(found).splitlines() if " of 1 to" in line
    }
    assert rows == {
        "eth0": "0 eth0 2 of 1 to 3 3,001 50% 2 to 3: asked for, failed: Cannot allocate memory",
        "eth1": "1 eth1 3 of 1 to 3 3,000 0% 1 to 2: 1,900 datagrams/s offered",
        "eth2": "2 eth2 1 of 1 to 3 0 0%",
    }
    assert found["hot_spots"] == ["group 0 is offered 3,001 datagrams/s, too many for 3 workers"]


def test_workers_rings_and_interfaces_at_their_limits_are_hot_spots() -> None:
    before, after = reading(0, {0: 0, 1: 0}, 0, 5), reading(2, {0: 9, 1: 9}, 900, 25, fill=0.51)
    found = top.sample(before, after, ({100: 0, 101: 0}, {100: 1_810_000_000, 101: 1_800_000_000}))
    assert found["hot_spots"] == [
        "worker 0 is busy 90% of the time",
        "a ring of worker 0 is 51% full",
        "a ring of worker 1 is 51% full",
        "full rings of eth0 lose 10 datagrams/s",
    ]
    shown = printed(found)
    assert all(f"! {one}" in shown for one in found["hot_spots"])


def test_what_is_not_quite_at_its_limit_is_no_hot_spot() -> None:
    before, after = reading(0, {0: 0}, 0, 5), reading(2, {0: 9}, 900, 5, fill=0.5)
    assert top.sample(before, after, ({100: 0}, {100: 1_800_000_000}))["hot_spots"] == []


def test_what_a_former_plan_has_left_is_not_shown() -> None:
    before, after = reading(0, {0: 0, 1: 0}, 0, 0), reading(1, {0: 5, 1: 0}, 80, 0)
    after["workers"][1] |= {"group": None, "pid": None, "state": "parked", "sockets": []}
    gone = {"name": "eth1", "state": "up", "served": False, "arrived_frames": 7, "kernel_drops": 0}
    after["interfaces"].append(gone)
    found = top.sample(before, after, ({}, {}))
    assert [worker["worker_id"] for worker in found["workers"]] == [0]
    assert [entry["name"] for entry in found["interfaces"]] == ["eth0"]
