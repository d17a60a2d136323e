"""System call numbers for compiled code, which calls the kernel without libc's wrappers.

From ``arch/x86/entry/syscalls/syscall_64.tbl`` and ``scripts/syscall.tbl`` (arm64 uses the generic table).
"""

from __future__ import annotations

import platform
from typing import Final

_TABLES: Final = {
    "x86_64": {
        "close": 3,
        "mmap": 9,
        "munmap": 11,
        "rt_sigaction": 13,
        "sendto": 44,
        "recvfrom": 45,
        "recvmsg": 47,
        "getsockopt": 55,
        "getppid": 110,
        "setgroups": 116,
        "setresuid": 117,
        "setresgid": 119,
        "prctl": 157,
        "sched_setaffinity": 203,
        "clock_gettime": 228,
        "exit_group": 231,
        "mbind": 237,
        "set_mempolicy": 238,
        "get_mempolicy": 239,
        "bpf": 321,
    },
    "aarch64": {
        "close": 57,
        "mmap": 222,
        "munmap": 215,
        "rt_sigaction": 134,
        "sendto": 206,
        "recvfrom": 207,
        "recvmsg": 212,
        "getsockopt": 209,
        "getppid": 173,
        "setgroups": 159,
        "setresuid": 147,
        "setresgid": 149,
        "prctl": 167,
        "sched_setaffinity": 122,
        "clock_gettime": 113,
        "exit_group": 94,
        "mbind": 235,
        "set_mempolicy": 237,
        "get_mempolicy": 236,
        "bpf": 280,
    },
}


def _table() -> dict[str, int]:
    machine = platform.machine()
    if machine not in _TABLES:
        raise ImportError(f"no system call numbers for {machine}: {', '.join(_TABLES)} are known")
    return _TABLES[machine]


CLOSE: Final = _table()["close"]
MMAP: Final = _table()["mmap"]
MUNMAP: Final = _table()["munmap"]
RT_SIGACTION: Final = _table()["rt_sigaction"]
SENDTO: Final = _table()["sendto"]
RECVFROM: Final = _table()["recvfrom"]
RECVMSG: Final = _table()["recvmsg"]
GETSOCKOPT: Final = _table()["getsockopt"]
GETPPID: Final = _table()["getppid"]
SETGROUPS: Final = _table()["setgroups"]
SETRESUID: Final = _table()["setresuid"]
SETRESGID: Final = _table()["setresgid"]
PRCTL: Final = _table()["prctl"]
SCHED_SETAFFINITY: Final = _table()["sched_setaffinity"]
CLOCK_GETTIME: Final = _table()["clock_gettime"]
EXIT_GROUP: Final = _table()["exit_group"]
MBIND: Final = _table()["mbind"]
SET_MEMPOLICY: Final = _table()["set_mempolicy"]
GET_MEMPOLICY: Final = _table()["get_mempolicy"]
BPF: Final = _table()["bpf"]
CLOSE_RANGE: Final = 436
"""Numbers from 424 on are the same everywhere."""
