"""Processor time that a CPU spent on anything at all, to the microsecond.

A *watch* is a thread that runs only when a CPU has nothing else to do, and reads the clock all the time. What
is missing between two readings went to somebody else: a process, a kernel thread, an interrupt or its
softirq, the hypervisor. The kernel's own figures come in ticks (proc_stat(5)), or leave interrupts out.

A watched CPU never sleeps. It wakes up within microseconds rather than tens of them, as with ``idle=poll``,
which benches of network devices are tuned with, and it does so for every subject alike.

The thread must be idle to the scheduler in every group that it belongs to. SCHED_IDLE (sched(7)) is not
enough: with automatic groups the session's group competes with kernel threads as an equal. So it has a
control group of its own with ``cpu.idle`` (Linux 5.15, Documentation/admin-guide/cgroup-v2.rst).
"""

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np

GAP_NS: Final = 500
"""The least time between two readings that counts as taken: several times what a reading takes."""
TAKEN_NS, LAST_NS, GAPS = range(3)
COLUMNS: Final = 8
"""int64 columns of a CPU's row: a cache line."""
START_S: Final = 60.0
"""Timeout for the first reading: the loop may have to be compiled."""
PROGRAM: Final = "lab.measure.watch_program"
GROUP: Final = "mcastlab-idle"
"""The control group of all watches on the machine."""

Row = np.ndarray[tuple[int], np.dtype[np.int64]]


class WatchError(RuntimeError):
    """A CPU that cannot be watched."""


class Watch:
    """Readings of watched CPUs; from :func:`watching`."""

    def __init__(self, cpus: Sequence[int], memory: mmap.mmap, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._rows = dict(
            zip(cpus, np.frombuffer(memory, np.int64, len(cpus) * COLUMNS).reshape(-1, COLUMNS), strict=True)
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> None:
        """Return when every CPU is watched; raises WatchError when that does not come about."""
        deadline = time.monotonic() + START_S
        while not all(row[LAST_NS] for row in self._rows.values()):
            if (status := self._process.poll()) is not None or time.monotonic() > deadline:
                raise WatchError(f"watching CPUs {', '.join(map(str, self._rows))}: exit status {status}")
            time.sleep(0.005)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the CPUs sleep for the length of a ``with`` block. It counts as taken."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def taken_ns(self) -> dict[int, int]:
        """Nanoseconds that others have used of each CPU since it is watched."""
        return {cpu: _taken(row) for cpu, row in self._rows.items()}


@contextmanager
def watching(cpus: Sequence[int]) -> Iterator[Watch]:
    """Watch CPUs for the length of a ``with`` block, in a process that ends with it, or with the lab.

    Raises:
        WatchError: no control group could be made for it, or a CPU does not exist.
    """
    with ExitStack() as stack:
        stack.callback(remove_group)
        group = _idle_group()
        file = stack.enter_context(os.fdopen(os.memfd_create("mcastlab-watch", os.MFD_CLOEXEC), "r+b"))
        file.truncate(len(cpus) * COLUMNS * 8)
        command = [sys.executable, "-m", PROGRAM, str(os.getpid()), str(file.fileno()), str(group)]
        process = subprocess.Popen(
            [*command, *map(str, cpus)],
            pass_fds=(file.fileno(),),
            process_group=0,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        watch = Watch(cpus, mmap.mmap(file.fileno(), 0), process)
        watch.ready()
        yield watch


def remove_group() -> None:
    """Remove the control group, unless another lab's watches are in it."""
    for root in _hierarchies():
        with suppress(OSError):
            (root / GROUP).rmdir()


def _idle_group() -> Path:
    for root in _hierarchies():
        group = root / GROUP
        with suppress(OSError):
            group.mkdir(exist_ok=True)
            (group / "cpu.idle").write_text("1")
            return group
    raise WatchError("no CPU can be watched: cpu.idle of a control group cannot be set here")


def _hierarchies() -> list[Path]:
    """Where control groups of processor time are mounted, in version 1 or 2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [
        Path(place)
        for _, place, kind, options, *_ in mounts
        if (kind == "cgroup" and "cpu" in options.split(",")) or kind == "cgroup2"
    ]


def _taken(row: Row) -> int:
    while True:
        gaps, taken, last = int(row[GAPS]), int(row[TAKEN_NS]), int(row[LAST_NS])
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if gaps == row[GAPS]:  # else a gap has ended in between
            return taken + (now - last if now - last >= GAP_NS else 0)
