"""Counters of a lab's interfaces, of the kernel's backlogs, and of the unicast datagrams that it routes.

Facts about veth (Linux 6.18, checked by ``tests/kernel/lab/test_measure.py``): a frame given to one end is
counted as sent there *and* as received at the peer. When the peer's CPU has no room in its backlog
(``net.core.netdev_max_backlog``), it is counted as ``tx_dropped`` here, as ``rx_dropped`` there and, for the
whole machine, in ``/proc/net/softnet_stat``: one drop, of which a ledger takes one counter. XDP frames for
which NAPI or receive packet steering finds no room are counted at the peer only, and socket buffers for which
the peer's NAPI has none (its ring has 256 slots) here only: the larger of both counters is what was dropped.
A frame is a datagram, unless segmentation offload passes it whole.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO

from lab.measure import Reading
from lab.netns import namespaces as netns
from lab.netns import procnet
from lab.netns.build import Lab
from lab.netns.namespaces import NetnsError
from lab.netns.netlink import Netlink

SOFTNET = Path("/proc/net/softnet_stat")
RECEIVED_COLUMN, WAITING_COLUMN, CPU_COLUMN = 0, 11, 12
"""Frames taken in, frames in the backlog, and the CPU itself, hexadecimal (softnet_seq_show in
net/core/net-procfs.c)."""


@dataclass(frozen=True, slots=True)
class InterfaceCounters(Reading):
    """Counters of one interface, in frames or bytes."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int


@dataclass(frozen=True, slots=True)
class Devices(Reading):
    """Frames dropped by a lab's links: at the inputs' receiving ends, and at the outputs' sending ends."""

    input_dropped: int
    output_dropped: int


def read_interfaces(netlink: Netlink) -> dict[str, InterfaceCounters]:
    """The counters of every interface in a namespace, by name."""
    names = [field.name for field in fields(InterfaceCounters)]
    return {
        link.get("ifname"): InterfaceCounters(*(link.get("stats64")[name] for name in names))
        for link in netlink.links()
    }


@contextmanager
def device_reader(lab: Lab) -> Iterator[Callable[[], Devices]]:
    """A function that reads the devices of ``lab``, for the length of a ``with`` block."""
    inputs = [(link.sender.interface, link.receiver.interface) for link in lab.inputs]
    outputs = [link.sender.interface for link in lab.outputs] if lab.fwd else []
    with Netlink(lab.gen) as sending, Netlink(lab.fwd or lab.rcv) as receiving:

        def read() -> Devices:
            here, there = read_interfaces(sending), read_interfaces(receiving)
            return Devices(
                sum(max(here[near].tx_dropped, there[far].rx_dropped) for near, far in inputs),
                sum(there[name].tx_dropped for name in outputs),
            )

        yield read


def read_waiting(path: Path = SOFTNET) -> int:
    """Frames in the backlogs of all CPUs: handed over by a veth, and not received by anybody yet."""
    return sum(_softnet(path, WAITING_COLUMN).values())


def read_received(path: Path = SOFTNET) -> dict[int, int]:
    """Frames that each CPU has taken in for the network stack, whatever interface they came from."""
    return _softnet(path, RECEIVED_COLUMN)


def _softnet(path: Path, column: int) -> dict[int, int]:
    rows = [line.split() for line in path.read_text().splitlines()]
    return {int(row[CPU_COLUMN], 16): int(row[column], 16) for row in rows}


@contextmanager
def routed_reader(namespace: str) -> Iterator[Callable[[], int]]:
    """A function that reads how many unicast datagrams were routed in ``namespace`` since it was made.

    It reads files of a process inside, which stay open for the length of the ``with`` block.

    Facts used (Linux 6.18, checked by ``tests/kernel/lab/test_rfc3918.py``): ``ForwDatagrams`` of
    ``/proc/net/snmp`` counts unicast datagrams that are routed and the copies that multicast routing makes
    (``ip_forward`` and ``ipmr_forward_finish``), ``OutMcastPkts`` of ``/proc/net/netstat`` every multicast
    datagram that leaves, and ``OutRequests`` those that local programs send, which are all multicast here.
    """

    inside = netns.processes(namespace)
    if not inside:
        raise NetnsError(f"{namespace}: no process is inside, whose counters could be read")
    directory = Path(f"/proc/{inside[0]}/net")

    def counters(file: IO[bytes], group: str) -> dict[str, int]:
        file.seek(0)
        return procnet.counters(file.read().decode(), group)

    with (
        (directory / "snmp").open("rb", buffering=0) as snmp,
        (directory / "netstat").open("rb", buffering=0) as netstat,
    ):

        def read() -> int:
            ip, extended = counters(snmp, "Ip"), counters(netstat, "IpExt")
            return ip["ForwDatagrams"] - (extended["OutMcastPkts"] - ip["OutRequests"])

        yield read
