"""``mcastlab list``, ``plan``, ``run`` and ``compare``: scenarios, and runs of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Column, Table

from forwarder.plan.host import HostError, parse_cpu_list
from lab.cli import terminal
from lab.cli.terminal import BadInputError, JsonOption, option, out, print_comparisons, print_json, say
from lab.journal.eta import duration
from lab.results import AnyRecord, Check, Comparison, RunEnded

if TYPE_CHECKING:
    from lab.run.session import Session
    from lab.trial.plan import Cpus

PROFILE_HELP = (
    "How thorough: quick (the default) takes minutes and suits CI; full has longer trials and more pairs and "
    "cases; conservative has trials of 60 s, as in RFC 2544, and takes hours."
)
METRIC_HELP = (
    "What to compare: zero-loss (rate), delivered (copies/s under overload), goodput (delivered at twice the "
    "zero-loss rate, as a share of it), cpu (CPU per copy), or latency p50, p99 or p99.9; the last four at "
    "half the zero-loss rate. `share` is another share of it: goodput,share=4."
)
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SCENARIO]...",
        help="Names from `mcastlab list`, or TOML files. Without any: all default scenarios.",
    ),
]
ProfileOption = Annotated[str | None, option(PROFILE_HELP, "quick|full|conservative")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Directory for results and report. Default: a new one in reports/out."),
]
ResumeOption = Annotated[
    Path | None, option("Finish the interrupted run in this directory, with the options it had.")
]
PeerOption = Annotated[
    list[str] | None,
    option(
        "Where the program of a subject is, for instance mcr=PATH for the directory of upstream's mcrd and "
        "mcrctl. May be repeated.",
        "NAME=PATH",
    ),
]
ForwarderCpusOption = Annotated[
    str | None,
    option(
        "The CPUs that do all of a forwarder's work, for instance 2-3; generator and receivers take the "
        "others. Default: the upper half.",
        "LIST",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show only the outcome, no progress.")]


def list_scenarios(as_json: JsonOption = False) -> None:
    """List the scenarios, and the part of the architecture document that each one covers."""
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


def plan(names: Names = None, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Show the steps of a run and about how long they take. Changes nothing and needs no root."""
    from lab.scenario.files import load_scenarios
    from lab.scenario.profiles import profile_named
    from lab.steps.plan import steps

    scenarios = load_scenarios(names or [], len(divided(None).forwarder))
    planned = steps(scenarios, profile_named(profile or "quick"))
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


def run(
    names: Names = None,
    profile: ProfileOption = None,
    out_dir: OutOption = None,
    resume: ResumeOption = None,
    peer: PeerOption = None,
    wires: Annotated[
        Path | None,
        option(
            "Use existing interfaces instead of veth pairs. This TOML file says how they are cabled: inputs "
            "and outputs, each a list of pairs of names. An interface with an address is refused. All are "
            "given back after the run. Functional checks and footprints still use veth.",
            "FILE",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        option(
            "Add the gate: compare the forwarder with that of this commit, and fail if it is slower "
            "(docs/ci.md). auto takes the merge base with a pull request's target or with origin/main, else "
            "the parent commit, and skips the gate if there is none.",
            "COMMIT|auto|none",
        ),
    ] = None,
    forwarder_cpus: ForwarderCpusOption = None,
    junit: Annotated[Path | None, option("Also write the outcome as JUnit XML.", "FILE")] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run scenarios, and write results and a report to the run's directory.

    Needs root. Each trial is written to results.jsonl as soon as it ends. Ctrl-C ends the run after the
    current trial, a second Ctrl-C at once; the report covers what was done, and --resume finishes the run.
    Subjects that are not installed are skipped and named. A subject that ends while it is measured is a
    result, not an error of the run.

    Progress goes to stderr: a live display on a terminal, else a line for each step. With --json, stdout is
    one JSON document. In a GitHub job, the outcome is added to the job's summary.

    Exit status: 0 passed; 1 a check, an expectation or the gate failed, a ledger did not balance, or a
    promise was missed beyond doubt; 2 bad input; 130 interrupted.
    """
    from lab.run import session
    from lab.run.commits import OFF
    from lab.scenario.files import load_scenarios
    from lab.scenario.profiles import profile_named

    if junit is not None and (junit.is_dir() or not junit.absolute().parent.is_dir()):
        raise BadInputError(f"--junit {str(junit)!r}: a file in an existing directory is allowed")
    if resume is not None:
        if names or out_dir or profile or peer or wires or baseline or forwarder_cpus:
            raise BadInputError(
                "--resume takes scenarios, profile, peers, wires, baseline, CPUs and directory from the run: "
                "leave them out"
            )
        going = session.resume(resume)
    else:
        cpus = divided(forwarder_cpus)
        scenarios = load_scenarios(names or [], len(cpus.forwarder))
        files = [name for name in names or [] if name.endswith(".toml")]
        paths = {load_scenarios([name])[0].name: str(Path(name).resolve()) for name in files}
        # What loads each again: the path that the user gave, or the name of one of ours.
        references = {paths.get(scenario.name, scenario.name): scenario for scenario in scenarios}
        chosen, gate = profile_named(profile or "quick"), None if baseline == OFF else baseline
        going = session.start(
            references, chosen, out_dir, peers=peer or [], wires=wires, baseline=gate, cpus=cpus
        )
    _complete(going, as_json, quiet=quiet, junit=junit)


def compare(
    a: Annotated[str | None, typer.Argument(metavar="A", help="One side.")] = None,
    b: Annotated[str | None, typer.Argument(metavar="B", help="The other side.")] = None,
    case: Annotated[
        list[str] | None,
        option(
            "A setting of both sides, for instance payload_bytes=512, outputs=8, flows=16 or rules=1000. May "
            "be repeated.",
            "KEY=VALUE",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        option(
            METRIC_HELP + " May be repeated. Default: zero-loss, delivered, cpu and p99.",
            "NAME[,share=N]",
        ),
    ] = None,
    pairs: Annotated[int | None, option("How many pairs of trials; a verdict needs 6. Default: 8.")] = None,
    profile: ProfileOption = None,
    out_dir: OutOption = None,
    resume: ResumeOption = None,
    peer: PeerOption = None,
    forwarder_cpus: ForwarderCpusOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two forwarders, two configurations of mcrd, or two commits, and give a verdict.

    A and B are each a subject (mcrd, kernel, socat …), settings of mcrd separated by commas, or both:

    - `mcastlab compare mcrd kernel`
    - `mcastlab compare strategy=pool,workers=2 strategy=fanout,workers=2 --case flows=16`
    - `mcastlab compare mcrd,options=--skip-host-stack mcrd --case outputs=8 --metric zero-loss`
    - `mcastlab compare mcrd commit=HEAD~3 --pairs 8`

    Settings are the keys of a `[[case]]` in a scenario file, and receive=first (the default), "in turn",
    softirq or sender: who does the receive work of a side (docs/method.md). `commit` runs the forwarder of
    that commit from a temporary work tree, without uncommitted changes.

    The zero-loss rate of each side is searched first; then both are measured in turn (A B B A …). The verdict
    says whether A is better or worse than B, or no different, from the confidence interval of their ratio.
    The percentage beside it is the smallest difference that these pairs could show; more --pairs show
    smaller ones. The scenario is kept in the run's directory as compare.toml, for `mcastlab run`.
    """
    from lab.run import session
    from lab.run.commits import resolved
    from lab.scenario import compare as comparison
    from lab.scenario.profiles import profile_named

    if resume is not None:
        if a or b or case or metric or pairs or profile or out_dir or peer or forwarder_cpus:
            raise BadInputError("--resume takes everything from the run in its directory: leave the rest out")
        _complete(session.resume(resume), as_json, quiet=quiet)
    if a is None or b is None:
        raise BadInputError("two sides are needed, A and B: see mcastlab compare --help")
    profile = profile or "quick"
    scenario = comparison.ask(a, b, case or [], metric or [], pairs, profile, resolved)
    cpus = divided(forwarder_cpus)
    going = session.start({}, profile_named(profile), out_dir, made=[scenario], peers=peer or [], cpus=cpus)
    _complete(going, as_json, quiet=quiet)


def divided(forwarder_cpus: str | None) -> Cpus:
    """The machine's CPUs as the user divides them, or half and half."""
    from lab.trial.plan import divide

    available = os.sched_getaffinity(0)
    if forwarder_cpus is None:
        return divide(available)
    try:
        return divide(available, parse_cpu_list(forwarder_cpus))
    except (HostError, ValueError) as error:
        raise BadInputError(f"--forwarder-cpus {forwarder_cpus!r}: {error}") from None


def _complete(session: Session, as_json: bool, *, quiet: bool, junit: Path | None = None) -> NoReturn:
    """Perform the steps that are left, write the report, show the outcome, and exit."""
    from lab.ci import job_summary
    from lab.ci import junit as junit_file
    from lab.journal.archive import steps_done

    archive = session.archive
    ended, written = performed(session, silent=as_json or quiet)
    if junit:
        planned, done = [step.step_id for step in session.steps], steps_done(archive.directory)
        started_at = archive.started.started_at if archive.started else ""
        junit_file.write(junit, junit_file.cases(planned, done, ended), started_at)
    if summary := os.environ.get(job_summary.VARIABLE):
        report = next((path.read_text("utf-8") for path in written if path.suffix == ".md"), "")
        job_summary.append(Path(summary), job_summary.markdown(archive.records, ended, report))
    if as_json:
        print_json(document(session, ended, written))
    else:
        print_outcome(archive.records, ended, written or [archive.results])
        out.print(ended.outcome)
    raise typer.Exit(terminal.EXIT_STATUS[ended.outcome])


def performed(session: Session, *, silent: bool) -> tuple[RunEnded, list[Path]]:
    """Perform the steps that are left, and write the report: its files."""
    from lab.journal.progress import reporter_for
    from reports.page.html import write_report

    ended = session.run(reporter_for(silent=silent))
    return ended, write_report(session.archive.results, session.archive.directory)


def document(session: Session, ended: RunEnded, written: list[Path]) -> dict[str, object]:
    """What ``--json`` prints of a run."""
    archive = session.archive
    return {
        **ended.model_dump(include={"outcome", "failures", "inconclusive", "skipped"}),
        "directory": str(archive.directory),
        "report": list(map(str, written)),
        "comparisons": [record.model_dump() for record in archive.records if isinstance(record, Comparison)],
        "aims": [record.model_dump() for record in _aims(archive.records)],
    }


def _aims(records: Iterable[AnyRecord]) -> list[Check]:
    return [record for record in records if isinstance(record, Check) and record.aim]


def print_outcome(records: list[AnyRecord], ended: RunEnded, written: list[Path]) -> None:
    if comparisons := [(None, record) for record in records if isinstance(record, Comparison)]:
        print_comparisons(comparisons)
    aims = _aims(records)
    notes = {
        "aim reached:": [aim.text for aim in aims if aim.passed],
        "aim not reached:": [aim.text for aim in aims if not aim.passed],
        "skipped:": ended.skipped,
        "no conclusion:": ended.inconclusive,
        "FAILED": ended.failures,
    }
    for label, sentences in notes.items():
        for sentence in sentences:
            say(f"{label} {sentence}")
    for path in written:
        say(path)
