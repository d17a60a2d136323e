"""The subjects of a trial, one module each, behind one protocol (:mod:`lab.peers.base`).

Adding a peer
-------------
A new peer is a module here and a line in :mod:`lab.scenario.subjects`, under the same name. The module has a
``PEER``: an object with what :class:`lab.peers.base.Peer` asks for. ``start`` returns when the subject
forwards, as far as it can tell. The object that it returns has

* ``sample``: its account, as totals (:class:`lab.ledger.ledger.Account`). *Matched* and *due* must be counted
  before the subject can lose anything, never derived from what arrived, or the ledger could not show a loss.
  A subject without statistics uses those of its namespace: :mod:`lab.netns.procnet`;
* ``ended``: how it ended, if it did. That is a result: its trials then show nothing delivered, and why;
* ``stop``: ends it, and may be called when it has ended.

A peer with ``at`` can be given the path of a program: ``mcastlab run --peer NAME=PATH``.
"""

from collections.abc import Mapping
from importlib import import_module

from lab.peers.base import Peer
from lab.scenario.subjects import SUBJECTS

PEERS: Mapping[str, Peer] = {name: import_module(f"{__name__}.{name}").PEER for name in SUBJECTS}
"""Every subject by name."""
