"""The few process facilities of Linux that Python's os module lacks."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Collection
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_python_libc = ctypes.PyDLL(None, use_errno=True)

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_NO_NEW_PRIVS: Final = 38

_LAST_DESCRIPTOR: Final = 2**31 - 1
# C's own numbers: Python's signal module makes enum members of them at every call.
_SIGHUP, _SIGINT, _SIGTERM = 1, 2, 15
_SIG_DFL: Final = ctypes.c_void_p(0)
_SIG_IGN: Final = ctypes.c_void_p(1)

UNPRIVILEGED_ID: Final = 65534
"""nobody"""


def _prctl(option: int, value: object) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def die_with_parent(parent: int) -> None:
    """Be killed when the parent dies, also if it died before this call (prctl(2), PR_SET_PDEATHSIG)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def set_name(name: bytes) -> None:
    """The process's name in ps and top, 15 bytes at most."""
    _prctl(_PR_SET_NAME, name)


def reset_signals() -> None:
    """For a forked child: SIGTERM ends it, the terminal's signals pass it by.

    The terminal signals the whole process group; workers go when the supervisor says so.
    """
    for number in (_SIGHUP, _SIGINT):
        _libc.signal(number, _SIG_IGN)
    _libc.signal(_SIGTERM, _SIG_DFL)


def drop_privileges() -> None:
    """Become nobody, for good: no capability, no group, no way to gain any (capabilities(7)).

    Leaving user id 0 clears all capability sets; it also clears the parent-death signal and the dumpable
    flag, so :func:`die_with_parent` comes after. Without root there is nothing to drop but the ways back up.
    """
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
        os.setresuid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def close_all_but(keep: Collection[int]) -> None:
    """Close every inherited descriptor above standard error except those."""
    low = 3
    for descriptor in sorted(keep):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, _LAST_DESCRIPTOR)


def fork() -> int:
    """fork(2), without the clean-up that Python runs in a child.

    ``os.fork`` re-creates locks and re-seeds generators on behalf of threads that did not survive, and so
    writes to some 160 pages that child and parent could share: 0.6 MB a worker. A process with one thread
    has nothing to clean up. The GIL stays held (PyDLL), as the child's only thread is this one.
    """
    pid: int = _python_libc.fork()
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return pid


def notify(state: str) -> None:
    """Tell the service manager, when there is one (sd_notify(3): NOTIFY_SOCKET)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)
