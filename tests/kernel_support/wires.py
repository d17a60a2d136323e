"""Links that tests make, change and remove while forwarders run, in the namespaces of a bench."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pyroute2 import IPRoute

from kernel_support.mcrd import eventually
from lab.features import set_features
from lab.topology import SEGMENTATION


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
        self._sockets: dict[str, IPRoute] = {}
        # Of the near ends. The kernel is slow to notice the carrier of an interface with its peer's index.
        self._indices = itertools.count(2000)

    def netlink(self, namespace: str) -> IPRoute:
        if namespace not in self._sockets:
            self._sockets[namespace] = self._stack.enter_context(IPRoute(netns=namespace))
        return self._sockets[namespace]

    def index(self, port: Port) -> int:
        (index,) = self.netlink(port.namespace).link_lookup(ifname=port.interface)
        return int(index)

    def statistics(self, port: Port) -> dict[str, int]:
        """What the kernel counted for an interface (struct rtnl_link_stats64)."""
        (link,) = self.netlink(port.namespace).get_links(index=self.index(port))
        return dict(link.get("stats64"))

    @contextmanager
    def wire(self, near: Port, far: Port) -> Iterator[None]:
        """A veth pair for the length of a ``with`` block, both ends up, each datagram a frame of its own."""
        self.netlink(near.namespace).link(
            "add",
            kind="veth",
            ifname=near.interface,
            index=next(self._indices),
            peer={"ifname": far.interface, "net_ns_fd": far.namespace},
        )
        try:
            for port in (near, far):
                netlink = self.netlink(port.namespace)
                set_features(netlink, port.interface, dict.fromkeys(SEGMENTATION, False))
                if port.address:
                    self.give_address(port, port.address)
                netlink.link("set", index=self.index(port), state="up")
            for port in (near, far):
                self.await_up(port)
            yield
        finally:
            self.cut(near)

    def await_up(self, port: Port) -> None:
        """Until the kernel has noticed the carrier, an interface drops what it is given."""

        def state() -> bool:
            (link,) = self.netlink(port.namespace).get_links(index=self.index(port))
            return bool(link.get("operstate") == "UP")

        eventually(state, f"{port.interface} in {port.namespace} is up")

    def cut(self, port: Port) -> None:
        """Delete a wire by one of its ends; nothing happens when it is gone."""
        for index in self.netlink(port.namespace).link_lookup(ifname=port.interface):
            self.netlink(port.namespace).link("del", index=index)

    def give_address(self, port: Port, address: str) -> None:
        netlink = self.netlink(port.namespace)
        netlink.addr("add", index=self.index(port), address=address, prefixlen=24)

    def switch(self, port: Port, state: str) -> None:
        """Set an interface "up" or "down"."""
        self.netlink(port.namespace).link("set", index=self.index(port), state=state)

    @contextmanager
    def renamed(self, port: Port, name: str) -> Iterator[None]:
        """``port`` under another name for the length of a ``with`` block."""
        netlink, index = self.netlink(port.namespace), self.index(port)
        netlink.link("set", index=index, ifname=name)
        try:
            yield
        finally:
            netlink.link("set", index=index, ifname=port.interface)

    @contextmanager
    def bridge(self, namespace: str, name: str, *ports: str) -> Iterator[None]:
        """A bridge over the interfaces ``ports`` for the length of a ``with`` block."""
        netlink = self.netlink(namespace)
        netlink.link("add", kind="bridge", ifname=name)
        bridge = self.index(Port(namespace, name))
        try:
            for port in ports:
                netlink.link("set", index=self.index(Port(namespace, port)), master=bridge)
            netlink.link("set", index=bridge, state="up")
            yield
        finally:
            netlink.link("del", index=bridge)


@contextmanager
def wiring() -> Iterator[Wiring]:
    with ExitStack() as stack:
        yield Wiring(stack)
