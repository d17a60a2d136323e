"""Counters of a lab's interfaces, of the kernel's backlogs, and of the unicast datagrams that it routes.

Facts about veth (Linux 6.18, checked by ``tests/kernel/lab/test_measure.py``): a frame given to one end is
counted as sent there *and* as received at the peer. When the peer's CPU has no room in its backlog
(``net.core.netdev_max_backlog``), it is counted as ``tx_dropped`` here, as ``rx_dropped`` there and, for the
whole machine, in ``/proc/net/softnet_stat``: one drop, of which a ledger takes one counter. XDP frames for
which receive packet steering finds no room are counted at the peer only, so input drops are read at the peer.
A frame is a datagram, unless segmentation offload passes it whole.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Self

from lab.measure import Reading
from lab.netns import namespaces as netns
from lab.netns.build import Lab
from lab.netns.namespaces import NetnsError
from lab.netns.netlink import Netlink

SOFTNET = Path("/proc/net/softnet_stat")
WAITING_COLUMN = 11
"""Frames in the CPU's backlog, hexadecimal (softnet_seq_show in net/core/net-procfs.c)."""


@dataclass(frozen=True, slots=True)
class InterfaceCounters(Reading):
    """Counters of one interface, in frames or bytes."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int
    rx_errors: int
    tx_errors: int


@dataclass(frozen=True, slots=True)
class Devices(Reading):
    """Frames dropped by a lab's links: at the inputs' receiving ends, and at the outputs' sending ends."""

    input_dropped: int
    output_dropped: int


class InterfaceReader:
    """Reads one namespace; a context manager that keeps its netlink socket open."""

    def __init__(self, namespace: str) -> None:
        self._netlink = Netlink(namespace)

    def read(self) -> dict[str, InterfaceCounters]:
        """The counters of every interface, by name."""
        names = [field.name for field in fields(InterfaceCounters)]
        return {
            link.get("ifname"): InterfaceCounters(*(link.get("stats64")[name] for name in names))
            for link in self._netlink.links()
        }

    def close(self) -> None:
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DeviceReader:
    """Reads the devices of one lab; a context manager."""

    def __init__(self, lab: Lab) -> None:
        self._reader = InterfaceReader(lab.fwd or lab.rcv)
        self._inputs = [link.receiver.interface for link in lab.inputs]
        self._outputs = [link.sender.interface for link in lab.outputs] if lab.fwd else []

    def read(self) -> Devices:
        counters = self._reader.read()
        return Devices(
            sum(counters[name].rx_dropped for name in self._inputs),
            sum(counters[name].tx_dropped for name in self._outputs),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()


def waiting(text: str) -> int:
    """Frames in the backlogs of all CPUs, from the text of :data:`SOFTNET`, a line for each CPU."""
    return sum(int(line.split()[WAITING_COLUMN], 16) for line in text.splitlines())


def read_waiting() -> int:
    """Frames that a veth has handed over and that nobody has received yet, on the whole machine."""
    return waiting(SOFTNET.read_text())


class RoutedReader:
    """Reads how many unicast datagrams were routed in a namespace, through the files of a process inside.

    Facts used (Linux 6.18, checked by ``tests/kernel/lab/test_rfc3918.py``): ``ForwDatagrams`` of
    ``/proc/net/snmp`` counts unicast datagrams that are routed and the copies that multicast routing makes
    (``ip_forward`` and ``ipmr_forward_finish``), ``OutMcastPkts`` of ``/proc/net/netstat`` every multicast
    datagram that leaves, and ``OutRequests`` those that local programs send, which are all multicast here.
    """

    def __init__(self, namespace: str) -> None:
        inside = netns.processes(namespace)
        if not inside:
            raise NetnsError(f"{namespace}: no process is inside, whose counters could be read")
        directory = Path(f"/proc/{inside[0]}/net")
        with ExitStack() as stack:
            self._snmp = stack.enter_context((directory / "snmp").open("rb", buffering=0))
            self._netstat = stack.enter_context((directory / "netstat").open("rb", buffering=0))
            self._stack = stack.pop_all()

    def read(self) -> int:
        """Unicast datagrams routed since the namespace was made."""
        ip, extended = _fields(self._snmp, b"Ip:"), _fields(self._netstat, b"IpExt:")
        return ip["ForwDatagrams"] - (extended["OutMcastPkts"] - ip["OutRequests"])

    def close(self) -> None:
        self._stack.close()


def _fields(file: IO[bytes], group: bytes) -> dict[str, int]:
    """A group of counters: a line of names, and under it a line of values."""
    file.seek(0)
    names, values = (
        line.split()[1:] for line in file.read().splitlines() if line.split(maxsplit=1)[0] == group
    )
    return {name.decode(): int(value) for name, value in zip(names, values, strict=True)}
