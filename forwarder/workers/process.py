"""The few process facilities of Linux that Python's os module lacks."""

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from forwarder.abi import mempolicy, syscalls
from forwarder.abi.jit import compiled_entry, njit
from forwarder.abi.libc import PR_SET_PDEATHSIG, checked
from forwarder.abi.native import syscall

_libc = ctypes.PyDLL(None, use_errno=True)

_PR_SET_NAME: Final = 15
_PR_SET_NO_NEW_PRIVS: Final = 38
_SIGHUP, _SIGINT, _SIGKILL, _SIGTERM = 1, 2, 9, 15
_SIG_DFL, _SIG_IGN = 0, 1
_LAST_DESCRIPTOR: Final = 2**32 - 1

UNPRIVILEGED_ID: Final = 65534
"""nobody"""
LARGE_PAGE_BYTES: Final = 1 << 21
"""On x86-64, and on others with pages of 4 KiB."""
_MADV_COLLAPSE: Final = 25
"""madvise(2), from Linux 6.1."""


def fork() -> int:
    """fork(2), without the clean-up that Python runs in a child.

    ``os.fork`` re-creates locks and re-seeds generators, and so writes to some 160 pages that child and
    parent could share: 0.6 MB a worker. A process with one thread does not need that. The GIL stays held
    (PyDLL), as the child's only thread is this one.
    """
    return checked(_libc.fork())


class Entry:
    """The first steps of a forked child, prepared by its parent.

    The child takes its name, ignores the terminal's signals, which reach the whole process group, and ends on
    SIGTERM; closes every descriptor above standard error except ``keep``, and unmaps the regions of others
    (:meth:`unmap`); moves to ``cpu`` if permitted, and takes its memory from ``memory_node`` if the kernel
    accepts that (:func:`forwarder.abi.mempolicy.refusal`); becomes nobody for good, without capabilities,
    groups or a way to gain any (capabilities(7): leaving user id 0 clears them; without root only the ways to
    gain any are dropped); and is killed when its parent dies.

    All of it is compiled: run by the interpreter, these dozen calls would write to half a megabyte of pages
    that workers can share.
    """

    def __init__(self, name: str, cpu: int, keep: Collection[int], memory_node: int | None = None) -> None:
        self._name = np.frombuffer(name.encode()[:15].ljust(16, b"\0"), np.uint8).copy()
        self._keep = np.array(sorted(keep), np.int64)
        self._mask = np.zeros(max(16, cpu // 64 + 1), np.uint64)
        self._mask[cpu // 64] = 1 << cpu % 64
        words = [] if memory_node is None else mempolicy.node_mask(memory_node)
        self._nodes = np.array(words, np.uint64)
        self._elsewhere = np.zeros((0, 2), np.int64)
        self._parent = os.getpid()
        self._run = compiled_entry(_enter)

    def unmap(self, regions: Sequence[tuple[int, int]]) -> None:
        """Set the regions, address and size, that the child unmaps because they belong to others."""
        self._elsewhere = np.array(regions, np.int64).reshape(-1, 2)

    def __call__(self) -> None:
        """Raises OSError when a privilege could not be dropped."""
        identity = UNPRIVILEGED_ID if os.geteuid() == 0 else -1
        error = self._run(
            self._name, self._keep, self._mask, self._nodes, self._elsewhere, identity, self._parent
        )
        if error < 0:
            raise OSError(-error, "a worker could not give up its privileges")


@njit
def _enter(name: Any, keep: Any, mask: Any, nodes: Any, elsewhere: Any, identity: int, parent: int) -> int:
    action = np.zeros(4, np.uint64)  # struct kernel_sigaction: handler, flags, restorer, mask
    syscall(syscalls.PRCTL, _PR_SET_NAME, name.ctypes.data)
    action[0] = _SIG_IGN
    syscall(syscalls.RT_SIGACTION, _SIGINT, action.ctypes.data, 0, 8)
    syscall(syscalls.RT_SIGACTION, _SIGHUP, action.ctypes.data, 0, 8)
    action[0] = _SIG_DFL
    syscall(syscalls.RT_SIGACTION, _SIGTERM, action.ctypes.data, 0, 8)
    first = 3
    for descriptor in keep:
        if descriptor > first:
            syscall(syscalls.CLOSE_RANGE, first, descriptor - 1)
        first = descriptor + 1
    syscall(syscalls.CLOSE_RANGE, first, _LAST_DESCRIPTOR)
    for region in range(len(elsewhere)):
        syscall(syscalls.MUNMAP, elsewhere[region, 0], elsewhere[region, 1])
    syscall(syscalls.SCHED_SETAFFINITY, 0, len(mask) * 8, mask.ctypes.data)
    if len(nodes) > 0:
        syscall(syscalls.SET_MEMPOLICY, mempolicy.MPOL_PREFERRED, nodes.ctypes.data, mempolicy.MAXNODE)
    result = 0
    if identity >= 0:
        result = min(result, syscall(syscalls.SETGROUPS, 0, 0))
        result = min(result, syscall(syscalls.SETRESGID, identity, identity, identity))
        result = min(result, syscall(syscalls.SETRESUID, identity, identity, identity))
    result = min(result, syscall(syscalls.PRCTL, _PR_SET_NO_NEW_PRIVS, 1))
    # Changing identity forgets the parent-death signal, so this comes last.
    syscall(syscalls.PRCTL, PR_SET_PDEATHSIG, _SIGKILL)
    if syscall(syscalls.GETPPID) != parent:
        syscall(syscalls.EXIT_GROUP, 1)
    return result


def compile_entry() -> None:
    """Compile the code of :class:`Entry` without running it."""
    if hasattr(_enter, "compile"):
        _enter.compile("int64(uint8[::1], int64[::1], uint64[::1], uint64[::1], int64[:, ::1], int64, int64)")


def notify(state: str) -> None:
    """Notify the service manager, if there is one (sd_notify(3): NOTIFY_SOCKET) and it still listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock, suppress(OSError):
        sock.sendto(state.encode(), address)


@contextmanager
def logged_when_slow(log: Callable[[str], None], line: str, after_s: float = 5.0) -> Iterator[None]:
    """Log a line if the block takes longer than this; leaves no thread behind."""
    timer = threading.Timer(after_s, log, [line])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def collapsible(maps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Address and length of every range that large pages could hold, from the lines of ``/proc/PID/maps``.

    These are private anonymous memory that can be written, including the heap.
    """
    for line in maps:
        addresses, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if permissions != "rw-p" or inode != "0" or (name and name[0].strip() != "[heap]"):
            continue
        first, end = (int(text, 16) for text in addresses.split("-"))
        first = -(-first // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES
        length = (end - first) // LARGE_PAGE_BYTES * LARGE_PAGE_BYTES
        if length > 0:
            yield first, length


def collapse_memory() -> int:
    """Move this process's memory into large pages where the kernel can; returns how many bytes it moved.

    A fork copies one entry for each page of its parent, some 30,000 here, but only one for 512 pages that are
    a large one: this halves the time of a fork. Workers still share them: only 4 KiB of a large page are
    copied when a worker writes to it. Takes some 5 ms for a megabyte.
    """
    moved = 0
    for address, length in list(collapsible(Path("/proc/self/maps").read_text().splitlines())):
        if _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), _MADV_COLLAPSE) == 0:
            moved += length
    return moved
