"""The subjects of a trial, one module each, behind one protocol (:mod:`lab.peers.base`).

Adding a peer
-------------
Put a module here that has a ``PEER``: an object with what :class:`lab.peers.base.Peer` asks for. Nothing else
needs to be told: scenarios know it by its ``name``, ``doctor`` says whether it can run, and a run without it
names what is left out. ``start`` returns when the subject forwards, as far as it can say; the object that it
returns has

* ``sample``: its account, as totals (:class:`lab.ledger.ledger.Account`). *Matched* and *due* must be counted
  before the subject can lose anything, never derived from what arrived, or the ledger could not tell a loss.
  A subject without statistics has those of its namespace: :mod:`lab.peers.procnet`;
* ``ended``: how it ended, if it did. That is a result: its trials then show nothing delivered, and why;
* ``stop``: ends it, and may be called when it has ended.

``limits`` say what a scenario must not ask of it. A peer with ``at`` can be given the path of a program:
``mcastlab run --peer NAME=PATH``.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module

from lab.peers.base import Peer


def _discovered() -> dict[str, Peer]:
    modules = (import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    peers: list[Peer] = [module.PEER for module in modules if hasattr(module, "PEER")]
    return {peer.name: peer for peer in peers}


PEERS: Mapping[str, Peer] = _discovered()
"""Every subject by name: start in the forwarder's namespace, say what it counted, stop."""
