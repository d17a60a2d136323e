"""Compiled helpers that sender and receiver share: clocks, big-endian words, checksums, the stamp."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from forwarder.abi.jit import njit  # before numba: it has numba load neither scipy nor coverage

# isort: split
from numba import types
from numba.extending import overload

from lab.load.stamp import MAGIC

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

NS_PER_S = 1_000_000_000
MONOTONIC = time.CLOCK_MONOTONIC
REALTIME = time.CLOCK_REALTIME

_c_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))


def now_ns(clock: int, scratch: Any) -> int:  # noqa: ARG001 (used by the compiled version)
    """Return nanoseconds of ``clock``; ``scratch``: an int64 array of at least two elements, overwritten.

    Compiled, it calls ``clock_gettime`` by symbol: 25 ns through the vDSO, no system call.
    """
    return time.clock_gettime_ns(clock)


# numba matches an overload to its signature by name and annotation, so this carries none.
@overload(now_ns)
def _overload_now_ns(clock, scratch):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def implementation(clock, scratch):  # type: ignore[no-untyped-def]
        _c_clock_gettime(np.int32(clock), scratch.ctypes.data)
        return scratch[0] * NS_PER_S + scratch[1]

    return implementation


@njit
def unsigned_at(data: npt.NDArray[np.unsignedinteger], at: int) -> int:
    """``data[at]`` as a signed integer: compiled code makes a float of a signed and an unsigned one."""
    return int(np.int64(data[at]))


@njit
def be16(data: Bytes, at: int) -> int:
    """The big-endian 16-bit word at ``data[at]``."""
    return (unsigned_at(data, at) << 8) | unsigned_at(data, at + 1)


@njit
def sum_words(data: Bytes, start: int, length: int) -> int:
    """Sum of the big-endian 16-bit words of ``data[start:start + length]``, an odd one padded with zero."""
    total = 0
    end = start + length
    for i in range(start, end - 1, 2):
        total += be16(data, i)
    if length & 1:
        total += unsigned_at(data, end - 1) << 8
    return total


@njit
def fold(total: int) -> int:
    """One's complement sum folded into 16 bits (RFC 1071); 0 only when the sum is 0."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@njit
def stamp_at(data: Bytes, at: int, stream: int, sequence: int, time_ns: int) -> None:
    """Write a whole stamp at ``data[at]``; see ``lab/load/stamp.py`` for its layout."""
    data[at] = MAGIC >> 8
    data[at + 1] = MAGIC & 0xFF
    data[at + 2] = (stream >> 8) & 0xFF
    data[at + 3] = stream & 0xFF
    for i in range(4):
        data[at + 4 + i] = (sequence >> (24 - 8 * i)) & 0xFF
    for i in range(8):
        data[at + 8 + i] = (time_ns >> (56 - 8 * i)) & 0xFF
    total = MAGIC + (stream & 0xFFFF) + ((sequence >> 16) & 0xFFFF) + 2 * (sequence & 0xFFFF)
    for shift in (0, 16, 32, 48):
        total += (time_ns >> shift) & 0xFFFF
    check = 0xFFFF - fold(total)
    data[at + 16] = check >> 8
    data[at + 17] = check & 0xFF
