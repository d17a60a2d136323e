"""``mcrd supervisor | plan | host``."""

import asyncio
import gc
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from forwarder.config.arguments import exit_on_full_disk, takes_options
from forwarder.config.detect import propose
from forwarder.config.options import SupervisorOptions
from forwarder.config.plan_options import PlanOptions, make_plan, this_host
from forwarder.plan.engine import early_drop_text, no_early_drop
from forwarder.plan.host import HostError, read_host
from forwarder.plan.host_file import as_text
from forwarder.plan.rendering import WIDTH, plan_as_json, plan_as_text
from forwarder.rules.model import ForwardingRule

app = typer.Typer(
    help="A multicast forwarder: receives UDP multicast at layer 2 and sends copies on, as its rules say.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("supervisor")
@takes_options(SupervisorOptions)
def supervisor(
    options: SupervisorOptions,
    rules: Sequence[ForwardingRule],
    as_json: Annotated[bool, typer.Option("--json", help="Print the final statistics as JSON.")] = False,
) -> None:
    """Run the forwarder until SIGTERM, SIGINT or `mcrctl shutdown`, then print its final statistics."""
    # Imported here, so that `mcrd plan` and every --help answer without loading the compiler.
    from forwarder.cli.daemon import run
    from forwarder.control.rendering import summary

    try:
        statistics = asyncio.run(run(options, this_host, rules))
    except (OSError, HostError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps(statistics) if as_json else summary(statistics))


@app.command("plan")
@takes_options(PlanOptions)
def plan_command(
    options: PlanOptions,
    rules: Sequence[ForwardingRule],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole plan as JSON.")] = False,
) -> None:
    """Show the workers, sockets, CPUs and memory that `supervisor` would use with the same options."""
    proposal = None
    if options.detect:
        proposal = propose(options.machine(), rules)
        options = options.model_copy(update=proposal.options)
    plan = make_plan(options, rules)
    if as_json:
        document = plan_as_json(plan)
        document["no_early_drop"] = no_early_drop(plan, options.engine)
        if proposal:
            document["proposal"] = asdict(proposal)
        typer.echo(json.dumps(document, indent=2))
        return
    if proposal:
        typer.echo(proposal.text())
    # A file or a pipe gets tables at full width.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    typer.echo(plan_as_text(plan, width))
    typer.echo(early_drop_text(plan, options.engine, options.early_drop))


@app.command("host")
def host_command(
    source: Annotated[
        str | None, typer.Option("--source", metavar="TEXT", help="A name for this machine, for readers.")
    ] = None,
) -> None:
    """Print this machine's CPUs, memory nodes and interfaces, as a file for `plan --host` elsewhere."""
    typer.echo(as_text(read_host(), source), nl=False)


def main() -> None:
    gc.disable()  # what is loaded stays; a supervisor enables it when that is frozen
    with exit_on_full_disk():
        app()
