"""libc's functions, for code that is not compiled."""

import ctypes
import os
import signal
import sys
from typing import Final

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread of ``parent`` that started it ends (prctl(2))."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def checked(result: int) -> int:
    """What a function of the C library returned; raises OSError with its ``errno`` if that is negative."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
