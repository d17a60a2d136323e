"""What the supervisor says to one worker process, what it answers, and how long that may take."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Unpack

from forwarder.engines.packet.messages import Kind
from forwarder.workers import encoding as channel

LOOK_AGAIN_S: Final = 1.0
FIRST_WORD: Final = 0
"""In place of the number of a message: a process speaks first, without having been told anything."""


class WorkerGoneError(Exception):
    """The worker died before it answered; its successor starts from the supervisor's state anyway."""


class Conversation:
    """With one process, from its fork to its end; the first word is due from the beginning.

    Args:
        sock: the supervisor's end, not blocking; closed by :meth:`close`.
        patience_s: for how long the process may say nothing while something is due.
        on_ready: called at its first word.
        on_silence: called when patience is lost, again if more is told to a process that is still there; it
            should end the process.
    """

    def __init__(
        self,
        sock: socket.socket,
        patience_s: float,
        *,
        on_ready: Callable[[], None],
        on_silence: Callable[[], None],
    ) -> None:
        self.patience_s: float | None = patience_s
        self._sock = sock
        self._on_ready = on_ready
        self._on_silence = on_silence
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        """Or when something else began that it is given time for."""
        self._sequence = FIRST_WORD
        self._outbox: deque[tuple[Kind, int, channel.Fields]] = deque()
        self._due: dict[int, tuple[asyncio.Future[int], float]] = {}
        """Answers that are due, and since when, by the number of the message; oldest first."""
        self._look: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock, self._read)
        self._expect(FIRST_WORD)

    def tell(self, kind: Kind, **fields: Unpack[channel.Fields]) -> asyncio.Future[int]:
        """Send a message; the future is the worker's answer, an errno or 0, or :class:`WorkerGoneError`."""
        self._sequence += 1
        self._outbox.append((kind, self._sequence, fields))
        future = self._expect(self._sequence)
        self._write()
        return future

    def allow(self, patience_s: float | None) -> None:
        """Be more or less patient from now on; None: whoever stops the process sees to its end themselves."""
        self.patience_s = patience_s
        self._heard_at = self._loop.time()
        self._look_later()

    def close(self) -> None:
        """The process has ended: hear what it said before, and nothing is due any more."""
        self._read()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._outbox.clear()
        due, self._due = self._due, {}
        self._look_later()
        for future, _ in due.values():
            if not future.done():
                _fail(future)

    def _expect(self, number: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = self._loop.create_future()
        self._due[number] = (future, self._loop.time())
        if self._look is None:
            self._look_later()
        return future

    def _look_later(self) -> None:
        """Again when patience ends, if nothing is heard until then."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        ends = self._patience_ends()
        if ends is not None:
            self._look = self._loop.call_at(max(ends, self._loop.time() + LOOK_AGAIN_S), self._look_now)

    def _patience_ends(self) -> float | None:
        """When the oldest message will be too old."""
        if self.patience_s is None or not self._due:
            return None
        _, since = next(iter(self._due.values()))
        return max(since, self._heard_at) + self.patience_s

    def _look_now(self) -> None:
        self._look = None
        self._read()  # the one who was held up may be this process
        ends = self._patience_ends()
        if ends is not None and ends <= self._loop.time():
            self._on_silence()
        else:
            self._look_later()

    def _write(self) -> None:
        while self._outbox:
            kind, sequence, fields = self._outbox[0]
            try:
                channel.send(self._sock, kind, sequence, **fields)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._write)
                return
            except OSError:
                return  # it is dying; its end is noticed elsewhere
            self._outbox.popleft()
        self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        while True:
            try:
                message = channel.receive(self._sock)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # It ended without having read everything. Said once, and before what it had sent
                # (unix_release_sock, net/unix/af_unix.c).
                continue
            if message is None:
                self._loop.remove_reader(self._sock)
                return
            self._heard_at = self._loop.time()
            if message.kind == Kind.READY:
                self._answered(FIRST_WORD, 0)
                self._on_ready()
            elif message.kind == Kind.DONE:
                self._answered(message.sequence, message.argument)

    def _answered(self, number: int, argument: int) -> None:
        future, _ = self._due.pop(number, (None, 0.0))
        if future is not None and not future.done():
            future.set_result(argument)


def nobody_there() -> asyncio.Future[int]:
    """What telling something comes to while there is no process."""
    return _fail(asyncio.get_running_loop().create_future())


def _fail(future: asyncio.Future[int]) -> asyncio.Future[int]:
    future.set_exception(WorkerGoneError())
    future.exception()  # nobody need be waiting for it
    return future
