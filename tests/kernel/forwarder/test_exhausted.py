"""What a supervisor does when the system gives it no more threads: an error that all its callers know."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from forwarder.net import packet_sockets
from forwarder.net.packet_sockets import Ring

LOOPBACK = 1


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("allowed", [0, 1])
def test_where_no_thread_can_be_had_no_socket_is_opened_and_those_that_are_open_are_closed(
    monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        if len(started) >= allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    before = descriptors()
    opened = packet_sockets.open_receivers(LOOPBACK, [Ring(2048, 64)] * 3)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="no thread to be had") as refused:
        packet_sockets.open_receivers(LOOPBACK, [Ring(2048, 64)] * 3)
    assert refused.value.errno == errno.EAGAIN
    started.clear()
    packet_sockets.close_all(opened)
    assert descriptors() == before
