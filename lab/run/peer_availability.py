"""Which subjects can run here, with the programs that the user chose, and why others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from forwarder.problems import Problem, ProblemsError
from lab.peers import PEERS
from lab.peers.base import Located, Peer
from lab.scenario.model import Scenario

OPTION = "--peer"


class PeerOptionError(ProblemsError):
    """Peers that were chosen on the command line and cannot be used."""


@dataclass(frozen=True)
class Attendance:
    """``peers``: every subject by name; ``absent``: those that cannot run here, and why."""

    peers: Mapping[str, Peer]
    absent: Mapping[str, str]

    def skipped(self, scenarios: Iterable[Scenario]) -> list[str]:
        """A sentence for each subject that some scenario names and that cannot run here."""
        named: dict[str, list[str]] = {}
        for scenario in scenarios:
            for subject in scenario.subjects:
                if subject in self.absent:
                    named.setdefault(subject, []).append(scenario.name)
        return [f"{name} in {', '.join(where)}: {self.absent[name]}" for name, where in named.items()]


def parse(options: Iterable[str]) -> dict[str, Path]:
    """``NAME=PATH``, each: where the program of a peer is. Raises :class:`PeerOptionError`."""
    chosen: dict[str, Path] = {}
    problems: list[Problem] = []
    for text in options:
        name, equals, path = text.partition("=")
        if not (equals and path):
            problems.append(Problem(OPTION, repr(text), "NAME=PATH"))
        elif name in chosen:
            problems.append(Problem(OPTION, repr(text), f"{name} once"))
        else:
            chosen[name] = Path(path).absolute()
    if problems:
        raise PeerOptionError(problems)
    return chosen


def attend(chosen: Mapping[str, Path]) -> Attendance:
    """Look at every peer; raises :class:`PeerOptionError` when one that was chosen cannot be used."""
    if problems := list(_problems(chosen)):
        raise PeerOptionError(problems)
    peers = {name: _chosen(peer, chosen.get(name)) for name, peer in PEERS.items()}
    reasons = ((name, peer.missing()) for name, peer in peers.items())
    return Attendance(peers, {name: why for name, why in reasons if why is not None})


def _chosen(peer: Peer, path: Path | None) -> Peer:
    if path is None or not isinstance(peer, Located):
        return peer
    located: Peer = peer.at(path)
    return located


def _problems(chosen: Mapping[str, Path]) -> Iterator[Problem]:
    located = [name for name, peer in PEERS.items() if isinstance(peer, Located)]
    for name, path in chosen.items():
        if name not in located:
            yield Problem(OPTION, repr(f"{name}={path}"), f"a path for one of {', '.join(located)}")
        elif why := _chosen(PEERS[name], path).missing():
            yield Problem(OPTION, repr(f"{name}={path}"), f"the directory of its programs, or one: {why}")
