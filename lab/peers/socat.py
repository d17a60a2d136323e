"""socat as a subject: one process for each rule and output, as one would set it up by hand.

``UDP4-RECV`` hands every datagram to one process (``UDP4-RECVFROM`` ends after the first or forks for each);
the options are those that make it fast without making it lose:

* ``-u``: one direction, so that only the input is waited for;
* ``-b``: as long as a datagram can be on this link: a longer one would be cut, a larger buffer is not filled;
* ``rcvbuf``: as much as the kernel's ``net.core.rmem_max`` lets it have, up to 4 MiB, for what comes while it
  waits for the processor (mcrd's rings are of that order);
* ``bind`` to the group and ``ip-add-membership`` on the input interface: it gets that group, from there only;
* ``UDP4`` connects the output, which saves ``UDP4-DATAGRAM`` a route look-up for each datagram;
* no logging: a notice for each datagram would be most of its work.

Unlike the other subjects, it copies payloads between sockets: copies leave with its own address, its own
source port (flows of a rule become one) and a fixed TTL, so a loop is not noticed. The kernel clones each
datagram for every output's process.

Its account is the kernel's (:mod:`lab.netns.procnet`): what came in, what its sockets had no room for, what
it was handed and what it sent.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from subprocess import DEVNULL

from lab.ledger.ledger import REFUSED, Account, Sample
from lab.load.flows import Rule
from lab.netns import namespaces as netns
from lab.netns import ownership, procnet
from lab.netns.build import Lab
from lab.peers.base import PeerError, await_ready, executable, fate, tail
from lab.results import Setting

NAME = "socat"
RECEIVE_BUFFER_BYTES = 4 << 20
TTL = 15
"""What the other subjects' copies leave with: the generator's, less one."""

IP_AND_UDP_BYTES = 28


@dataclass
class _Relays:
    processes: list[subprocess.Popen[bytes]]
    directory: Path
    outputs_per_rule: int

    @property
    def pids(self) -> Sequence[int]:
        return [process.pid for process in self.processes]

    def ended(self) -> str | None:
        for process in self.processes:
            if (status := process.poll()) is not None:
                return fate(status, tail(self.directory / "stderr"))
        return None

    def sample(self) -> Sample:
        """Read through the first process: its namespace is that of all."""
        pid = self.processes[0].pid
        try:
            # Last counters first: a datagram that comes in meanwhile shows as pending.
            udp = procnet.counters(procnet.read(pid, "snmp"), "Udp")
            received = procnet.counters(procnet.read(pid, "snmp"), "Ip")["InReceives"]
        except OSError as error:
            raise PeerError(f"{NAME}: {self.ended() or error}") from error
        return Sample(account_of(udp, received, self.outputs_per_rule))

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def account_of(udp: Mapping[str, int], received: int, outputs_per_rule: int) -> Account:
    """The account in the namespace's UDP counters.

    ``received``: datagrams that came in, all from the generator, each for ``outputs_per_rule`` sockets.
    """
    matched = received - udp["IgnoredMulti"]
    due = matched * outputs_per_rule
    no_room = udp["RcvbufErrors"] + udp["MemErrors"]
    damaged = udp["InCsumErrors"]
    handed_on = udp["OutDatagrams"] + udp["SndbufErrors"]
    return Account(
        matched=matched,
        copies_due=due,
        ingress={("udp-socket", "no rule"): udp["IgnoredMulti"]},
        egress={
            ("udp-socket", "buffer full"): no_room,
            ("udp-socket", "bad checksum"): damaged,
            (NAME, "taken, not sent"): udp["InDatagrams"] - handed_on,
            REFUSED: udp["SndbufErrors"],
        },
        pending=max(0, due - no_room - damaged - handed_on),
    )


def command(program: str, rule: Rule, output_address: str, mtu: int) -> list[str]:
    """The command line for one output of a rule; ``output_address``: of the interface it sends on."""
    group, port = rule.group, rule.port
    membership = f"ip-add-membership={group}:{rule.input_interface}"
    sends = f"ip-multicast-if={output_address},ip-multicast-ttl={TTL},ip-multicast-loop=0"
    return [
        *(program, "-u", "-b", str(mtu - IP_AND_UDP_BYTES)),
        f"UDP4-RECV:{port},bind={group},reuseaddr,{membership},rcvbuf={RECEIVE_BUFFER_BYTES}",
        f"UDP4:{group}:{port},{sends}",
    ]


@dataclass(frozen=True)
class _Socat:
    name: str = NAME
    sends_bursts: bool = False
    says_when_ready: bool = True
    program: str | None = None

    def at(self, path: Path) -> _Socat:
        return replace(self, program=str(path / "socat" if path.is_dir() else path))

    def missing(self) -> str | None:
        if self.program is None:
            return None if shutil.which("socat") else "socat is not installed: apt-get install socat"
        return None if executable(Path(self.program)) else f"{self.program}: no program is there"

    def start(self, lab: Lab, rules: Sequence[Rule], setting: Setting, cpus: Sequence[int]) -> _Relays:  # noqa: ARG002
        address = {link.sender.interface: link.sender.address for link in lab.outputs}
        directory = ownership.scratch_directory("socat")
        relays = _Relays([], directory, len(rules[0].output_interfaces))
        outputs = [(rule, name) for rule in rules for name in rule.output_interfaces]
        try:
            with (directory / "stderr").open("ab") as errors:
                for rule, output in outputs:
                    argv = command(self.program or "socat", rule, address[output], lab.topology.mtu)
                    relays.processes.append(
                        netns.spawn(lab.fwd, argv, cpus=cpus, stdin=DEVNULL, stdout=DEVNULL, stderr=errors)
                    )
            wanted = Counter((IPv4Address(rule.group), rule.port) for rule, _ in outputs)
            await_ready(NAME, relays.ended, partial(_lacking, relays, wanted))
        except BaseException:
            relays.stop()
            raise
        return relays


def _lacking(relays: _Relays, wanted: Counter[tuple[IPv4Address, int]]) -> str:
    """Each process connects its output last: ``wanted`` are those connections."""
    try:
        sockets = procnet.udp_sockets(procnet.read(relays.processes[-1].pid, "udp"))
    except OSError:  # it has just ended
        return "not one ready"
    connected = Counter(entry.remote for entry in sockets if entry.state == procnet.ESTABLISHED)
    ready = f"{sum((connected & wanted).values())} of {len(relays.processes)} ready"
    return "" if connected >= wanted else ready


PEER = _Socat()
