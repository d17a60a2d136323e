"""How many unicast datagrams the kernel has routed in a namespace.

Facts used (Linux 6.18, checked by ``tests/kernel/test_rfc3918.py``): ``ForwDatagrams`` of ``/proc/net/snmp``
counts unicast datagrams that are routed and the copies that multicast routing makes (``ip_forward`` and
``ipmr_forward_finish``), ``OutMcastPkts`` of ``/proc/net/netstat`` every multicast datagram that leaves, and
``OutRequests`` those that local programs send, of which in a lab's namespace all are multicast.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from lab.netns import namespaces as netns
from lab.netns.namespaces import NetnsError


class RoutedReader:
    """Reads one namespace through a process that is inside; the files stay open."""

    def __init__(self, namespace: str) -> None:
        inside = netns.processes(namespace)
        if not inside:
            raise NetnsError(f"{namespace}: no process is inside, whose counters could be read")
        directory = Path(f"/proc/{inside[0]}/net")
        self._snmp = (directory / "snmp").open("rb", buffering=0)
        self._netstat = (directory / "netstat").open("rb", buffering=0)

    def read(self) -> int:
        """Unicast datagrams routed since the namespace was made."""
        ip, extended = _fields(self._snmp, b"Ip:"), _fields(self._netstat, b"IpExt:")
        return ip["ForwDatagrams"] - (extended["OutMcastPkts"] - ip["OutRequests"])

    def close(self) -> None:
        self._snmp.close()
        self._netstat.close()


def _fields(file: IO[bytes], group: bytes) -> dict[str, int]:
    """A group of counters: a line of names, and under it a line of values."""
    file.seek(0)
    names, values = (
        line.split()[1:] for line in file.read().splitlines() if line.split(maxsplit=1)[0] == group
    )
    return {name.decode(): int(value) for name, value in zip(names, values, strict=True)}
