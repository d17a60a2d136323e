"""Processor time of each CPU. Nanoseconds.

The kernel accounts a CPU's time per clock tick (10 ms here, proc_stat(5)), so a reading over one second is
good to a few per cent.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.measure import Reading

NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PATH = Path("/proc/stat")


@dataclass(frozen=True, slots=True)
class CpuTime(Reading):
    """Time of one CPU, or of several together."""

    user_ns: int
    system_ns: int
    irq_ns: int
    softirq_ns: int
    steal_ns: int
    """Taken by the hypervisor: time in which nothing of ours could run."""
    idle_ns: int

    @property
    def busy_ns(self) -> int:
        return self.user_ns + self.system_ns + self.irq_ns + self.softirq_ns

    @property
    def steal_share(self) -> float:
        """Part of the elapsed time that the hypervisor took."""
        elapsed_ns = self.busy_ns + self.steal_ns + self.idle_ns
        return self.steal_ns / elapsed_ns if elapsed_ns else 0.0


def read_cpus(path: Path = PATH) -> dict[int, CpuTime]:
    """The time of each CPU that is online, since boot."""
    found = {}
    for line in path.read_text().splitlines():
        name, *columns = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(column) * NS_PER_TICK for column in columns]
            user, nice, system, idle, iowait, irq, softirq, steal = ticks[:8]
            found[int(name[3:])] = CpuTime(user + nice, system, irq, softirq, steal, idle + iowait)
    return found


def total(by_cpu: Mapping[int, CpuTime]) -> CpuTime:
    return sum(by_cpu.values(), CpuTime(0, 0, 0, 0, 0, 0))
