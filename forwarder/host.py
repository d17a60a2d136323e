"""The machine a plan is made for: processors, memory nodes and interfaces.

:func:`read_host` reads it from sysfs under any root, :func:`described_host` makes one up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

ETHERNET_MTU = 1500


class HostError(ValueError):
    """sysfs does not say what it should; the message names the file and what it holds."""


@dataclass(frozen=True)
class Cpu:
    cpu: int
    node: int


@dataclass(frozen=True)
class Interface:
    name: str
    mtu: int = ETHERNET_MTU
    """Bytes of IP packet."""
    node: int | None = None
    """NUMA node of the device; ``None`` where it has none (veth, VLAN, virtio on one node)."""
    up: bool = True
    rx_queues: int = 1
    physical: bool = False
    """A network card, real or virtio: no bridge, VLAN, tunnel or veth."""


@dataclass(frozen=True)
class Host:
    cpus: tuple[Cpu, ...]
    """Those that workers may be pinned to, by number."""
    interfaces: tuple[Interface, ...]

    @cached_property
    def _by_name(self) -> dict[str, Interface]:
        return {interface.name: interface for interface in self.interfaces}

    def interface(self, name: str) -> Interface | None:
        return self._by_name.get(name)

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(sorted({cpu.node for cpu in self.cpus}))

    def with_cpus(self, count: int) -> Host:
        """The same interfaces on a machine of ``count`` CPUs and one memory node."""
        return replace(self, cpus=tuple(Cpu(number, 0) for number in range(count)))


def described_host(cpus: int, interfaces: Sequence[str], nodes: int = 1, mtu: int = ETHERNET_MTU) -> Host:
    """A machine of ``cpus`` CPUs in ``nodes`` memory nodes, the interfaces spread over the nodes in runs."""
    return Host(
        cpus=tuple(Cpu(number, number * nodes // cpus) for number in range(cpus)),
        interfaces=tuple(
            Interface(name, mtu, place * nodes // len(interfaces)) for place, name in enumerate(interfaces)
        ),
    )


def read_host(sysfs: Path = Path("/sys"), allowed_cpus: Collection[int] | None = None) -> Host:
    """The machine as ``sysfs`` shows it; with ``allowed_cpus``, only those of its CPUs that are among them.

    Raises :class:`HostError`. An interface that vanishes while it is read is left out.
    """
    node_of: dict[int, int] = {}
    for directory in (sysfs / "devices/system/node").glob("node[0-9]*"):
        for cpu in parse_cpu_list(_text(directory / "cpulist"), directory / "cpulist"):
            node_of[cpu] = int(directory.name.removeprefix("node"))
    online = sysfs / "devices/system/cpu/online"
    cpus = [
        Cpu(number, node_of.get(number, 0))
        for number in parse_cpu_list(_text(online), online)
        if allowed_cpus is None or number in allowed_cpus
    ]
    if not cpus:
        raise HostError(f"{online}: no CPU online that workers may use (allowed: {allowed_cpus})")
    network = sysfs / "class/net"
    names = sorted(entry.name for entry in network.iterdir()) if network.is_dir() else []
    found = (_read_interface(network / name) for name in names)
    return Host(tuple(cpus), tuple(interface for interface in found if interface))


def _read_interface(directory: Path) -> Interface | None:
    try:
        mtu = int((directory / "mtu").read_text())
        state = (directory / "operstate").read_text().strip()
        flags = int((directory / "flags").read_text(), 16)
    except (FileNotFoundError, NotADirectoryError):
        return None  # gone since it was listed, or bonding_masters, which is no interface
    except (OSError, ValueError) as error:
        raise HostError(f"{directory}: {error}") from error
    try:
        node = int((directory / "device/numa_node").read_text())
    except (OSError, ValueError):
        node = -1
    queues = sum(1 for _ in (directory / "queues").glob("rx-*"))
    # A device that does not track its carrier is "unknown" and works; then IFF_UP (1) decides.
    up = bool(flags & 1) and state in ("up", "unknown")
    physical = (directory / "device").exists()
    return Interface(directory.name, mtu, node if node >= 0 else None, up, max(1, queues), physical)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error


def parse_cpu_list(text: str, source: object = "CPU list") -> list[int]:
    """The kernel's list format, ``0-3,8,10-11``, in ascending order; empty text is an empty list."""
    numbers: set[int] = set()
    for item in text.strip().split(","):
        first, dash, last = item.partition("-")
        try:
            if item:
                numbers.update(range(int(first), int(last if dash else first) + 1))
        except ValueError as error:
            raise HostError(f"{source}: {text.strip()!r}; allowed: a list like 0-3,8") from error
    return sorted(numbers)
