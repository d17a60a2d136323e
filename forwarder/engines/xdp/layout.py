"""The structures of ``forward.bpf.c`` for Python. Pure."""

from operator import add
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from forwarder.engines.packet.schema import EGRESS_REASONS, INGRESS_REASONS

OBJECT: Final = Path(__file__).with_name("forward.bpf.o")


def _structure(kind: npt.DTypeLike, *names: str) -> np.dtype[Any]:
    return np.dtype([(name, kind) for name in names])


INPUT: Final = np.dtype([("ifindex", "u4"), ("group", "u4"), ("port", "u2"), ("unused", "u2")])
RULE: Final = _structure("u4", "number", "outputs", "target", "virtual")
PLACE: Final = _structure("u4", "rule", "ifindex")
OUTPUT: Final = _structure("u4", "group", "source", "port_ttl", "link")
LINK: Final = _structure("u4", "ifindex", "source", "mtu", "mac_low", "mac_high")
DEVICE: Final = _structure("u4", "ifindex", "program")
"""``struct bpf_devmap_val``"""
COUNTERS: Final = _structure(
    "u8",
    *(reason for reason in INGRESS_REASONS if reason != "truncated"),  # XDP has the whole frame
    *("ttl_expired", "too_big", "transmit_refused"),
    *("received", "received_bytes", "matched", "matched_bytes", "sent"),
    *("due", "handed_over", "handed_over_bytes", "completed"),
)
STATE: Final = _structure("u4", "ours", "dropped", "identification", "unused")
RULE_COUNT: Final = _structure(
    "u8", "matched", "matched_bytes", "handed_over", "handed_over_bytes", "first_ns"
)


class Counts(NamedTuple):
    """What the programs counted so far; names and meanings are the packet engine's."""

    received: int
    received_bytes: int
    matched: int
    matched_bytes: int
    due: int
    """Copies: matched datagrams times the outputs of their rules."""
    sent: int
    """Copies that drivers took."""
    handed_over_bytes: int
    """Payload bytes of the copies that were handed to drivers, whether these took them or not."""
    completed: int
    """Datagrams of local senders whose checksum was filled in."""
    reasons: dict[str, int]
    """Datagrams that were left to the host, and copies that did not leave."""


class RuleCount(NamedTuple):
    """What was counted of one rule."""

    matched: int = 0
    matched_bytes: int = 0
    handed_over: int = 0
    """Copies with headers written that were handed to drivers."""
    handed_over_bytes: int = 0
    first_ns: int = 0
    """When the first datagram was matched, on the monotonic clock; 0 for never."""

    def plus(self, more: "RuleCount") -> "RuleCount":
        times = [time_ns for time_ns in (self.first_ns, more.first_ns) if time_ns]
        return RuleCount._make((*map(add, self[:4], more[:4]), min(times, default=0)))


def rule_counts(rows: npt.NDArray[Any]) -> list[RuleCount]:
    """The sums over all CPUs of rows of :data:`RULE_COUNT`, with a column for each CPU."""
    sums = [rows[name].sum(axis=1) for name in RuleCount._fields[:-1]]
    never = np.iinfo(np.uint64).max
    first = np.where(rows["first_ns"], rows["first_ns"], never).min(axis=1, initial=never)
    columns = (*sums, np.where(first == never, 0, first))
    return [RuleCount._make(row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def counts(row: Any) -> Counts:
    """The sum over all CPUs of a row of :data:`COUNTERS`.

    A copy that no output took without a word (it is down, absent or takes no frames) is *absent*: due, and
    neither handed over nor dropped with a reason. Exact while nothing is on its way.
    """
    total = {name: int(row[name].sum()) for name in COUNTERS.names or ()}
    reasons = {name: total.get(name, 0) for name in INGRESS_REASONS + EGRESS_REASONS}
    known = total["handed_over"] + total["ttl_expired"] + total["too_big"]
    reasons["output_absent"] = max(0, total["due"] - known)
    return Counts(reasons=reasons, **{name: total[name] for name in Counts._fields[:-1]})
