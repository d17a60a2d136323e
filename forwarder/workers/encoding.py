"""Requests to a worker and its replies, as bytes: one message in each packet of a SOCK_SEQPACKET pair. Pure.

:mod:`forwarder.engines.packet.schema` defines them, :mod:`forwarder.engines.packet.loop` is the other end.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

OUTPUTS_PER_MESSAGE: Final = 512
"""Few enough that applying them takes the packet loop a fraction of a millisecond."""

HEADER: Final = struct.Struct("=IIIi")
"""kind, number, count, argument; then a request's body, and descriptors travel beside it."""

_SOCKET: Final = struct.Struct("=IIIIQ")
"""row, frames, frame bytes, interface slot, address of the ring's level"""
_LINK: Final = struct.Struct("=II4sI6s2x")
"""slot, ifindex, IPv4 address, MTU, Ethernet address: the slot, then a row of the link table"""


@dataclass(frozen=True)
class WorkerRule:
    """A rule as a worker holds it."""

    key: int
    slot: int
    outputs: tuple[tuple[int, int, int, int], ...]


def rule_messages(rules: Iterable[WorkerRule]) -> Iterator[tuple[int, bytes]]:
    """The bodies of ADD_RULES messages, and how many rules are in each."""
    portion: list[WorkerRule] = []
    size = 0
    for rule in rules:
        more = max(1, len(rule.outputs))
        if portion and size + more > OUTPUTS_PER_MESSAGE:
            yield len(portion), pack_rules(portion)
            portion, size = [], 0
        portion.append(rule)
        size += more
    if portion:
        yield len(portion), pack_rules(portion)


def pack_rules(rules: Sequence[WorkerRule]) -> bytes:
    """For ADD_RULES."""
    keys = np.array([rule.key for rule in rules], np.uint64)
    slots = np.array([rule.slot for rule in rules], np.uint32)
    counts = np.array([len(rule.outputs) for rule in rules], np.uint32)
    outputs = np.array([output for rule in rules for output in rule.outputs], np.uint32)
    return b"".join(array.tobytes() for array in (keys, slots, counts, outputs))


def pack_link(slot: int, ifindex: int, mtu: int, ipv4: bytes, mac: bytes) -> bytes:
    """How an output interface is reached now, for SET_LINKS; ``ifindex`` 0 when it cannot be used."""
    return _LINK.pack(slot, ifindex, ipv4, mtu, mac)


def pack_keys(keys: Sequence[int]) -> bytes:
    """For REMOVE_RULES."""
    return np.array(keys, np.uint64).tobytes()


def key_messages(keys: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """The bodies of REMOVE_RULES messages, and how many keys are in each."""
    for first in range(0, len(keys), OUTPUTS_PER_MESSAGE):
        part = keys[first : first + OUTPUTS_PER_MESSAGE]
        yield len(part), pack_keys(part)


def pack_socket(row: int, frames: int, frame_bytes: int, interface: int, level: int = 0) -> bytes:
    """For ADD_SOCKET: the socket's place in the worker, its ring, the slot that its rules' keys carry.

    ``level``: the address of the ring's level for the early filter; 0 without one.
    """
    return _SOCKET.pack(row, frames, frame_bytes, interface, level)
