"""Processor time, threads and open files of processes. All raise ProcessLookupError when one is gone.

By hand: psutil has processor time in clock ticks of 10 ms, too coarse for a worker that is all but idle, and
neither dirty memory nor that of packet rings (:mod:`lab.measure.memory`); two directory listings remain.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.measure.cpu import NS_PER_TICK


def processor_ns(pids: Iterable[int]) -> int:
    """Processor time that the processes have used so far, together, user and kernel, nanoseconds.

    From ``/proc/PID/schedstat`` (Documentation/scheduler/sched-stats.rst), which counts every switch.
    """
    total = 0
    for pid in pids:
        with process_directory(pid) as directory:
            total += int((directory / "schedstat").read_text().split()[0])
    return total


def user_and_kernel_ns(pids: Iterable[int]) -> tuple[int, int]:
    """Processor time of processes so far, together: in their own code, and in the kernel; nanoseconds.

    From ``/proc/PID/stat``. The kernel divides the exact time of each by clock ticks (``cputime_adjust`` in
    kernel/sched/cputime.c), so the division of many together is good to a few per cent.
    """
    user = kernel = 0
    for pid in pids:
        with process_directory(pid) as directory:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        user, kernel = user + int(fields[11]), kernel + int(fields[12])
    return user * NS_PER_TICK, kernel * NS_PER_TICK


def threads(pid: int) -> int:
    with process_directory(pid) as directory:
        return sum(1 for _ in (directory / "task").iterdir())


def descriptors(pid: int) -> int:
    """How many files, sockets and the like ``pid`` has open."""
    with process_directory(pid) as directory:
        return sum(1 for _ in (directory / "fd").iterdir())


@contextmanager
def process_directory(pid: int) -> Iterator[Path]:
    """The directory of ``pid`` in ``/proc``, for the length of a ``with`` block that reads it."""
    try:
        yield Path(f"/proc/{pid}")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(f"process {pid} is gone") from error
