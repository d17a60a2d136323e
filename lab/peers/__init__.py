"""The subjects of a trial, one module each, behind one protocol (:mod:`lab.peers.base`)."""

from __future__ import annotations

from lab.peers import kernel, mcrd
from lab.peers.base import Peer

PEERS: dict[str, Peer] = {"mcrd": mcrd.PEER, "kernel": kernel.PEER}
