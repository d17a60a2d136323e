"""The processor time that one datagram takes of a forwarder's CPU, term by term, in nanoseconds.

The CPU does all of the work: it receives, matches and sends. A worker that falls behind finds a full batch of
frames in each ring, and sends what it can put together of them as one frame to each output
(:mod:`forwarder.engines.packet.coalesce`). So a datagram costs

    receive + receive byte × payload + host stack + look-up × log10(rules)
            + outputs × (frame ÷ datagrams in a frame + copy + copy byte × payload).

Under overload each dropped datagram has a cost, too: it was received before it was dropped. Predictions are
without loss; as a term of its own it keeps overload from making the others look dearer.
"""

import math
from dataclasses import dataclass

BATCH_FRAMES = 256
"""Frames that a worker takes from one ring at a time (``forwarder/engines/packet/state.py``)."""
MOST_SEGMENTS, MOST_PAYLOAD_BYTES = 64, 65_507
"""Limits of one frame that is sent (``forwarder/engines/packet/coalesce.py``)."""
HUNDRED_BYTES = 100
"""Unit of the payload terms, so that coefficients are of similar size."""


@dataclass(frozen=True, slots=True, order=True)
class Load:
    """The load of one worker."""

    payload_bytes: int
    outputs: int
    rules: int
    flows: int
    """From all of its interfaces."""
    interfaces: int = 1
    burst: int = 1
    """Datagrams of one flow that arrive back to back."""
    host_skipped: bool = False
    """The host's own stack does not see the datagrams (``--skip-host-stack``)."""

    @property
    def datagrams_per_frame(self) -> float:
        """Datagrams that a busy worker puts into one frame: a batch divided among a ring's flows."""
        flows_of_a_ring = max(1.0, self.flows / self.interfaces)
        together = max(float(self.burst), BATCH_FRAMES / flows_of_a_ring)
        return max(1.0, min(together, MOST_SEGMENTS, MOST_PAYLOAD_BYTES // self.payload_bytes))

    @property
    def quantities(self) -> dict[str, float]:
        """What a model must have measured to predict this load, by the name that messages use."""
        names = ("payload_bytes", "outputs", "rules", "datagrams_per_frame", "interfaces")
        return {name: getattr(self, name) for name in names}


def terms(load: Load, arrived_per_forwarded: float = 1.0) -> dict[str, float]:
    """The terms of a forwarded datagram, where this many arrived for each one forwarded."""
    hundreds = load.payload_bytes / HUNDRED_BYTES
    return {
        "receive": 1.0,
        "receive_bytes": hundreds,
        "host_stack": 0.0 if load.host_skipped else 1.0,
        "lookup": math.log10(max(1, load.rules)),
        "frame": load.outputs / load.datagrams_per_frame,
        "copy": float(load.outputs),
        "copy_bytes": load.outputs * hundreds,
        "drop": arrived_per_forwarded - 1,
    }
