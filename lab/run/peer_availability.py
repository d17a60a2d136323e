"""Which peers can run on this machine, with the programs that the user chose, and why others cannot."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from forwarder.problems import Problem, ProblemsError
from lab.peers import PEERS
from lab.peers.base import Located, Peer
from lab.scenario.model import Scenario

OPTION = "--peer"


class PeerOptionError(ProblemsError):
    """``--peer`` names something that cannot be used."""


@dataclass(frozen=True)
class PeerAvailability:
    """Every peer by name, and the reason for each that cannot run here."""

    peers: Mapping[str, Peer]
    absent: Mapping[str, str]

    def skipped(self, scenarios: Iterable[Scenario]) -> list[str]:
        """A sentence for each absent peer that a scenario names as a subject."""
        named: dict[str, list[str]] = {}
        for scenario in scenarios:
            for subject in scenario.subjects:
                if subject in self.absent:
                    named.setdefault(subject, []).append(scenario.name)
        return [f"{name} in {', '.join(where)}: {self.absent[name]}" for name, where in named.items()]


def parse_options(options: Iterable[str]) -> dict[str, Path]:
    """The paths of ``NAME=PATH`` options, by peer. Raises :class:`PeerOptionError`."""
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


def find_peers(chosen: Mapping[str, Path]) -> PeerAvailability:
    """Look for every peer. Raises :class:`PeerOptionError` if one in ``chosen`` cannot be used."""
    if problems := list(_problems(chosen)):
        raise PeerOptionError(problems)
    peers = {name: _located(peer, chosen.get(name)) for name, peer in PEERS.items()}
    absent = {name: why for name, peer in peers.items() if (why := peer.missing()) is not None}
    return PeerAvailability(peers, absent)


def _located(peer: Peer, path: Path | None) -> Peer:
    if path is None or not isinstance(peer, Located):
        return peer
    located: Peer = peer.at(path)
    return located


def _problems(chosen: Mapping[str, Path]) -> Iterator[Problem]:
    located = [name for name, peer in PEERS.items() if isinstance(peer, Located)]
    for name, path in chosen.items():
        if name not in located:
            yield Problem(OPTION, repr(f"{name}={path}"), f"a path for one of {', '.join(located)}")
        elif why := _located(PEERS[name], path).missing():
            yield Problem(OPTION, repr(f"{name}={path}"), f"the directory of its programs, or one: {why}")
