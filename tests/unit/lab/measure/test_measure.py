"""Readings parsed from files as the kernel writes them, and their differences."""

from __future__ import annotations

from pathlib import Path

from lab.measure import cpu, memory, since

TICK = cpu.NS_PER_TICK


def test_processor_time(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 10 1 5 100 2 3 4 7 0 0\ncpu3 1 0 1 50 0 0 0 0 0 0\nintr 5\n"
    )
    before = cpu.read_cpus(stat)
    assert sorted(before) == [0, 3]
    assert before[0] == cpu.CpuTime(11 * TICK, 5 * TICK, 3 * TICK, 4 * TICK, 7 * TICK, 102 * TICK)
    assert before[0].busy_ns == 23 * TICK
    stat.write_text("cpu  9\ncpu0 12 1 5 100 2 3 9 7 0 0\ncpu3 1 0 1 60 0 0 0 0 0 0\n")
    spent = cpu.total(since(cpu.read_cpus(stat), before))
    assert (spent.busy_ns, spent.softirq_ns, spent.idle_ns) == (7 * TICK, 5 * TICK, 10 * TICK)


def test_kernel_memory(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text(
        "MemTotal: 9 kB\nSlab:  100 kB\nKernelStack:  10 kB\nPageTables:   20 kB\nPercpu:  3 kB\n"
    )
    now = memory.kernel_memory(path)
    assert now == memory.KernelMemory(100 << 10, 20 << 10, 10 << 10, 3 << 10)
    assert now.total_bytes == 133 << 10
    assert now.since(now).total_bytes == 0
