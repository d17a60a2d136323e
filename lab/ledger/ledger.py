"""The ledger of a trial: every datagram offered is delivered or has a place and a reason. Pure.

Two balances. *Ingress*, in datagrams: offered = matched a rule + drops before that. *Egress*, in copies:
due = matched × outputs = arrived + drops after. What does not add up stays visible as the stage's
``unattributed`` and makes the trial doubtful. Where n workers each get every datagram, each of them counts
it: n times the offered datagrams enter.

One drop is often seen by two counters, and must be booked once:

* veth reports a datagram that the receiving CPU's backlog refused as ``tx_dropped`` of the sending end (and
  the kernel counts it in ``softnet_stat``, for the whole machine). The device's counter is used: it is
  ours alone. The sender of that datagram may see ENOBUFS, too: copies that the forwarder reports as refused
  are booked only as far as copies are missing after all other drops.
* With offloads on, a device counts a GSO frame as one, whatever it carries. There the forwarder's own count
  of refused copies is exact and the device's is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lab.results import Drop, Ledger, Stage, WorkerSample

Where = tuple[str, str]
"""Place and reason of a drop, as in :class:`lab.results.Drop`."""

REFUSED: Where = ("transmit", "refused")
"""The forwarder was told by the kernel that a copy was not sent."""

ABSENT: Where = ("forwarder", "not running")
"""Came while the subject was stopped: the rest after everything that was counted."""

BACKLOG_IN: Where = ("softnet", "input backlog full")
BACKLOG_OUT: Where = ("softnet", "output backlog full")
RECEIVER: Where = ("receiver", "capture ring full")


@dataclass(frozen=True)
class Account:
    """What a subject says of the datagrams it got: totals, or the difference of two totals.

    ``matched`` in datagrams, ``copies_due`` in copies; drops by place and reason, ``ingress`` in datagrams
    and ``egress`` in copies.
    """

    matched: int = 0
    copies_due: int = 0
    ingress: Mapping[Where, int] = field(default_factory=dict)
    egress: Mapping[Where, int] = field(default_factory=dict)
    pending: int = 0
    """Copies that the subject is about to send: at this moment, not a total."""
    absences: int = 0
    """How often the subject was stopped and started again."""

    def since(self, earlier: Account) -> Account:
        """The growth from ``earlier`` to this."""
        return self._plus(earlier, -1)

    def with_past(self, past: Account) -> Account:
        """The totals of a subject that was started again after ``past``: one absence more than that had."""
        return replace(self._plus(past), absences=past.absences + 1)

    def _plus(self, other: Account, sign: int = 1) -> Account:
        return Account(
            self.matched + sign * other.matched,
            self.copies_due + sign * other.copies_due,
            _sum(self.ingress, other.ingress, sign),
            _sum(self.egress, other.egress, sign),
            self.pending,
            self.absences + sign * other.absences,
        )

    def accounts_for(self, datagrams: int) -> bool:
        """Whether so many have matched or been dropped, and every copy has been sent or dropped."""
        return not self.pending and self.matched + sum(self.ingress.values()) >= datagrams


@dataclass(frozen=True, slots=True)
class Sample:
    """What a subject says at one moment: its account, and each worker's share (none without workers)."""

    account: Account
    workers: tuple[WorkerSample, ...] = ()

    def since(self, earlier: Sample) -> Sample:
        """The growth from ``earlier`` to this."""
        return Sample(self.account.since(earlier.account), self._plus(earlier, -1))

    def with_past(self, past: Sample) -> Sample:
        """The totals of a subject that was started again after ``past``."""
        return Sample(self.account.with_past(past.account), self._plus(past))

    def _plus(self, other: Sample, sign: int = 1) -> tuple[WorkerSample, ...]:
        """Its workers, with the counts of the same workers in ``other`` added."""
        counts = {worker.worker_id: (worker.received, worker.matched) for worker in other.workers}
        made = []
        for worker in self.workers:
            received, matched = counts.get(worker.worker_id, (0, 0))
            sums = {"received": worker.received + sign * received, "matched": worker.matched + sign * matched}
            made.append(worker.model_copy(update=sums))
        return tuple(made)


@dataclass(frozen=True)
class Outside:
    """What generator, devices and receivers counted, in copies unless a field says otherwise."""

    offered: int
    """Datagrams."""
    input_dropped: int
    """Frames."""
    output_dropped: int
    receiver_dropped: int
    arrived: int
    """Duplicates included."""
    receivers: int = 1
    """Workers of the subject that receive each datagram."""
    device_counts_datagrams: bool = True
    """False with offloads on: the output devices then count frames."""
    frame_datagrams: int = 1
    """In each frame that the generator sends; with offloads on, a burst. Backlogs and rings lose frames."""
    frame_datagrams_max: int = 1
    """At most in a frame that the receivers lost without reading it."""

    @property
    def input_lost(self) -> int:
        """``input_dropped`` in datagrams."""
        return self.input_dropped * self.frame_datagrams


NOT_MULTICAST: Where = ("forwarder", "not_multicast")
RING_FULL: Where = ("packet-socket", "ring full")


def mixed(account: Account, routed: int) -> Account:
    """``account`` and the ``routed`` unicast datagrams that the kernel forwarded beside the subject.

    A subject at layer 2 gets a copy of each and counts it as not multicast, or its ring was full. Neither is
    a loss: the kernel has the datagram itself.
    """
    ingress = dict(account.ingress)
    if (seen := ingress.pop(NOT_MULTICAST, None)) is not None:
        ingress[RING_FULL] = ingress.get(RING_FULL, 0) - (routed - seen)
    return replace(
        account, matched=account.matched + routed, copies_due=account.copies_due + routed, ingress=ingress
    )


def build(account: Account, outside: Outside) -> Ledger:
    """Book every datagram and copy once."""
    ingress = dict(account.ingress)
    ingress[BACKLOG_IN] = ingress.get(BACKLOG_IN, 0) + outside.input_lost * outside.receivers
    if RING_FULL in ingress:
        ingress[RING_FULL] *= outside.frame_datagrams
    entered = outside.offered * outside.receivers
    if account.absences:
        ingress[ABSENT] = max(0, entered - account.matched - sum(ingress.values()))
    egress = {where: count for where, count in account.egress.items() if where != REFUSED}
    egress[RECEIVER] = egress.get(RECEIVER, 0) + outside.receiver_dropped
    refused = account.egress.get(REFUSED, 0)
    if outside.device_counts_datagrams:
        egress[BACKLOG_OUT] = egress.get(BACKLOG_OUT, 0) + outside.output_dropped
        left_open = account.copies_due - outside.arrived - sum(egress.values())
        refused = min(refused, max(0, left_open))
    elif outside.receiver_dropped:
        # Frames of unknown length: copies that are missing were in them, as far as they fit.
        left_open = account.copies_due - outside.arrived - sum(egress.values()) - refused
        more = outside.receiver_dropped * (outside.frame_datagrams_max - 1)
        egress[RECEIVER] += min(max(0, left_open), more)
    egress[REFUSED] = refused
    return Ledger(
        ingress=Stage(entered=entered, left=account.matched, drops=_drops(ingress)),
        egress=Stage(entered=account.copies_due, left=outside.arrived, drops=_drops(egress)),
    )


def ended(outside: Outside, outputs: int, subject: str) -> Ledger:
    """The ledger of a subject that ended before it could account for what it got.

    Every datagram that reached it was due on every output; what did not arrive went with it.
    """
    matched = (outside.offered - outside.input_lost) * outside.receivers
    due = matched * outputs
    elsewhere = outside.receiver_dropped + outside.output_dropped * outside.device_counts_datagrams
    gone = max(0, due - outside.arrived - elsewhere)
    return build(Account(matched, due, egress={(subject, "ended"): gone}), outside)


def direct(outside: Outside) -> Ledger:
    """The ledger of the generator straight into the receivers: everything that arrives counts as matched."""
    matched = outside.offered - outside.input_lost
    return build(Account(matched=matched, copies_due=matched), replace(outside, output_dropped=0))


def doubts(ledger: Ledger) -> list[str]:
    """A sentence for each balance that does not add up."""
    found = []
    for name, stage, unit in (("ingress", ledger.ingress, "datagrams"), ("egress", ledger.egress, "copies")):
        if stage.unattributed:
            kind = "unaccounted for" if stage.unattributed > 0 else "counted twice"
            found.append(f"{name}: {abs(stage.unattributed):,} of {stage.entered:,} {unit} {kind}")
    return found


def _sum(one: Mapping[Where, int], other: Mapping[Where, int], sign: int) -> dict[Where, int]:
    return {where: one.get(where, 0) + sign * other.get(where, 0) for where in {**one, **other}}


def _drops(counts: Mapping[Where, int]) -> list[Drop]:
    return [Drop(place=place, reason=reason, count=n) for (place, reason), n in sorted(counts.items()) if n]
