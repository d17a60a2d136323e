"""The functional checks: every probe through a running forwarder at once, then what came out, field by field.

The capture ends when the forwarder has counted every probe and nothing more comes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from lab.load.jobs import Frame, ReceiverJob, SenderJob
from lab.load.topology import Topology
from lab.netns.build import build
from lab.peers.mcrd import EGRESS_REASONS, Forwarder, start_forwarder
from lab.results import Check
from lab.steps.functional_packets import RULES, Copy, Probe, describe, is_copy_of, observe, probes
from lab.traffic.process import start_receiver, start_sender

SETTLE_TIMEOUT_S = 10.0
INTERFACES = ("r0", "r1")


def run_checks(scenario: str, run_id: str) -> list[Check]:
    """One check for each probe, and one for the totals."""
    sent = probes()
    with build(Topology(inputs=1, outputs=2), run_id) as lab:
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
    return [
        *(_checked(scenario, probe, frames, counted, sent) for probe in sent),
        _sums(scenario, sent, counted),
    ]


def _settled(forwarder: Forwarder, probes_sent: int) -> Mapping[str, int]:
    """The forwarder's counts once it has received every probe; what it counted by then when it has not."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        totals = forwarder.stats()["totals"]
        if totals["received"] >= probes_sent or time.monotonic() > deadline:
            counted = dict(totals["dropped"])
            counted.update({key: totals[key] for key in ("received", "matched", "sent")})
            return counted


def _checked(
    scenario: str, probe: Probe, frames: Sequence[Frame], counted: Mapping[str, int], sent: Sequence[Probe]
) -> Check:
    if probe.reason is not None:
        same = sum(other.reason == probe.reason for other in sent)
        found = counted.get(probe.reason, 0)
        return Check(
            scenario=scenario,
            case=probe.name,
            passed=found == same,
            expected=f"{probe.reason} = {same}",
            observed=f"{probe.reason} = {found}",
        )
    seen = [
        observe(frame.interface, bytes.fromhex(frame.data), frame.checksum_ready)
        for frame in frames
        if is_copy_of(probe, bytes.fromhex(frame.data))
    ]
    expected, observed = _differences(probe, probe.copies, seen)
    return Check(
        scenario=scenario,
        case=probe.name,
        passed=expected == observed,
        expected=expected,
        observed=observed,
    )


def _differences(probe: Probe, copies: Sequence[Copy], seen: list[dict[str, object]]) -> tuple[str, str]:
    """What was wanted and what came, in words; only the fields that differ when the number is right."""
    wanted = sorted((describe(probe, copy) for copy in copies), key=str)
    seen = sorted(seen, key=str)
    plural = "copy" if len(wanted) == 1 else "copies"
    if len(wanted) != len(seen):
        return f"{len(wanted)} {plural}", f"{len(seen)} captured"
    different = [
        (f"{name} {want[name]}", f"{name} {got[name]}")
        for want, got in zip(wanted, seen, strict=True)
        for name in want
        if want[name] != got[name]
    ]
    if not different:
        text = f"{len(wanted)} {plural}, {len(wanted[0])} fields each as specified"
        return text, text
    return "; ".join(want for want, _ in different), "; ".join(got for _, got in different)


def _sums(scenario: str, sent: Sequence[Probe], counted: Mapping[str, int]) -> Check:
    """Every probe is counted once; one that matched but must not leave (its TTL is 1) counts as matched."""
    wanted = {
        "received": len(sent),
        "matched": sum(bool(probe.copies) or probe.reason in EGRESS_REASONS for probe in sent),
        "sent": sum(len(probe.copies) for probe in sent),
    }
    found = {name: counted.get(name, 0) for name in wanted}
    return Check(
        scenario=scenario,
        case="every probe counted once",
        passed=found == wanted,
        expected=", ".join(f"{name} {count}" for name, count in wanted.items()),
        observed=", ".join(f"{name} {count}" for name, count in found.items()),
    )
