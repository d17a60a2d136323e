"""System call numbers for compiled code, which calls the kernel without libc's wrappers.

From ``arch/x86/entry/syscalls/syscall_64.tbl`` and ``scripts/syscall.tbl`` (arm64 uses the generic table).
"""

import platform
from typing import Final

_MACHINE: Final = platform.machine()
if _MACHINE not in ("x86_64", "aarch64"):
    raise ImportError(f"no system call numbers for {_MACHINE}: x86_64, aarch64 are known")


def _number(x86_64: int, aarch64: int) -> int:
    return x86_64 if _MACHINE == "x86_64" else aarch64


CLOSE: Final = _number(3, 57)
MMAP: Final = _number(9, 222)
MUNMAP: Final = _number(11, 215)
RT_SIGACTION: Final = _number(13, 134)
SENDTO: Final = _number(44, 206)
RECVFROM: Final = _number(45, 207)
RECVMSG: Final = _number(47, 212)
GETSOCKOPT: Final = _number(55, 209)
GETPPID: Final = _number(110, 173)
SETGROUPS: Final = _number(116, 159)
SETRESUID: Final = _number(117, 147)
SETRESGID: Final = _number(119, 149)
PRCTL: Final = _number(157, 167)
SCHED_SETAFFINITY: Final = _number(203, 122)
CLOCK_GETTIME: Final = _number(228, 113)
EXIT_GROUP: Final = _number(231, 94)
MBIND: Final = _number(237, 235)
SET_MEMPOLICY: Final = _number(238, 237)
GET_MEMPOLICY: Final = _number(239, 236)
BPF: Final = _number(321, 280)
CLOSE_RANGE: Final = 436
"""Numbers from 424 on are the same everywhere."""
