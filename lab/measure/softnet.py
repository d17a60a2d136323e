"""What each CPU's receive softirq did (``/proc/net/softnet_stat``): of the machine, not of one namespace."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

PATH = Path("/proc/net/softnet_stat")


@dataclass(frozen=True, slots=True)
class Softnet:
    """Of one CPU, or summed; since boot or between two readings."""

    processed: int
    dropped: int
    """Frames that found the backlog full."""
    time_squeeze: int
    """Times that the softirq ended with work left."""
    received_rps: int
    """Times that this CPU was woken to take frames that another CPU steered to it."""

    def since(self, earlier: Softnet) -> Softnet:
        return Softnet(*(getattr(self, field.name) - getattr(earlier, field.name) for field in fields(self)))

    def __add__(self, other: Softnet) -> Softnet:
        return Softnet(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def read_softnet(path: Path = PATH) -> dict[int, Softnet]:
    """By CPU. The columns are hexadecimal, see ``softnet_seq_show`` in net/core/net-procfs.c."""
    found = {}
    for row, line in enumerate(path.read_text().splitlines()):
        columns = [int(column, 16) for column in line.split()]
        cpu = columns[12] if len(columns) > 12 else row  # the 13th column, the CPU, came with Linux 5.10
        found[cpu] = Softnet(columns[0], columns[1], columns[2], columns[9])
    return found


def since(later: dict[int, Softnet], earlier: dict[int, Softnet]) -> dict[int, Softnet]:
    """The difference, CPU by CPU; a CPU that came online in between counts from 0."""
    return {cpu: now.since(earlier[cpu]) if cpu in earlier else now for cpu, now in later.items()}


def total(by_cpu: dict[int, Softnet]) -> Softnet:
    return sum(by_cpu.values(), Softnet(0, 0, 0, 0))
