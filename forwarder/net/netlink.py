"""The kernel's interfaces and addresses, and notice of every change (rtnetlink(7))."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import rtnl

from forwarder.net.links import InterfaceState

_IFF_UP: Final = 1
_GROUPS: Final = rtnl.RTMGRP_LINK | rtnl.RTMGRP_IPV4_IFADDR


async def interfaces() -> list[InterfaceState]:
    """Every interface of this network namespace."""
    async with AsyncIPRoute() as route:
        addresses: dict[int, bytes] = {}
        async for message in await route.get_addr(family=socket.AF_INET):
            local = message.get("local") or message.get("address")
            if local:
                addresses.setdefault(message["index"], socket.inet_aton(local))
        return [_state(message, addresses.get(message["index"])) async for message in await route.get_links()]


def _state(message: Any, ipv4: bytes | None) -> InterfaceState:
    mac = message.get("address") or ""
    return InterfaceState(
        ifindex=message["index"],
        name=message.get("ifname"),
        up=bool(message["flags"] & _IFF_UP),
        mtu=message.get("mtu"),
        mac=bytes.fromhex(mac.replace(":", "")) if len(mac) == 17 else bytes(6),
        ipv4=ipv4,
    )


async def watch_changes(changed: asyncio.Event) -> None:
    """Set the event once at the start, then whenever interfaces or addresses may have changed.

    The messages are not read: the kernel drops them when its queue is full (ENOBUFS, netlink(7)), so only a
    new list is reliable. The event is set once for all messages that have queued up.
    """
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, _GROUPS))
        while True:
            changed.set()
            with _despite_loss():
                await loop.sock_recv(sock, 1)  # the rest of the message is discarded
            with suppress(BlockingIOError):  # when the queue is empty
                while True:
                    with _despite_loss():
                        sock.recv(1)


@contextmanager
def _despite_loss() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
