"""The machine that a plan is made for: CPUs, memory nodes and interfaces.

:func:`read_host` reads it from sysfs, :func:`described_host` makes one from numbers, and
:mod:`forwarder.plan.host_file` reads and writes it as a file.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

ETHERNET_MTU = 1500
CPU_MAX = (1 << 16) - 1
_GOING = (errno.EINVAL, errno.ENODEV)
"""Errors of files of an interface that is being unregistered (``netdev_show``, net/core/net-sysfs.c)."""


class HostError(ValueError):
    """sysfs has unexpected content; the message names the file and what it holds."""


@dataclass(frozen=True)
class Cpu:
    cpu: int
    node: int
    core: int | None = None
    """The first CPU of its core, where the core has several (SMT)."""


@dataclass(frozen=True)
class Node:
    """A memory node: it may have no CPUs (the memory of an accelerator), or no memory."""

    node: int
    memory_bytes: int | None = None
    """``None`` if unknown."""
    distances: tuple[tuple[int, int], ...] = ()
    """Other nodes and how far they are: 10 is local, 20 twice as far (ACPI SLIT)."""


@dataclass(frozen=True)
class Interface:
    name: str
    mtu: int = ETHERNET_MTU
    """Bytes of IP packet."""
    node: int | None = None
    """Memory node of the card, or of the cards beneath (VLAN, bond); ``None`` where none is known (veth,
    firmware that says -1)."""
    up: bool = True
    rx_queues: int = 1
    physical: bool = False
    """A network card, real or virtio: no bridge, VLAN, tunnel or veth."""


@dataclass(frozen=True)
class Host:
    cpus: tuple[Cpu, ...]
    """CPUs that workers may be pinned to, in ascending order."""
    interfaces: tuple[Interface, ...]
    memory: tuple[Node, ...] = ()
    """All memory nodes, in ascending order; empty if the kernel has none."""

    @property
    def cards(self) -> tuple[str, ...]:
        """The network cards that are up."""
        return tuple(interface.name for interface in self.interfaces if interface.physical and interface.up)

    @cached_property
    def _by_name(self) -> dict[str, Interface]:
        return {interface.name: interface for interface in self.interfaces}

    def interface(self, name: str) -> Interface | None:
        return self._by_name.get(name)

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """The nodes that have CPUs for workers."""
        return tuple(sorted({cpu.node for cpu in self.cpus}))

    def cpus_of(self, node: int | None) -> tuple[Cpu, ...]:
        """The CPUs of a node; all of them for ``None``."""
        return self.cpus if node is None else tuple(cpu for cpu in self.cpus if cpu.node == node)

    def nearest(self, node: int, among: Collection[int]) -> int:
        """``node`` itself or the nearest of ``among``, the lowest number of equals."""
        known = next((found.distances for found in self.memory if found.node == node), ())
        far = {node: 0, **{other: distance for other, distance in known if other != node}}
        return min(among, key=lambda other: (far.get(other, 255), other))  # 255: unreachable (ACPI SLIT)

    def memory_node(self, node: int) -> int | None:
        """The node that memory for a worker on ``node`` is taken from; ``None`` if there are no nodes."""
        having = [found.node for found in self.memory if found.memory_bytes != 0]
        return self.nearest(node, having) if having else None

    def with_cpus(self, count: int) -> Host:
        """The same interfaces on a machine of ``count`` CPUs and one memory node."""
        return Host(
            tuple(Cpu(number, 0) for number in range(count)),
            tuple(replace(interface, node=None) for interface in self.interfaces),
        )

    def with_interfaces(self, names: Sequence[str], mtu: int = ETHERNET_MTU) -> Host:
        """The same CPUs and memory with these interfaces instead, in runs over the nodes that have CPUs."""
        nodes = self.nodes
        spread = (nodes[place * len(nodes) // len(names)] for place in range(len(names)))
        found = tuple(Interface(name, mtu, node) for name, node in zip(names, spread, strict=True))
        return replace(self, interfaces=found)


def described_host(cpus: int, interfaces: Sequence[str], nodes: int = 1, mtu: int = ETHERNET_MTU) -> Host:
    """A machine of ``cpus`` CPUs in ``nodes`` memory nodes, the interfaces spread over the nodes in runs."""
    spread = tuple(Cpu(number, number * nodes // cpus) for number in range(cpus))
    return Host(spread, (), tuple(map(Node, range(nodes)))).with_interfaces(interfaces, mtu)


def read_host(sysfs: Path = Path("/sys"), allowed_cpus: Collection[int] | None = None) -> Host:
    """The machine as ``sysfs`` shows it; with ``allowed_cpus``, only those of its CPUs that are among them.

    Raises :class:`HostError`. An interface that vanishes while it is read is left out.
    """
    memory = _read_nodes(sysfs / "devices/system/node")
    node_of: dict[int, int] = {}
    for found in memory:
        node_of |= dict.fromkeys(_cpus(sysfs / f"devices/system/node/node{found.node}/cpulist"), found.node)
    online = sysfs / "devices/system/cpu/online"
    cpus = [
        Cpu(number, node_of.get(number, 0), _core(sysfs / f"devices/system/cpu/cpu{number}/topology"))
        for number in _cpus(online)
        if allowed_cpus is None or number in allowed_cpus
    ]
    if not cpus:
        raise HostError(f"{online}: no CPU online that workers may use (allowed: {allowed_cpus})")
    network = sysfs / "class/net"
    names = sorted(entry.name for entry in network.iterdir()) if network.is_dir() else []
    interfaces = [one for name in names if (one := _read_interface(network / name, sysfs))]
    beneath = {name: _beneath(network / name) for name in names}
    known = {one.name: one.node for one in interfaces}
    placed = (replace(one, node=_node_beneath(one.name, known, beneath)) for one in interfaces)
    return Host(tuple(cpus), tuple(placed), memory)


def _read_nodes(directory: Path) -> tuple[Node, ...]:
    """The nodes that are online; none where the kernel was built without NUMA."""
    numbers = sorted(int(found.name.removeprefix("node")) for found in directory.glob("node[0-9]*"))
    online = directory / "online"
    listed = _cpus(online) if online.exists() else numbers
    found = []
    for number in numbers:
        place = directory / f"node{number}"
        try:
            # One figure for each node online, in ascending order (node_read_distance, drivers/base/node.c).
            far = [int(text) for text in (place / "distance").read_text().split()]
        except OSError:
            far = []
        except ValueError as error:
            raise HostError(f"{place / 'distance'}: {error}") from error
        distances = tuple(zip(listed, far, strict=True)) if len(far) == len(listed) else ()
        found.append(Node(number, _memory_bytes(place / "meminfo"), distances))
    return tuple(found)


def _memory_bytes(meminfo: Path) -> int | None:
    with suppress(OSError):
        for line in meminfo.read_text().splitlines():
            match line.split():  # Node 0 MemTotal:  16345304 kB
                case [_, _, "MemTotal:", kibibytes, "kB"] if kibibytes.isdigit():
                    return int(kibibytes) * 1024
    return None


def _core(topology: Path) -> int | None:
    """The first CPU of the core, where it has several; older kernels only have ``thread_siblings_list``."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        if (topology / name).exists():
            siblings = _cpus(topology / name)
            return siblings[0] if len(siblings) > 1 else None
    return None


def _beneath(directory: Path) -> list[str]:
    """The interfaces that one is made of: those of a bond, the parent of a VLAN."""
    with suppress(FileNotFoundError):  # gone since it was listed
        return sorted(entry.name.removeprefix("lower_") for entry in directory.glob("lower_*"))
    return []


def _node_beneath(name: str, known: Mapping[str, int | None], beneath: Mapping[str, list[str]]) -> int | None:
    """The node of an interface's card, or the one that all cards beneath it are on."""
    nodes: set[int | None] = set()
    seen, left = set(), [name]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        below = beneath.get(one, [])
        if (node := known.get(one)) is not None or not below:
            nodes.add(node)
        else:
            left += below
    return nodes.pop() if len(nodes) == 1 else None


def _read_interface(directory: Path, sysfs: Path) -> Interface | None:
    try:
        mtu = int((directory / "mtu").read_text())
        state = (directory / "operstate").read_text().strip()
        flags = int((directory / "flags").read_text(), 16)
        queues = sum(1 for _ in (directory / "queues").glob("rx-*"))
    except (FileNotFoundError, NotADirectoryError):
        return None  # gone since it was listed, or bonding_masters, which is no interface
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _GOING:
            return None  # going
        raise HostError(f"{directory}: {error}") from error
    # A device that does not track its carrier is "unknown" and works; then IFF_UP (1) decides.
    up = bool(flags & 1) and state in ("up", "unknown")
    physical = (directory / "device").exists()
    node = _device_node(directory / "device", sysfs) if physical else None
    return Interface(directory.name, mtu, node, up, max(1, queues), physical)


def _device_node(device: Path, sysfs: Path) -> int | None:
    """The node of the device or of its nearest parent that has one: a virtio card's is its PCI function's."""
    device, root = device.resolve(), sysfs.resolve()
    for place in (device, *device.parents):
        if place == root:
            break
        try:
            node = int((place / "numa_node").read_text())
        except (OSError, ValueError):
            continue
        return node if node >= 0 else None
    return None


def _cpus(path: Path) -> list[int]:
    """The CPUs (or nodes) in a file."""
    try:
        return parse_cpu_list(path.read_text(), path)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error


def parse_cpu_list(text: str, source: object = "CPU list") -> list[int]:
    """The kernel's list format, ``0-3,8,10-11``, in ascending order; empty text is an empty list."""
    numbers: set[int] = set()
    for item in text.strip().split(","):
        first, dash, last = item.partition("-")
        try:
            if item:
                lowest, highest = int(first), int(last if dash else first)
                if not 0 <= lowest <= highest <= CPU_MAX:
                    raise ValueError
                numbers.update(range(lowest, highest + 1))
        except ValueError as error:
            raise HostError(f"{source}: {text.strip()!r}; allowed: a list like 0-3,8") from error
    return sorted(numbers)


def cpu_list(numbers: Collection[int]) -> str:
    """``0-3,8`` for the numbers 0, 1, 2, 3 and 8, however often each is there; as the kernel writes it."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)
