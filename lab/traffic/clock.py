"""Clocks for compiled code: ``clock_gettime`` by symbol, 25 ns through the vDSO, no system call."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

MONOTONIC = time.CLOCK_MONOTONIC
REALTIME = time.CLOCK_REALTIME

_c_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))


def now_ns(clock: int, scratch: Any) -> int:  # noqa: ARG001 (used by the compiled version)
    """Nanoseconds of ``clock``; ``scratch``: an int64 array of at least two elements, overwritten."""
    return time.clock_gettime_ns(clock)


# numba matches an overload to its signature by name and annotation, so this carries none.
@overload(now_ns)
def _overload_now_ns(clock, scratch):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def implementation(clock, scratch):  # type: ignore[no-untyped-def]
        _c_clock_gettime(np.int32(clock), scratch.ctypes.data)
        return scratch[0] * 1_000_000_000 + scratch[1]

    return implementation
