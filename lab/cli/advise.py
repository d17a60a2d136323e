"""``mcastlab model`` and ``mcastlab advise``: a capacity model from runs, and advice from a model.

Advice needs no root and imports no numerical library, so it answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.terminal import BadInputError, JsonOption, Results, option, print_json, say, writing
from reports import quantity

if TYPE_CHECKING:
    from lab.cli.advice import Advice
    from reports.capacity.model import CapacityModel
    from reports.capacity.rank import Row

SCHEMA = "mcastlab.advice/1"
MB = 1_000_000
SHOWN = 5
"""Strategies that the text output lists; --json has all."""


def model_command(
    results: Results,
    out_file: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Where to write it (JSON).")],
    as_json: JsonOption = False,
) -> None:
    """Fit a capacity model to runs on one machine, for `advise --model`.

    The model says what a datagram and a copy cost, what another CPU adds, and how much memory workers take.
    Run `mcastlab run capacity pipelines` to get the measurements. As a test, each case is predicted from the
    others alone; the errors are printed and kept in the file.
    """
    from reports.capacity.fit.model import fit
    from reports.capacity.fit.regression import FitError
    from reports.capacity.model import dump_model
    from reports.dataset import load

    runs = [load(path) for path in results]
    try:
        model = fit(runs)
    except FitError as error:
        raise BadInputError(f"{', '.join(map(str, results))}: {error}") from error
    with writing(out_file):
        out_file.write_text(dump_model(model), encoding="utf-8")
    if as_json:
        held = [
            {
                "what": each.what,
                "cases": len(each.cases),
                "median_error": each.median_error,
                "within": each.within,
            }
            for each in model.held_out
        ]
        print_json({"model": str(out_file), "provenance": model.provenance, "held_out": held})
        return
    say(f"{out_file}: {model.provenance}")
    for each in model.held_out:
        say(
            f"held out, {each.what}: off by {each.median_error:.1%} (median of {len(each.cases)} cases), "
            f"{each.within} within their intervals"
        )
    say(model.scaling.why)


def advise_command(
    interfaces: Annotated[
        str | None,
        option("Input interfaces. Default: 1, or with --host the machine's cards that are up.", "N"),
    ] = None,
    rate_dps: Annotated[str | None, option("Datagrams/s that arrive, over all interfaces.", "DPS")] = None,
    gbps: Annotated[
        str | None, option("The same as Gbit/s on Ethernet, headers and gaps included.", "GBPS")
    ] = None,
    payload_bytes: Annotated[str | None, option("UDP payload of a datagram.", "BYTES")] = None,
    outputs: Annotated[str, option("Copies of each datagram.", "N")] = "1",
    rules: Annotated[str, option("Rules, over all interfaces.", "N")] = "1000",
    flows: Annotated[
        str | None, option("Flows that send at the same time. Default: one for each rule.", "N")
    ] = None,
    cpus: Annotated[str | None, option("CPUs for workers. Default: this machine's.", "N")] = None,
    numa_nodes: Annotated[
        str | None,
        option("Memory nodes, each with its share of the interfaces and CPUs, in order. Default: 1.", "N"),
    ] = None,
    host_file: Annotated[
        Path | None,
        typer.Option("--host", metavar="FILE", help="Advise on the machine that `mcrd host` wrote to FILE."),
    ] = None,
    skip_host_stack: Annotated[
        bool, typer.Option("--skip-host-stack", help="Assume this option of `mcrd supervisor`.")
    ] = False,
    model: Annotated[Path | None, option("A model from `mcastlab model`. Default: ours.", "FILE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend a strategy for a machine and a load: workers, memory, zero-loss rate, and how certain it is.

    The machine may be far larger than this one; nothing is measured and no root is needed. Each predicted
    rate has a 95 % interval, and says whether it is measured, interpolated or extrapolated. Each strategy
    comes with its command line.
    """
    from forwarder.plan.host_file import load_host
    from forwarder.problems import flag
    from lab.cli.advice import advise
    from lab.cli.workload import workload_from
    from reports.capacity.model import SHIPPED, ModelError, read_model
    from reports.capacity.predict import UnknownError

    given: dict[str, Any] = {  # text: all are validated together, so that all errors are reported at once
        "interfaces": interfaces,
        "rate_dps": rate_dps,
        "gbps": gbps,
        "payload_bytes": payload_bytes,
        "outputs": outputs,
        "rules": rules,
        "flows": flows,
        "cpus": cpus,
        "numa_nodes": numa_nodes,
        "skip_host_stack": skip_host_stack,
    }
    host = None if host_file is None else load_host(host_file)
    if host is None:
        if cpus is None:
            given["cpus"] = len(os.sched_getaffinity(0))
    else:
        for name, found in (("cpus", host.cpus), ("numa_nodes", host.nodes)):
            if given[name] is not None:
                raise BadInputError(f"{flag(name)} {given[name]}: leave it out, as --host has it")
            given[name] = len(found)
        if interfaces is None:
            if not host.cards:
                allowed = "a machine with a network card that is up, or --interfaces N beside it"
                raise BadInputError(f"--host: {host_file}; allowed: {allowed}")
            given |= {"interfaces": len(host.cards), "interface_names": host.cards}
    workload = workload_from({name: value for name, value in given.items() if value is not None})
    path = model or SHIPPED
    try:
        known = read_model(path)
        if host is not None and not workload.interface_names:
            host = host.with_interfaces(workload.names)
        advice = advise(workload, known, host)
    except (ModelError, UnknownError) as error:
        raise BadInputError(f"--model {error}") from error
    if as_json:
        print_json(as_document(advice, known, path))
        return
    for line in lines(advice, known, path):
        say(line)


def as_document(advice: Advice, model: CapacityModel, path: Path) -> dict[str, Any]:
    """The advice in JSON's types."""
    return {
        "schema": SCHEMA,
        "model": {"path": str(path), "provenance": model.provenance},
        "demand": {**advice.workload.model_dump(), "dps": advice.workload.dps},
        "met": advice.met,
        "conclusion": list(advice.conclusion),
        "strategies": [{**asdict(row), "command": row.candidate.command} for row in advice.rows],
    }


def lines(advice: Advice, model: CapacityModel, path: Path) -> list[str]:
    """The advice as text: the best strategies, and below them what their predictions rest on."""
    asked, plural = advice.workload, quantity.plural
    counts = (
        *((asked.outputs, "output"), (asked.interfaces, "interface"), (asked.rules, "rule")),
        *((asked.flow_count, "flow"), (asked.cpus, "CPU")),
    )
    load = ", ".join(plural(count, what) for count, what in counts)
    rate = f"{asked.dps:,.0f} datagrams/s of {asked.payload_bytes:,} B"
    found = [f"{rate} to {load} in {plural(asked.numa_nodes, 'memory node')}.", *advice.conclusion]
    reasons: list[str] = []
    for place, row in enumerate(advice.rows[:SHOWN], start=1):
        found += ["", *_row(place, row, reasons)]
    if (rest := len(advice.rows) - SHOWN) > 0:
        found += ["", f"{plural(rest, 'more strategy', 'more strategies')}: --json has them."]
    if reasons:
        found += ["", "What extrapolations rest on:"]
        found += [f"[{number}] {reason}" for number, reason in enumerate(reasons, start=1)]
    trust = (
        f"Error in cases that were left out of the fit, {each.what}: median {each.median_error:.0%}, worst "
        f"{each.errors[-1]:.0%}; {each.within} of {len(each.cases)} within their intervals."
        for each in model.held_out
    )
    return [*found, "", f"Model {path}: {model.provenance}.", *trust]


def _row(place: int, row: Row, reasons: list[str]) -> Iterator[str]:
    rate, needs, it = row.zero_loss_dps, row.memory, row.candidate
    plural = quantity.plural
    most = f" to {it.workers_most:,}" if it.workers_most > it.workers else ""
    groups = f"{it.groups:,} groups, " if it.groups > 1 else ""
    kernel = f" + kernel {needs.kernel.value / MB:,.0f}" if needs.kernel else ""
    shared = f"shared {needs.shared.value / MB:,.0f} + " if needs.shared else ""
    for reason in (*rate.reasons, *(row.latency.p50.reasons if row.latency else ())):
        if reason not in reasons:
            reasons.append(reason)
    basis = " ".join([rate.basis, *(f"[{reasons.index(reason) + 1}]" for reason in rate.reasons)])
    workers = f"{it.workers:,}{most} {'worker' if it.workers_most == 1 else 'workers'}"
    parts = f"processes {needs.processes.value / MB:,.0f} + rules {needs.rules.value / MB:,.0f}"
    parts = f"{shared}{parts} + rings {needs.rings_bytes / MB:,.0f}{kernel}"
    yield f"{place}. {it.strategy}: {row.verdict}; {groups}{workers} on {plural(it.machine.cpus, 'CPU')}"
    found, low, high = map(quantity.predicted, (rate.value, rate.low, rate.high))
    interval = f"{found} ({low} to {high}) datagrams/s, {basis}"
    yield f"   rate without loss {interval}; headroom {row.headroom:+.0%}"
    yield f"   memory {needs.everything / MB:,.0f} MB: {parts} ({needs.total.basis})"
    if row.latency is not None:
        p50, p99 = row.latency.p50, row.latency.p99
        shown = " / ".join(f"{quantity.microseconds(each.value)}" for each in (p50, p99))
        yield f"   latency p50 / p99 {shown} µs, {p50.basis}"
    if it.why:
        yield f"   {'; '.join(it.why)}"
    yield f"   $ {it.command}"
