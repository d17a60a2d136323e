"""Shared by all tests; its place makes ``packet_support`` importable."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


@pytest.fixture(autouse=True)
def _hash_arithmetic_wraps() -> Iterator[None]:
    """Multiplicative hashing wraps at 64 bits. Compiled code just does; numpy scalars would warn of it."""
    if INTERPRETED:
        with np.errstate(over="ignore"):
            yield
    else:
        yield
