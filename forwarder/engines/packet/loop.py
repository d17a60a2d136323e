"""The packet loop of one worker, compiled: rings in, io_uring out, no Python in between.

One turn takes up to a batch of frames from each ready socket, sorts them into bursts, queues a send for every
burst and output, and hands all of it to the kernel with one ``io_uring_enter``. A socket whose ring was found
empty has a one-shot poll queued behind its sends; arming checks readiness again, so nothing is missed, and a
busy socket costs no wake-up at all. When every socket waits, the same system call sleeps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from forwarder.abi.clock import monotonic_ns
from forwarder.abi.jit import njit
from forwarder.abi.native import bytes_at, words_at
from forwarder.engines.packet import schema as layout
from forwarder.engines.packet import state
from forwarder.engines.packet.emit import emit
from forwarder.engines.packet.receive import release, take
from forwarder.engines.packet.transmit import KIND_CONTROL, KIND_SOCKET, arm, flush


@njit
def any_ready(sockets: Any, scalars: Any) -> bool:
    """Whether a socket is to be served.

    Asked at the end of a turn: a flush in its middle may have found one ready that had had its turn.
    """
    for row in range(scalars[state.SOCKET_ROWS]):
        if sockets[row, layout.SOCKET_READY] and sockets[row, layout.SOCKET_ADDRESS]:
            return True
    return False


@njit
def run(
    sockets: Any,
    rules: Any,
    batch: Any,
    transmit: Any,
    uring: Any,
    shared: Any,
    scalars: Any,
    totals: Any,
    turns: int,
) -> int:
    """Forward until the control channel has something to read, sleeping when there is nothing to do.

    With ``turns`` from 1 it takes at most so many turns and never sleeps.

    Args:
        sockets: ``int64[n, SOCKET_COLUMNS]``; rows with address 0, and those from SOCKET_ROWS on, are unused.
        totals: ``int64[COUNTERS]`` of zeros, scratch.

    Returns:
        The number of turns taken.
    """
    clock = np.zeros(2, np.int64)
    busy_poll_ns = scalars[state.BUSY_POLL_NS]
    now = np.int64(0)
    last_work = np.int64(0)
    turn = 0
    while turn != turns:
        turn += 1
        if not scalars[state.CONTROL_ARMED] and not scalars[state.CONTROL_READY]:
            scalars[state.CONTROL_ARMED] = 1
            arm(transmit, uring, shared, scalars, sockets, scalars[state.CONTROL_FD], KIND_CONTROL)
        if busy_poll_ns:
            now = monotonic_ns(clock)
        spinning = now - last_work < busy_poll_ns
        for row in range(scalars[state.SOCKET_ROWS]):
            socket = sockets[row]
            if socket[layout.SOCKET_ADDRESS] == 0 or socket[layout.SOCKET_READY] == 0:
                continue
            cursor = shared.cursors[row]
            taken, bursts, aside, empty = take(socket, cursor, rules, batch, shared, scalars, totals)
            if bursts:
                ring_bytes = socket[layout.SOCKET_FRAMES] * socket[layout.SOCKET_FRAME_BYTES]
                words = words_at(socket[layout.SOCKET_ADDRESS], ring_bytes >> 2)
                data = bytes_at(socket[layout.SOCKET_ADDRESS], ring_bytes)
                if aside:
                    words = batch.side_words
                    data = batch.side
                emit(words, data, bursts, rules, batch, transmit, uring, shared, scalars, sockets)
            if taken:
                release(socket, cursor)
                last_work = now
            if empty and not spinning:
                socket[layout.SOCKET_READY] = 0
                user = KIND_SOCKET | np.uint64(row)
                arm(transmit, uring, shared, scalars, sockets, socket[layout.SOCKET_FD], user)
        sleep = turns < 0 and not scalars[state.CONTROL_READY] and not any_ready(sockets, scalars)
        flush(uring, transmit, shared, scalars, sockets, sleep)
        if scalars[state.CONTROL_READY]:
            break
    return turn


@njit
def drain(
    sockets: Any, rules: Any, batch: Any, transmit: Any, uring: Any, shared: Any, scalars: Any, totals: Any
) -> None:
    """Forward what the rings hold by now."""
    rows = scalars[state.SOCKET_ROWS]
    while True:
        claimed = np.uint64(0)
        for row in range(rows):
            sockets[row, layout.SOCKET_READY] = 1
            claimed += shared.cursors[row, layout.CURSOR_CLAIMED]
        run(sockets, rules, batch, transmit, uring, shared, scalars, totals, 1)
        for row in range(rows):
            claimed -= shared.cursors[row, layout.CURSOR_CLAIMED]
        if claimed == 0:
            return
