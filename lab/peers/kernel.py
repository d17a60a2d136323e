"""Kernel multicast routing as a subject: a small process sets it up and reads it; the kernel forwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import netns
from lab.build import Lab
from lab.ledger import Account
from lab.peers.base import PeerError, Rule, Sample
from lab.results import Setting

_DAEMON = Path(__file__).with_name("mroute_daemon.py")


@dataclass
class _Routing:
    """The process that holds the kernel's routes."""

    process: subprocess.Popen[str]

    @property
    def pids(self) -> Sequence[int]:
        return ()

    def ask(self, line: str) -> dict[str, Any]:
        """One line in, one JSON line out."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.kill()
            assert self.process.stderr is not None
            lines = self.process.stderr.read().strip().splitlines()
            raise PeerError(f"kernel: multicast routing: {lines[-1] if lines else 'the process ended'}")
        result: dict[str, Any] = json.loads(answer)
        return result

    def sample(self) -> Sample:
        stats = self.ask("stats")
        return Sample(
            Account(
                matched=stats["matched"],
                copies_due=stats["copies_due"],
                ingress={("kernel-mroute", "wrong interface"): stats["wrong_interface"]},
            )
        )

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass(frozen=True)
class _Kernel:
    name: str = "kernel"
    sends_bursts: bool = False

    def start(self, lab: Lab, rules: Sequence[Rule], setting: Setting, cpus: Sequence[int]) -> _Routing:  # noqa: ARG002
        process = netns.spawn(
            lab.fwd,
            [sys.executable, "-I", "-S", str(_DAEMON)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        routing = _Routing(process)
        request = {
            "interfaces": [end.interface for end in lab.topology.ends("fwd")],
            "routes": [
                {
                    "source": rule.source,
                    "group": rule.group,
                    "input": rule.input_interface,
                    "outputs": rule.output_interfaces,
                    "ttl": 1,
                }
                for rule in rules
            ],
        }
        try:
            routing.ask(json.dumps(request))
        except BaseException:
            routing.stop()
            raise
        return routing


PEER = _Kernel()
