"""What the system lets a supervisor have: raised where that is ours to do, named where it is not."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Container, Sequence
from pathlib import Path

from forwarder.plan.memory import megabytes, plural
from forwarder.plan.model import Plan, WorkerPlan

_BESIDES = 64
"""Descriptors for everything that is not a worker's."""
_PER_WORKER = 4
"""Its channel, its process, its io_uring, its counters; its sockets come on top."""
_PER_BIRTH = 6
"""More for each worker that is about to be forked."""


class TooLargeError(OSError):
    """More memory than there is was asked for; nothing was made."""


def descriptors_needed(plan: Plan, births: int) -> int:
    """About how many descriptors a plan takes at most, with ``births`` workers forked at a time."""
    sockets = sum(len(worker.sockets) for worker in plan.workers)
    return _BESIDES + sockets + _PER_WORKER * len(plan.workers) + _PER_BIRTH * min(births, len(plan.workers))


def allow_descriptors() -> None:
    """Raise the soft limit of open files to the hard one (RLIMIT_NOFILE, getrlimit(2)).

    The soft limit is low for the sake of programs that use select(2).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_memory(
    workers: Sequence[WorkerPlan], interfaces: Container[str], available_bytes: int | None = None
) -> None:
    """Whether there is memory for the receive rings of these workers.

    The kernel would find out while it makes them, and by then end processes to find more: whichever are
    large, as rings are nobody's memory to it (``alloc_one_pg_vec_page``, net/packet/af_packet.c).

    Args:
        interfaces: those that are there; rings for others are made when these appear.
        available_bytes: left out: what the machine says (MemAvailable and SwapFree, proc_meminfo(5)).

    Raises:
        TooLargeError: there is not.
    """
    available = _available_bytes() if available_bytes is None else available_bytes
    rings = [s.ring.ring_bytes for worker in workers for s in worker.sockets if s.interface in interfaces]
    needed = sum(rings)
    if available is not None and needed > available:
        wanted = f"{megabytes(needed)} of receive rings for {plural(len(workers), 'worker')}"
        why = f"{os.strerror(errno.ENOMEM)}: {wanted}, and {megabytes(available)} are available"
        raise TooLargeError(errno.ENOMEM, f"{why}: take fewer --ring-frames or fewer workers")


def _available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    found = {}
    for line in meminfo.read_text().splitlines():
        match line.split():
            case ["MemAvailable:" | "SwapFree:" as name, kibibytes, "kB"]:
                found[name] = int(kibibytes) * 1024
    return sum(found.values()) if "MemAvailable:" in found else None


def check_realtime(priority: int) -> None:
    """Whether processes may be given a real-time priority; 0 asks for none.

    Raises:
        OSError: they may not; the message says what is missing.
    """
    if not priority:
        return
    before, ordinary = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
    except OSError as error:
        why = "needs CAP_SYS_NICE, and real-time run time in the control group (cpu.rt_runtime_us)"
        raise OSError(error.errno, f"{error.strerror}: --realtime-priority {priority} {why}") from error
    os.sched_setscheduler(0, before, ordinary)


def explained(error: OSError, plan: Plan, births: int) -> OSError:
    """``error`` with the limit that was met and how to raise it, when it was one; or as it is."""
    workers = len(plan.workers)
    sockets = sum(len(worker.sockets) for worker in plan.workers)
    ring_bytes = sum(worker.ring_bytes for worker in plan.workers)
    what = f"{workers:,} workers with {sockets:,} receive sockets"
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    sentences = {
        errno.EMFILE: f"{what} need about {descriptors_needed(plan, births):,} open files, and the limit is "
        f"{soft:,} (RLIMIT_NOFILE): raise it with `ulimit -n`, or LimitNOFILE= in a systemd unit",
        errno.ENFILE: f"{what} need more open files than the system has left: raise the sysctl fs.file-max",
        errno.EAGAIN: f"{workers:,} processes are more than may run: raise RLIMIT_NPROC ({processes:,}; "
        f"`ulimit -u`, LimitNPROC=), the sysctl kernel.pid_max, or pids.max of the control group",
        errno.ENOMEM: f"{what} and {ring_bytes / 1e6:,.0f} MB of receive rings need more memory than there "
        f"is: raise memory.max of the control group, or take fewer --ring-frames or fewer workers",
    }
    if error.errno not in sentences or isinstance(error, TooLargeError):
        return error
    return OSError(error.errno, f"{error.strerror or error}: {sentences[error.errno]}")
