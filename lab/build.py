"""Make a :class:`~lab.topology.Topology` real: namespaces, links, addresses, settings; undone on exit."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pyroute2 import IPRoute

from lab import netns
from lab.topology import SEGMENTATION, Link, Side, Topology

_QUIET = {
    # Neighbour discovery, router solicitation and MLD reports would be counted as traffic.
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    # Multicast routing checks the source itself; this check would come on top.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}


@dataclass(frozen=True, slots=True)
class Lab:
    """A topology that exists; ``gen``, ``fwd``, ``rcv`` are namespace names (``fwd`` is "" when direct)."""

    topology: Topology
    run_id: str
    gen: str
    fwd: str
    rcv: str

    def namespace(self, side: Side) -> str:
        return {"gen": self.gen, "fwd": self.fwd, "rcv": self.rcv}[side]

    @property
    def inputs(self) -> tuple[Link, ...]:
        return self.topology.input_links

    @property
    def outputs(self) -> tuple[Link, ...]:
        return self.topology.output_links


@contextmanager
def build(topology: Topology, run_id: str) -> Iterator[Lab]:
    """The topology for the length of a ``with`` block.

    ``run_id`` must be unique among the labs that this process has standing at the same time. Whatever happens
    in the block, the processes inside are killed and the namespaces removed.
    """
    spaces = {side: netns.new_name(f"{run_id}-{side}") for side in topology.sides}
    with ExitStack() as stack:
        for name in spaces.values():
            netns.create(name)
            stack.callback(netns.remove, name)
        lab = Lab(topology, run_id, spaces["gen"], spaces.get("fwd", ""), spaces["rcv"])
        sockets = {side: stack.enter_context(IPRoute(netns=name)) for side, name in spaces.items()}
        for link in topology.links:
            _add_link(sockets[link.sender.side], lab, link)
        for side in topology.sides:
            _settle(lab, side)
        for side in topology.sides:
            _bring_up(sockets[side], topology, side)
        for side in topology.sides:
            _await_up(sockets[side], topology, side)
        yield lab


def _add_link(socket: IPRoute, lab: Lab, link: Link) -> None:
    near, far = link.sender, link.receiver
    socket.link(
        "add",
        kind="veth",
        ifname=near.interface,
        address=near.mac,
        mtu=lab.topology.mtu,
        peer={
            "ifname": far.interface,
            "address": far.mac,
            "mtu": lab.topology.mtu,
            "net_ns_fd": lab.namespace(far.side),
        },
    )


def _settle(lab: Lab, side: Side) -> None:
    """Apply what must be written from inside the namespace, before any interface there is up."""
    topology = lab.topology
    files = {f"/proc/sys/{key}": value for key, value in _QUIET.items()}
    if side == "rcv":
        files["/proc/sys/net/ipv4/igmp_max_memberships"] = "10000"
    if side == "fwd":
        files["/proc/sys/net/ipv4/ip_forward"] = "1"
        files["/proc/sys/net/ipv4/igmp_max_memberships"] = str(topology.igmp_max_memberships)
    ends = topology.ends(side)
    for end in ends:
        files[f"/proc/sys/net/ipv4/conf/{end.interface}/rp_filter"] = "0"
    if side == "fwd" and topology.rps:
        mask = cpu_mask(topology.rps_cpus or tuple(os.sched_getaffinity(0)))
        for link in topology.input_links:
            files[f"/sys/class/net/{link.receiver.interface}/queues/rx-*/rps_cpus"] = mask
    features = {}
    if topology.egress == "wire-like":
        features = {end.interface: dict.fromkeys(SEGMENTATION, False) for end in ends}
    settings = json.dumps({"files": files, "features": features})
    netns.run(lab.namespace(side), [sys.executable, "-m", "lab.inside"], input=settings)


def _bring_up(socket: IPRoute, topology: Topology, side: Side) -> None:
    socket.link("set", index=1, state="up")
    for end in topology.ends(side):
        (index,) = socket.link_lookup(ifname=end.interface)
        socket.addr("add", index=index, address=end.address, prefixlen=end.prefix_length)
        socket.link("set", index=index, state="up")


def _await_up(socket: IPRoute, topology: Topology, side: Side, timeout_s: float = 10.0) -> None:
    """Wait until the interfaces carry traffic.

    The kernel notices a link's carrier in a work queue, and until then the device drops what it is given.
    """
    wanted = {end.interface for end in topology.ends(side)}
    deadline = time.monotonic() + timeout_s
    while True:
        states = {link.get("ifname"): link.get("operstate") for link in socket.get_links()}
        waiting = sorted(name for name in wanted if states.get(name) != "UP")
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise netns.NetnsError(
                f"{', '.join(waiting)} in {side}: not up {timeout_s:g} s after being set up"
            )
        time.sleep(0.002)


def cpu_mask(cpus: tuple[int, ...]) -> str:
    """CPUs as the kernel reads a mask: 32-bit groups in hexadecimal, most significant first."""
    value = sum(1 << cpu for cpu in set(cpus))
    groups: list[str] = []
    while value or not groups:
        groups.append(f"{value & 0xFFFFFFFF:08x}")
        value >>= 32
    return ",".join(reversed(groups))
