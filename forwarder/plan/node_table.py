"""What a plan puts on each memory node, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from forwarder.plan.host import cpu_list
from forwarder.plan.memory import FORWARDER, megabytes
from forwarder.plan.model import Plan


def node_table(plan: Plan) -> Table:
    """CPUs, interfaces, groups, workers and memory of each node; memory is of rings, rules and processes,
    by this forwarder's own figures."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("node", justify="right")
    table.add_column("CPUs", justify="right")
    table.add_column("interfaces")
    for name in ("groups", "workers", "rings", "rules and\nprocesses", "memory\nthere is"):
        table.add_column(name, justify="right")
    held = {partition.partition_id: len(partition.rule_ids) for partition in plan.partitions}
    for node in plan.nodes:
        workers = [worker for worker in plan.workers if worker.node == node.node]
        drawing = [worker for worker in plan.workers if worker.memory_node == node.node]
        rules = sum(held[worker.partition] for worker in drawing)
        own = len(drawing) * FORWARDER.process_bytes + rules * FORWARDER.rule_bytes
        table.add_row(
            str(node.node),
            str(node.cpus),
            runs_of_names(node.interfaces, "none"),
            cpu_list([worker.group for worker in workers]) or "none",
            f"{len(workers):,}",
            megabytes(sum(worker.ring_bytes for worker in drawing)),
            megabytes(own),
            "not known" if node.memory_bytes is None else megabytes(node.memory_bytes),
        )
    return table


def runs_of_names(names: Sequence[str], nothing: str = "those with rules") -> str:
    """All names where they are few, or the first, the last and their number."""
    if not names:
        return nothing
    return ",".join(names) if len(names) <= 3 else f"{names[0]}…{names[-1]} ({len(names)})"
