"""Processor time of each CPU. Nanoseconds.

The kernel books a CPU's time per clock tick (10 ms here, proc_stat(5)), so a reading over a second is good to
a few per cent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PATH = Path("/proc/stat")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Of one CPU, or summed; since boot or between two readings."""

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

    def since(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(*(getattr(self, field.name) - getattr(earlier, field.name) for field in fields(self)))

    def __add__(self, other: CpuTime) -> CpuTime:
        return CpuTime(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def read_cpus(path: Path = PATH) -> dict[int, CpuTime]:
    """By CPU, those online."""
    found = {}
    for line in path.read_text().splitlines():
        name, *columns = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(column) * NS_PER_TICK for column in columns]
            user, nice, system, idle, iowait, irq, softirq, steal = ticks[:8]
            found[int(name[3:])] = CpuTime(user + nice, system, irq, softirq, steal, idle + iowait)
    return found


def since(later: dict[int, CpuTime], earlier: dict[int, CpuTime]) -> dict[int, CpuTime]:
    """The difference, CPU by CPU; a CPU that came online in between counts from 0."""
    return {cpu: now.since(earlier[cpu]) if cpu in earlier else now for cpu, now in later.items()}


def total(by_cpu: dict[int, CpuTime]) -> CpuTime:
    return sum(by_cpu.values(), CpuTime(0, 0, 0, 0, 0, 0))


def busy(by_cpu: dict[int, CpuTime], spinning: int | None = None) -> CpuTime:
    """The sum, in which a CPU that spins counts with its interrupts alone.

    ``spinning``: the CPU of a generator that waits for its next datagram in a busy loop, which takes all the
    rest whatever else happens; what that CPU forwards in passing is done in softirq.
    """
    return total(
        {
            cpu: replace(time, user_ns=0, system_ns=0) if cpu == spinning else time
            for cpu, time in by_cpu.items()
        }
    )
