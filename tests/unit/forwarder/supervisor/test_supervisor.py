"""What the supervisor does beside its work."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from forwarder.supervisor import supervisor


class Knot:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.self = self


def test_garbage_in_cycles_is_collected_though_python_would_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def try_it() -> bool:
        gone = weakref.ref(Knot())
        assert gone() is not None
        tidying = asyncio.create_task(supervisor.Supervisor._tidy(cast("Any", MagicMock())))
        async with asyncio.timeout(10):
            while gone() is not None:
                await asyncio.sleep(0.01)
        tidying.cancel()
        return True

    monkeypatch.setattr(supervisor, "TIDY_S", 0.01)
    gc.disable()
    try:
        assert asyncio.run(try_it())
    finally:
        gc.enable()
