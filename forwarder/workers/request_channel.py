"""The supervisor's end of the channel to one worker process: requests, replies, and a limit on silence."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from forwarder.engines.packet.schema import Kind
from forwarder.workers import encoding

CHECK_AGAIN_S: Final = 1.0
"""Least time between two checks for silence."""
READY_NUMBER: Final = 0
"""Stands for a request's number in the READY message, which a process sends without a request."""


class WorkerGoneError(Exception):
    """The worker died before it replied; its successor starts from the supervisor's state anyway."""


class RequestChannel:
    """The channel to one process, from its fork to its end. The READY message is due from the beginning.

    Args:
        sock: the supervisor's end, not blocking; closed by :meth:`close`.
        silence_limit_s: how long the process may send nothing while a reply is due.
        on_ready: called at the READY message.
        on_silence: called when the limit is exceeded, and again if more is sent to a process that is still
            there; it should end the process.
    """

    def __init__(
        self,
        sock: socket.socket,
        silence_limit_s: float,
        *,
        on_ready: Callable[[], None],
        on_silence: Callable[[], None],
    ) -> None:
        self.silence_limit_s: float | None = silence_limit_s
        self._sock = sock
        self._on_ready = on_ready
        self._on_silence = on_silence
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        """When the last message came, or the limit was changed."""
        self._number = READY_NUMBER
        self._outbox: deque[tuple[tuple[bytes, bytes], Sequence[int]]] = deque()
        self._due: dict[int, tuple[asyncio.Future[int], float]] = {}
        """Replies that are due, and since when, by number of the request; oldest first."""
        self._check: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock, self._read)
        self._expect(READY_NUMBER)

    def send(
        self,
        kind: Kind,
        *,
        count: int = 0,
        argument: int = 0,
        body: bytes = b"",
        descriptors: Sequence[int] = (),
    ) -> asyncio.Future[int]:
        """Send a request; the future is the reply, an errno or 0, or :class:`WorkerGoneError`."""
        self._number += 1
        header = encoding.HEADER.pack(kind, self._number, count, argument)
        self._outbox.append(((header, body), descriptors))  # many workers share a body
        future = self._expect(self._number)
        self._flush()
        return future

    def limit_silence(self, limit_s: float | None) -> None:
        """Change the limit; None for no limit, when whoever stops the process sees to its end."""
        self.silence_limit_s = limit_s
        self._heard_at = self._loop.time()
        self._check_later()

    def close(self) -> None:
        """Read what the process sent before it ended; replies that are due still fail."""
        self._read()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._outbox.clear()
        due, self._due = self._due, {}
        self._check_later()
        for future, _ in due.values():
            if not future.done():
                _fail(future)

    def _expect(self, number: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = self._loop.create_future()
        self._due[number] = (future, self._loop.time())
        if self._check is None:
            self._check_later()
        return future

    def _check_later(self) -> None:
        """Check for silence when the limit ends, if nothing is heard until then."""
        if self._check is not None:
            self._check.cancel()
            self._check = None
        ends = self._limit_ends()
        if ends is not None:
            self._check = self._loop.call_at(max(ends, self._loop.time() + CHECK_AGAIN_S), self._check_now)

    def _limit_ends(self) -> float | None:
        """When the oldest reply will be overdue."""
        if self.silence_limit_s is None or not self._due:
            return None
        _, since = next(iter(self._due.values()))
        return max(since, self._heard_at) + self.silence_limit_s

    def _check_now(self) -> None:
        self._check = None
        self._read()  # the one who was held up may be this process
        ends = self._limit_ends()
        if ends is not None and ends <= self._loop.time():
            self._on_silence()
        else:
            self._check_later()

    def _flush(self) -> None:
        while self._outbox:
            packet, descriptors = self._outbox[0]
            try:
                socket.send_fds(self._sock, packet, descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._flush)
                return
            except OSError:
                return  # it is dying; its end is noticed elsewhere
            self._outbox.popleft()
        self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        while True:
            try:
                packet = self._sock.recv(encoding.HEADER.size)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # It ended without having read everything. Reported once, and before what it had sent
                # (unix_release_sock, net/unix/af_unix.c).
                continue
            if not packet:
                self._loop.remove_reader(self._sock)
                return
            self._heard_at = self._loop.time()
            kind, number, _, argument = encoding.HEADER.unpack(packet)
            if kind == Kind.READY:
                self._resolve(READY_NUMBER, 0)
                self._on_ready()
            elif kind == Kind.DONE:
                self._resolve(number, argument)

    def _resolve(self, number: int, argument: int) -> None:
        future, _ = self._due.pop(number, (None, 0.0))
        if future is not None and not future.done():
            future.set_result(argument)


class ClosedChannel:
    """The channel of a worker slot without a process."""

    silence_limit_s: float | None = None

    def send(self, *_: Any, **__: Any) -> asyncio.Future[int]:
        """A reply that has failed already: a process that starts later is sent everything."""
        return _fail(asyncio.get_running_loop().create_future())

    def limit_silence(self, limit_s: float | None) -> None:
        """Nobody is there to be silent."""

    def close(self) -> None:
        """Nothing is open."""


def _fail(future: asyncio.Future[int]) -> asyncio.Future[int]:
    future.set_exception(WorkerGoneError())
    future.exception()  # nobody need be waiting for it
    return future
