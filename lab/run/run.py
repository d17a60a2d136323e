"""Execute the steps of a run in order: nothing is left behind, whatever ends it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lab.journal import provenance
from lab.journal.archive import Archive
from lab.journal.durations import past_seconds
from lab.journal.eta import Expected
from lab.journal.interrupt import Interruption
from lab.journal.progress import Reporter
from lab.load.jobs import TrafficError
from lab.netns.namespaces import NetnsError
from lab.peers import PEERS
from lab.peers.base import Peer, PeerError
from lab.results import RunEnded, RunStarted
from lab.scenario.wires import Wires
from lab.steps.context import BenchPool, Context
from lab.steps.step import NoFigureError, Step, StepError

Outcome = Literal["passed", "failed", "interrupted"]

RUN_STEP = "(start)"
"""The journal's entry for the run's own first record: a run interrupted at once can be resumed, too."""


@dataclass(frozen=True)
class Ended:
    """How a run ended. ``failures``, ``inconclusive``, ``skipped``: one sentence each."""

    outcome: Outcome
    failures: tuple[str, ...]
    inconclusive: tuple[str, ...]
    skipped: tuple[str, ...]


def new_run_id() -> str:
    """Sorts by time, and is unique: "20260102-030405-a1b2"."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def begin(
    archive: Archive,
    run_id: str,
    profile: str,
    scenarios: Sequence[str],
    rfc3918: Mapping[str, Sequence[str]],
    peers: Mapping[str, Path],
    wires: Wires | None = None,
    baseline: str | None = None,
) -> None:
    """The first record of a new run.

    Args:
        scenarios: how each can be loaded again.
        peers: the programs that the user chose, by subject.
        wires: the existing interfaces that the user lent.
        baseline: what the gate measures against, or why against nothing.
    """
    archive.write(
        RunStarted(
            run_id=run_id,
            started_at=_now(),
            profile=profile,
            scenarios=list(scenarios),
            rfc3918={name: list(sections) for name, sections in rfc3918.items()},
            peers={name: str(path) for name, path in peers.items()},
            wires=None if wires is None else wires.model_dump(mode="json"),
            baseline=baseline,
            provenance=provenance.gather(),
        )
    )
    archive.finish(RUN_STEP)


def run(
    steps: Sequence[Step],
    archive: Archive,
    reporter: Reporter,
    run_id: str,
    peers: Mapping[str, Peer] = PEERS,
    skipped: Sequence[str] = (),
    wires: Wires | None = None,
) -> Ended:
    """Do every step that the archive does not have. An interruption (Ctrl-C) keeps the trials that are done.

    A step that fails is noted and the next one tried; what has been recorded of it stays. That a shared
    machine was too noisy to conclude a comparison is no failure, unless the profile demands the targets; that
    a subject ended is none, either.

    Args:
        peers: the subjects that there are.
        skipped: what was left out of the steps, one sentence each.
        wires: existing interfaces to take instead of making veth pairs.
    """
    due = [step for step in steps if step.step_id not in archive.finished]
    known = past_seconds(archive.directory, archive.started) if archive.started else {}
    reporter.begin([Expected(step.step_id, step.seconds, known.get(step.step_id)) for step in due])
    broken: list[str] = []
    inconclusive: list[str] = []
    interruption = Interruption()
    try:
        with interruption.heeded(), BenchPool(run_id, peers, wires) as benches:
            for step in due:
                interruption.check()
                reporter.step(step.step_id)
                began, resumed = time.monotonic(), step.step_id in archive.unfinished
                archive.begin()
                context = Context(archive, reporter, run_id, benches, interruption)
                try:
                    step.perform(context)
                except StepError as error:
                    demanded = step.profile.demand_targets and not isinstance(error, NoFigureError)
                    kept = broken if demanded else inconclusive
                    kept.append(f"{step.step_id}: {error}")
                    reporter.outcome(f"no conclusion: {error}")
                    archive.give_up(step.step_id)
                    reporter.done(time.monotonic() - began)
                    continue
                except (PeerError, TrafficError, NetnsError) as error:
                    interruption.check()
                    # A bench that failed once cannot be trusted: the next step builds its own.
                    benches.close()
                    broken.append(f"{step.step_id}: {error}")
                    reporter.outcome(f"failed: {error}")
                    archive.give_up(step.step_id)
                    reporter.done(time.monotonic() - began)
                    continue
                seconds = time.monotonic() - began
                archive.finish(step.step_id, context.failures, None if resumed else seconds)
                reporter.done(seconds)
    except BaseException:
        # A second signal raises wherever the run is, and may arrive here as another exception.
        if not interruption.asked:
            raise
    finally:
        reporter.end()
    failures = [*archive.failures, *broken]
    outcome: Outcome = "interrupted" if interruption.asked else "failed" if failures else "passed"
    archive.write(
        RunEnded(
            ended_at=_now(),
            outcome=outcome,
            failures=failures,
            inconclusive=inconclusive,
            skipped=list(skipped),
        )
    )
    return Ended(outcome, tuple(failures), tuple(inconclusive), tuple(skipped))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
