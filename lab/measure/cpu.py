"""Processor time: of each CPU, and of one process. Nanoseconds.

The kernel books a CPU's time per clock tick (10 ms here, proc_stat(5)), so a reading over a second is good to
a few per cent. A process's time comes from the scheduler's clock and is good to a tick, but a softirq that
runs on top of a process is booked to it too: compare subjects by the CPUs' time, not by their processes'.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
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


def process_cpu_ns(pid: int) -> int:
    """Time that the threads of ``pid`` have run, ended ones left out; ProcessLookupError when it is gone."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
    except FileNotFoundError as error:
        raise ProcessLookupError(f"process {pid} is gone") from error
