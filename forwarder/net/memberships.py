"""IGMP memberships for the rules: their groups are joined through sockets that receive nothing.

The workers receive at layer 2, below IGMP, but routers and snooping switches must be asked for the groups. A
socket takes ``net.ipv4.igmp_max_memberships`` groups (20 by default), so there are several.
"""

import errno
import socket
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from forwarder.net.links import LinkView
from forwarder.problems import Log
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule

_IP_MULTICAST_ALL: Final = 49
_MREQN: Final = struct.Struct("=4s4si")

Membership = tuple[int, bytes]
"""Interface index and group, four bytes."""


class Joins:
    """Memberships, each joined once however many rules want it."""

    def __init__(self) -> None:
        self._wanted: Counter[Membership] = Counter()
        self._held: dict[Membership, socket.socket] = {}
        self._sockets: Counter[socket.socket] = Counter()
        self._roomy: dict[socket.socket, None] = {}
        """Sockets that may have room for more groups, the latest at the end."""

    def __len__(self) -> int:
        return len(self._held)

    def join(self, membership: Membership) -> None:
        """Join a group, or count one more rule that wants it. Raises OSError: the interface cannot do it."""
        if not self._wanted[membership]:
            self._held[membership] = self._join_somewhere(membership)
        self._wanted[membership] += 1

    def leave(self, membership: Membership) -> None:
        """Count one rule less, and leave the group after the last one."""
        if membership not in self._wanted:
            return
        self._wanted[membership] -= 1
        if self._wanted[membership] > 0:
            return
        del self._wanted[membership]
        sock = self._held.pop(membership)
        with suppress(OSError):  # the kernel has left the group if the interface is gone
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, _mreqn(membership))
        self._sockets[sock] -= 1
        self._roomy[sock] = None
        if not self._sockets[sock]:
            del self._sockets[sock], self._roomy[sock]
            sock.close()

    def close(self) -> None:
        """Leave every group."""
        for sock in self._sockets:
            sock.close()
        for kept in (self._sockets, self._roomy, self._held, self._wanted):
            kept.clear()

    def _join_somewhere(self, membership: Membership) -> socket.socket:
        for sock in reversed(list(self._roomy)):
            try:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, _mreqn(membership))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                del self._roomy[sock]
            else:
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


@dataclass
class Memberships:
    """Joins the groups of rules, on the interfaces that their inputs mean now; to be closed."""

    _links: LinkView
    _log: Log
    _joins: Joins = field(default_factory=Joins)
    _wanted: dict[str, Membership] = field(default_factory=dict)
    """By rule id."""

    def __len__(self) -> int:
        return len(self._joins)

    def join(self, rule: ForwardingRule) -> None:
        """Join a rule's group on its interface, which may be another one than before."""
        state = self._links.find(rule.input_interface)
        if state is None or self._wanted.get(rule.rule_id, (0,))[0] == state.ifindex:
            return
        self.leave(rule)
        membership = (state.ifindex, rule.input_group.packed)
        try:
            self._joins.join(membership)
        except OSError as error:
            self._log(f"rule {rule.rule_id}: cannot join {rule.input_group} on {state.name}: {error}")
            return
        self._wanted[rule.rule_id] = membership

    def leave(self, rule: ForwardingRule) -> None:
        """Leave a rule's group, unless another rule wants it."""
        membership = self._wanted.pop(rule.rule_id, None)
        if membership is not None:
            self._joins.leave(membership)

    def switch(self, old: RuleBook, book: RuleBook) -> None:
        """Go over to other rules; a group that both want is not left for a moment."""
        left = [self._wanted.pop(rule.rule_id, None) for rule in old if book.get(rule.rule_id) != rule]
        for rule in book:
            self.join(rule)
        for membership in filter(None, left):
            self._joins.leave(membership)

    def close(self) -> None:
        self._joins.close()


def _mreqn(membership: Membership) -> bytes:
    ifindex, group = membership
    return _MREQN.pack(group, bytes(4), ifindex)
