"""``mcrctl``: one command for each request that a supervisor takes, and ``top``."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from forwarder.config.arguments import exit_on_full_disk, refuse
from forwarder.config.files import read_config, read_options
from forwarder.config.options import DEFAULT_CONTROL_SOCKET, SupervisorOptions
from forwarder.control import client, rendering, top
from forwarder.problems import Problem, ProblemsError, flag
from forwarder.rules.notation import parse_outputs

app = typer.Typer(
    help="Control a running mcrd supervisor.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SocketPath = Annotated[
    Path, typer.Option("--socket-path", metavar="PATH", help="The supervisor's control socket.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the reply as JSON.")]
_Render = Callable[[Any], object]


@app.callback()
def _connection(context: typer.Context, socket_path: SocketPath = DEFAULT_CONTROL_SOCKET) -> None:
    context.obj = socket_path


def _perform(context: typer.Context, command: str, as_json: bool, render: _Render, **fields: Any) -> None:
    with _reporting_errors():
        _print(client.request(context.obj, command, **fields), as_json, render)


def _print(result: Any, as_json: bool, render: _Render) -> None:
    if as_json:
        typer.echo(json.dumps(result))
        return
    console = Console(soft_wrap=True)
    if not console.is_terminal:  # a file or a pipe gets tables at full width
        console = Console(soft_wrap=True, width=top.COLUMNS)
    console.print(render(result))


@contextmanager
def _reporting_errors(written: Callable[[str], str] = str) -> Iterator[None]:
    """Exit status 2 when the supervisor refuses (fields as ``written``), 1 when it cannot be reached."""
    try:
        yield
    except client.RefusedError as error:
        refuse(ProblemsError(replace(problem, field=written(problem.field)) for problem in error.problems))
    except client.UnreachableError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def add(
    context: typer.Context,
    input_interface: Annotated[str, typer.Option(metavar="IF", help="Interface that datagrams arrive on.")],
    input_group: Annotated[str, typer.Option(metavar="GROUP", help="Their multicast group.")],
    input_port: Annotated[str, typer.Option(metavar="PORT", help="Their UDP destination port.")],
    outputs: Annotated[
        str,
        typer.Option(
            metavar="GROUP:PORT:IF[:ttl=N][:source=ADDRESS][,…]",
            help="Where copies are sent, separated by commas: group, port and interface. ttl is a copy's "
            "time to live (default: the datagram's, less one). source is its source address, or preserve "
            "(default: the interface's address).",
        ),
    ],
    rule_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The rule's id. Default: IF:GROUP:PORT of the input.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a rule; return when every worker has it."""
    try:
        parsed = parse_outputs(outputs)
    except ProblemsError as error:
        refuse(error)
    rule: dict[str, Any] = {
        "input_interface": input_interface,
        "input_group": input_group,
        "input_port": _whole(input_port),
        "outputs": parsed,
    }
    if rule_id is not None:
        rule["rule_id"] = rule_id

    def written(field: str) -> str:
        key = field.removeprefix("rules[0].")
        return field if key == field else flag(key)

    with _reporting_errors(written):
        _print(client.request(context.obj, "add", rules=[rule]), as_json, rendering.added)


def _whole(text: str) -> int | str:
    """``text`` as a number if it is one; the supervisor checks it."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text


@app.command()
def remove(
    context: typer.Context,
    rule_id: Annotated[str, typer.Option(metavar="ID", help="The rule's id, as `list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Remove a rule."""
    _perform(context, "remove", as_json, "removed {removed}".format_map, rule_id=rule_id)


@app.command("list")
def list_rules(context: typer.Context, as_json: AsJson = False) -> None:
    """List the rules in force."""
    _perform(context, "list", as_json, rendering.rules)


@app.command()
def stats(
    context: typer.Context,
    as_json: AsJson = False,
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Print Prometheus text exposition instead.")
    ] = False,
) -> None:
    """Show what was received, matched, sent and dropped, by worker and by rule."""
    if prometheus and as_json:
        refuse(ProblemsError([Problem("--prometheus", "given", "left out, as --json is there")]))
    if prometheus:
        _perform(context, "stats", False, lambda text: text, format="prometheus")
    else:
        _perform(context, "stats", as_json, rendering.statistics)


@app.command("list-workers")
def list_workers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the workers: process, CPU, state and number of rules."""
    _perform(context, "list-workers", as_json, rendering.workers)


@app.command("plan")
def show_plan(
    context: typer.Context,
    diff: Annotated[
        Path | None,
        typer.Option("--diff", metavar="FILE", help="Show what `apply FILE` would change instead."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the present plan: workers, sockets, rings, and which worker has which rules."""
    if diff is not None:
        _reconfigure(context, diff, True, as_json)
    else:
        _perform(context, "plan", as_json, lambda text: text, format="json" if as_json else "text")


@app.command("apply")
def apply_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML, as for `mcrd supervisor --config`.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    as_json: AsJson = False,
) -> None:
    """Reconfigure a running supervisor: strategy, interfaces, groups, numbers of workers, rules.

    If FILE has no rules, those in force stay. Rules that are added or removed change in the running workers.
    For any other change, workers of the new plan are started beside the running ones and take over between
    two datagrams. If anything fails, nothing is changed. Write FILE elsewhere and rename it, so that it is
    never read half-written. The exit status is 2 if FILE is refused or another apply is in progress.
    """
    _reconfigure(context, file, dry_run, as_json)


def _reconfigure(context: typer.Context, file: Path, dry_run: bool, as_json: bool) -> None:
    try:
        config = read_config(file, field="FILE", whole=True)
        _, rules = read_options(SupervisorOptions, {}, file, config)
    except ProblemsError as error:
        refuse(error)
    if "rules" in config:
        config["rules"] = [rule.model_dump(mode="json") for rule in rules]
    _perform(context, "apply", as_json, rendering.changes, config=config, dry_run=dry_run)


@app.command("top")
def show_top(
    context: typer.Context,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, metavar="S", help="Seconds per reading.")
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one sample as JSON and exit.")] = False,
) -> None:
    """Show live rates by worker and by interface, until Ctrl-C."""
    with _reporting_errors(), suppress(KeyboardInterrupt):
        samples = _samples(context.obj, interval)
        if as_json:
            typer.echo(json.dumps(next(samples)))
            return
        console = Console()
        if not console.is_terminal:  # one after the other, at full width
            for found in samples:
                Console(width=top.COLUMNS).print(top.view(found))
        with Live(console=console, auto_refresh=False) as live:
            for found in samples:
                live.update(top.view(found), refresh=True)


def _samples(path: Path, interval_s: float) -> Iterator[dict[str, Any]]:
    before = client.request(path, "stats", rules=False)
    began = _processor_times(before)
    while True:
        time.sleep(interval_s)
        after = client.request(path, "stats", rules=False)
        now = _processor_times(after)
        yield top.sample(before, after, (began, now))
        before, began = after, now


def _processor_times(stats: Any) -> dict[int, int]:
    """Nanoseconds on a processor of each worker, by pid (``/proc/PID/schedstat``, proc(5))."""
    times = {}
    for worker in stats["workers"]:
        with suppress(OSError):
            times[worker["pid"]] = int(Path(f"/proc/{worker['pid']}/schedstat").read_text().split()[0])
    return times


@app.command()
def resize(
    context: typer.Context,
    group: Annotated[int, typer.Option(metavar="ID", help="An elastic group, as `list-workers` shows it.")],
    workers: Annotated[int, typer.Option(metavar="N", help="The new number of workers.")],
    as_json: AsJson = False,
) -> None:
    """Change the number of workers of an elastic group, without loss; later the load decides again."""

    def render(found: Any) -> str:
        sizes = f"from {found['before']} to {found['after']} workers"
        return f"group {found['group']}: {sizes} in {found['took_ns'] / 1e6:.0f} ms"

    _perform(context, "resize", as_json, render, group=group, workers=workers)


@app.command()
def ping(context: typer.Context, as_json: AsJson = False) -> None:
    """Check that the supervisor replies."""
    _perform(context, "ping", as_json, "pid {pid}: {workers} workers, {rules} rules".format_map)


@app.command()
def shutdown(context: typer.Context, as_json: AsJson = False) -> None:
    """Stop the supervisor and its workers."""
    _perform(context, "shutdown", as_json, lambda _: "stopping")


def main() -> None:
    with exit_on_full_disk():
        app()
