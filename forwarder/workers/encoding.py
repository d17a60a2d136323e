"""The supervisor's end of the talk with a worker: one SOCK_SEQPACKET pair, one message a packet.

:mod:`forwarder.engines.packet.messages` defines them, :mod:`forwarder.engines.packet.serve` is the other end.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypedDict

import numpy as np

from forwarder.engines.packet.messages import Kind

OUTPUTS_PER_MESSAGE: Final = 512
"""Few enough that applying them takes the packet loop a fraction of a millisecond."""

_HEADER: Final = struct.Struct("=IIIi")
"""kind, sequence, count, argument"""

_SOCKET: Final = struct.Struct("=IIII")
"""row, frames, frame bytes, interface slot"""
_LINK: Final = struct.Struct("=II4sI6s2x")
"""slot, ifindex, IPv4 address, MTU, Ethernet address: the slot, then a row of the link table"""


class Fields(TypedDict, total=False):
    """What a message may have beside its kind and number, as :func:`send` takes it."""

    count: int
    argument: int
    body: bytes
    descriptors: Sequence[int]


class Answer(NamedTuple):
    """What a worker says."""

    kind: Kind
    sequence: int
    argument: int


@dataclass(frozen=True)
class WorkerRule:
    """A rule as a worker holds it."""

    key: int
    slot: int
    outputs: tuple[tuple[int, int, int, int], ...]


def send(
    sock: socket.socket,
    kind: Kind,
    sequence: int,
    *,
    count: int = 0,
    argument: int = 0,
    body: bytes = b"",
    descriptors: Sequence[int] = (),
) -> None:
    """Send one message; raises BlockingIOError when the peer's buffer is full."""
    packet = [_HEADER.pack(kind, sequence, count, argument), body]
    if descriptors:
        socket.send_fds(sock, packet, list(descriptors))
    else:
        sock.sendmsg(packet)


def receive(sock: socket.socket) -> Answer | None:
    """The next answer, or None when the worker is gone; raises BlockingIOError when there is none yet."""
    packet = sock.recv(_HEADER.size)
    if not packet:
        return None
    kind, sequence, _, argument = _HEADER.unpack(packet)
    return Answer(Kind(kind), sequence, argument)


def in_messages(rules: Iterable[WorkerRule]) -> Iterator[list[WorkerRule]]:
    """The rules in portions for one message each."""
    portion: list[WorkerRule] = []
    size = 0
    for rule in rules:
        more = max(1, len(rule.outputs))
        if portion and size + more > OUTPUTS_PER_MESSAGE:
            yield portion
            portion, size = [], 0
        portion.append(rule)
        size += more
    if portion:
        yield portion


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


def pack_socket(row: int, frames: int, frame_bytes: int, interface: int) -> bytes:
    """For ADD_SOCKET: the socket's place in the worker, its ring, the slot that its rules' keys carry."""
    return _SOCKET.pack(row, frames, frame_bytes, interface)
