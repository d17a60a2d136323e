"""What every subject offers: start in the forwarder's namespace, say what it counted, stop."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from lab.ledger.ledger import Sample
from lab.load.flows import Rule
from lab.netns.build import Lab
from lab.results import Resize, Setting

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class PeerError(RuntimeError):
    """A subject could not be started or asked; the message says which and what it printed."""


class Running(Protocol):
    """A subject that forwards. Counters are totals since it started."""

    @property
    def pids(self) -> Sequence[int]:
        """Its processes; empty when the work is the kernel's."""

    def ended(self) -> str | None:
        """How it ended by itself, if it did: "exited 1: its message", "killed by SIGKILL"."""

    def sample(self) -> Sample:
        """Raises :class:`PeerError` when it does not answer, as one that has ended."""

    def stop(self) -> None: ...


@runtime_checkable
class Changing(Protocol):
    """A running subject whose rules can be changed while it forwards; both raise :class:`PeerError`."""

    @property
    def joins_upstream(self) -> bool:
        """Whether it asks the network for the groups of its rules (IGMP)."""

    def add(self, rule: Rule) -> None:
        """Forward by one more rule; returns when it says that it does."""

    def remove(self, rule: Rule) -> None:
        """Stop forwarding by it."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """An elastic group of workers."""

    group: int
    workers: int
    min_workers: int
    max_workers: int
    threshold_dps: int
    offered_dps: float
    changes: tuple[Resize, ...]
    """When each began: CLOCK_MONOTONIC."""


@runtime_checkable
class Operable(Protocol):
    """A running subject whose workers can be changed while it forwards; all raise :class:`PeerError`."""

    def scaling(self) -> Sequence[Scaling]:
        """Its elastic groups."""

    def resize(self, group: int, workers: int) -> None:
        """Change the size of an elastic group; returns once it has that many workers."""

    def apply(self, strategy: str, workers: int) -> None:
        """Switch to another strategy with this many workers in each group; the rules stay."""

    def workers(self) -> Mapping[int, int]:
        """The process of each worker that runs, by the worker's number."""

    def restart(self) -> None:
        """Restart it with its present rules; returns when it is ready. Its counters go on."""


class Peer(Protocol):
    @property
    def name(self) -> str:
        """The name in scenarios and results."""

    @property
    def sends_bursts(self) -> bool:
        """Whether it hands frames of several datagrams to a device that takes them."""

    @property
    def says_when_ready(self) -> bool:
        """Whether it forwards once ``start`` returns; if not, a bench sends to it until a copy arrives."""

    def missing(self) -> str | None:
        """Why it cannot run here, and how to get what is missing; ``None`` when it can."""

    def start(self, lab: Lab, rules: Sequence[Rule], setting: Setting, cpus: Sequence[int]) -> Running:
        """Start in ``lab.fwd`` on ``cpus``, and return once ready as far as it can say; raises PeerError."""


@runtime_checkable
class Located(Protocol):
    """A peer whose program the user may choose (``--peer NAME=PATH``)."""

    def at(self, path: Path) -> Self:
        """The same with the program at ``path``, a file or a directory."""


@dataclass
class Program:
    """A subject with one main process, which writes its messages to the file ``stderr`` in ``directory``."""

    process: subprocess.Popen[bytes]
    directory: Path

    def ended(self) -> str | None:
        status = self.process.poll()
        return None if status is None else fate(status, tail(self.directory / "stderr"))

    def finish(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM and wait, then SIGKILL; returns the time it took, nanoseconds."""
        began = time.monotonic_ns()
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return time.monotonic_ns() - began

    def stop(self) -> None:
        """Stop it as a service manager would, and remove its directory. Safe to call again."""
        self.finish()
        shutil.rmtree(self.directory, ignore_errors=True)


def await_ready(name: str, ended: Callable[[], str | None], lacking: Callable[[], str]) -> None:
    """Return once nothing is ``lacking``: what is, in words. Raises :class:`PeerError`."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while (how := ended()) is None:
        if not (what := lacking()):
            return
        if time.monotonic() > deadline:
            raise PeerError(f"{name}: {what} within {READY_TIMEOUT_S:g} s")
        time.sleep(0.005)
    raise PeerError(f"{name}: not ready, {how}")


def fate(status: int, said: str = "") -> str:
    """How a process ended, in words: ``status`` as ``Popen.returncode``; ``said``: what it printed last."""
    if status < 0:
        number = -status
        known = number in signal.valid_signals() and number < signal.SIGRTMIN
        how = f"killed by {signal.Signals(number).name if known else f'signal {number}'}"
    else:
        how = f"exited {status}"
    return f"{how}: {said}" if said else how


def tail(path: Path, lines: int = 5) -> str:
    """The end of what a process wrote to a file, in one line; empty when it wrote nothing."""
    try:
        text = path.read_text(errors="replace").strip().splitlines()[-lines:]
    except FileNotFoundError:
        return ""
    return " | ".join(text)


def executable(path: Path) -> bool:
    """Whether ``path`` is a program that can be started."""
    return path.is_file() and os.access(path, os.X_OK)
