"""``mcrd plan``: shows what ``mcrd supervisor`` would start, and touches nothing.

It takes the supervisor's options, and a few that describe a machine or rules that are not there.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from pydantic import Field
from rich import box
from rich.console import Console
from rich.table import Table

from forwarder.config.arguments import takes_options
from forwarder.config.options import SELECTION, Count, SupervisorOptions, Whole, option, resolve
from forwarder.plan.detect import Proposal, as_toml, propose
from forwarder.plan.host import Host, cpu_list, described_host, read_host
from forwarder.plan.host_file import as_text, load_host
from forwarder.plan.memory import DOCUMENT, Assumptions, Estimate, counted, megabytes
from forwarder.plan.node_table import node_table, runs_of_names
from forwarder.plan.planner import Plan, Sizing
from forwarder.rules.model import ForwardingRule, Output

SCHEMA = "mcrd.plan/1"
WIDTH = 110
_FIRST_INPUT_GROUP = int(IPv4Address("239.0.0.0"))
_FIRST_OUTPUT_GROUP = int(IPv4Address("239.128.0.0"))


class PlanOptions(SupervisorOptions):
    """The supervisor's options, and a machine or rules to suppose."""

    exclusive: ClassVar = (
        *SupervisorOptions.exclusive,
        ("rules", "rules_count"),
        ("host", "cpus"),
        *(("detect", name) for name in (*SELECTION, "strategy")),
    )

    detect: bool = option(
        False, "", "true or false", "Propose interfaces and strategy for this machine and these rules."
    )

    host: Path | None = option(
        None,
        "FILE",
        "a JSON file of schema mcrd.host/1",
        "Plan for the machine in FILE, which `mcrd host` writes. Left out: this machine.",
    )
    cpus: Count | None = option(
        None, "N", "an integer from 1 to 4,096", "Suppose N CPUs. Left out: this machine's."
    )
    interface_count: Annotated[Whole, Field(ge=1, le=4096)] | None = option(
        None,
        "N",
        "an integer from 1 to 4,096",
        "Suppose N interfaces, eth0 and so on, spread over the memory nodes, instead of naming them.",
    )
    rules_count: Annotated[Whole, Field(ge=0, le=1_000_000)] | None = option(
        None, "N", "an integer from 0 to 1,000,000", "Suppose N rules, spread evenly over the interfaces."
    )
    rule_size: Annotated[Whole, Field(ge=1)] = option(
        DOCUMENT.rule_bytes, "BYTES", "an integer from 1", "Bytes of a rule, for the modelled figures."
    )
    process_overhead: Annotated[Whole, Field(ge=0)] = option(
        DOCUMENT.process_bytes, "BYTES", "an integer from 0", "Bytes of a process, for the modelled figures."
    )

    @property
    def complete(self) -> bool:
        return not self.detect

    @property
    def own_problems(self) -> Sequence[tuple[str, str]]:
        if self.rules_count and not (self.detect or self.input_interfaces):
            return [("rules_count", "with interfaces that these rules are for, named or counted")]
        return ()

    @property
    def input_interfaces(self) -> tuple[str, ...]:
        if self.interface_count is not None:
            return tuple(f"eth{number}" for number in range(self.interface_count))
        return super().input_interfaces

    @property
    def sizing(self) -> Sizing:
        return replace(super().sizing, assumptions=Assumptions(self.rule_size, self.process_overhead))


def this_host(sysfs: Path = Path("/sys")) -> Host:
    """This machine, with the CPUs that this process may run on."""
    return read_host(sysfs, os.sched_getaffinity(0))


def described_rules(count: int, interfaces: Sequence[str]) -> list[ForwardingRule]:
    """``count`` rules of one output each, over ``interfaces`` in turn, that go together."""
    rules = []
    for number in range(count):
        group, port = number >> 4, 5000 + (number & 15)
        output = Output.model_construct(
            group=IPv4Address(_FIRST_OUTPUT_GROUP + group), port=port, interface="out0"
        )
        rules.append(
            ForwardingRule.model_construct(
                rule_id=f"rule-{number}",
                input_interface=interfaces[number % len(interfaces)],
                input_group=IPv4Address(_FIRST_INPUT_GROUP + group),
                input_port=port,
                outputs=(output,),
            )
        )
    return rules


@takes_options(PlanOptions)
def plan_command(
    options: PlanOptions,
    rules: Sequence[ForwardingRule],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole plan as JSON.")] = False,
) -> None:
    """Show the workers, sockets, CPUs and memory that the same options of `supervisor` would take."""
    proposal = None
    if options.detect:
        proposal = propose(supposed_host(options), rules)
        options = options.model_copy(update=proposal.options)
    # A file or a pipe gets tables at full width.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    typer.echo(render(make_plan(options, rules), as_json, width, proposal))


def make_plan(options: PlanOptions, rules: Sequence[ForwardingRule], sysfs: Path = Path("/sys")) -> Plan:
    """The plan for this machine, or for the one that ``options`` suppose."""
    if options.rules_count is not None:
        rules = described_rules(options.rules_count, options.input_interfaces)
    return resolve(options, supposed_host(options, sysfs), rules)


def supposed_host(options: PlanOptions, sysfs: Path = Path("/sys")) -> Host:
    """This machine, or the one that ``options`` suppose."""
    names, cpus = options.input_interfaces, options.cpus
    if options.host is not None:
        host = load_host(options.host)
        return host if options.interface_count is None else host.with_interfaces(names)
    if options.interface_count is not None:
        return described_host(cpus, names) if cpus else this_host(sysfs).with_interfaces(names)
    host = this_host(sysfs)
    return host.with_cpus(cpus) if cpus else host


def host_command(
    source: Annotated[
        str | None, typer.Option("--source", metavar="TEXT", help="What machine this is, for readers.")
    ] = None,
) -> None:
    """Print this machine's CPUs, memory nodes and interfaces, as `plan --host FILE` takes them elsewhere."""
    typer.echo(as_text(read_host(), source), nl=False)


def plan_as_dict(plan: Plan) -> dict[str, Any]:
    """The plan in JSON's types (schema ``mcrd.plan/1``): its fields, and the totals of its estimates."""
    document: dict[str, Any] = {"schema": SCHEMA, **asdict(plan)}
    figures = document["figures"]
    for name in ("modelled", "projected", "modelled_at_most"):
        estimate: Estimate | None = getattr(plan.figures, name)
        if estimate:
            figures[name]["total_bytes"] = estimate.total_bytes
    figures["documented_bytes"] = plan.figures.documented_bytes
    return document


def render(plan: Plan, as_json: bool = False, width: int = WIDTH, proposal: Proposal | None = None) -> str:
    """The plan for people, ``width`` columns wide, or as one JSON document; with what led to it."""
    if as_json:
        document = plan_as_dict(plan)
        if proposal:
            document["proposal"] = asdict(proposal)
        return json.dumps(document, indent=2)
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    if proposal:
        for reason in proposal.reasons:
            console.print(f"- {reason}")
        console.print(f"\n# mcrd.toml\n{as_toml(proposal.options)}\n", soft_wrap=True)
    console.print(plan.strategy.words)
    console.print(
        f"{counted(len(plan.workers), 'worker')} on {counted(plan.cpus, 'CPU')}, "
        f"{counted(len(plan.interfaces), 'interface')}, {counted(plan.rules, 'rule')}"
    )
    console.print(_groups(plan))
    if len(plan.nodes) > 1:
        console.print(node_table(plan))
    console.print(_figures(plan))
    if plan.movements:
        console.print(_movements(plan))
    for title, sentences in (
        ("Where the document differs", plan.figures.discrepancies),
        ("Warnings", plan.warnings),
    ):
        if sentences:
            console.print(f"{title}:")
            for sentence in sentences:
                console.print(f"- {sentence}")
            console.print()
    assert isinstance(console.file, io.StringIO)
    lines = "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
    return lines.replace("\n\n\n", "\n\n").rstrip("\n")  # tables bring an empty line above and below


def _groups(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("group", justify="right")
    table.add_column("interfaces")
    several = len(plan.nodes) > 1
    for name in ("workers", "CPUs", *(("node",) if several else ())):
        table.add_column(name, justify="right")
    table.add_column("fanout")
    for name in ("rules a worker", "sockets", "ring of each"):
        table.add_column(name, justify="right")
    sizes = {partition.partition_id: len(partition.rule_ids) for partition in plan.partitions}
    for group in plan.groups:
        workers = [worker for worker in plan.workers if worker.group == group.group_id]
        held = [sizes[worker.partition] for worker in workers]
        socket = workers[0].sockets[0] if group.interfaces else None
        rings = sorted({s.ring.ring_bytes for worker in workers for s in worker.sockets})
        most = f" to {group.max_workers}" if group.max_workers > group.workers else ""
        fanout = "none"
        if socket:
            fanout = socket.fanout.mode if socket.fanout else "filter" if socket.filter else "none"
        table.add_row(
            str(group.group_id),
            runs_of_names(group.interfaces),
            f"{group.workers}{most}",
            cpu_list([worker.cpu for worker in workers]).replace(",", ", "),  # can be wrapped
            *((cpu_list([worker.node for worker in workers]),) if several else ()),
            fanout,
            _span(min(held), max(held)),
            f"{sum(len(worker.sockets) for worker in workers):,}",
            " / ".join(f"{size // 1024:,} KiB" for size in rings),
        )
    return table


def _movements(plan: Plan) -> Table:
    """How evenly rules are hashed, and what one worker more, or less, would move."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("group", "rules", "workers", "fullest / mean"):
        table.add_column(name, justify="right")
    for name in ("rendezvous", "modulo"):
        table.add_column(f"moved by one\nmore, less,\n{name}", justify="right")
    for m in plan.movements:
        moved = [
            f"{more:,}, {'–' if less is None else f'{less:,}'}"
            for more, less in (
                (m.moved_rendezvous, m.moved_rendezvous_less),
                (m.moved_modulo, m.moved_modulo_less),
            )
        ]
        table.add_row(str(m.group_id), f"{m.rules:,}", str(m.members), f"{m.imbalance:.2f}", *moved)
    return table


def _figures(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    figures = plan.figures
    for row in figures.documented:
        table.add_column(f"documented\n{row.source}", justify="right")
    estimates = {"modelled": figures.modelled}
    if figures.modelled_at_most:
        estimates["modelled,\nall groups full"] = figures.modelled_at_most
    estimates["projected"] = figures.projected
    for name in estimates:
        table.add_column(name, justify="right")

    def add(label: str, documented: Sequence[str | None], cells: Mapping[str, str]) -> None:
        table.add_row(label, *(cell or "" for cell in documented), *cells.values())

    rows = figures.documented
    stated = [f"{row.workers:,}" if row.workers is not None else None for row in rows]
    add("workers", stated, {name: f"{e.workers:,}" for name, e in estimates.items()})
    stated = [f"{row.rules_per_worker:,}" if row.rules_per_worker is not None else None for row in rows]
    add("rules a worker", stated, {n: _span(e.rules_least, e.rules_most) for n, e in estimates.items()})
    unstated = [None] * len(rows)
    add("rules", unstated, {name: megabytes(e.rules_bytes) for name, e in estimates.items()})
    add("processes", unstated, {name: megabytes(e.process_bytes) for name, e in estimates.items()})
    add(
        "receive rings",
        unstated,
        {n: megabytes(e.ring_bytes) if n == "projected" else "" for n, e in estimates.items()},
    )
    stated = [megabytes(row.total_bytes) if row.total_bytes is not None else None for row in rows]
    add("total memory", stated, {name: megabytes(e.total_bytes) for name, e in estimates.items()})
    return table


def _span(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
