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
from typing import Final

import numpy as np
from numpy.typing import NDArray

RULES_PER_MESSAGE: Final = 256
"""Few enough that applying them takes the packet loop a couple of milliseconds at most."""
MESSAGE_BYTES: Final = 128 * 1024

_HEADER: Final = struct.Struct("=IIIi")
"""kind, sequence, count, argument"""

RULE: Final = np.dtype([("key", "u8"), ("slot", "u4"), ("outputs", "u4")])
OUTPUT: Final = np.dtype(("u4", 4))
SOCKET: Final = struct.Struct("=IIII")
"""row, frames, frame bytes, interface slot"""
LINK: Final = struct.Struct("=III4s6s2x")
"""slot, ifindex, MTU, address, Ethernet address"""


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


@dataclass(frozen=True)
class Message:
    kind: Kind
    sequence: int
    count: int
    argument: int
    body: bytes
    descriptors: tuple[int, ...] = ()


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
    packet, descriptors, _, _ = socket.recv_fds(sock, MESSAGE_BYTES, 4)
    if not packet:
        return None
    kind, sequence, count, argument = _HEADER.unpack_from(packet)
    return Message(Kind(kind), sequence, count, argument, packet[_HEADER.size :], tuple(descriptors))


def pack_rules(rules: Sequence[WorkerRule]) -> bytes:
    """At most RULES_PER_MESSAGE rules, for ADD_RULES."""
    heads = np.array([(rule.key, rule.slot, len(rule.outputs)) for rule in rules], RULE)
    outputs = np.array([output for rule in rules for output in rule.outputs], np.uint32)
    return heads.tobytes() + outputs.tobytes()


def unpack_rules(body: bytes, count: int) -> tuple[NDArray[np.void], NDArray[np.uint32]]:
    """Heads ``RULE[count]`` and the outputs of all of them, ``uint32[n, 4]``, in order."""
    heads = np.frombuffer(body, RULE, count)
    outputs = np.frombuffer(body, np.uint32, offset=heads.nbytes).reshape(-1, 4)
    return heads, outputs


def pack_keys(keys: Sequence[int]) -> bytes:
    return np.array(keys, np.uint64).tobytes()


def unpack_keys(body: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(body, np.uint64)
