"""``mcrctl top``: rates between two readings of the statistics, per worker and per interface. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from rich.console import Group
from rich.table import Table

from forwarder.plan.rendering import aligned_table
from forwarder.supervisor.scaling_policy import Limits

SCHEMA: Final = "mcrd.top/1"
COLUMNS: Final = 120
"""Width of the view, in characters."""
HOT_CPU: Final = 0.9
"""Share of the time above which a worker counts as a hot spot."""
_RATES: Final = ("received", "matched", "sent", "dropped")
CpuTimes = tuple[Mapping[int, int], Mapping[int, int]]
"""CPU time of each process by pid, in nanoseconds, at the first and at the second reading."""


def sample(before: Mapping[str, Any], after: Mapping[str, Any], cpu_ns: CpuTimes) -> dict[str, Any]:
    """Rates between two replies to ``stats``."""
    seconds = (after["time_ns"] - before["time_ns"]) / 1e9
    then = {worker["worker_id"]: worker for worker in before["workers"]}
    matched = after["totals"]["matched"] - before["totals"]["matched"]
    workers = [
        _worker(then.get(one["worker_id"]), one, seconds, matched, cpu_ns)
        for one in after["workers"]
        if not has_gone(one)
    ]
    interfaces, kernel = _interfaces(before, after, seconds), _of_kernel(after)
    return {
        "schema": SCHEMA,
        "seconds": seconds,
        "totals": _flows(before["totals"], after["totals"], seconds),
        "workers": workers,
        "xdp": kernel and _flows(_of_kernel(before), kernel, seconds),
        "interfaces": interfaces,
        "hot_spots": list(_hot_spots(workers, interfaces, after["scaling"])),
        "scaling": after["scaling"],
    }


def has_gone(worker: Mapping[str, Any]) -> bool:
    """Whether a worker belonged to a former plan and has ended."""
    return worker["group"] is None and worker["pid"] is None


def _hot_spots(
    workers: Sequence[Mapping[str, Any]],
    interfaces: Sequence[Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    """A sentence for each worker, ring, interface or group that is at its limit."""
    for worker in workers:
        if (cpu := worker["cpu_fraction"]) is not None and cpu > HOT_CPU:
            yield f"worker {worker['worker_id']} is busy {cpu:.0%} of the time"
        if worker["ring_fill"] > Limits.ring_share:
            yield f"a ring of worker {worker['worker_id']} is {worker['ring_fill']:.0%} full"
    for entry in interfaces:
        if (drops := entry["kernel_drops_per_s"]) > 0:
            yield f"full rings of {entry['name']} lose {drops:,.0f} datagrams/s"
    for group in groups:
        offered, most = group["offered_dps"], group["max_workers"]
        if offered > most * group["threshold_dps"]:
            yield f"group {group['group']} is offered {offered:,.0f} datagrams/s, too many for {most} workers"


def _flows(before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float) -> dict[str, float]:
    def total(counters: Mapping[str, Any] | None, name: str) -> int:
        if counters is None:
            return 0
        return sum(counters["dropped"].values()) if name == "dropped" else int(counters[name])

    return {f"{name}_dps": (total(after, name) - total(before, name)) / seconds for name in _RATES}


def _of_kernel(stats: Mapping[str, Any]) -> dict[str, Any] | None:
    """Counters of the XDP engine, which receives what it matches; None of a forwarder without it."""
    counters = (stats.get("xdp") or {}).get("counters")
    return counters and {**counters, "received": counters["matched"]}


def _worker(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float, matched: int, cpu_ns: CpuTimes
) -> dict[str, Any]:
    pid = after["pid"]
    spent = cpu_ns[1][pid] - cpu_ns[0][pid] if pid in cpu_ns[0] and pid in cpu_ns[1] else None
    rates = _flows(before["counters"] if before else None, after["counters"], seconds)
    return {
        **{name: after[name] for name in ("worker_id", "group", "pid", "cpu", "state", "restarts")},
        **rates,
        "share": rates["matched_dps"] * seconds / matched if matched else None,
        "ring_fill": max((socket["ring_fill"] for socket in after["sockets"]), default=0.0),
        "cpu_fraction": spent / 1e9 / seconds if spent is not None else None,
    }


def _interfaces(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
    earlier = {entry["name"]: entry for entry in before["interfaces"]}
    sockets = Counter(socket["interface"] for worker in after["workers"] for socket in worker["sockets"])

    def rate(entry: Mapping[str, Any], name: str) -> float:
        known: int = earlier[entry["name"]][name] if entry["name"] in earlier else 0
        if known > entry[name]:  # of a forwarder that was started again meanwhile
            known = 0
        return float((entry[name] - known) / seconds)

    return [
        {
            "name": entry["name"],
            "state": entry["state"],
            "sockets": sockets[entry["name"]],
            "frames_per_s": rate(entry, "arrived_frames"),
            "kernel_drops_per_s": rate(entry, "kernel_drops"),
        }
        for entry in after["interfaces"]
        if entry["served"] or sockets[entry["name"]]
    ]


_IDENTITY: Final = ("worker_id", "group", "pid", "cpu", "state")
_table = partial(aligned_table, left=("state", "interface", "last change"))


def view(found: Mapping[str, Any]) -> Group:
    """A sample as tables."""
    workers = _table(
        *("worker", "group", "pid", "CPU", "state"),
        *("received/s", "matched/s", "sent/s", "dropped/s", "share", "processor", "ring"),
    )
    for worker in found["workers"]:
        share, cpu = worker["share"], worker["cpu_fraction"]
        workers.add_row(
            *("–" if worker[name] is None else str(worker[name]) for name in _IDENTITY),
            *_cells(worker),
            "" if share is None else f"{share:.0%}",
            "" if cpu is None else f"{cpu:.0%}",
            f"{worker['ring_fill']:.0%}",
        )
    if found["xdp"]:
        workers.add_row("XDP", "", "", "", "", *_cells(found["xdp"]), "", "", "")
    workers.add_row("all", "", "", "", "", *_cells(found["totals"]), "", "", "", style="bold")
    interfaces = _table("interface", "state", "sockets", "frames/s", "ring full/s")
    for entry in found["interfaces"]:
        rates = (f"{entry[name]:,.0f}" for name in ("frames_per_s", "kernel_drops_per_s"))
        interfaces.add_row(entry["name"], entry["state"], str(entry["sockets"]), *rates)
    hot_spots = (f"! {one}" for one in found["hot_spots"])
    return Group(workers, interfaces, *_scaling(found["scaling"]), *hot_spots)


def _scaling(groups: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Sizes of the elastic groups and their last change; nothing if there are none."""
    if not groups:
        return
    table = _table("group", "interface", "workers", "offered/s", "ring full to", "last change")
    for group in groups:
        table.add_row(
            str(group["group"]),
            ", ".join(group["interfaces"]),
            f"{group['workers']} of {group['min_workers']} to {group['max_workers']}",
            f"{group['offered_dps']:,.0f}",
            f"{group['ring_fill']:.0%}",
            _change(group["changes"][-1]) if group["changes"] else "",
        )
    yield table


def _change(change: Mapping[str, Any]) -> str:
    failed = f", failed: {change['failed']}" if change["failed"] else ""
    return f"{change['before']} to {change['after']}: {change['reason']}{failed}"


def _cells(rates: Mapping[str, float]) -> list[str]:
    return [f"{rates[f'{name}_dps']:,.0f}" for name in _RATES]
