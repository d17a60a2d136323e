"""A worker slot's patience with its process: what answers, however slowly, is left alone."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from forwarder import workers
from forwarder.packet.memory import SharedMemory
from forwarder.packet.messages import Kind
from forwarder.planned import WorkerPlan
from forwarder.workers import State, WorkerHandle

HEADER = struct.Struct("=IIIi")
"""Of a message and of its answer: kind, number, count, argument."""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Something to be killed, or not."""
    with subprocess.Popen(["sleep", "60"]) as made:
        yield made
        made.kill()


@contextmanager
def slot_of(process: subprocess.Popen[bytes]) -> Iterator[tuple[WorkerHandle, socket.socket]]:
    """A slot whose process is ``process``, and runs; and that process's end of their talk."""
    memory = SharedMemory(1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = WorkerHandle(
        WorkerPlan(0, 0, 0, 0, 0, ()),
        memory.block(0),
        busy_poll_ns=0,
        realtime_priority=0,
        on_ready=lambda _: None,
        on_death=lambda *_: None,
    )
    ours.setblocking(False)
    made.pid, made._channel = process.pid, ours
    asyncio.get_running_loop().add_reader(ours, made._read)
    made.run()
    with ours, theirs:
        yield made, theirs
    memory.close()


@pytest.mark.parametrize("silent_from", [None, 5])
def test_a_worker_is_killed_for_its_silence_and_not_for_being_slow(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, silent_from: int | None
) -> None:
    monkeypatch.setattr(workers, "HANGING_AFTER_S", 0.5)
    monkeypatch.setattr(workers, "LOOK_AGAIN_S", 0.01)

    async def talk() -> None:
        with slot_of(process) as (handle, theirs):
            told = [handle.tell(Kind.SET_LINKS) for _ in range(10)]
            for _ in range(10 if silent_from is None else silent_from):
                await asyncio.sleep(0.1)  # all of them take twice as long as one may
                _, number, _, _ = HEADER.unpack(theirs.recv(HEADER.size))
                theirs.send(HEADER.pack(Kind.DONE, number, 0, 0))
            if silent_from is None:
                assert await asyncio.gather(*told) == [0] * 10
                assert process.poll() is None
            else:
                assert await asyncio.to_thread(process.wait, 10) == -signal.SIGKILL
                assert [future.done() for future in told] == [True] * 5 + [False] * 5

    asyncio.run(talk())


def test_one_that_starts_has_more_time_and_one_that_is_stopped_is_left_to_who_stops_it(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "HANGING_AFTER_S", 0.05)
    monkeypatch.setattr(workers, "START_HANGS_AFTER_S", 1.0)
    monkeypatch.setattr(workers, "LOOK_AGAIN_S", 0.01)

    async def talk() -> None:
        with slot_of(process) as (handle, _):
            for state in (State.STOPPED, State.PARKED, State.STARTING):
                handle.state = state
                handle.tell(Kind.SET_LINKS)
                await asyncio.sleep(0.3)
                assert process.poll() is None
            assert await asyncio.to_thread(process.wait, 10) == -signal.SIGKILL

    asyncio.run(talk())
