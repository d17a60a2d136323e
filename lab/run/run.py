"""Perform the steps of a run in order, and leave nothing behind however the run ends."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from lab.journal.archive import Archive
from lab.journal.eta import ExpectedStep, past_seconds
from lab.journal.interrupt import Interrupt
from lab.journal.progress import Reporter
from lab.load.jobs import TrafficError
from lab.netns.namespaces import NetnsError
from lab.peers.base import Peer, PeerError
from lab.results import RunEnded
from lab.scenario.wires import Wires
from lab.steps.context import BenchPool, Context
from lab.steps.step import Step, StepError
from lab.trial.plan import Cpus

START = "(start)"
"""The journal's entry for the run's first record. With it, a run interrupted at once can be resumed."""


def run(
    steps: Sequence[Step],
    archive: Archive,
    reporter: Reporter,
    run_id: str,
    peers: Mapping[str, Peer],
    skipped: Sequence[str],
    wires: Wires | None,
    cpus: Cpus,
) -> RunEnded:
    """Perform every step that the archive does not have, and write the last record.

    An interrupt (Ctrl-C) keeps the trials that are done. A failed step is noted and the run goes on with the
    next one. A comparison that was too noisy to conclude is no failure, nor is a subject that ended while it
    was measured: that is a result.

    Args:
        skipped: what was left out of the steps, one sentence each.
        wires: existing interfaces to use instead of veth pairs.
    """
    due = [step for step in steps if step.step_id not in archive.finished]
    known = past_seconds(archive.directory, archive.started) if archive.started else {}
    reporter.begin([ExpectedStep(step.step_id, step.seconds, known.get(step.step_id)) for step in due])
    failed: list[str] = []
    inconclusive: list[str] = []
    interrupt = Interrupt()
    try:
        with interrupt.handled(), BenchPool(run_id, peers, wires, cpus) as benches:
            for step in due:
                interrupt.check()
                reporter.step(step.step_id)
                began, resumed = time.monotonic(), step.step_id in archive.unfinished
                archive.begin()
                context = Context(archive, reporter, run_id, benches, interrupt)
                try:
                    step.perform(context)
                except (StepError, PeerError, TrafficError, NetnsError) as error:
                    if isinstance(error, StepError):
                        outcomes, word = inconclusive, "no conclusion"
                    else:
                        interrupt.check()
                        benches.close()  # a bench that failed once cannot be trusted
                        outcomes, word = failed, "failed"
                    reporter.outcome(f"{word}: {error}")
                    outcomes.append(f"{step.step_id}: {error}")
                    archive.give_up(step.step_id)
                    reporter.done(time.monotonic() - began)
                else:
                    seconds = time.monotonic() - began
                    archive.finish(step.step_id, context.failures, None if resumed else seconds)
                    reporter.done(seconds)
    except BaseException:
        # The second signal raises wherever the run is, and a library may turn that into another exception.
        if not interrupt.requested:
            raise
    finally:
        reporter.end()
    failures = [*archive.failures, *failed]
    ended = RunEnded(
        ended_at=now(),
        outcome="interrupted" if interrupt.requested else "failed" if failures else "passed",
        failures=failures,
        inconclusive=inconclusive,
        skipped=list(skipped),
    )
    archive.write(ended)
    return ended


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
