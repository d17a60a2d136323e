"""One run in one directory: started or resumed, then run to its end."""

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from lab.journal import provenance
from lab.journal.archive import Archive, RunError
from lab.journal.progress import Reporter
from lab.measure.conditions import conditions
from lab.netns.lend import obstacles
from lab.peers import mcrd
from lab.results import Provenance, RunEnded, RunStarted
from lab.run import run as runs
from lab.run.commits import baseline as choose_baseline
from lab.run.commits import resolved, work_trees
from lab.run.peer_availability import PeerAvailability, find_peers, parse_options
from lab.scenario.files import load_scenarios, scenario_text
from lab.scenario.gate import NAME, against
from lab.scenario.model import Scenario
from lab.scenario.profiles import ProfileName, profile_named
from lab.scenario.wires import Wires, WiresError, load_wires, misfits
from lab.steps.plan import steps
from lab.steps.step import Step
from lab.trial.plan import Cpus, divide

OUT = Path("reports/out")


@dataclass(frozen=True)
class Session:
    """Everything that a run needs."""

    archive: Archive
    run_id: str
    profile: ProfileName
    scenarios: Sequence[Scenario]
    availability: PeerAvailability
    wires: Wires | None
    cpus: Cpus
    baseline: str | None
    """The commit that the gate measures against, or why there is none. ``None`` without a gate."""

    @cached_property
    def steps(self) -> Sequence[Step]:
        """Every step of the run in order, finished ones included."""
        return steps(self.scenarios, self.profile, self.availability.absent)

    def run(self, reporter: Reporter) -> RunEnded:
        """Perform the steps that are left; the archive is closed afterwards."""
        commits = (commit for scenario in self.scenarios for commit in scenario.commits())
        peers = dict(self.availability.peers)
        with self.archive, work_trees(commits) as trees:
            peers[mcrd.PEER.name] = mcrd.PEER.with_trees(trees)
            skipped = self.availability.skipped(self.scenarios)
            if self.baseline is not None and not any(scenario.name == NAME for scenario in self.scenarios):
                skipped.append(f"{NAME}: {self.baseline}")
            return runs.run(
                self.steps, self.archive, reporter, self.run_id, peers, skipped, self.wires, self.cpus
            )


def start(
    scenarios: Mapping[str, Scenario],
    profile: ProfileName,
    directory: Path | None,
    *,
    made: Sequence[Scenario] = (),
    peers: Sequence[str] = (),
    wires: Path | None = None,
    baseline: str | None = None,
    cpus: Cpus | None = None,
) -> Session:
    """Start a run in ``directory``, or in a new one under ``reports/out``.

    Args:
        scenarios: by the name or file that each is loaded from when the run is resumed.
        made: scenarios without a file, which are written to the directory.
        peers: ``NAME=PATH`` of the programs that the user chose.
        wires: the file that names the existing interfaces to use.
        cpus: of the bench and of the forwarder; half of the machine's each when left out.
        baseline: add the gate against this commit, or ``auto``: see :func:`lab.run.commits.baseline`.

    Raises:
        RunError, ProblemsError: bad input. Nothing has been written by then.
    """
    _require_root()
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"  # unique, and sorts by time
    directory = directory or OUT / run_id
    cpus = cpus or divide(os.sched_getaffinity(0))
    gate = None if baseline is None else choose_baseline(baseline)
    if gate and gate.commit:
        made = [*made, against(load_scenarios([NAME], len(cpus.forwarder))[0], gate.commit)]
        scenarios = {name: scenario for name, scenario in scenarios.items() if scenario.name != NAME}
    files = {directory.resolve() / f"{scenario.name}.toml": scenario for scenario in made}
    scenarios = {**scenarios, **{str(file): scenario for file, scenario in files.items()}}
    for scenario in scenarios.values():
        for commit in scenario.commits():
            resolved(commit, f"{scenario.name}: commit")
    paths = parse_options(peers)
    availability = find_peers(paths)
    cables = load_wires(wires) if wires else None
    _check_wires(cables, scenarios.values())
    archive = Archive.create(directory)
    for file, scenario in files.items():
        file.write_text(scenario_text(scenario), encoding="utf-8")
    why = gate.why if gate else None
    archive.write(
        RunStarted(
            run_id=run_id,
            started_at=runs.now(),
            profile=profile,
            scenarios=list(scenarios),
            rfc3918={each.name: list(each.rfc3918) for each in scenarios.values() if each.rfc3918},
            peers={name: str(path) for name, path in paths.items()},
            wires=None if cables is None else cables.model_dump(mode="json"),
            baseline=why,
            forwarder_cpus=list(cpus.forwarder) if cpus.apart else None,
            provenance=_provenance(),
        )
    )
    archive.finish(runs.START)
    return Session(archive, run_id, profile, list(scenarios.values()), availability, cables, cpus, why)


def resume(directory: Path) -> Session:
    """Open the run in ``directory`` to finish it. Raises RunError, ProblemsError."""
    _require_root()
    archive = Archive.resume(directory)
    started = archive.started
    if started is None:
        raise RunError(f"{directory}: no run was started there")
    try:
        cpus = divide(os.sched_getaffinity(0), started.forwarder_cpus)
    except ValueError as error:
        raise RunError(f"{directory}: forwarder CPUs {started.forwarder_cpus}: {error}") from None
    return Session(
        archive,
        started.run_id,
        profile_named(started.profile),
        load_scenarios(started.scenarios, len(cpus.forwarder)),
        find_peers({name: Path(path) for name, path in started.peers.items()}),
        None if started.wires is None else Wires.model_validate(started.wires),
        cpus,
        started.baseline,
    )


def _provenance() -> Provenance:
    found = conditions()
    doubts = [each.doubt for each in found if each.doubt is not None]
    marks = {"conditions": {each.name: each.found for each in found}, "doubts": doubts}
    return provenance.gather().model_copy(update=marks)


def _require_root() -> None:
    if os.geteuid():
        raise RunError("run needs root, for namespaces and packet sockets: try again with sudo")


def _check_wires(wires: Wires | None, scenarios: Iterable[Scenario]) -> None:
    if wires is None:
        return
    if problems := list(misfits(wires, scenarios)):
        raise WiresError(problems)
    if found := obstacles(wires.names):
        raise RunError("; ".join(found))
