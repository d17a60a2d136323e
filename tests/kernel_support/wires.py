"""Links that tests make, change and remove while forwarders run, in the namespaces of a bench."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from kernel_support.mcrd import eventually
from lab.load.topology import SEGMENTATION
from lab.netns.netlink import CHANGE, CREATE, IFF_UP, Netlink


@dataclass(frozen=True)
class Port:
    """One end of a wire."""

    namespace: str
    interface: str
    address: str | None = None
    """IPv4, of a /24 network."""


class Wiring:
    """Makes wires; keeps a netlink socket for each namespace until it is closed."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._sockets: dict[str, Netlink] = {}
        # Of the near ends. The kernel is slow to notice the carrier of an interface with its peer's index.
        self._indices = itertools.count(2000)

    def index(self, port: Port) -> int:
        return int(self._link(port)["index"])

    def statistics(self, port: Port) -> dict[str, int]:
        """What the kernel counted for an interface (struct rtnl_link_stats64)."""
        return dict(self._link(port).get("stats64"))

    @contextmanager
    def wire(self, near: Port, far: Port) -> Iterator[None]:
        """A veth pair for the length of a ``with`` block, both ends up, each datagram a frame of its own."""
        self._netlink(near.namespace).add_veth(
            {"ifname": near.interface, "index": next(self._indices)},
            {"ifname": far.interface},
            far.namespace,
        )
        try:
            for port in (near, far):
                segmentation = dict.fromkeys(SEGMENTATION, False)
                self._netlink(port.namespace).set_features(port.interface, segmentation)
                if port.address:
                    self.give_address(port, port.address)
                self.switch(port, "up")
            for port in (near, far):
                self.await_up(port)
            yield
        finally:
            self.cut(near)

    def await_up(self, port: Port) -> None:
        """Until the kernel has noticed the carrier, an interface drops what it is given."""
        eventually(
            lambda: self._link(port).get("operstate") == "UP", f"{port.interface} in {port.namespace} is up"
        )

    def cut(self, port: Port) -> None:
        """Delete a wire by one of its ends."""
        self._change(port, RTM_DELLINK)

    def give_address(self, port: Port, address: str) -> None:
        self._netlink(port.namespace).add_address(self.index(port), address, 24)

    def set_mtu(self, port: Port, mtu: int) -> None:
        self._change(port, RTM_NEWLINK, ("IFLA_MTU", mtu))

    def switch(self, port: Port, state: str) -> None:
        """Set an interface "up" or "down"."""
        self._change(port, RTM_NEWLINK, change=IFF_UP, flags=IFF_UP if state == "up" else 0)

    @contextmanager
    def renamed(self, port: Port, name: str) -> Iterator[None]:
        """``port`` under another name for the length of a ``with`` block."""
        self._change(port, RTM_NEWLINK, ("IFLA_IFNAME", name))
        try:
            yield
        finally:
            self._change(Port(port.namespace, name), RTM_NEWLINK, ("IFLA_IFNAME", port.interface))

    @contextmanager
    def bridge(self, namespace: str, name: str, *ports: str) -> Iterator[None]:
        """A bridge over the interfaces ``ports`` for the length of a ``with`` block."""
        message = ifinfmsg()
        message["attrs"] = [
            ("IFLA_IFNAME", name),
            ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
        ]
        self._netlink(namespace).ask(message, RTM_NEWLINK, CREATE, f"adding the bridge {name}")
        bridge = Port(namespace, name)
        try:
            for port in ports:
                self._change(Port(namespace, port), RTM_NEWLINK, ("IFLA_MASTER", self.index(bridge)))
            self.switch(bridge, "up")
            yield
        finally:
            self.cut(bridge)

    def _netlink(self, namespace: str) -> Netlink:
        if namespace not in self._sockets:
            self._sockets[namespace] = self._stack.enter_context(Netlink(namespace))
        return self._sockets[namespace]

    def _link(self, port: Port) -> Any:
        links = {link.get("ifname"): link for link in self._netlink(port.namespace).links()}
        return links[port.interface]

    def _change(self, port: Port, kind: int, *attributes: tuple[str, Any], **fields: int) -> None:
        message = ifinfmsg()
        message["index"] = self.index(port)
        for name, value in fields.items():
            message[name] = value
        message["attrs"] = list(attributes)
        self._netlink(port.namespace).ask(message, kind, CHANGE, f"changing {port.interface}")


@contextmanager
def wiring() -> Iterator[Wiring]:
    with ExitStack() as stack:
        yield Wiring(stack)
