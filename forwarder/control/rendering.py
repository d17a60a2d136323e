"""Replies of a supervisor as tables and sentences, for ``mcrctl``."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

from forwarder.control import top
from forwarder.plan.memory import plural, span
from forwarder.plan.strategy import Strategy
from forwarder.problems import first_of
from forwarder.rules.notation import output_text


def summary(statistics: dict[str, Any]) -> str:
    """The final statistics in a few lines."""
    totals = statistics["totals"]
    received, matched, sent = (f"{totals[name]:,}" for name in ("received", "matched", "sent"))
    lines = [f"received {received} datagrams, matched {matched}, sent {sent} copies"]
    lines += [f"  not forwarded, {reason}: {count:,}" for reason, count in _lost(statistics).items()]
    return "\n".join(lines)


def _lost(statistics: dict[str, Any]) -> dict[str, int]:
    """What was not forwarded, by reason: datagrams and copies, then frames that reached no worker."""
    lost = dict(statistics["totals"]["dropped"])
    for interface in statistics["interfaces"]:
        lost[f"dropped early on {interface['name']}"] = interface["early_drops"]
        lost[f"ring full on {interface['name']}"] = interface["kernel_drops"]
        lost[f"left in a ring of {interface['name']}"] = interface["abandoned_frames"]
    return {reason: count for reason, count in lost.items() if count}


def added(result: Any) -> str:
    """Render the reply to `add`."""
    return "\n".join(
        f"added {rule['rule_id']}: {rule['state']}" + (f" ({rule['reason']})" if rule["reason"] else "")
        for rule in result["added"]
    )


def rules(result: Any) -> Table:
    """Render the reply to `list`."""
    table = _table("rule", "input", "outputs", "in force after", "first datagram after", "engine")
    for rule in result["rules"]:
        timing, served = result["timing"][rule["rule_id"]], result["engines"][rule["rule_id"]]
        why = f" ({served['engine_reason']})" if served["engine_reason"] else ""
        table.add_row(
            rule["rule_id"],
            f"{rule['input_group']}:{rule['input_port']}:{rule['input_interface']}",
            "\n".join(map(output_text, rule["outputs"])),
            *(_after(timing[name]) for name in ("in_force_after_ns", "first_datagram_after_ns")),
            served["engine"] + why,
        )
    return table


def _after(time_ns: int | None) -> str:
    return "–" if time_ns is None else f"{time_ns / 1e6:,.1f} ms"


_SUMS = ("received", "matched", "sent", "dropped")


def statistics(result: Any) -> Group:
    """Render the reply to `stats`."""
    table = _table("", *_SUMS)
    former: Counter[str] = Counter()
    for worker in result["workers"]:
        sums = _sums(worker["counters"])
        if top.has_gone(worker):
            former.update(sums)
        else:
            place = f"CPU {worker['cpu']}, node {worker['node']}, {worker['state']}"
            table.add_row(f"worker {worker['worker_id']} ({place})", *_figures(sums))
    if former:
        table.add_row("workers of former plans", *_figures(former))
    if kernel := result["xdp"]:
        counts = kernel["counters"]
        where = ", ".join(kernel["inputs"]) or "no interface"
        table.add_row(f"XDP on {where}", *_figures(_sums({**counts, "received": counts["matched"]})))
        for why in kernel["refused"].values():
            table.add_row(f"  served by workers: {why}")
    table.add_row("all", *_figures(_sums(result["totals"])), style="bold")
    for reason, count in _lost(result).items():
        table.add_row(f"  {reason}", "", "", "", f"{count:,}")
    for rule in result["rules"]:
        waiting = f" ({rule['reason']})" if rule["reason"] else ""
        instead = f", {rule['engine']}: {rule['engine_reason']}" if rule["engine_reason"] else ""
        name = f"rule {rule['rule_id']}: {rule['state']}{waiting}{instead}"
        table.add_row(name, "", f"{rule['matched']:,}", f"{rule['sent']:,}", "")
    return Group(table, _distribution(result))


def _sums(counters: Any) -> dict[str, int]:
    return {**{name: counters[name] for name in _SUMS[:-1]}, "dropped": sum(counters["dropped"].values())}


def _figures(sums: Mapping[str, int]) -> list[str]:
    return [f"{sums[name]:,}" for name in _SUMS]


def workers(result: Any) -> Group:
    """Render the reply to `list-workers`."""
    table = _table("worker", "group", "pid", "CPU", "node", "state", "restarts", "rules", "interfaces")
    fields = ("worker_id", "group", "pid", "cpu", "node", "state", "restarts", "rules")
    for worker in result["workers"]:
        values = ["–" if worker[name] is None else str(worker[name]) for name in fields]
        table.add_row(*values, ", ".join(worker["interfaces"]))
    return Group(table, _distribution(result))


def _distribution(result: Any) -> Table:
    """How evenly rules are distributed over workers."""
    moves = ("moved by one more", "by one less")
    table = _table("group", "workers", "rules", "on a worker", "most / mean", *moves)
    for entry in result["distribution"]:
        less = entry["moved_by_one_less"]
        table.add_row(
            *(f"{entry[name]:,}" for name in ("group", "workers", "rules")),
            span(entry["least"], entry["most"]),
            f"{entry['imbalance']:.2f}",
            f"{entry['moved_by_one_more']:,}",
            "–" if less is None else f"{less:,}",
        )
    return table


def changes(result: Any) -> Group:
    """Render the reply to `apply`, which `plan --diff` sends, too."""
    table = _table("change", "now", "wanted")
    for name, values in (result["plan"] or {}).items():
        table.add_row(name, _IN_WORDS[name](values["now"]), _IN_WORDS[name](values["wanted"]))
    if engines := result["engine"]:
        table.add_row("engine", engines["now"], engines["wanted"])
    for what in ("added", "changed", "removed"):
        if names := result[f"rules_{what}"]:
            table.add_row(f"rules {what}", "", f"{len(names):,}: {first_of(names)}")
    if result["rules_moved"]:
        table.add_row("rules in another table", "", f"{result['rules_moved']:,}")
    warnings = [f"warning: {warning}" for warning in result["warnings"]]
    if not table.rows:
        return Group("nothing changes", *warnings)
    done = f"applied in {result['took_ns'] / 1e6:,.0f} ms" if result["applied"] else "not applied"
    relieved = ": new workers for all groups" if result["workers_relieved"] else ""
    return Group(table, done + relieved, *warnings)


def _group_in_words(group: Mapping[str, Any]) -> str:
    interfaces = ", ".join(group["interfaces"]) or "the interfaces of rules"
    if "workers" in group:
        workers = plural(group["workers"], "worker")
    else:
        workers = f"{group['min_workers']} to {plural(group['max_workers'], 'worker')}"
    number = group.get("memory_node", "")
    node = "" if number == "" else " on any memory node" if number is None else f" on memory node {number}"
    return f"group {group['group']}: {interfaces}: {workers}{node}"


_IN_WORDS: Mapping[str, Callable[[Any], str]] = {
    "strategy": lambda values: Strategy(**values).description,
    "groups": lambda groups: "\n".join(map(_group_in_words, groups)),
    "workers": lambda workers: f"{len(workers)} to begin with",
    "settings": lambda values: "\n".join(f"{name} {value}" for name, value in values.items()),
}
"""How to render each part of a plan that can change."""


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
