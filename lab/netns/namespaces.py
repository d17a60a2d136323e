"""Network namespaces: uniquely named, entered only by child processes, removed with what runs inside.

Rules:

* The lab process never changes its own namespace, nor forks. What is done inside one is done by a program
  started through ``enter.py``, or on a netlink socket that ``open.py`` opened there. (By hand: pyroute2 would
  fork the lab, which shares its event queues and signal handlers; docs/decisions/0010-lab-instruments.md.)
* A name says who made it (:mod:`lab.netns.ownership`).
* Removing a namespace first kills the processes inside: the kernel keeps a namespace alive for as long as one
  is left, whatever happens to its name.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyroute2.netns

from lab.netns.ownership import NetnsError as NetnsError
from lab.netns.ownership import is_owned, maker_is_gone, new_name

DIRECTORY = Path("/run/netns")
_LAUNCHER = Path(__file__).with_name("enter.py")
_OPENER = Path(__file__).with_name("open.py")
OPEN_TIMEOUT_S = 30.0
"""The kernel makes one only after it has taken down others, which takes seconds on a busy machine."""


def create(name: str) -> None:
    """Make the namespace ``name``; :class:`NetnsError` when it exists or the kernel refuses."""
    if (DIRECTORY / name).exists():
        raise NetnsError(f"network namespace {name} exists already")
    _open("create", name, what="create network namespace")


def is_made(name: str) -> bool:
    """Whether a namespace is mounted on the name's file: an interrupted removal leaves the file alone."""
    try:
        return (DIRECTORY / name).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:  # somebody else removed it
        return False


def open_sockets(name: str, family: int, protocol: int, count: int = 1) -> list[socket.socket]:
    """Raw sockets inside the namespace ``name``, at most 250."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        numbers = [family, protocol, count, theirs.fileno()]
        kind = socket.AddressFamily(family).name.removeprefix("AF_").lower()
        what = f"open a {kind} socket in"
        _open("sockets", name, *map(str, numbers), what=what, pass_fds=(theirs.fileno(),))
        _, descriptors, _, _ = socket.recv_fds(ours, 16, count, socket.MSG_DONTWAIT)
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


@contextmanager
def opened(name: str | None) -> Iterator[int]:
    """A descriptor that stands for the namespace ``name``, this process's own with ``None``, while used."""
    path = Path("/proc/self/ns/net") if name is None else DIRECTORY / name
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(verb: str, name: str, *arguments: str, what: str, pass_fds: Sequence[int] = ()) -> None:
    """Run ``open.py``; ``what`` begins the message when it fails."""
    argv = [sys.executable, "-I", "-S", str(_OPENER), verb, name, *arguments]
    try:
        subprocess.run(
            argv, capture_output=True, text=True, timeout=OPEN_TIMEOUT_S, pass_fds=pass_fds, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise NetnsError(f"cannot {what} {name}: not done within {OPEN_TIMEOUT_S:g} s") from error
    except subprocess.CalledProcessError as error:
        raise NetnsError(f"cannot {what} {name}: {error.stderr.strip()}") from error


def remove(name: str) -> None:
    """Kill what runs inside ``name`` and remove it; nothing happens when it does not exist."""
    if not (DIRECTORY / name).exists():
        return
    kill_processes(name)
    try:
        pyroute2.netns.remove(name)
    except OSError as error:
        raise NetnsError(f"cannot remove network namespace {name}: {error}") from error


@contextmanager
def namespace(label: str) -> Iterator[str]:
    """A namespace for the length of a ``with`` block; yields its name."""
    name = new_name(label)
    try:
        create(name)
        yield name
    finally:
        remove(name)


def command(name: str, argv: Sequence[str], *, cpus: Sequence[int] = (), outlive: bool = False) -> list[str]:
    """The command line that runs ``argv`` inside ``name`` (see :func:`spawn`)."""
    parent = "0" if outlive else str(os.getpid())
    affinity = ",".join(map(str, cpus)) or "-"
    return [sys.executable, "-I", "-S", str(_LAUNCHER), name, parent, affinity, "--", *argv]


def spawn(
    name: str, argv: Sequence[str], *, cpus: Sequence[int] = (), outlive: bool = False, **popen: Any
) -> subprocess.Popen[Any]:
    """Start ``argv`` inside the namespace ``name``; the pid of the returned process is the program's.

    ``cpus``: the CPUs it may run on, all when empty. Unless ``outlive``, the kernel kills it when the
    *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG): start it from one that lives long enough.
    It is in a process group of its own, so that a terminal's Ctrl-C ends the lab and the lab ends it.
    Other arguments go to :class:`subprocess.Popen`.
    """
    return subprocess.Popen(command(name, argv, cpus=cpus, outlive=outlive), process_group=0, **popen)


def run(name: str, argv: Sequence[str], *, timeout_s: float = 30, **options: Any) -> str:
    """Run ``argv`` inside ``name`` to its end; returns what it printed, :class:`NetnsError` when it fails."""
    try:
        finished: subprocess.CompletedProcess[str] = subprocess.run(
            command(name, argv), capture_output=True, text=True, timeout=timeout_s, check=True, **options
        )
    except subprocess.CalledProcessError as error:
        raise NetnsError(
            f"{' '.join(argv)} in {name} ended with status {error.returncode}: {error.stderr.strip()}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise NetnsError(f"{' '.join(argv)} in {name} did not end within {timeout_s:g} s") from error
    return finished.stdout


def names() -> list[str]:
    """Every namespace that some lab made, this one or another, live or left over."""
    if not DIRECTORY.is_dir():
        return []
    return sorted(path.name for path in DIRECTORY.iterdir() if is_owned(path.name))


def processes(name: str) -> list[int]:
    """The processes whose network namespace is ``name``."""
    try:
        wanted = (DIRECTORY / name).stat()
    except FileNotFoundError:
        return []
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if _network_of(pid) == (wanted.st_dev, wanted.st_ino)]


def kill_processes(name: str, timeout_s: float = 5.0) -> None:
    """Kill every process inside ``name`` and wait until each is gone (or a zombie of another parent)."""
    deadline = time.monotonic() + timeout_s
    while pids := processes(name):
        for pid in pids:
            _kill_and_wait(name, pid, deadline)
        if time.monotonic() > deadline:
            raise NetnsError(f"processes {pids} in {name} still run {timeout_s:g} s after SIGKILL")


def leftovers() -> list[str]:
    """Namespaces whose makers have gone."""
    return [name for name in names() if maker_is_gone(name)]


def _network_of(pid: int) -> tuple[int, int] | None:
    try:
        status = Path(f"/proc/{pid}/ns/net").stat()
    except OSError:  # gone, a zombie, or not ours to look at
        return None
    return status.st_dev, status.st_ino


def _kill_and_wait(name: str, pid: int, deadline: float) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if pid not in processes(name):  # the pid was reused between the listing and the descriptor
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
    finally:
        os.close(descriptor)
