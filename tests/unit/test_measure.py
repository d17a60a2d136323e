"""Readings parsed from files as the kernel writes them, and their differences."""

from __future__ import annotations

from pathlib import Path

from lab.measure import cpu, memory, softnet

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
    spent = cpu.total(cpu.since(cpu.read_cpus(stat), before))
    assert (spent.busy_ns, spent.softirq_ns, spent.idle_ns) == (7 * TICK, 5 * TICK, 10 * TICK)


def test_softnet(tmp_path: Path) -> None:
    path = tmp_path / "softnet_stat"
    row = "{:08x} {:08x} {:08x} 0 0 0 0 0 0 {:08x} 0 0 {:08x} 0 0\n"
    path.write_text(row.format(1000, 5, 1, 30, 0) + row.format(17, 0, 0, 2, 2))
    before = softnet.read_softnet(path)
    assert before == {0: softnet.Softnet(1000, 5, 1, 30), 2: softnet.Softnet(17, 0, 0, 2)}
    path.write_text(row.format(1300, 9, 1, 31, 0) + row.format(17, 0, 0, 2, 2))
    assert softnet.total(softnet.since(softnet.read_softnet(path), before)) == softnet.Softnet(300, 4, 0, 1)


def test_kernel_memory(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text(
        "MemTotal: 9 kB\nSlab:  100 kB\nKernelStack:  10 kB\nPageTables:   20 kB\nPercpu:  3 kB\n"
    )
    now = memory.kernel_memory(path)
    assert now == memory.KernelMemory(100 << 10, 20 << 10, 10 << 10, 3 << 10)
    assert now.total_bytes == 133 << 10
    assert now.since(now).total_bytes == 0
