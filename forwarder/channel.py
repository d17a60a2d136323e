"""What the supervisor tells a worker, and how: one SOCK_SEQPACKET pair, one message a packet.

Messages are small fixed headers with packed arrays behind them, so that a worker applies a thousand rules
without parsing text. Every message is answered by its sequence number once it is in force.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

RULES_PER_MESSAGE: Final = 256
"""Few enough that applying them takes the packet loop a couple of milliseconds at most."""
MESSAGE_BYTES: Final = 128 * 1024
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(4 * 4)

_HEADER: Final = struct.Struct("=IIIi")
"""kind, sequence, count, argument"""

OUTPUT_WORDS: Final = 4
SOCKET: Final = struct.Struct("=IIII")
"""row, frames, frame bytes, interface slot"""
_LINK: Final = struct.Struct("=II4sI6s2x")
"""slot, ifindex, IPv4 address, MTU, Ethernet address: the slot, then a row of the link table"""


class Kind(IntEnum):
    ADD_RULES = 1
    REMOVE_RULES = 2
    SET_LINKS = 3
    ADD_SOCKET = 4
    REMOVE_SOCKET = 5
    STOP = 6
    DONE = 7
    """The worker's answer; the argument is 0 or an errno."""
    READY = 8
    """The worker's first word."""


class Message(NamedTuple):
    kind: int
    """A :class:`Kind`, as the plain number: making an enum member of it touches pages in every worker."""
    sequence: int
    how_many: int
    argument: int
    body: bytes
    descriptors: tuple[int, ...]


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


def receive(sock: socket.socket) -> Message | None:
    """The next message, or None when the peer is gone; raises BlockingIOError when there is none yet."""
    packet, ancillary, _, _ = sock.recvmsg(MESSAGE_BYTES, _ANCILLARY_BYTES)
    if not packet:
        return None
    descriptors = ()
    for _level, _kind, data in ancillary:
        descriptors = struct.unpack(f"={len(data) // 4}i", data)
    kind, sequence, how_many, argument = _HEADER.unpack_from(packet)
    return Message(kind, sequence, how_many, argument, packet[_HEADER.size :], descriptors)


def pack_rules(rules: Sequence[WorkerRule]) -> bytes:
    """At most RULES_PER_MESSAGE rules, for ADD_RULES."""
    keys = np.array([rule.key for rule in rules], np.uint64)
    slots = np.array([rule.slot for rule in rules], np.uint32)
    counts = np.array([len(rule.outputs) for rule in rules], np.uint32)
    outputs = np.array([output for rule in rules for output in rule.outputs], np.uint32)
    return b"".join(array.tobytes() for array in (keys, slots, counts, outputs))


RuleArrays = tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]


def unpack_rules(body: bytes, count: int) -> RuleArrays:
    """Keys, slots and numbers of outputs, ``[count]`` each, and all outputs, ``uint32[n, 4]``, in order."""
    return (
        np.frombuffer(body, np.uint64, count),
        np.frombuffer(body, np.uint32, count, 8 * count),
        np.frombuffer(body, np.uint32, count, 12 * count),
        np.frombuffer(body, np.uint32, -1, 16 * count).reshape(-1, OUTPUT_WORDS),
    )


def pack_link(slot: int, ifindex: int, mtu: int, ipv4: bytes, mac: bytes) -> bytes:
    """How an output interface is reached now, for SET_LINKS; ``ifindex`` 0 when it cannot be used."""
    return _LINK.pack(slot, ifindex, ipv4, mtu, mac)


def unpack_links(body: bytes) -> NDArray[np.uint32]:
    """``uint32[n, 1 + LINK_COLUMNS]``: slot, then the link's row."""
    return np.frombuffer(body, np.uint32).reshape(-1, _LINK.size // 4)


def pack_keys(keys: Sequence[int]) -> bytes:
    return np.array(keys, np.uint64).tobytes()


def unpack_keys(body: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(body, np.uint64)
