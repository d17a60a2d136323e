"""What every subject offers: start in the forwarder's namespace, say what it counted, stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lab.build import Lab
from lab.ledger import Account
from lab.results import Setting, WorkerSample

READY_TIMEOUT_S = 60.0


class PeerError(RuntimeError):
    """A subject could not be started or asked; the message says which and what it printed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One forwarding rule of a trial: same group and port in and out, so that every subject can do it."""

    rule_id: str
    group: str
    port: int
    source: str
    """The sender's address: kernel multicast routing matches it, mcrd does not."""
    input_interface: str
    output_interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a subject says at one moment: its account, and each worker's share (none without workers)."""

    account: Account
    workers: tuple[WorkerSample, ...] = ()


class Running(Protocol):
    """A subject that forwards. Counters are totals since it started."""

    @property
    def pids(self) -> Sequence[int]:
        """Its processes; empty when the work is the kernel's."""

    def sample(self) -> Sample: ...

    def stop(self) -> None: ...


class Peer(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def sends_bursts(self) -> bool:
        """Whether it hands frames of several datagrams to a device that takes them."""
        ...

    def start(self, lab: Lab, rules: Sequence[Rule], setting: Setting, cpus: Sequence[int]) -> Running:
        """Start in ``lab.fwd`` and return once ready to forward; ``cpus`` are those it may work on.

        Raises :class:`PeerError`.
        """
