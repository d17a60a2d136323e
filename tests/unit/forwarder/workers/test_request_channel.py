"""A supervisor's patience with a process: who answers, however slowly, is left alone."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from forwarder.engines.packet.schema import Kind
from forwarder.workers import request_channel
from forwarder.workers.request_channel import RequestChannel, WorkerGoneError

HEADER = struct.Struct("=IIIi")
"""Of a message and of its answer: kind, number, count, argument."""


@dataclass
class Talk:
    """The process's end, and what the supervisor's heard of it."""

    theirs: socket.socket
    heard: list[str] = field(default_factory=list)

    def say(self, kind: Kind, number: int = 0, argument: int = 0) -> None:
        self.theirs.send(HEADER.pack(kind, number, 0, argument))

    def answer(self, argument: int = 0) -> None:
        """The next message."""
        _, number, _, _ = HEADER.unpack(self.theirs.recv(HEADER.size))
        self.say(Kind.DONE, number, argument)


@contextmanager
def talking(patience_s: float) -> Iterator[tuple[RequestChannel, Talk]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    talk = Talk(theirs)
    made = RequestChannel(
        ours,
        patience_s,
        on_ready=lambda: talk.heard.append("ready"),
        on_silence=lambda: talk.heard.append("silence"),
    )
    with theirs:
        yield made, talk
        made.close()
    assert ours.fileno() == -1


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_channel, "CHECK_AGAIN_S", 0.01)


@pytest.mark.parametrize("silent_from", [None, 5])
def test_patience_is_lost_for_silence_and_not_for_being_slow(silent_from: int | None) -> None:
    async def hold() -> None:
        with talking(1.0) as (ours, process):
            process.say(Kind.READY)
            told = [ours.send(Kind.SET_LINKS) for _ in range(10)]
            for _ in range(10 if silent_from is None else silent_from):
                await asyncio.sleep(0.15)  # all of them take longer than one may
                process.answer()
            if silent_from is None:
                assert await asyncio.gather(*told) == [0] * 10
                assert process.heard == ["ready"]
            else:
                await asyncio.sleep(2)
                assert process.heard == ["ready", "silence"]
                assert [future.done() for future in told] == [True] * 5 + [False] * 5

    asyncio.run(hold())


def test_the_first_word_is_due_without_having_been_asked_for() -> None:
    async def hold() -> None:
        with talking(0.1) as (_, process):
            await asyncio.sleep(0.5)
            assert process.heard == ["silence"]

    asyncio.run(hold())


def test_nothing_is_due_of_one_that_was_told_nothing_more() -> None:
    async def hold() -> None:
        with talking(0.3) as (ours, process):
            process.say(Kind.READY)
            told = ours.send(Kind.SET_LINKS)
            process.answer(5)
            assert await told == 5
            await asyncio.sleep(1)
            assert process.heard == ["ready"]

    asyncio.run(hold())


def test_patience_can_be_changed_while_an_answer_is_due() -> None:
    async def hold() -> None:
        with talking(0.3) as (ours, process):
            for patience_s in (60.0, None):
                ours.limit_silence(patience_s)
                await asyncio.sleep(0.6)
                assert process.heard == []
            ours.limit_silence(0.1)
            await asyncio.sleep(0.4)
            assert process.heard == ["silence"]

    asyncio.run(hold())


def test_what_was_said_before_the_end_is_heard_and_the_rest_fails() -> None:
    """Also if the process had not read everything: the kernel then says so first."""

    async def hold() -> None:
        with talking(60.0) as (ours, process):
            told = [ours.send(Kind.SET_LINKS) for _ in range(2)]
            process.say(Kind.READY)
            process.answer()
            process.theirs.close()
        assert process.heard == ["ready"]
        assert await told[0] == 0
        with pytest.raises(WorkerGoneError):
            await told[1]

    asyncio.run(hold())
