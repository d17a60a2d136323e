"""What a trial reads of the machine: drops of its own devices, processor time of all CPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from lab.build import Lab
from lab.results import NS_PER_S

_TICK_NS = NS_PER_S // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """CPUs together, since boot or between two readings; nanoseconds, in steps of a clock tick."""

    busy_ns: int
    softirq_ns: int

    def since(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.busy_ns - earlier.busy_ns, self.softirq_ns - earlier.softirq_ns)


def cpu_time(spinning: int | None = None) -> CpuTime:
    """All CPUs, from /proc/stat (proc_stat(5)): user, nice, system, irq and softirq are busy.

    ``spinning``: the CPU of a generator that waits for its next datagram in a busy loop. Of that CPU only the
    interrupt time counts (what it forwards in passing is done in softirq): the loop takes all the rest,
    whatever else happens.
    """
    busy = softirqs = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if not (name.startswith("cpu") and name[3:].isdigit()):
            continue
        user, nice, system, _idle, _iowait, irq, softirq, *_ = (int(field) * _TICK_NS for field in fields)
        softirqs += softirq
        busy += irq + softirq
        if int(name[3:]) != spinning:
            busy += user + nice + system
    return CpuTime(busy, softirqs)


@dataclass(frozen=True)
class Devices:
    """Datagrams that the sending ends of the links counted as dropped, on the way in and on the way out."""

    input_dropped: int
    output_dropped: int

    def since(self, earlier: Devices) -> Devices:
        return Devices(
            self.input_dropped - earlier.input_dropped, self.output_dropped - earlier.output_dropped
        )


class DeviceReader:
    """Reads the devices of one lab; a context manager."""

    def __init__(self, lab: Lab) -> None:
        self._gen = IPRoute(netns=lab.gen)
        self._fwd = IPRoute(netns=lab.fwd) if lab.fwd else None
        self._inputs = {link.sender.interface for link in lab.inputs}
        self._outputs = {link.sender.interface for link in lab.outputs}

    def read(self) -> Devices:
        output = _dropped(self._fwd, self._outputs) if self._fwd else 0
        return Devices(_dropped(self._gen, self._inputs), output)

    def __enter__(self) -> DeviceReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._gen.close()
        if self._fwd:
            self._fwd.close()


def _dropped(route: IPRoute, names: set[str]) -> int:
    return sum(link.get("stats64")["tx_dropped"] for link in route.get_links() if link.get("ifname") in names)
