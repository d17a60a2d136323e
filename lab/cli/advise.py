"""``mcastlab model`` and ``mcastlab advise``: a model from runs, and what it says of a machine.

Nothing numerical is imported to give advice, and no root is needed: it answers at once, anywhere.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.terminal import BadInputError, out, print_json, writing
from reports import quantity

if TYPE_CHECKING:
    from lab.cli.advice import Advice
    from reports.capacity.law import Prediction
    from reports.capacity.model import CapacityModel
    from reports.capacity.rank import Row

SCHEMA = "mcastlab.advice/1"
MB = 1_000_000
SHOWN = 5
"""Strategies that people are shown."""
LATENCY = "Latency is not predicted: `mcastlab run fanout-throughput` measures it on a machine."
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


def _text(metavar: str, help_text: str) -> Any:
    """Taken as text and validated with the others, so that all errors come at once."""
    return typer.Option(metavar=metavar, help=help_text)


def model_command(
    results: Annotated[list[Path], typer.Argument(help="Runs' directories, or their results.jsonl.")],
    out_file: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Where to write it (JSON).")],
    as_json: JsonOption = False,
) -> None:
    """Fit the capacity model to runs of one machine: what datagrams cost, what workers hold.

    `mcastlab run capacity` makes the measurements. Every case is then predicted from the others alone;
    how far that was off is printed, and kept in the file.
    """
    from reports.capacity.fit.model import fit
    from reports.capacity.fit.regression import FitError
    from reports.capacity.fit.samples import Run
    from reports.capacity.model import dump_model
    from reports.dataset import load

    runs = [Run(data.run, data.trials, data.zero_losses, data.footprints) for data in map(load, results)]
    try:
        model = fit(runs)
    except FitError as error:
        raise BadInputError(f"{', '.join(map(str, results))}: {error}") from error
    with writing(out_file):
        out_file.write_text(dump_model(model), encoding="utf-8")
    if as_json:
        held = [
            {"what": each.what, "cases": len(each.cases), "median_error": each.median_error}
            for each in model.held_out
        ]
        print_json({"model": str(out_file), "provenance": model.provenance, "held_out": held})
        return
    _say(f"{out_file}: {model.provenance}")
    for each in model.held_out:
        _say(f"held out, {each.what}: off by {each.median_error:.1%} (median of {len(each.cases)} cases)")
    _say(model.scaling.why)


def advise_command(
    interfaces: Annotated[
        str | None,
        _text("N", "Input interfaces. Left out: 1, or the cards of --host that are up."),
    ] = None,
    rate_dps: Annotated[str | None, _text("DPS", "Datagrams/s that arrive, all interfaces together.")] = None,
    gbps: Annotated[str | None, _text("GBPS", "The same in Gbit/s on Ethernet, all of it counted.")] = None,
    payload_bytes: Annotated[str | None, _text("BYTES", "UDP payload of a datagram.")] = None,
    outputs: Annotated[str, _text("N", "Copies of each datagram.")] = "1",
    rules: Annotated[str, _text("N", "Rules of all interfaces together.")] = "1000",
    flows: Annotated[
        str | None, _text("N", "Flows that send at a time. Left out: one for each rule.")
    ] = None,
    cpus: Annotated[str | None, _text("N", "CPUs for workers. Left out: this machine's.")] = None,
    numa_nodes: Annotated[
        str | None, _text("N", "Memory nodes; interfaces and CPUs are spread over them in runs. Left out: 1.")
    ] = None,
    host_file: Annotated[
        Path | None,
        typer.Option("--host", metavar="FILE", help="The machine in FILE, which `mcrd host` writes."),
    ] = None,
    skip_host_stack: Annotated[
        bool, typer.Option("--skip-host-stack", help="With this option of `mcrd supervisor`.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FILE", help="Left out: the one that is shipped.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which strategy serves a machine and a load: workers, memory, zero-loss rate, how sure.

    Works for machines far larger than this one, needs no root, touches nothing. Each rate has an interval of
    95 % and what it rests on: measured, interpolated or extrapolated. Each row has its command line.
    """
    from forwarder.plan.host_file import load_host
    from forwarder.problems import flag
    from lab.cli.advice import advise
    from lab.cli.workload import demand
    from reports.capacity.model import SHIPPED, ModelError, read_model
    from reports.capacity.predict import UnknownError

    given: dict[str, Any] = {
        "interfaces": interfaces,
        "rate_dps": rate_dps,
        "gbps": gbps,
        "payload_bytes": payload_bytes,
        "outputs": outputs,
        "rules": rules,
        "flows": flows,
        "cpus": cpus,
        "numa_nodes": numa_nodes,
    }
    host = None if host_file is None else load_host(host_file)
    if host is None:
        if cpus is None:
            given["cpus"] = len(os.sched_getaffinity(0))
    else:
        for name in ("cpus", "numa_nodes"):
            if given[name] is not None:
                raise BadInputError(f"{flag(name)} {given[name]}: left out, as --host has them")
        given |= {"cpus": len(host.cpus), "numa_nodes": len(host.nodes)}
        if interfaces is None:
            if not host.cards:
                allowed = "a machine with a network card that is up, or --interfaces N beside it"
                raise BadInputError(f"--host: {host_file}; allowed: {allowed}")
            given["interfaces"] = len(host.cards)
            given["interface_names"] = host.cards
    asked = demand(
        {**{name: value for name, value in given.items() if value is not None},
         "skip_host_stack": skip_host_stack}
    )  # fmt: skip
    path = model or SHIPPED
    try:
        known = read_model(path)
        if host is not None and not asked.interface_names:
            host = host.with_interfaces(asked.names)
        advice = advise(asked, known, host)
    except (ModelError, UnknownError) as error:
        raise BadInputError(f"--model {error}") from error
    if as_json:
        print_json(as_document(advice, known, path))
        return
    for line in lines(advice, known, path):
        _say(line)


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def as_document(advice: Advice, model: CapacityModel, path: Path) -> dict[str, Any]:
    """The advice in JSON's types (schema ``mcastlab.advice/1``)."""
    return {
        "schema": SCHEMA,
        "model": {"path": str(path), "provenance": model.provenance},
        "demand": {**advice.demand.model_dump(), "dps": advice.demand.dps},
        "met": advice.met,
        "conclusion": list(advice.conclusion),
        "strategies": [{**asdict(row), "command": row.candidate.command} for row in advice.rows],
    }


def lines(advice: Advice, model: CapacityModel, path: Path) -> list[str]:
    """The advice for people: the best strategies, with what each rate rests on told once."""
    asked = advice.demand
    plural = quantity.plural
    found = [
        (
            f"{asked.dps:,.0f} datagrams/s of {asked.payload_bytes:,} B to {plural(asked.outputs, 'output')},"
            f" {plural(asked.interfaces, 'interface')}, {plural(asked.rules, 'rule')}, "
            f"{plural(asked.flow_count, 'flow')}, {plural(asked.cpus, 'CPU')} in "
            f"{plural(asked.numa_nodes, 'memory node')}."
        ),
        *advice.conclusion,
    ]
    reasons: list[str] = []
    for place, row in enumerate(advice.rows[:SHOWN], start=1):
        found += ["", *_row(place, row, reasons)]
    if (rest := len(advice.rows) - SHOWN) > 0:
        found += ["", f"{plural(rest, 'more strategy', 'more strategies')}: --json has them."]
    if reasons:
        found += ["", "What extrapolations rest on:"]
        found += [f"[{number}] {reason}" for number, reason in enumerate(reasons, start=1)]
    return [*found, "", f"Model {path}: {model.provenance}.", *_trust(model), LATENCY]


def _row(place: int, row: Row, reasons: list[str]) -> list[str]:
    rate, needs, it = row.zero_loss_dps, row.memory, row.candidate
    plural = quantity.plural
    most = f" to {it.workers_most:,}" if it.workers_most > it.workers else ""
    groups = f"{it.groups:,} groups, " if it.groups > 1 else ""
    kernel = f" + kernel {needs.kernel.value / MB:,.0f}" if needs.kernel else ""
    shared = f"shared {needs.shared.value / MB:,.0f} + " if needs.shared else ""
    for reason in rate.reasons:
        if reason not in reasons:
            reasons.append(reason)
    cited = " ".join(f"[{reasons.index(reason) + 1}]" for reason in rate.reasons)
    texts = [
        (
            f"{place}. {it.strategy}: {row.verdict}; {groups}{it.workers:,}{most} "
            f"{'worker' if it.workers_most == 1 else 'workers'} on {plural(it.machine.cpus, 'CPU')}"
        ),
        (
            f"   rate without loss {_interval(rate)} datagrams/s, {rate.basis}{' ' + cited if cited else ''};"
            f" headroom {row.headroom:+.0%}"
        ),
        (
            f"   memory {needs.everything / MB:,.0f} MB: {shared}"
            f"processes {needs.processes.value / MB:,.0f} + rules {needs.rules.value / MB:,.0f} + "
            f"rings {needs.rings_bytes / MB:,.0f}{kernel} "
            f"({needs.total.basis})"
        ),
    ]
    if it.why:
        texts.append(f"   {'; '.join(it.why)}")
    return [*texts, f"   $ {it.command}"]


def _interval(found: Prediction) -> str:
    rounded = quantity.predicted
    return f"{rounded(found.value)} ({rounded(found.low)} to {rounded(found.high)})"


def _trust(model: CapacityModel) -> list[str]:
    return [
        f"Of cases that it had not seen it was off by {each.median_error:.0%} ({each.what}, median of "
        f"{len(each.cases)}; {each.errors[-1]:.0%} the worst; {each.within} were within their intervals)."
        for each in model.held_out
    ]
