"""The upstream multicast relay as a subject, from binaries that the user gives: ``--peer mcr=PATH``.

It is driven by what its documents say: ``mcrd supervisor --control-socket-path … --num-workers N``, then
``mcrctl --socket-path … add`` for each rule. Nothing is known of its statistics, so its account is that of
its namespace: what came in, and what the outputs were handed. The difference was lost in its sockets' rings
or in its workers; nobody can say which.

``mcrctl`` answers before a worker has its rule, and there is no notice of that: a bench sends to a new
subject until the first copy arrives.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from subprocess import DEVNULL

from lab.ledger.ledger import Account, Sample
from lab.load.flows import Rule
from lab.netns import namespaces as netns
from lab.netns import ownership, procnet
from lab.netns.build import Lab
from lab.peers.base import PeerError, Program, await_ready, executable
from lab.results import Setting

NAME = "mcr"

STILL_S = 0.3
"""What it has not sent is counted as lost once it has sent nothing for so long: it has no statistics."""


@dataclass
class _Relay(Program):
    """A running ``mcrd supervisor`` of upstream's. Its workers do not die with it, but with the namespace."""

    outputs: tuple[str, ...]
    handed_on: int = 0
    handed_on_at: float = 0.0
    """Frames that its outputs were given, and when that last grew (time.monotonic)."""

    @property
    def pids(self) -> Sequence[int]:
        return (self.process.pid,)

    def sample(self) -> Sample:
        try:
            frames = procnet.interfaces(procnet.read(self.process.pid, "dev"))
            received = procnet.counters(procnet.read(self.process.pid, "snmp"), "Ip")["InReceives"]
        except OSError as error:
            raise PeerError(f"{NAME}: {self.ended() or error}") from error
        handed_on = sum(frames[name].sent + frames[name].send_dropped for name in self.outputs)
        now = time.monotonic()
        if handed_on != self.handed_on:
            self.handed_on, self.handed_on_at = handed_on, now
        still = now - self.handed_on_at >= STILL_S
        return Sample(account_of(received, handed_on, len(self.outputs), still))


def account_of(received: int, handed_on: int, outputs: int, still: bool) -> Account:
    """The account in the counters of its namespace; each datagram that came in is due on every output.

    Args:
        received: datagrams that came in, all of them from the generator.
        handed_on: frames that the outputs were given, including those that they dropped.
        still: whether it has stopped sending.
    """
    due = received * outputs
    missing = max(0, due - handed_on)
    lost = {(NAME, "received, not sent"): missing}
    return Account(received, due, egress=lost, pending=0 if still else missing)


@dataclass(frozen=True)
class _Mcr:
    name: str = NAME
    sends_bursts: bool = False
    says_when_ready: bool = False
    mcrd: Path | None = None

    def at(self, path: Path) -> _Mcr:
        """``path``: the directory with ``mcrd`` and ``mcrctl``, or ``mcrd`` with the other beside it."""
        return replace(self, mcrd=path / "mcrd" if path.is_dir() else path)

    @property
    def mcrctl(self) -> Path | None:
        return self.mcrd.with_name("mcrctl") if self.mcrd else None

    def missing(self) -> str | None:
        if self.mcrd is None:
            return f"upstream's binaries are not here: --peer {NAME}=PATH says where"
        absent = [str(path) for path in (self.mcrd, self.mcrctl) if path and not executable(path)]
        return f"no program is at {', '.join(absent)}" if absent else None

    def start(self, lab: Lab, rules: Sequence[Rule], setting: Setting, cpus: Sequence[int]) -> _Relay:  # noqa: ARG002
        directory = ownership.scratch_directory("mcr")
        control = directory / "control"
        workers = ["--num-workers", str(len(cpus))] if cpus else []
        argv = [str(self.mcrd), "supervisor", "--control-socket-path", str(control), *workers]
        with (directory / "stderr").open("wb") as errors:
            process = netns.spawn(lab.fwd, argv, cpus=cpus, stdin=DEVNULL, stdout=errors, stderr=errors)
        relay = _Relay(process, directory, rules[0].output_interfaces)
        try:
            await_ready(NAME, relay.ended, partial(_lacking, control))
            for rule in rules:
                netns.run(lab.fwd, [str(self.mcrctl), *words(control, rule)])
        except BaseException as error:
            relay.stop()
            if isinstance(error, netns.NetnsError):
                raise PeerError(f"{NAME}: {error}") from error
            raise
        return relay


def words(control: Path, rule: Rule) -> list[str]:
    """What ``mcrctl`` is told of a rule."""
    outputs = ",".join(f"{rule.group}:{rule.port}:{name}" for name in rule.output_interfaces)
    return [
        *("--socket-path", str(control), "add"),
        *("--input-interface", rule.input_interface),
        *("--input-group", rule.group),
        *("--input-port", str(rule.port)),
        *("--outputs", outputs),
    ]


def _lacking(control: Path) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return "no control socket" if client.connect_ex(str(control)) else ""


PEER = _Mcr()
