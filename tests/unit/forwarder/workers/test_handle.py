"""A worker slot: who stops its process sees to its end."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess

import pytest

from forwarder.engines.packet.engine import SharedMemory
from forwarder.plan.model import WorkerPlan
from forwarder.workers import request_channel
from forwarder.workers.handle import WorkerHandle
from forwarder.workers.request_channel import RequestChannel


@pytest.mark.parametrize("stopped", [False, True])
def test_one_that_is_asked_to_stop_is_not_killed_for_its_silence(
    stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have much to forward first."""
    monkeypatch.setattr(request_channel, "CHECK_AGAIN_S", 0.01)

    async def hold(process: subprocess.Popen[bytes]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        memory = SharedMemory(1)
        slot = WorkerHandle(
            WorkerPlan(0, 0, 0, 0, 0, ()),
            memory.block(0),
            busy_poll_ns=0,
            realtime_priority=0,
            on_ready=lambda _: None,
            on_death=lambda *_: None,
        )
        slot.pid = process.pid
        slot.channel = RequestChannel(ours, 0.3, on_ready=slot._ready, on_silence=slot._kill_silent)
        stopping = asyncio.create_task(slot.stop(1.5)) if stopped else None
        await asyncio.sleep(0.9)
        assert (process.poll() is None) == stopped
        if stopping is not None:
            assert await asyncio.to_thread(process.wait, 10) == -signal.SIGKILL, "but when time is up"
            stopping.cancel()
        slot.channel.close()
        theirs.close()
        memory.close()

    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            asyncio.run(hold(process))
        finally:
            process.kill()
