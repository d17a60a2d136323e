"""Kernel multicast routing as a subject: a small process sets it up and reads it; the kernel forwards."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

from lab.ledger.ledger import Account, Sample
from lab.load.flows import Rule
from lab.netns import namespaces as netns
from lab.netns.build import Lab
from lab.peers.base import PeerError, fate
from lab.results import Setting

_DAEMON = Path(__file__).with_name("mroute_daemon.py")

END_TIMEOUT_S = 5.0


def _route(rule: Rule) -> dict[str, Any]:
    """A rule as ``mroute_daemon.py`` takes it."""
    ends = {"input": rule.input_interface, "outputs": rule.output_interfaces}
    return {"source": rule.source, "group": rule.group, **ends}


@dataclass
class _Routing:
    """The process that holds the kernel's routes."""

    process: subprocess.Popen[str]
    said: str = ""
    """Its last words."""

    @property
    def pids(self) -> Sequence[int]:
        return ()

    def ended(self) -> str | None:
        status = self.process.poll()
        return None if status is None else fate(status, self.said)

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
            # It has closed its output, so it is ending or has ended.
            try:
                _, errors = self.process.communicate(timeout=END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                _, errors = self.process.communicate()
            self.said = (errors.strip().splitlines() or [""])[-1]
            raise PeerError(f"kernel: multicast routing: {self.ended()}")
        result: dict[str, Any] = json.loads(answer)
        return result

    def sample(self) -> Sample:
        stats = self.ask("stats")
        elsewhere = {("kernel-mroute", "wrong interface"): stats["wrong_interface"]}
        return Sample(Account(stats["matched"], stats["copies_due"], ingress=elsewhere))

    @property
    def joins_upstream(self) -> bool:
        return False

    def add(self, rule: Rule) -> None:
        self._change("add", rule)

    def remove(self, rule: Rule) -> None:
        self._change("remove", rule)

    def _change(self, verb: str, rule: Rule) -> None:
        answer = self.ask(f"{verb} {json.dumps(_route(rule))}")
        if "error" in answer:
            raise PeerError(f"kernel: {verb} {rule.rule_id}: {answer['error']}")

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass(frozen=True)
class _Kernel:
    name: str = "kernel"
    sends_bursts: bool = False
    says_when_ready: bool = True

    def missing(self) -> str | None:
        if Path("/proc/net/ip_mr_vif").exists():
            return None
        return "this kernel has no multicast routing: one with CONFIG_IP_MROUTE is needed"

    def start(self, lab: Lab, rules: Sequence[Rule], setting: Setting, cpus: Sequence[int]) -> _Routing:  # noqa: ARG002
        daemon = [sys.executable, "-I", "-S", str(_DAEMON)]
        routing = _Routing(
            netns.spawn(lab.fwd, daemon, cpus=cpus, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
        )
        interfaces = [end.interface for end in lab.topology.ends("fwd")]
        try:
            routing.ask(json.dumps({"interfaces": interfaces, "routes": list(map(_route, rules))}))
        except BaseException:
            routing.stop()
            raise
        return routing


PEER = _Kernel()
