"""The subject of a bench: started, sampled, and started again for the next trial when it has ended.

A subject that ends is a result, not a failure of the lab: nothing is delivered from then on, and the record
says how it ended. One that never became ready is not tried a second time.
"""

import time
from collections.abc import Callable

from lab.ledger.ledger import Sample
from lab.peers.base import Peer, PeerError, Running

ENDING_S = 2.0
"""Timeout for a process to end that no longer answers."""


class Subject:
    """``launch`` starts it, and raises :class:`PeerError` when that fails."""

    def __init__(self, peer: Peer, launch: Callable[[], Running]) -> None:
        self.peer = peer
        self._launch = launch
        self.running: Running | None = None
        self.fate: str | None = None
        """How it ended, or why it could not start; ``None`` while it runs."""
        self.start()

    def start(self) -> bool:
        """Start it unless it runs or never did; true when it has been started."""
        if self.running is None:
            if self.fate is not None:
                return False
        elif self._ended() is None:
            return False
        self.stop()
        try:
            self.running = self._launch()
        except PeerError as error:
            self.fate = str(error)
            return False
        self.fate = None
        return True

    def sample(self) -> Sample | None:
        """Its counters; ``None`` once it has ended. Raises PeerError when it runs and does not answer."""
        if self.running is None or self._ended() is not None:
            return None
        try:
            return self.running.sample()
        except PeerError:
            # A process that is ending closes its socket before it has ended.
            deadline = time.monotonic() + ENDING_S
            while self._ended() is None:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            return None

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()
            self.running = None

    def _ended(self) -> str | None:
        if self.running is not None and (how := self.running.ended()) is not None:
            self.fate = f"{self.peer.name}: {how}"
        return self.fate
