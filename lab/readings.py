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
    """All CPUs together, since boot or between two readings; nanoseconds, in steps of a clock tick."""

    busy_ns: int
    softirq_ns: int

    def since(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.busy_ns - earlier.busy_ns, self.softirq_ns - earlier.softirq_ns)


def cpu_time() -> CpuTime:
    """From the first line of /proc/stat (proc_stat(5)): user, nice, system, irq and softirq are busy."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (int(field) * _TICK_NS for field in fields)
    return CpuTime(user + nice + system + irq + softirq, softirq)


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
