"""Processor time, threads and open files of processes. All raise ProcessLookupError when one is gone.

By hand: psutil has processor time in clock ticks of 10 ms, too coarse for a worker that is all but idle, and
neither dirty memory nor that of packet rings (:mod:`lab.measure.memory`); two directory listings remain.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def processor_ns(pids: Iterable[int]) -> int:
    """Processor time that the processes have used so far, together, user and kernel, nanoseconds.

    From ``/proc/PID/schedstat`` (Documentation/scheduler/sched-stats.rst), which counts every switch.
    """
    total = 0
    for pid in pids:
        with process_directory(pid) as directory:
            total += int((directory / "schedstat").read_text().split()[0])
    return total


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
