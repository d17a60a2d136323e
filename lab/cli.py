"""``mcastlab``: list, plan, run, report, compare, doctor, clean.

Exit status: 0 passed; 1 a check or an expectation failed, a ledger does not balance, or a promised ratio was
missed where the profile demands it; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console
from rich.table import Table

from forwarder.problems import ProblemsError
from lab.profiles import ProfileName
from lab.progress import choose, duration
from lab.results import AnyRecord, Comparison, ResultsError, read_results
from lab.scenario import DIRECTORY, Scenario, load_scenarios

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.run import Ended
    from lab.wires import Wires

PASSED, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

OUT = Path("reports/out")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Measure multicast forwarders on this machine: networks of namespaces, compiled load, an account of "
        "every datagram, a report.\n\n"
        "Begin with `mcastlab doctor`; `mcastlab run` then runs the quick scenarios to a report in about "
        "eight minutes, and `mcastlab run NAME` a single one. Nothing outside the lab's own namespaces is "
        "touched, and they are removed when a run ends; `mcastlab clean` removes what a killed one left."
    ),
)
out = Console()

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SCENARIO]...",
        help="Names from `mcastlab list`, or TOML files; all default scenarios if none.",
    ),
]
ProfileOption = Annotated[
    str,
    typer.Option(
        "--profile",
        help="quick: minutes, for CI. full: longer trials, more pairs and cases. conservative: trials of "
        "60 s, as RFC 2544 has them; hours.",
        metavar="quick|full|conservative",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


class BadInputError(Exception):
    """What the user gave cannot be used; the message says what and why."""


@app.command("list")
def list_scenarios(as_json: JsonOption = False) -> None:
    """List the scenarios, and the line of the architecture document that each covers."""
    scenarios = load_scenarios([str(path) for path in sorted(DIRECTORY.glob("*.toml"))])
    if as_json:
        _print_json([s.model_dump(include={"name", "title", "seed", "default"}) for s in scenarios])
        return
    table = Table("scenario", "what it shows", "covers", box=None)
    for scenario in scenarios:
        name = scenario.name if scenario.default else f"{scenario.name} (by name only)"
        table.add_row(name, scenario.title, scenario.seed)
    out.print(table)


@app.command()
def plan(names: Names = None, profile: ProfileOption = "quick", as_json: JsonOption = False) -> None:
    """Show the steps of a run and about how long they take; touches nothing, needs no root."""
    from lab.planning import steps

    planned = steps(load_scenarios(names or []), _profile(profile))
    total = sum(step.seconds for step in planned)
    if as_json:
        rows = [{"step": s.step_id, "trials": s.trials, "seconds": round(s.seconds, 1)} for s in planned]
        _print_json({"steps": rows, "seconds": round(total, 1)})
        return
    table = Table("step", "trials", "about", box=None)
    for step in planned:
        table.add_row(step.step_id, str(step.trials or ""), duration(step.seconds))
    out.print(table)
    out.print(f"{len(planned)} steps, about {duration(total)}")


@app.command()
def run(
    names: Names = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="quick (default): minutes, for CI. full: longer trials, more pairs and cases. conservative: "
            "trials of 60 s, as RFC 2544 has them; hours.",
            metavar="quick|full|conservative",
        ),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Directory for results and report; a new one in reports/out if not given."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Go on with the interrupted run in this directory; give nothing else."),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            metavar="NAME=PATH",
            help="The program of a subject, or its directory; mcr=PATH: upstream's mcrd and mcrctl.",
        ),
    ] = None,
    wires: Annotated[
        Path | None,
        typer.Option(
            "--wires",
            metavar="FILE",
            help="Take existing interfaces instead of making veth pairs: this TOML file says which, and how "
            "they are cabled (inputs and outputs, pairs of names). They go back afterwards; one that carries "
            "an address is refused. Checks and footprints still use veth.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run scenarios; results and report go to the run's directory.

    Each trial is in results.jsonl as soon as it ends. Ctrl-C ends the run after the trial under way (again:
    at once); what is done is kept and reported, and --resume goes on with the rest. Subjects that are not on
    this machine are left out and named; one that ends while it is measured has that as its result.

    Progress is on stderr; with --json stdout is one JSON document. Exit status: 0 passed; 1 a check or an
    expectation failed, a ledger does not balance or a promised ratio was missed; 2 bad input;
    130 interrupted.
    """
    from lab.archive import Archive, ArchiveError
    from lab.attendance import attend, parse
    from lab.planning import steps
    from lab.run import begin, new_run_id
    from lab.run import run as run_steps
    from lab.wires import Wires, load_wires

    if os.geteuid():
        raise BadInputError("run needs root, for namespaces and packet sockets: try again with sudo")
    try:
        if resume is not None:
            if names or out_dir or profile or peer or wires:
                raise BadInputError(
                    "--resume takes scenarios, profile, peers, wires and directory from the run: give none"
                )
            archive = Archive.resume(resume)
            started = archive.started
            if started is None:
                raise BadInputError(f"{resume}: no run was started there")
            run_id, chosen = started.run_id, _profile(started.profile)
            scenarios = load_scenarios(started.scenarios)
            present = attend({name: Path(path) for name, path in started.peers.items()})
            cables = None if started.wires is None else Wires.model_validate(started.wires)
        else:
            run_id, chosen = new_run_id(), _profile(profile or "quick")
            scenarios = load_scenarios(names or [])
            paths = parse(peer or [])
            present = attend(paths)
            cables = load_wires(wires) if wires else None
            _check_wires(cables, scenarios)
            archive = Archive.create(out_dir or OUT / run_id)
            sections = {scenario.name: scenario.rfc3918 for scenario in scenarios if scenario.rfc3918}
            references = [_reference(s, names or []) for s in scenarios]
            begin(archive, run_id, chosen, references, sections, paths, cables)
    except ArchiveError as error:
        raise BadInputError(str(error)) from error
    with archive:
        planned = steps(scenarios, chosen, present.absent)
        skipped = present.skipped(scenarios)
        ended = run_steps(planned, archive, choose(as_json), run_id, present.peers, skipped, cables)
        written = _write_report(archive.results, archive.directory)
        records = list(archive.records)
    if as_json:
        _print_json(
            {
                "outcome": ended.outcome,
                "failures": ended.failures,
                "inconclusive": ended.inconclusive,
                "skipped": ended.skipped,
                "directory": str(archive.directory),
                "report": [str(path) for path in written],
                "comparisons": [r.model_dump() for r in records if isinstance(r, Comparison)],
            }
        )
    else:
        _summarise(records, ended, written or [archive.results])
    raise typer.Exit({"passed": PASSED, "failed": FAILED, "interrupted": INTERRUPTED}[ended.outcome])


def _check_wires(wires: Wires | None, scenarios: Iterable[Scenario]) -> None:
    """Raises WiresError and BadInputError: nothing has been touched by then."""
    from lab.borrow import obstacles
    from lab.wires import WiresError, misfits

    if wires is None:
        return
    if problems := list(misfits(wires, scenarios)):
        raise WiresError(problems)
    if found := obstacles(wires.names):
        raise BadInputError("; ".join(found))


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="A run's directory, or its results.jsonl.")],
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Where to write; beside the results if not given.")
    ] = None,
) -> None:
    """Write the report (HTML, Markdown, CSV, figures) of a run again, for instance of one that was killed."""
    path = _results_file(results)
    for written in _write_report(path, out_dir or path.parent):
        out.print(str(written), highlight=False)


@app.command()
def compare(
    results: Annotated[list[Path], typer.Argument(help="Runs' directories, or their results.jsonl.")],
    as_json: JsonOption = False,
) -> None:
    """Show the paired comparisons of one run or of several: ratios, intervals, and what was promised.

    A ratio compares two subjects measured in turn in one run, so it may be set beside that of another run;
    absolute rates may not.
    """
    rows = [(path, r) for path in results for r in _read(path) if isinstance(r, Comparison)]
    if as_json:
        _print_json([{"results": str(path), **record.model_dump()} for path, record in rows])
        return
    table = _comparison_table(several=len(results) > 1)
    for path, record in rows:
        _add_comparison(table, record, str(path) if len(results) > 1 else None)
    out.print(table)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine can and cannot do for a run, and how to get what is missing.

    Each check tries the thing itself, in a namespace of its own. Exit status 1 when something needed is
    missing.
    """
    from lab.doctor import examine, report_lines

    findings = examine()
    ready = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        _print_json({"ready": ready, "checks": [asdict(finding) for finding in findings]})
    else:
        for line in report_lines(findings):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(PASSED if ready else FAILED)


@app.command()
def clean(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those of runs that are still alive, which then fail.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what killed runs left behind: their namespaces and the processes in them.

    Only namespaces that the lab named are touched, and only when the process that made them is gone.
    """
    from lab.clean import clean as remove

    removed = remove(everything)
    if as_json:
        _print_json([asdict(item) for item in removed])
        return
    for item in removed:
        back = f", gave back {', '.join(item.returned)}" if item.returned else ""
        out.print(f"removed {item.namespace}, {item.processes} processes{back}", highlight=False)
    if not removed:
        out.print("nothing to remove")


def main() -> None:
    """The console script: bad input is one message on stderr and status 2, never a traceback."""
    errors = Console(stderr=True)
    try:
        app()
    except (BadInputError, ProblemsError, ResultsError) as error:
        for line in str(error).splitlines():
            errors.print(f"mcastlab: {line}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _profile(name: str) -> ProfileName:
    for known in get_args(ProfileName):
        if name == known:
            profile: ProfileName = known
            return profile
    raise BadInputError(f"--profile {name!r}: {' or '.join(get_args(ProfileName))} are allowed")


def _reference(scenario: Scenario, names: list[str]) -> str:
    """How to load the scenario again: by name when it is ours, else by the path that was given."""
    for name in names:
        if name.endswith(".toml") and load_scenarios([name])[0].name == scenario.name:
            return str(Path(name).resolve())
    return scenario.name


def _results_file(path: Path) -> Path:
    found = path / "results.jsonl" if path.is_dir() else path
    if not found.is_file():
        raise BadInputError(f"{found}: no such file; a run's directory or its results.jsonl is wanted")
    return found


def _read(path: Path) -> list[AnyRecord]:
    return list(read_results(_results_file(path)))


def _write_report(results: Path, directory: Path) -> list[Path]:
    from reports.html import write_report

    return write_report(results, directory)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def _comparison_table(several: bool) -> Table:
    columns = ["case", "metric", "ratio", "interval", "verdict", "detectable", "promised", ""]
    return Table(*(["run", *columns] if several else columns), box=None)


def _add_comparison(table: Table, record: Comparison, source: str | None = None) -> None:
    from lab.contest import is_kept

    promised = ""
    if record.target is not None:
        promised = f"{'≥' if record.higher_is_better else '≤'} {record.target:g}"
        promised += " kept" if is_kept(record) else " missed"
    note = f"bound by {record.bound_by}" if record.bound_by in ("generator", "receiver") else ""
    cells = [
        f"{record.scenario}: {record.case}",
        f"{record.metric}, {record.a} / {record.b}",
        f"{record.ratio:.2f}",
        f"{record.low:.2f} to {record.high:.2f}",
        record.verdict or "",
        "" if record.detectable is None else f"{record.detectable:.1%}",
        promised,
        note,
    ]
    table.add_row(*([source, *cells] if source else cells))


def _summarise(records: list[AnyRecord], ended: Ended, written: list[Path]) -> None:
    comparisons = [record for record in records if isinstance(record, Comparison)]
    if comparisons:
        table = _comparison_table(several=False)
        for record in comparisons:
            _add_comparison(table, record)
        out.print(table)
    for reason in ended.skipped:
        out.print(f"skipped: {reason}", markup=False, highlight=False, soft_wrap=True)
    for reason in ended.inconclusive:
        out.print(f"no conclusion: {reason}", markup=False, highlight=False, soft_wrap=True)
    for failure in ended.failures:
        out.print(f"FAILED {failure}", markup=False, highlight=False, soft_wrap=True)
    for path in written:
        out.print(str(path), highlight=False, soft_wrap=True)
    out.print(ended.outcome)


if __name__ == "__main__":
    main()
