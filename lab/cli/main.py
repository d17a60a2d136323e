"""``mcastlab``: list, plan, run, compare, report, comparisons, model, advise, trend, doctor, clean.

Exit status: 0 passed; 1 a check, an expectation or the gate failed, a ledger does not balance, or a promised
ratio was missed where the profile demands it; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from forwarder.config.arguments import exit_on_full_disk
from forwarder.problems import ProblemsError
from lab.cli.advise import advise_command, model_command
from lab.cli.terminal import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    PASSED,
    BadInputError,
    add_comparison,
    comparison_table,
    out,
    print_json,
    profile_named,
    writing,
)
from lab.cli.trend import trend
from lab.journal.eta import duration
from lab.results import Comparison, ResultsError

if TYPE_CHECKING:
    from lab.scenario.model import Scenario

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Measure multicast forwarders on this machine: networks of namespaces, compiled load, an account of "
        "every datagram, a report.\n\n"
        "Begin with `mcastlab doctor`; `mcastlab run` then runs the quick scenarios to a report in about "
        "eight minutes, and `mcastlab run NAME` a single one. Nothing outside the lab's own namespaces is "
        "touched, and they are removed when a run ends; `mcastlab clean` removes what a killed one left.\n\n"
        "Exit status: 0 passed; 1 a check, an expectation or the gate failed, a ledger does not balance, or "
        "a promised ratio was missed where the profile demands it; 2 bad input, named with what is allowed; "
        "130 interrupted."
    ),
)
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
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Directory for results and report; a new one in reports/out if not given."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only what came out.")]


@app.command("list")
def list_scenarios(as_json: JsonOption = False) -> None:
    """List the scenarios, and the line of the architecture document that each covers."""
    from lab.scenario.files import DIRECTORY, load_scenarios

    scenarios = load_scenarios([str(path) for path in sorted(DIRECTORY.glob("*.toml"))])
    if as_json:
        print_json([s.model_dump(include={"name", "title", "seed", "default"}) for s in scenarios])
        return
    table = Table(Column("scenario", no_wrap=True), "what it shows", "covers", box=None)
    for scenario in scenarios:
        title = scenario.title if scenario.default else f"{scenario.title} (by name only)"
        table.add_row(scenario.name, title, scenario.seed)
    out.print(table)


@app.command()
def plan(names: Names = None, profile: ProfileOption = "quick", as_json: JsonOption = False) -> None:
    """Show the steps of a run and about how long they take; touches nothing, needs no root."""
    from lab.scenario.files import load_scenarios
    from lab.steps.plan import steps

    planned = steps(load_scenarios(names or []), profile_named(profile))
    total = sum(step.seconds for step in planned)
    if as_json:
        rows = [{"step": s.step_id, "trials": s.trials, "seconds": round(s.seconds, 1)} for s in planned]
        print_json({"steps": rows, "seconds": round(total, 1)})
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
    out_dir: OutOption = None,
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
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="COMMIT|auto|none",
            help="Also measure the forwarder against that of this commit, in turn, and fail where it is "
            "slower: see docs/ci.md. auto: what a pull request is for, else where the branch left "
            "origin/main, else the parent; nothing is measured where that cannot be found.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write what came out as JUnit XML, too.")
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run scenarios; results and report go to the run's directory.

    Each trial is in results.jsonl as soon as it ends. Ctrl-C ends the run after the trial under way (again:
    at once); what is done is kept and reported, and --resume goes on with the rest. Subjects that are not on
    this machine are left out and named; one that ends while it is measured has that as its result.

    Progress is on stderr: a line for each step where that is no terminal. With --json stdout is one JSON
    document. In a job of GitHub's the outcome is added to its summary. Exit status: 0 passed; 1 a check, an
    expectation or the gate failed, a ledger does not balance, or a promised ratio was missed where the
    profile demands it; 2 bad input; 130 interrupted.
    """
    from lab.run import session
    from lab.run.baselines import OFF
    from lab.scenario.files import load_scenarios

    if junit is not None and (junit.is_dir() or not junit.absolute().parent.is_dir()):
        raise BadInputError(f"--junit {str(junit)!r}: a file in a directory that exists is allowed")
    if resume is not None:
        if names or out_dir or profile or peer or wires or baseline:
            raise BadInputError(
                "--resume takes scenarios, profile, peers, wires, baseline and directory from the run: "
                "give none"
            )
        going = session.resumed(resume)
    else:
        scenarios = load_scenarios(names or [])
        going = session.begun(
            {_reference(scenario, names or []): scenario for scenario in scenarios},
            profile_named(profile or "quick"),
            out_dir,
            peers=peer or [],
            wires=wires,
            baseline=None if baseline == OFF else baseline,
        )
    raise typer.Exit(session.conduct(going, as_json, quiet=quiet, junit=junit))


@app.command()
def compare(
    a: Annotated[str | None, typer.Argument(metavar="A", help="One side.")] = None,
    b: Annotated[str | None, typer.Argument(metavar="B", help="The other side.")] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(
            "--case",
            metavar="KEY=VALUE",
            help="What both sides start from, for instance payload_bytes=512, outputs=8, flows=16 or "
            "rules=1000. As often as needed.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="What is compared: zero-loss, delivered, cpu or latency; all four if not given. As often as "
            "needed.",
        ),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option("--pairs", help="How many pairs: at least 6 for a verdict; 8 if not given.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="quick (default): a first look. full: longer trials, more pairs. conservative: 60 s each.",
            metavar="quick|full|conservative",
        ),
    ] = None,
    out_dir: OutOption = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Go on with the comparison in this directory; give nothing else."),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", metavar="NAME=PATH", help="The program of a subject, as for `run`."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two forwarders, two ways to run one, or two commits: paired, in turn, with a verdict.

    A side is a subject (mcrd, kernel, socat …), or changes to mcrd separated by commas, or both:

    - `mcastlab compare mcrd kernel`
    - `mcastlab compare strategy=pool,workers=2 strategy=fanout,workers=2 --case flows=16`
    - `mcastlab compare mcrd,options=--skip-host-stack mcrd --case outputs=8 --metric zero-loss`
    - `mcastlab compare mcrd commit=HEAD~3 --pairs 8`

    Keys are those of a `[[case]]` in a scenario file, and rps=on or rps=off: packet steering, otherwise tried
    both ways for each side, the better one kept. `commit` takes the forwarder of that commit, from a
    temporary work tree; what is not committed counts as neither.

    Each side is searched for its zero-loss rate first, then both are measured in turn (A B B A …). The
    verdict, better, worse or no difference of A against B, follows the interval of the ratio; beside it
    stands the smallest difference that could have been seen: for a smaller one, take more --pairs.
    The run's directory holds the scenario file that it made: compare.toml, for `mcastlab run`.
    """
    from lab.run import session
    from lab.run.run import new_run_id
    from lab.run.work_trees import resolved
    from lab.scenario import compare as versus

    if resume is not None:
        if a or b or case or metric or pairs or profile or out_dir or peer:
            raise BadInputError("--resume takes everything from the run in its directory: give nothing else")
        raise typer.Exit(session.conduct(session.resumed(resume), as_json, quiet=quiet))
    if a is None or b is None:
        raise BadInputError("two sides are wanted, A and B: see mcastlab compare --help")
    asked = versus.ask(a, b, case or [], metric or [], pairs, profile or "quick", resolved)
    directory = out_dir or session.OUT / new_run_id()
    file = directory.resolve() / versus.FILE
    going = session.begun({str(file): asked.scenario}, asked.profile, directory, peers=peer or [])
    file.write_text(asked.text, encoding="utf-8")
    raise typer.Exit(session.conduct(going, as_json, quiet=quiet))


@app.command()
def report(
    results: Annotated[Path, typer.Argument(metavar="A", help="A run's directory, or its results.jsonl.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[B]", help="Another run, to be set against the first.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Where to write; beside the results (of A) if not given.")
    ] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="The data as Parquet files beside the CSV; needs pyarrow.")
    ] = False,
) -> None:
    """Write the report (HTML, Markdown, CSV, figures) of a run again, for instance of one that was killed.

    With two runs, write how A differs from B: compared.html and compared.md. Figures of the same case,
    subject and setting stand beside each other with their ratio; there is a verdict where both runs repeated
    the measurement, and none where the machines differ.

    Lines and records that cannot be used are left out, named on stderr and on the page. Exit status 2 when
    nothing can be used.
    """
    from reports.page.html import write_comparison, write_report

    def warn(text: str) -> None:
        Console(stderr=True).print(
            f"mcastlab: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )

    if other is not None and parquet:
        raise BadInputError("--parquet is for the report of one run: give it without B")
    path = _results_file(results)
    directory = out_dir or path.parent
    with writing(directory):
        if other is None:
            written = write_report(path, directory, parquet, warn)
        else:
            written = write_comparison(path, _results_file(other), directory, warn)
    for each in written:
        out.print(str(each), highlight=False)


@app.command()
def comparisons(
    results: Annotated[list[Path], typer.Argument(help="Runs' directories, or their results.jsonl.")],
    as_json: JsonOption = False,
) -> None:
    """Show the paired comparisons of one run or of several: ratios, intervals, and what was promised.

    A ratio compares two subjects measured in turn in one run, so it may be set beside that of another run;
    absolute rates may not.
    """
    from reports.reading import read

    readings = [(path, read(_results_file(path))) for path in results]
    rows = [(path, r) for path, found in readings for r in found.records if isinstance(r, Comparison)]
    if as_json:
        print_json([{"results": str(path), **record.model_dump()} for path, record in rows])
        return
    table = comparison_table(several=len(results) > 1)
    for path, record in rows:
        add_comparison(table, record, str(path) if len(results) > 1 else None)
    out.print(table)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine can and cannot do for a run, and how to get what is missing.

    Each check tries the thing itself, in a namespace of its own. Exit status 1 when something needed is
    missing.
    """
    from lab.cli.doctor import examine, report_lines

    findings = examine()
    ready = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        print_json({"ready": ready, "checks": [asdict(finding) for finding in findings]})
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
    """Remove what killed runs left behind: namespaces, the processes in them, temporary directories.

    Only what the lab named is touched, and only when the process that made it is gone. --json lists the
    namespaces.
    """
    from lab.netns.clean import clean as remove
    from lab.netns.clean import remove_directories

    removed = remove(everything)
    directories = remove_directories()
    if as_json:
        print_json([asdict(item) for item in removed])
        return
    for item in removed:
        back = f", gave back {', '.join(item.returned)}" if item.returned else ""
        out.print(f"removed {item.namespace}, {item.processes} processes{back}", highlight=False)
    for path in directories:
        out.print(f"removed {path}", highlight=False)
    if not (removed or directories):
        out.print("nothing to remove")


app.command("model")(model_command)
app.command("advise")(advise_command)
app.command("trend")(trend)


def main() -> None:
    """The console script: bad input is one message on stderr and status 2, never a traceback."""
    errors = Console(stderr=True)
    try:
        with exit_on_full_disk():
            app()
    except (BadInputError, ProblemsError, ResultsError) as error:
        for line in str(error).splitlines():
            errors.print(f"mcastlab: {line}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _reference(scenario: Scenario, names: list[str]) -> str:
    """How to load the scenario again: by name when it is ours, else by the path that was given."""
    from lab.scenario.files import load_scenarios

    for name in names:
        if name.endswith(".toml") and load_scenarios([name])[0].name == scenario.name:
            return str(Path(name).resolve())
    return scenario.name


def _results_file(path: Path) -> Path:
    found = path / "results.jsonl" if path.is_dir() else path
    if not found.is_file():
        raise BadInputError(f"{found}: no such file; a run's directory or its results.jsonl is wanted")
    return found


if __name__ == "__main__":
    main()
