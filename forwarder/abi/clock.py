"""The monotonic clock, for compiled code."""

from __future__ import annotations

from typing import Any, Final

from forwarder.abi import syscalls
from forwarder.abi.jit import njit
from forwarder.abi.native import syscall

_CLOCK_MONOTONIC: Final = 1


@njit
def monotonic_ns(room: Any) -> Any:
    """``time.monotonic_ns()``, an integer; ``room`` is an ``int64[2]`` for a struct timespec."""
    syscall(syscalls.CLOCK_GETTIME, _CLOCK_MONOTONIC, room.ctypes.data, 0, 0, 0, 0)
    return room[0] * 1_000_000_000 + room[1]
