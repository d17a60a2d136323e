"""Processor time and open files of processes. Times are nanoseconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def processor_ns(pids: Iterable[int]) -> int:
    """What the processes have spent on a processor so far, together, user and kernel.

    From ``/proc/PID/schedstat`` (Documentation/scheduler/sched-stats.rst), which counts every switch, where
    ``/proc/PID/stat`` counts clock ticks. ProcessLookupError when one is gone.
    """
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessLookupError(f"process {pid} is gone") from error
    return total


def threads(pid: int) -> int:
    """How many threads ``pid`` has. ProcessLookupError when it is gone."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(f"process {pid} is gone") from error


def descriptors(pid: int) -> int:
    """How many files, sockets and the like ``pid`` has open. ProcessLookupError when it is gone."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(f"process {pid} is gone") from error
