"""What the kernel counts in the namespace of a process: ``/proc/<pid>/net``, readable from outside it.

For unicast that the kernel routes, and for subjects that keep no account of their own. The formats are
those of proc_pid_net(5). What the counters mean on Linux 6.18:

* IP ``InReceives``: came through the backlog, whatever became of it later. (An interface's own counter says
  what came before the backlog or after it, by how the interface is driven.)
* UDP ``InDatagrams``: handed to a program. ``RcvbufErrors`` and ``MemErrors``: no room in a socket's buffer,
  once for each socket that a multicast datagram is for. ``IgnoredMulti``: multicast that no socket wanted.
* UDP ``OutDatagrams``: sent. ``SndbufErrors``: refused by a device, which a program is not told.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

ESTABLISHED = 1
"""State of a connected socket; other UDP sockets are in state 7."""


@dataclass(frozen=True, slots=True)
class Frames:
    """What one interface has counted, in frames."""

    received: int
    sent: int
    send_dropped: int


@dataclass(frozen=True, slots=True)
class UdpSocket:
    local: tuple[IPv4Address, int]
    remote: tuple[IPv4Address, int]
    state: int
    drops: int


def read(pid: int, name: str) -> str:
    """The file ``name`` of the namespace of ``pid``. Raises :class:`OSError` once the process is gone."""
    return Path(f"/proc/{pid}/net/{name}").read_text()


def interfaces(text: str) -> dict[str, Frames]:
    """``net/dev``: each interface with its counters."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, values = line.partition(":")
        numbers = [int(value) for value in values.split()]
        found[name.strip()] = Frames(numbers[1], numbers[9], numbers[11])
    return found


def counters(text: str, protocol: str) -> dict[str, int]:
    """``net/snmp``: the counters of one protocol ("Udp"), from a line of names and one of values."""
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith(f"{protocol}:"))
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def udp_sockets(text: str) -> list[UdpSocket]:
    """``net/udp``: addresses are hexadecimal, in the byte order of the machine (little-endian on x86-64)."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        found.append(UdpSocket(_end(fields[1]), _end(fields[2]), int(fields[3], 16), int(fields[-1])))
    return found


def _end(text: str) -> tuple[IPv4Address, int]:
    address, _, port = text.partition(":")
    return IPv4Address(bytes.fromhex(address)[::-1]), int(port, 16)
