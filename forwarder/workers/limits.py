"""System limits: raised where a process may do that, named in the error where it may not."""

import errno
import os
import resource
from collections.abc import Container, Sequence
from pathlib import Path

from forwarder.plan.memory import megabytes, plural
from forwarder.plan.model import Plan, WorkerPlan

_BASE = 64
"""Descriptors for everything besides the workers."""
_PER_WORKER = 4
"""Channel, process, io_uring and counters of a worker; its sockets are added."""
_PER_FORK = 6
"""Additional ones for each worker that is about to be forked."""


class TooLargeError(OSError):
    """The plan needs more memory than there is; nothing was allocated."""


def allow_descriptors() -> None:
    """Raise the soft limit of open files (RLIMIT_NOFILE), which is low for programs that use select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_memory(
    workers: Sequence[WorkerPlan], interfaces: Container[str], available_bytes: int | None = None
) -> None:
    """Check that there is memory for the receive rings of these workers.

    Otherwise the kernel runs out of memory while it allocates them, and kills large processes: it charges
    rings to nobody (``alloc_one_pg_vec_page``, net/packet/af_packet.c).

    Args:
        interfaces: those that exist; rings of others are allocated when these appear.
        available_bytes: MemAvailable and SwapFree of proc_meminfo(5) if left out.

    Raises TooLargeError: there is too little memory.
    """
    available = _available_bytes() if available_bytes is None else available_bytes
    sockets = [socket for worker in workers for socket in worker.sockets if socket.interface in interfaces]
    needed = sum(socket.ring.ring_bytes for socket in sockets)
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
    """Check that processes may get a real-time priority; 0 stands for none.

    Raises OSError: they may not; the message says what is missing.
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


def explained(error: OSError, plan: Plan, forks: int) -> OSError:
    """``error`` with the limit that was reached, and how to raise it; or as it is if there was none.

    ``forks``: workers that are forked at a time.
    """
    workers = len(plan.workers)
    sockets = sum(len(worker.sockets) for worker in plan.workers)
    ring_bytes = sum(worker.ring_bytes for worker in plan.workers)
    what = f"{workers:,} workers with {sockets:,} receive sockets"
    descriptors = _BASE + sockets + _PER_WORKER * workers + _PER_FORK * min(forks, workers)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    sentences = {
        errno.EMFILE: f"{what} need about {descriptors:,} open files, and the limit is "
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
