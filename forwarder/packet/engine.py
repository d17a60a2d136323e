"""One worker's packet engine: makes the arrays, maps the rings, runs the loop.

The engine is driven from one thread and holds descriptors that somebody else opened; it needs no privilege.
It is made before the worker is forked: building it in the worker would touch a megabyte of pages that all
workers share otherwise.
"""

from __future__ import annotations

import math
import mmap
import os
import socket
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from forwarder.abi.io_uring import Uring, open_uring
from forwarder.abi.jit import compiled_entry
from forwarder.packet import coalesce, layout, loop, state
from forwarder.packet.memory import SOCKETS, Block, SharedMemory
from forwarder.packet.rewrite import HEADER_BYTES, HEADER_SHIFT
from forwarder.packet.sockets import Ring, link_address
from forwarder.packet.table import RuleTable

LINKS: Final = 256
"""Output interfaces that one worker may use."""
WORKSPACE_BYTES: Final = 1 << 19


class PacketEngine:
    """Receive rings, rule table, transmit queue and io_uring of one worker.

    Args:
        block: this worker's shared memory.
        transmitter: of :func:`forwarder.packet.sockets.open_transmitter`.
        control_fd: readable when :meth:`run` should return.
        busy_poll_ns: how long to look again at empty rings before sleeping.
    """

    def __init__(
        self, block: Block, transmitter: socket.socket, control_fd: int, *, busy_poll_ns: int = 0
    ) -> None:
        self.table = RuleTable()
        self._transmitter = transmitter
        self._shared = block.shared
        self._uring: Uring = open_uring(state.ENTRIES, state.COMPLETIONS)
        self._uring_arrays = state.Uring(
            self._uring.sq_head,
            self._uring.sq_tail,
            self._uring.cq_head,
            self._uring.cq_tail,
            self._uring.sqes,
            self._uring.cqes,
        )
        space = Workspace(WORKSPACE_BYTES)
        self._sockets = space.zeros((SOCKETS, layout.SOCKET_COLUMNS), np.int64)
        self._names = space.zeros((LINKS, 8), np.uint32)
        self._names[:] = np.frombuffer(link_address(0).ljust(32, b"\0"), np.uint32)
        self._transmit = self._make_transmit(space, block)
        side = space.zeros((state.SIDE_BYTES,), np.uint8)
        self._batch = state.Batch(
            frames=space.zeros((state.BATCH, layout.FRAME_COLUMNS), np.uint32),
            bursts=space.zeros((state.BATCH, coalesce.BURST_COLUMNS), np.int64),
            flows=space.zeros((state.FLOW_PLACES, coalesce.FLOW_COLUMNS), np.int64),
            side=side,
            side_words=side.view(np.uint32),
        )
        self._run = compiled_entry(loop.run)
        self._attach = compiled_entry(loop.attach)
        self._totals = space.zeros((layout.COUNTERS,), np.int64)
        self._scalars = space.zeros((state.SCALARS,), np.int64)
        self._scalars[state.RING_FD] = self._uring.fd
        self._scalars[state.TRANSMIT_FD] = transmitter.fileno()
        self._scalars[state.CONTROL_FD] = control_fd
        self._scalars[state.BUSY_POLL_NS] = busy_poll_ns
        # Identifications of several workers with one source address should not run in step.
        self._scalars[state.IDENTIFICATION] = int.from_bytes(os.urandom(2), "little")

    @property
    def uring_fd(self) -> int:
        return self._uring.fd

    @property
    def head_offset(self) -> int:
        return self._uring.head_offset

    def enable(self) -> None:
        """To be called once, by the thread that will run the engine."""
        self._uring.enable()

    def _make_transmit(self, space: Workspace, block: Block) -> state.Transmit:
        arena = space.zeros((state.ARENA_BYTES,), np.uint8)
        headers = space.zeros((state.ENTRIES, 64), np.uint8)
        vectors = space.zeros((state.ENTRIES, 4), np.uint64)
        messages = space.zeros((state.ENTRIES, 7), np.uint64)
        entries = np.arange(state.ENTRIES, dtype=np.uint64)
        vectors[:, 0] = np.uint64(headers.ctypes.data + HEADER_SHIFT) + entries * np.uint64(64)
        vectors[:, 1] = HEADER_BYTES
        messages[:, 1] = 20  # sizeof(struct sockaddr_ll)
        messages[:, 2] = np.uint64(vectors.ctypes.data) + entries * np.uint64(32)
        messages[:, 3] = 2
        links = space.zeros((LINKS, layout.LINK_COLUMNS), np.uint32)
        addresses = np.uint64(self._names.ctypes.data) + np.arange(LINKS, dtype=np.uint64) * np.uint64(32)
        return state.Transmit(
            headers=headers,
            messages=messages,
            vectors=vectors,
            entries=block.entries,
            links=links,
            addresses=addresses,
            arena=arena,
            arena_words=arena.view(np.uint32),
        )

    def add_socket(self, row: int, fd: int, ring: Ring, interface: int) -> None:
        """Map a receive socket's ring and serve it.

        Args:
            row: its place in this worker, below SOCKETS, the same after a respawn: its cursor is kept there.
            fd: the socket, which stays the caller's.
            interface: the slot that its rules' keys carry.

        Raises:
            OSError: the ring cannot be mapped.
        """
        error = self._attach(
            self._sockets,
            self._shared.cursors,
            self._scalars,
            row,
            fd,
            ring.frames,
            ring.frame_bytes,
            interface,
        )
        if error:
            raise OSError(-error, os.strerror(-error))

    def remove_socket(self, row: int) -> None:
        """Stop serving a socket and unmap its ring; its cursor starts at zero for the next one."""
        if self._sockets[row, layout.SOCKET_ADDRESS]:
            # An armed poll keeps the socket open, and in its fanout group, however often it is closed.
            loop.cancel_poll(
                self._transmit, self._uring_arrays, self._shared, self._scalars, self._sockets, row
            )
            loop.detach(self._sockets, self._shared.cursors, row)

    def set_links(self, links: NDArray[np.uint32]) -> None:
        """Say how output interfaces are reached now: ``uint32[n, 1 + LINK_COLUMNS]``, slot and row."""
        loop.set_links(self._transmit.links, self._names, links)

    def run(self, turns: int = -1) -> int:
        """Forward until the control descriptor is readable; with ``turns``, so many and never asleep."""
        self._scalars[state.CONTROL_READY] = 0
        taken: int = self._run(
            self._sockets,
            state.Rules(self.table.keys, self.table.values, self.table.spans, self.table.outputs),
            self._batch,
            self._transmit,
            self._uring_arrays,
            self._shared,
            self._scalars,
            self._totals,
            turns,
        )
        return taken

    def drain(self) -> None:
        """Forward what the rings hold by now."""
        while True:
            before = self._shared.cursors[:, layout.CURSOR_CLAIMED].copy()
            self._sockets[:, layout.SOCKET_READY] = 1
            self.run(1)
            if (self._shared.cursors[:, layout.CURSOR_CLAIMED] == before).all():
                return

    def close(self) -> None:
        """Give back rings and io_uring; the sockets belong to whoever opened them."""
        self._uring.close()  # and with it every armed poll
        for row in np.flatnonzero(self._sockets[:, layout.SOCKET_ADDRESS]):
            loop.detach(self._sockets, self._shared.cursors, int(row))


def warm_up() -> None:
    """Compile everything that a worker runs, so that forked workers share the code.

    Needs no privilege and moves no packet.
    """
    memory = SharedMemory(1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        engine = PacketEngine(memory.block(0), ours, theirs.fileno())
        # Rules come as views of messages, which are read-only: to numba, a type of their own. There are
        # enough of them to make the table grow, and so to compile that too.
        words = np.arange(1, 257, dtype=np.uint32).tobytes()
        slots = np.frombuffer(words, np.uint32, 64)
        outputs = np.frombuffer(words, np.uint32).reshape(-1, layout.OUTPUT_COLUMNS)
        engine.table.add_many(
            np.frombuffer(words, np.uint64, 64), slots, np.frombuffer(bytes(256), np.uint32), outputs
        )
        engine.table.remove(1)
        engine.set_links(np.frombuffer(bytes(4 * (1 + layout.LINK_COLUMNS)), np.uint32).reshape(1, -1))
        engine.enable()
        ring = Ring(1, mmap.PAGESIZE)
        empty = os.memfd_create("warm-up", os.MFD_CLOEXEC)
        os.ftruncate(empty, ring.nbytes)
        engine.add_socket(0, empty, ring, 0)
        engine.run(1)
        engine.remove_socket(0)
        engine.close()
        os.close(empty)
    memory.close()


class Workspace:
    """Private memory that costs nothing until it is touched.

    The allocator would place arrays of this size on its heap and clear them, which touches every page in
    every worker.
    """

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._used = 0

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A zeroed array that starts on a cache line."""
        count = math.prod(shape)
        start = self._used
        self._used = (start + count * np.dtype(dtype).itemsize + 63) & ~63
        return np.frombuffer(self._memory, dtype, count, start).reshape(shape)
