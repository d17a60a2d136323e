"""What the supervisor does once in a while."""

from __future__ import annotations

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import cast

import pytest

from forwarder.net.links import LinkView
from forwarder.plan.engine import Engine
from forwarder.rules.book import RuleBook
from forwarder.supervisor import supervisor
from forwarder.supervisor.kernel_path import KernelPath
from forwarder.supervisor.state import ForwarderState


class Knot:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.self = self


class Pool:
    """Counts the requests to its workers, and leaves one more knot with each."""

    def __init__(self) -> None:
        self.knots: list[weakref.ref[Knot]] = []

    def send_links(self) -> None:
        self.knots.append(weakref.ref(Knot()))


def test_every_worker_is_sent_a_request_and_cycles_are_collected_though_python_would_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hold() -> None:
        pool = Pool()
        kernel = KernelPath(Engine.PACKET, LinkView(), print)
        state = SimpleNamespace(pool=pool, kernel=kernel, book=RuleBook())
        working = asyncio.create_task(supervisor.upkeep(cast("ForwarderState", state)))
        async with asyncio.timeout(10):
            while len(pool.knots) < 3:
                await asyncio.sleep(0.01)
        working.cancel()
        assert [knot() for knot in pool.knots] == [None] * len(pool.knots)

    monkeypatch.setattr(supervisor, "UPKEEP_S", 0.001)
    gc.disable()
    try:
        asyncio.run(hold())
    finally:
        gc.enable()
