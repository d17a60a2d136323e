"""Mapping a descriptor's memory from compiled code."""

from __future__ import annotations

from forwarder.abi import syscalls
from forwarder.abi.jit import njit
from forwarder.abi.native import syscall

_PROT_READ, _PROT_WRITE = 1, 2
_MAP_SHARED, _MAP_POPULATE = 0x1, 0x8000


@njit
def map_shared(fd: int, length: int) -> int:
    """Where ``length`` bytes of a descriptor are mapped, shared and present; or a negative errno."""
    return syscall(syscalls.MMAP, 0, length, _PROT_READ | _PROT_WRITE, _MAP_SHARED | _MAP_POPULATE, fd, 0)
