"""The kernel's interfaces and addresses, and word of every change (rtnetlink(7))."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import rtnl

from forwarder.links import InterfaceState

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


async def changes() -> AsyncIterator[None]:
    """Yields once when listening has begun, then whenever an interface or an address may have changed."""
    async with AsyncIPRoute() as route:
        await route.bind(groups=_GROUPS)
        yield
        while True:
            async for _ in route.get():
                yield
