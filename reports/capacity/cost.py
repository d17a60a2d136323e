"""The processor time of one datagram in a worker, term by term, in nanoseconds.

A worker that falls behind finds a full batch of frames in each ring, and sends what it can put together of
them as one frame to each output (:mod:`forwarder.engines.packet.coalesce`). So its cost is

    receive + outputs × (frame ÷ datagrams in a frame + copy + byte × payload) + look-up × log10(rules)

and, where the kernel receives on the worker's own processor (a network card's queues, or packet steering),

    arrive + arrive byte × payload + host stack.

Under overload each dropped datagram has a cost, too: to receive it, where the worker's processor does so
(``drop``), else what another processor does to shared caches (``beside``). Predictions have neither, as they
are without loss; as terms of their own they keep overload from making the others look dearer.
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
    steered: bool = True
    """The worker's own processor does the kernel's part of receiving."""
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
    steered, dropped = float(load.steered), arrived_per_forwarded - 1
    return {
        "receive": 1.0,
        "frame": load.outputs / load.datagrams_per_frame,
        "copy": float(load.outputs),
        "copy_bytes": load.outputs * hundreds,
        "lookup": math.log10(max(1, load.rules)),
        "arrive": steered,
        "arrive_bytes": steered * hundreds,
        "host_stack": 0.0 if load.host_skipped else steered,
        "drop": steered * dropped,
        "beside": (1 - steered) * dropped,
    }
