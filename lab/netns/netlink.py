"""Netlink sockets of one namespace: exchanges with the kernel; links, addresses and device features.

pyroute2 encodes and decodes the messages. They are exchanged by hand, one at a time on a blocking socket, so
that a missing answer is an error after a deadline: pyroute2's own sockets, driven by asyncio, wait for ever
when an answer is lost or the socket itself fails (docs/decisions/0010-lab-instruments.md).

The kernel carries out a request before ``send`` returns, and queues the answer on the socket. It sends no
answer when it was interrupted (``netlink_rcv_skb`` in net/netlink/af_netlink.c, -EINTR) or had no memory for
it. So a request without an answer is sent once more, on a new socket, and EEXIST then means success.
"""

import errno
import itertools
import socket
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

import pyroute2.netlink as nl
from pyroute2.ethtool.ioctl import IoctlEthtool
from pyroute2.netlink.marshal import Marshal
from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from lab.netns import namespaces as netns
from lab.netns.namespaces import NetnsError

ANSWER_TIMEOUT_S = 10.0
"""The kernel may hold its lock on all links for a second or two while it takes other namespaces down."""

CHANGE = nl.NLM_F_REQUEST | nl.NLM_F_ACK
CREATE = CHANGE | nl.NLM_F_CREATE | nl.NLM_F_EXCL

IFF_UP = 1
NUD_PERMANENT = 0x80
ATTEMPTS = 2
LARGEST_ANSWER = 1 << 18


class NetlinkSocket(AbstractContextManager[Any]):
    """A socket in ``namespace`` (``None``: the caller's own). Errors are NetnsError."""

    protocol: ClassVar[int]
    """One of netlink(7)."""

    def __init__(self, namespace: str | None, marshal: Marshal, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._marshal = marshal
        self._sequences = itertools.count(1)
        self._open()

    def fileno(self) -> int:
        """The socket's descriptor: an ioctl on it means this namespace."""
        return self._socket.fileno()

    def ask(self, message: nl.nlmsg, kind: int, flags: int, what: str) -> list[nl.nlmsg]:
        """Send a request and return the answers; ``what`` describes it in error messages."""
        for attempt in range(ATTEMPTS):
            try:
                return self._exchange(message, kind, flags)
            except TimeoutError:
                self._socket.close()
                self._open()
            except OSError as error:
                if attempt and error.errno == errno.EEXIST:
                    return []
                raise NetnsError(f"{what} in {self._namespace}: {error.strerror}") from error
        raise NetnsError(
            f"{what} in {self._namespace}: asked {ATTEMPTS} times, no answer within {self._timeout_s:g} s"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _open(self) -> None:
        if self._namespace is None:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self.protocol)
        else:
            (self._socket,) = netns.open_sockets(self._namespace, socket.AF_NETLINK, self.protocol)
        self._socket.settimeout(self._timeout_s)

    def _exchange(self, message: nl.nlmsg, kind: int, flags: int) -> list[nl.nlmsg]:
        """TimeoutError without an answer, OSError when the kernel refuses."""
        sequence = next(self._sequences)
        message["header"] = {"type": kind, "flags": flags, "pid": 0, "sequence_number": sequence}
        message.reset()
        message.encode()
        self._socket.send(message.data)
        found: list[nl.nlmsg] = []
        while True:
            for answer in self._marshal.parse(self._socket.recv(LARGEST_ANSWER)):
                header = answer["header"]
                if header["sequence_number"] != sequence:
                    continue
                if header["type"] == nl.NLMSG_ERROR and answer["error"]:
                    number = abs(answer["error"])
                    raise OSError(number, errno.errorcode.get(number, str(number)))
                if header["type"] in (nl.NLMSG_ERROR, nl.NLMSG_DONE):
                    return found
                found.append(answer)


class Netlink(NetlinkSocket):
    """Links, addresses and device features (rtnetlink(7), and ethtool's ioctl)."""

    protocol = socket.NETLINK_ROUTE

    def __init__(self, namespace: str | None, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        super().__init__(namespace, MarshalRtnl(), timeout_s)

    def add_veth(self, near: dict[str, Any], far: dict[str, Any], far_namespace: str) -> None:
        """Add a pair: ``near`` here, ``far`` in ``far_namespace``; each has ``ifname``, ``mtu``, ``address``.

        ``near`` may have an ``index``.
        """
        with netns.opened(far_namespace) as descriptor:
            peer = {"attrs": [*_attributes(far), ("IFLA_NET_NS_FD", descriptor)]}
            data = {"attrs": [("VETH_INFO_PEER", peer)]}
            info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
            message = ifinfmsg()
            message.update(index=near.get("index", 0), attrs=[*_attributes(near), ("IFLA_LINKINFO", info)])
            self.ask(message, RTM_NEWLINK, CREATE, f"adding the veth pair {near['ifname']}, {far['ifname']}")

    def set_up(self, index: int) -> None:
        self._set_link(index, f"setting interface {index} up", flags=IFF_UP, change=IFF_UP)

    def set_down(self, index: int) -> None:
        self._set_link(index, f"setting interface {index} down", flags=0, change=IFF_UP)

    def change(self, index: int, **attributes: Any) -> None:
        """Change ``ifname``, ``ifalias``, ``mtu``."""
        self._set_link(index, f"changing interface {index} to {attributes}", attrs=_attributes(attributes))

    def move(self, index: int, namespace: str | None) -> None:
        """Move an interface into another namespace; ``None``: the caller's own."""
        what = f"moving interface {index} to {namespace or 'its home'}"
        with netns.opened(namespace) as descriptor:
            self._set_link(index, what, attrs=[("IFLA_NET_NS_FD", descriptor)])

    def _set_link(self, index: int, what: str, **fields: Any) -> None:
        message = ifinfmsg()
        message.update(index=index, **fields)
        self.ask(message, RTM_NEWLINK, CHANGE, what)

    def add_address(self, index: int, address: str, prefix_length: int) -> None:
        """Add an IPv4 address."""
        message = ifaddrmsg()
        attributes = [("IFA_LOCAL", address), ("IFA_ADDRESS", address)]
        message.update(family=socket.AF_INET, index=index, prefixlen=prefix_length, attrs=attributes)
        self.ask(message, RTM_NEWADDR, CREATE, f"adding address {address} to interface {index}")

    def add_neighbour(self, index: int, address: str, mac: str) -> None:
        """Add a permanent ARP entry to interface ``index``."""
        message = ndmsg()
        attributes = [("NDA_DST", address), ("NDA_LLADDR", mac)]
        message.update(family=socket.AF_INET, ifindex=index, state=NUD_PERMANENT, attrs=attributes)
        what = f"adding neighbour {address} of interface {index}"
        self.ask(message, RTM_NEWNEIGH, CHANGE | nl.NLM_F_CREATE, what)

    def addresses(self) -> list[tuple[int, str]]:
        """Every IPv4 and IPv6 address, with the index of its interface."""
        dump = nl.NLM_F_REQUEST | nl.NLM_F_DUMP
        found = self.ask(ifaddrmsg(), RTM_GETADDR, dump, "listing the addresses")
        return [(item["index"], item.get("IFA_LOCAL") or item.get("IFA_ADDRESS")) for item in found]

    def links(self) -> list[nl.nlmsg]:
        return self.ask(ifinfmsg(), RTM_GETLINK, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, "listing the interfaces")

    def features(self, interface: str, names: Iterable[str]) -> dict[str, bool]:
        """Which of these device features are on (``ethtool -k``), without those unknown to the kernel."""
        features = self._ethtool(interface).get_features()
        known = set(features.keys())
        return {name: features.is_active(name) for name in names if name in known}

    def set_features(self, interface: str, wanted: dict[str, bool]) -> None:
        """Switch device features (``ethtool -K``); :class:`NetnsError` names those that were not switched."""
        device = self._ethtool(interface)
        features = device.get_features()
        known = set(features.keys())
        for name, on in wanted.items():
            if name in known and features.is_active(name) != on:
                features[name] = on
        device.set_features(features)
        after = device.get_features()
        # A kernel without a feature has it off.
        stuck = [name for name, on in wanted.items() if (name in known and after.is_active(name)) != on]
        if stuck:
            raise NetnsError(f"interface {interface}: cannot switch {', '.join(stuck)} as asked")

    def _ethtool(self, interface: str) -> IoctlEthtool:
        """The kernel takes the namespace of an ethtool ioctl from the socket; any socket will do."""
        device = IoctlEthtool()
        device.close()
        device.sock = self
        device.change_ifname(interface)
        return device


def _attributes(end: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(f"IFLA_{name.upper()}", value) for name, value in end.items() if name != "index"]
