"""A subject that makes mistakes on demand: what a lab that measures it must find, to the datagram."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.ledger.ledger import Account, Sample
from lab.load.flows import Rule
from lab.netns import namespaces as netns
from lab.netns.build import Lab
from lab.peers.base import PeerError, fate
from lab.results import Setting

NAME = "faulty"
_RELAY = Path(__file__).with_name("faulty_relay.py")


@dataclass
class Faulty:
    """A running ``faulty_relay.py``."""

    process: subprocess.Popen[str]
    confesses: bool = True
    """Whether its account has what it dropped on purpose."""

    @property
    def pids(self) -> Sequence[int]:
        return (self.process.pid,)

    def ended(self) -> str | None:
        status = self.process.poll()
        return None if status is None else fate(status)

    def make(self, **faults: Any) -> None:
        """Make these mistakes from now on, datagrams counted from here; none when none are given."""
        self._ask(do="faults", **faults)

    def sample(self) -> Sample:
        stats = self._ask(do="stats")
        drops = {(NAME, "dropped on purpose"): stats["dropped"]} if self.confesses else {}
        refused = {("packet-socket", "buffer full"): stats["refused"]}
        return Sample(Account(stats["received"], stats["received"], refused, drops, stats["pending"]))

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def await_ready(self) -> None:
        self._read()

    def took(self) -> list[tuple[int, int]]:
        """Of the first datagrams sent since :meth:`make`: age in nanoseconds before and after the sending."""
        return [(before, after) for before, after in self._ask(do="took")["took"]]

    def _ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(f"{NAME}: gave no answer")
        return json.loads(line)


@dataclass(frozen=True)
class FaultyForwarder:
    """The peer; one output for each rule."""

    name: str = NAME
    sends_bursts: bool = False
    says_when_ready: bool = True

    def missing(self) -> str | None:
        return None

    def start(self, lab: Lab, rules: Sequence[Rule], setting: Setting, cpus: Sequence[int]) -> Faulty:  # noqa: ARG002
        (rule,) = rules
        (output,) = rule.output_interfaces
        process = netns.spawn(
            lab.fwd,
            [sys.executable, "-I", "-S", str(_RELAY), rule.input_interface, output],
            cpus=cpus,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        faulty = Faulty(process)
        try:
            faulty.await_ready()
        except BaseException:
            faulty.stop()
            raise
        return faulty


PEER = FaultyForwarder()
