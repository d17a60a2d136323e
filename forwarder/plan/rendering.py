"""A plan as text for people, or as JSON."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from forwarder.plan.document import Documented, documented
from forwarder.plan.host import cpu_list
from forwarder.plan.memory import FORWARDER, megabytes, plural, span
from forwarder.plan.model import Figures, Plan

SCHEMA = "mcrd.plan/1"
WIDTH = 110


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """The plan in JSON's types (schema ``mcrd.plan/1``), with what the architecture document says of it."""
    stated, figures = documented(plan), plan.figures
    estimates = {
        name: estimate and {**asdict(estimate), "total_bytes": estimate.total_bytes}
        for name in ("modelled", "projected", "modelled_at_most")
        for estimate in [getattr(figures, name)]
    }
    documented_figures = {
        "documented": [asdict(row) for row in stated.rows],
        **estimates,
        "discrepancies": stated.discrepancies,
        "documented_bytes": stated.total_bytes,
    }
    return {"schema": SCHEMA, **asdict(plan), "figures": documented_figures}


def plan_as_text(plan: Plan, width: int = WIDTH) -> str:
    """The plan as tables, ``width`` columns wide, and sentences."""
    stated = documented(plan)
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(plan.strategy.description)
    console.print(
        f"{plural(len(plan.workers), 'worker')} on {plural(plan.cpus, 'CPU')}, "
        f"{plural(len(plan.interfaces), 'interface')}, {plural(plan.rules, 'rule')}"
    )
    console.print(_groups(plan))
    if len(plan.nodes) > 1:
        console.print(_nodes(plan))
    console.print(_figures(plan.figures, stated))
    if plan.movements:
        console.print(_movements(plan))
    for title, sentences in (
        ("Where the document differs", stated.discrepancies),
        ("Warnings", plan.warnings),
    ):
        if sentences:
            console.print(f"{title}:", *(f"- {sentence}" for sentence in sentences), "", sep="\n")
    assert isinstance(console.file, io.StringIO)
    lines = "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
    return lines.replace("\n\n\n", "\n\n").rstrip("\n")  # tables bring an empty line above and below


def aligned_table(*columns: str, left: Sequence[str] = ()) -> Table:
    """An empty table; columns are aligned right except those in ``left``."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right")
    return table


def _groups(plan: Plan) -> Table:
    several = len(plan.nodes) > 1
    table = aligned_table(
        *("group", "interfaces", "workers", "CPUs", *(("node",) if several else ())),
        *("fanout", "rules a worker", "sockets", "ring of each"),
        left=("interfaces", "fanout"),
    )
    sizes = {partition.partition_id: len(partition.rule_ids) for partition in plan.partitions}
    for group in plan.groups:
        workers = [worker for worker in plan.workers if worker.group == group.group_id]
        held = [sizes[worker.partition] for worker in workers]
        socket = workers[0].sockets[0] if group.interfaces else None
        rings = sorted({s.ring.ring_bytes for worker in workers for s in worker.sockets})
        most = f" to {group.max_workers}" if group.max_workers > group.workers else ""
        filtered = "filter" if socket and socket.filter else "none"
        fanout = socket.fanout.mode if socket and socket.fanout else filtered
        table.add_row(
            str(group.group_id),
            _names(group.interfaces),
            f"{group.workers}{most}",
            cpu_list([worker.cpu for worker in workers]).replace(",", ", "),  # can be wrapped
            *((cpu_list([worker.node for worker in workers]),) if several else ()),
            fanout,
            span(min(held), max(held)),
            f"{sum(len(worker.sockets) for worker in workers):,}",
            " / ".join(f"{size // 1024:,} KiB" for size in rings),
        )
    return table


def _nodes(plan: Plan) -> Table:
    """What each memory node has and serves; memory is this forwarder's own estimate."""
    table = aligned_table(
        *("node", "CPUs", "interfaces", "groups", "workers", "rings"),
        *("rules and\nprocesses", "memory\nthere is"),
        left=("interfaces",),
    )
    held = {partition.partition_id: len(partition.rule_ids) for partition in plan.partitions}
    for node in plan.nodes:
        workers = [worker for worker in plan.workers if worker.node == node.node]
        allocating = [worker for worker in plan.workers if worker.memory_node == node.node]
        rules = sum(held[worker.partition] for worker in allocating)
        own = len(allocating) * FORWARDER.process_bytes + rules * FORWARDER.rule_bytes
        table.add_row(
            str(node.node),
            str(node.cpus),
            _names(node.interfaces, "none"),
            cpu_list([worker.group for worker in workers]) or "none",
            f"{len(workers):,}",
            megabytes(sum(worker.ring_bytes for worker in allocating)),
            megabytes(own),
            "not known" if node.memory_bytes is None else megabytes(node.memory_bytes),
        )
    return table


def _movements(plan: Plan) -> Table:
    """How evenly rules are hashed, and how many move when a group gets one worker more or less."""
    moved = (f"moved by one\nmore, less,\n{name}" for name in ("rendezvous", "modulo"))
    table = aligned_table("group", "rules", "workers", "fullest / mean", *moved)
    for m in plan.movements:
        pairs = ((m.moved_rendezvous, m.moved_rendezvous_less), (m.moved_modulo, m.moved_modulo_less))
        cells = (f"{more:,}, {'–' if less is None else f'{less:,}'}" for more, less in pairs)
        table.add_row(str(m.group_id), f"{m.rules:,}", str(m.members), f"{m.imbalance:.2f}", *cells)
    return table


def _figures(figures: Figures, stated: Documented) -> Table:
    """What the document states beside the estimates, a column each."""
    estimates = {"modelled": figures.modelled}
    if figures.modelled_at_most:
        estimates["modelled,\nall groups full"] = figures.modelled_at_most
    estimates["projected"] = figures.projected
    table = aligned_table("", *(f"documented\n{row.source}" for row in stated.rows), *estimates, left=("",))

    def add(label: str, cells: Iterable[str], documented: Iterable[str] = ()) -> None:
        table.add_row(label, *(documented or [""] * len(stated.rows)), *cells)

    def count(number: int | None) -> str:
        return "" if number is None else f"{number:,}"

    every, rows = estimates.values(), stated.rows
    add("workers", [count(one.workers) for one in every], [count(row.workers) for row in rows])
    rules = [span(one.rules_least, one.rules_most) for one in every]
    add("rules a worker", rules, [count(row.rules_per_worker) for row in rows])
    add("rules", [megabytes(one.rules_bytes) for one in every])
    add("processes", [megabytes(one.process_bytes) for one in every])
    add("receive rings", [megabytes(one.ring_bytes) if one is figures.projected else "" for one in every])
    totals = ["" if row.total_bytes is None else megabytes(row.total_bytes) for row in rows]
    add("total memory", [megabytes(one.total_bytes) for one in every], totals)
    return table


def _names(names: Sequence[str], nothing: str = "those with rules") -> str:
    """All names if they are few, otherwise the first, the last and their number."""
    if not names:
        return nothing
    return ",".join(names) if len(names) <= 3 else f"{names[0]}…{names[-1]} ({len(names)})"
