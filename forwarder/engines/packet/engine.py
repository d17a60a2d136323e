"""One worker's packet engine: everything that its compiled life works on, made beforehand.

The engine is made before the worker is forked: building it in the worker would touch a megabyte of pages
that all workers share otherwise.
"""

from __future__ import annotations

import math
import mmap
import os
import socket
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from forwarder.abi.io_uring import Uring, open_uring
from forwarder.abi.jit import compiled_entry
from forwarder.engines.packet import coalesce, messages, state
from forwarder.engines.packet import schema as layout
from forwarder.engines.packet.memory import Block
from forwarder.engines.packet.receive import detach
from forwarder.engines.packet.rewrite import HEADER_BYTES, HEADER_SHIFT
from forwarder.engines.packet.serve import serve
from forwarder.engines.packet.sockets import link_address
from forwarder.engines.packet.table import new_table

LINKS: Final = 256
"""Output interfaces that one worker may use."""
WORKSPACE_BYTES: Final = 1 << 20


class HasDescriptor(Protocol):
    """A socket, to those who want its descriptor alone."""

    def fileno(self) -> int: ...


class PacketEngine:
    """Receive rings, rule table, transmit queue and io_uring of one worker.

    Args:
        block: this worker's shared memory.
        transmitter: from :func:`~forwarder.engines.packet.sockets.open_transmitter`.
        tx_ring: from :func:`~forwarder.engines.packet.sockets.open_tx_rings`; ``None`` sends every copy as a
            message.
        control_fd: the worker's end of its channel, a SOCK_SEQPACKET socket, blocking.
        busy_poll_ns: how long to look again at empty rings before sleeping.
    """

    def __init__(
        self,
        block: Block,
        transmitter: socket.socket,
        control_fd: int,
        *,
        tx_ring: HasDescriptor | None = None,
        busy_poll_ns: int = 0,
    ) -> None:
        self._rules, self._sizes = new_table()
        self._transmitter, self._tx_ring = transmitter, tx_ring
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
        self._sockets = space.zeros((layout.SOCKETS, layout.SOCKET_COLUMNS), np.int64)
        self._transmit = self._make_transmit(space, block)
        side = space.zeros((state.SIDE_BYTES,), np.uint8)
        self._batch = state.Batch(
            frames=space.zeros((state.BATCH, layout.FRAME_COLUMNS), np.uint32),
            bursts=space.zeros((state.BATCH, coalesce.BURST_COLUMNS), np.int64),
            flows=space.zeros((state.FLOW_PLACES, coalesce.FLOW_COLUMNS), np.int64),
            side=side,
            side_words=side.view(np.uint32),
        )
        self._inbox = _make_inbox(space)
        self._serve = compiled_entry(serve)
        self._totals = space.zeros((layout.COUNTERS,), np.int64)
        self._scalars = space.zeros((state.SCALARS,), np.int64)
        self._scalars[state.RING_FD] = self._uring.fd
        self._scalars[state.TRANSMIT_FD] = transmitter.fileno()
        self._scalars[state.TX_RING_FD] = -1 if tx_ring is None else tx_ring.fileno()
        self._scalars[state.CONTROL_FD] = control_fd
        self._scalars[state.BUSY_POLL_NS] = busy_poll_ns
        # Identifications of several workers with one source address should not run in step.
        self._scalars[state.IDENTIFICATION] = int.from_bytes(os.urandom(2), "little")

    @property
    def uring_fd(self) -> int:
        return self._uring.fd

    @property
    def uring_mappings(self) -> dict[int, int]:
        """Where the io_uring is mapped: nowhere else than in its worker, once that runs."""
        return self._uring.mappings

    @property
    def head_offset(self) -> int:
        return self._uring.head_offset

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
        links = space.zeros((LINKS, layout.LINK_COLUMNS), np.uint32)
        names = space.zeros((LINKS, 8), np.uint32)
        names[:] = np.frombuffer(link_address(0).ljust(32, b"\0"), np.uint32)
        addresses = np.uint64(names.ctypes.data) + np.arange(LINKS, dtype=np.uint64) * np.uint64(32)
        return state.Transmit(
            headers=headers,
            messages=messages,
            vectors=vectors,
            entries=block.entries,
            links=links,
            names=names,
            addresses=addresses,
            arena=arena,
            arena_words=arena.view(np.uint32),
            in_slots=space.zeros((state.TX_SLOTS,), np.int64),
        )

    def serve(self) -> None:
        """Forward, and do what the messages on the channel say, until one says stop or the channel closes.

        The io_uring belongs to the first thread that calls this.
        """
        self._rules = self._serve(
            self._sockets,
            self._rules,
            self._sizes,
            self._batch,
            self._transmit,
            self._uring_arrays,
            self._shared,
            self._scalars,
            self._totals,
            self._inbox,
        )

    def close(self) -> None:
        """Give back the io_uring, and with it every armed poll, then rings and receive sockets."""
        self._uring.close()
        for row in np.flatnonzero(self._sockets[:, layout.SOCKET_ADDRESS]):
            detach(self._sockets, int(row))


def _make_inbox(space: Workspace) -> state.Inbox:
    longs = space.zeros((messages.MESSAGE_BYTES // 8,), np.uint64)
    ancillary = space.zeros((8,), np.uint32)
    vector = space.zeros((2,), np.uint64)
    vector[:] = longs.ctypes.data, longs.nbytes
    header = space.zeros((7,), np.uint64)
    header[2:6] = vector.ctypes.data, 1, ancillary.ctypes.data, ancillary.nbytes
    answer = space.zeros((messages.HEADER_WORDS,), np.uint32)
    return state.Inbox(longs.view(np.uint32), longs, header, ancillary, answer)


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
