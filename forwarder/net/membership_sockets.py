"""IGMP membership on behalf of the rules, through sockets that receive nothing.

The workers receive at layer 2, below IGMP; somebody has to ask the routers and snooping switches for the
groups. A socket takes ``net.ipv4.igmp_max_memberships`` groups (20 by default), so there are several.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from contextlib import suppress
from typing import Final

_IP_MULTICAST_ALL: Final = 49
_MREQN: Final = struct.Struct("=4s4si")

Membership = tuple[int, bytes]
"""Interface index and group, four bytes."""


class Joins:
    """The memberships held, each joined once however many rules want it."""

    def __init__(self) -> None:
        self._wanted: Counter[Membership] = Counter()
        self._held: dict[Membership, socket.socket] = {}
        self._sockets: dict[socket.socket, int] = {}
        self._roomy: dict[socket.socket, None] = {}
        """Those that were not full when they were last asked, the latest at the end."""

    def __len__(self) -> int:
        return len(self._held)

    def join(self, ifindex: int, group: bytes) -> None:
        """Count one more wish for a group on an interface; the first one joins.

        Raises:
            OSError: the interface is gone or cannot do multicast.
        """
        membership = (ifindex, group)
        if not self._wanted[membership]:
            self._held[membership] = self._join_somewhere(membership)
        self._wanted[membership] += 1

    def leave(self, ifindex: int, group: bytes) -> None:
        """Count one wish less; the last one leaves. An interface that is gone has been left already."""
        membership = (ifindex, group)
        if membership not in self._wanted:
            return
        self._wanted[membership] -= 1
        if self._wanted[membership] > 0:
            return
        del self._wanted[membership]
        sock = self._held.pop(membership)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, _mreqn(membership))
        self._sockets[sock] -= 1
        self._roomy[sock] = None
        if not self._sockets[sock]:
            del self._sockets[sock], self._roomy[sock]
            sock.close()

    def close(self) -> None:
        """Leave everything."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self._roomy.clear()
        self._held.clear()
        self._wanted.clear()

    def _join_somewhere(self, membership: Membership) -> socket.socket:
        for sock in reversed(list(self._roomy)):
            try:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, _mreqn(membership))
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    del self._roomy[sock]
                    continue
                raise
            self._sockets[sock] += 1
            return sock
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, _mreqn(membership))
        except OSError:
            sock.close()
            raise
        self._sockets[sock] = 1
        self._roomy[sock] = None
        return sock


def _mreqn(membership: Membership) -> bytes:
    ifindex, group = membership
    return _MREQN.pack(group, bytes(4), ifindex)
