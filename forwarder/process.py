"""The few process facilities of Linux that Python's os module lacks."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

_NR_PIDFD_GETFD: Final = 438
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_NO_NEW_PRIVS: Final = 38

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


def set_name(name: str) -> None:
    """The process's name in ps and top, 15 bytes at most."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))


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


def fetch_descriptor(pidfd: int, descriptor: int) -> int:
    """A copy of another process's descriptor (pidfd_getfd(2)).

    Raises:
        OSError: the process is gone, or may not be looked into.
    """
    copy: int = _libc.syscall(_NR_PIDFD_GETFD, pidfd, descriptor, 0)
    if copy < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return copy


def close_all_but(keep: set[int]) -> None:
    """Close every inherited descriptor above standard error except those."""
    low = 3
    for descriptor in sorted(keep):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def notify(state: str) -> None:
    """Tell the service manager, when there is one (sd_notify(3): NOTIFY_SOCKET)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)
