"""Build a :class:`~lab.load.topology.Topology`: namespaces, links, addresses; undone on exit."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from lab.load.topology import SEGMENTATION, Link, Side, Topology
from lab.netns import namespaces as netns
from lab.netns.lend import Loan, lent
from lab.netns.netlink import Netlink
from lab.netns.ownership import new_name
from lab.netns.steering import RPS, Threads, cpu_mask, write_files, write_steering

_QUIET = {
    # Neighbour discovery, router solicitation and MLD reports would be counted as traffic.
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    # Multicast routing checks the source itself; this check would come on top.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}

FIRST_INDEX = 1000
"""Interface index of the first sending end. The kernel may take a second to notice the carrier of an
interface whose index is that of its peer, as the first ones of two new namespaces would have
(linkwatch_urgent_event)."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A topology that exists; ``gen``, ``fwd``, ``rcv`` are namespace names (``fwd`` is "" when direct)."""

    topology: Topology
    run_id: str
    gen: str
    fwd: str
    rcv: str
    receivers: list[Threads] = field(default_factory=list, compare=False)

    def namespace(self, side: Side) -> str:
        return {"gen": self.gen, "fwd": self.fwd, "rcv": self.rcv}[side]

    @property
    def threads(self) -> dict[int, list[int]]:
        """By CPU, the pids of the threads that receive for interfaces now."""
        found: dict[int, list[int]] = {}
        for receiver in self.receivers:
            for cpu, pids in receiver.pids():
                found.setdefault(cpu, []).extend(pids)
        return found

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
    spaces = {side: new_name(f"{run_id}-{side}") for side in topology.sides}
    with ExitStack() as stack:
        for name in spaces.values():
            stack.callback(netns.remove, name)  # first: an interruption may come in between
            netns.create(name)
        lab = Lab(topology, run_id, spaces["gen"], spaces.get("fwd", ""), spaces["rcv"])
        links = {side: stack.enter_context(Netlink(name)) for side, name in spaces.items()}
        if topology.cables:
            stack.enter_context(lent(_loans(lab), topology.mtu))
        else:
            for number, link in enumerate(topology.links):
                _add_link(links[link.sender.side], lab, link, FIRST_INDEX + number)
        for side in topology.sides:
            before = _settle(links[side], lab, side)
            steering = {path: text for path, text in before.items() if path.endswith("/rps_cpus")}
            stack.callback(write_steering, spaces[side], steering)
        for side in topology.sides:
            _bring_up(links[side], topology, side)
        if "fwd" in links:
            _introduce(links["fwd"], topology)
        for side in topology.sides:
            _await_up(links[side], topology, side)
        for side, threads in topology.threads.items():
            first = side == "rcv" or topology.threads_first
            spread = topology.rps_cpus if side == "fwd" else ()
            received = Threads(links[side], spaces[side], threads, first=first, spread=spread)
            stack.callback(received.stop)
            lab.receivers.append(received)
        yield lab


def _loans(lab: Lab) -> list[Loan]:
    """Each cable's ends, which take the place of a link's."""
    return [
        Loan(name, lab.namespace(end.side), end.interface)
        for cable, link in zip(lab.topology.cables, lab.topology.links, strict=True)
        for name, end in ((cable.sender, link.sender), (cable.receiver, link.receiver))
    ]


def _add_link(netlink: Netlink, lab: Lab, link: Link, index: int) -> None:
    near, far = link.sender, link.receiver
    ends = [{"ifname": end.interface, "address": end.mac, "mtu": lab.topology.mtu} for end in (near, far)]
    netlink.add_veth({**ends[0], "index": index}, ends[1], lab.namespace(far.side))


def _settle(netlink: Netlink, lab: Lab, side: Side) -> dict[str, str]:
    """Set device features and write files inside the namespace, all before any interface is up.

    Returns what was in the files.
    """
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
    if side == "fwd" and topology.rps_cpus:
        mask = cpu_mask(topology.rps_cpus)
        for link in topology.input_links:
            files[RPS.format(link.receiver.interface)] = mask
    merging = {link.receiver.interface for link in topology.input_links} if topology.napi else set()
    merging.update(topology.threads.get(side, ()))
    for end in ends:
        features = dict.fromkeys(SEGMENTATION, False) if topology.egress == "wire-like" else {}
        if end.side != "gen" and end.interface in merging:
            features["rx-gro"] = True
        netlink.set_features(end.interface, features)
    return write_files(lab.namespace(side), files)


def _bring_up(netlink: Netlink, topology: Topology, side: Side) -> None:
    index = {link.get("ifname"): link["index"] for link in netlink.links()}
    netlink.set_up(index["lo"])
    for end in topology.ends(side):
        netlink.add_address(index[end.interface], end.address, end.prefix_length)
        netlink.set_up(index[end.interface])


def _introduce(netlink: Netlink, topology: Topology) -> None:
    """Give the forwarder's host the receivers' addresses: a receiver that captures answers no ARP request."""
    index = {link.get("ifname"): link["index"] for link in netlink.links()}
    for link in topology.output_links:
        netlink.add_neighbour(index[link.sender.interface], link.receiver.address, link.receiver.mac)


def _await_up(netlink: Netlink, topology: Topology, side: Side, timeout_s: float = 10.0) -> None:
    """Wait until the interfaces carry traffic.

    The kernel notices a link's carrier in a work queue, and until then the device drops what it is given.
    """
    wanted = {end.interface for end in topology.ends(side)}
    deadline = time.monotonic() + timeout_s
    while True:
        states = {link.get("ifname"): link.get("operstate") for link in netlink.links()}
        waiting = sorted(name for name in wanted if states.get(name) != "UP")
        if not waiting:
            return
        if time.monotonic() > deadline:
            names = ", ".join(waiting)
            raise netns.NetnsError(f"{names} in {side}: not up {timeout_s:g} s after being set up")
        time.sleep(0.002)
