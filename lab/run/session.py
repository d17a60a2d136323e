"""One run from the command line: begun or resumed, conducted, reported."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.ci import job_summary
from lab.cli.terminal import FAILED, INTERRUPTED, PASSED, BadInputError, print_json, profile_named, summarise
from lab.journal.archive import Archive, ArchiveError, steps_done
from lab.journal.progress import choose
from lab.netns.lend import obstacles
from lab.peers import mcrd
from lab.results import Comparison
from lab.run import run as runs
from lab.run.baselines import choose as choose_baseline
from lab.run.peer_availability import Attendance, attend, parse
from lab.run.work_trees import checked_out, resolved
from lab.scenario.files import load_scenarios, parse_scenario
from lab.scenario.gate import FILE, NAME, against
from lab.scenario.model import Scenario
from lab.scenario.profiles import ProfileName
from lab.scenario.wires import Wires, WiresError, load_wires, misfits
from lab.steps.plan import steps

OUT = Path("reports/out")


@dataclass(frozen=True)
class Session:
    """What a run is made of."""

    archive: Archive
    run_id: str
    profile: ProfileName
    scenarios: Sequence[Scenario]
    present: Attendance
    wires: Wires | None
    baseline: str | None
    """What the gate measures against, or why against nothing; ``None``: there is no gate."""


def begun(
    scenarios: Mapping[str, Scenario],
    profile: ProfileName,
    directory: Path | None,
    *,
    peers: Sequence[str] = (),
    wires: Path | None = None,
    baseline: str | None = None,
) -> Session:
    """A new run in ``directory``, or in one of its own.

    Args:
        scenarios: by how each can be loaded again.
        peers: ``NAME=PATH`` of the programs that the user chose.
        wires: the file that says which existing interfaces are lent.
        baseline: the commit of the gate that is added, or ``auto``: see :func:`lab.run.baselines.choose`.

    Raises:
        BadInputError, ProblemsError: nothing has been touched by then.
    """
    _demand_root()
    run_id = runs.new_run_id()
    directory = directory or OUT / run_id
    gate = None if baseline is None else choose_baseline(baseline)
    gate_text = ""
    if gate and gate.commit:
        file = directory.resolve() / FILE
        gate_text = against(load_scenarios([NAME])[0], gate.commit)
        others = {name: scenario for name, scenario in scenarios.items() if scenario.name != NAME}
        scenarios = {**others, str(file): parse_scenario(gate_text, NAME)}
    for scenario in scenarios.values():
        for commit in scenario.commits():
            resolved(commit, f"{scenario.name}: commit")
    paths = parse(peers)
    present = attend(paths)
    cables = load_wires(wires) if wires else None
    _check_wires(cables, scenarios.values())
    try:
        archive = Archive.create(directory)
    except ArchiveError as error:
        raise BadInputError(str(error)) from error
    sections = {scenario.name: scenario.rfc3918 for scenario in scenarios.values() if scenario.rfc3918}
    if gate_text:
        (directory / FILE).write_text(gate_text, encoding="utf-8")
    why = gate.why if gate else None
    runs.begin(archive, run_id, profile, list(scenarios), sections, paths, cables, why)
    return Session(archive, run_id, profile, list(scenarios.values()), present, cables, why)


def resumed(directory: Path) -> Session:
    """The run in ``directory``, to go on with. Raises BadInputError, ProblemsError."""
    _demand_root()
    try:
        archive = Archive.resume(directory)
    except ArchiveError as error:
        raise BadInputError(str(error)) from error
    started = archive.started
    if started is None:
        raise BadInputError(f"{directory}: no run was started there")
    return Session(
        archive,
        started.run_id,
        profile_named(started.profile),
        load_scenarios(started.scenarios),
        attend({name: Path(path) for name, path in started.peers.items()}),
        None if started.wires is None else Wires.model_validate(started.wires),
        started.baseline,
    )


def conduct(session: Session, as_json: bool, *, quiet: bool = False, junit: Path | None = None) -> int:
    """Do what is left of a run, write its report, say what came of it; returns the exit status.

    Args:
        quiet: no progress is shown; nor is it with ``as_json``.
        junit: where the same goes as JUnit XML. Markdown goes to where GITHUB_STEP_SUMMARY says, if it does.
    """
    from reports.page.html import write_report

    archive, scenarios, present = session.archive, session.scenarios, session.present
    commits = (commit for scenario in scenarios for commit in scenario.commits())
    planned = steps(scenarios, session.profile, present.absent)
    with archive, checked_out(commits) as trees:
        ended = runs.run(
            planned,
            archive,
            choose(as_json or quiet),
            session.run_id,
            {**present.peers, mcrd.PEER.name: mcrd.PEER.with_trees(trees)} if trees else present.peers,
            [*present.skipped(scenarios), *_without_gate(session)],
            session.wires,
        )
        written = write_report(archive.results, archive.directory)
        records = list(archive.records)
    if junit:
        _write_junit(junit, [step.step_id for step in planned], archive, ended)
    if summary := os.environ.get(job_summary.VARIABLE):
        report = next((path.read_text("utf-8") for path in written if path.suffix == ".md"), "")
        told = (ended.outcome, ended.failures, ended.inconclusive, ended.skipped)
        job_summary.append(Path(summary), job_summary.markdown(records, *told, report))
    if as_json:
        print_json(
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
        summarise(records, ended, written or [archive.results])
    return {"passed": PASSED, "failed": FAILED, "interrupted": INTERRUPTED}[ended.outcome]


def _write_junit(path: Path, planned: Sequence[str], archive: Archive, ended: runs.Ended) -> None:
    from lab.ci import junit

    made = junit.cases(
        planned, steps_done(archive.directory), ended.failures, ended.inconclusive, ended.skipped
    )
    junit.write(path, made, archive.started.started_at if archive.started else "")


def _without_gate(session: Session) -> list[str]:
    """Why nothing is measured against a baseline, where that was asked for."""
    gated = session.baseline is None or any(scenario.name == NAME for scenario in session.scenarios)
    return [] if gated else [f"{NAME}: {session.baseline}"]


def _demand_root() -> None:
    if os.geteuid():
        raise BadInputError("run needs root, for namespaces and packet sockets: try again with sudo")


def _check_wires(wires: Wires | None, scenarios: Iterable[Scenario]) -> None:
    """Raises WiresError and BadInputError: nothing has been touched by then."""
    if wires is None:
        return
    if problems := list(misfits(wires, scenarios)):
        raise WiresError(problems)
    if found := obstacles(wires.names):
        raise BadInputError("; ".join(found))
