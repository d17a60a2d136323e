"""The functional checks: packets sent through a running forwarder, and what came out, field by field.

The capture ends when the forwarder has counted every packet and nothing more comes. Every interface is
captured, too, and what was seen there is kept when a check fails.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.load.jobs import ReceiverJob, SenderJob
from lab.load.topology import Topology
from lab.results import Check
from lab.steps.step import Selection, Step

if TYPE_CHECKING:
    from lab.peers.mcrd import Forwarder
    from lab.steps.context import Context
    from lab.steps.functional_packets import Probe

ESTIMATED_S = 8.0
SETTLE_TIMEOUT_S = 10.0
INTERFACES = ("r0", "r1")


@dataclass(frozen=True)
class FunctionalStep(Step):
    """One check for each packet, and one for the totals."""

    @classmethod
    def for_scenario(cls, selection: Selection) -> Iterator[FunctionalStep]:
        if selection.scenario.functional:
            yield cls(selection.scenario, selection.profile)

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/checks"

    @property
    def seconds(self) -> float:
        return ESTIMATED_S

    def perform(self, context: Context) -> None:
        directory = context.archive.directory
        checks = run_checks(self.scenario.name, f"{context.run_id}-checks", self.step_id, directory)
        for check in checks:
            context.check(check, check.case)
        passed = sum(check.passed for check in checks)
        context.reporter.outcome(f"{passed} of {len(checks)} checks passed")


def run_checks(
    scenario: str, run_id: str, step: str, directory: Path, sent: Sequence[Probe] = ()
) -> list[Check]:
    """Send probes, all of them by default, and check each; frames of a failure go below ``directory``."""
    # Imported here because scapy is slow to load, and so is what compiles the sender.
    from lab.measure.capture import capturing
    from lab.netns.build import build
    from lab.peers.mcrd import start_forwarder
    from lab.steps.evidence import kept
    from lab.steps.functional_packets import RULES, checks, probes
    from lab.traffic.process import start_receiver, start_sender

    sent = sent or probes()
    with build(Topology(inputs=1, outputs=2), run_id) as lab, capturing(lab) as everywhere:
        everywhere.begin()
        forwarder = start_forwarder(lab.fwd, ["in0"], RULES)
        try:
            capture = ReceiverJob(interfaces=INTERFACES, full=True, keep_frames=4 * len(sent))
            load = SenderJob(interface="g0", frames=tuple(probe.frame.hex() for probe in sent))
            with start_receiver(lab.rcv, capture) as receiver, start_sender(lab.gen, load) as sender:
                receiver.ready()
                sender.ready()
                sender.go()
                sender.report()
                counted = _settled(forwarder, len(sent))
                receiver.stop()
                frames = receiver.report().captured
        finally:
            forwarder.stop()
        made = checks(scenario, sent, frames, counted)
        if all(check.passed for check in made):
            return made
        evidence = kept(directory, step, "all packets of the checks", everywhere.take())
    return [check if check.passed else check.model_copy(update={"frames": evidence}) for check in made]


def _settled(forwarder: Forwarder, probes_sent: int) -> Mapping[str, int]:
    """The forwarder's counts once it has received every probe; what it counted by then when it has not."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        totals = forwarder.stats()["totals"]
        if totals["received"] >= probes_sent or time.monotonic() > deadline:
            counted = dict(totals["dropped"])
            counted.update({key: totals[key] for key in ("received", "matched", "sent")})
            return counted
