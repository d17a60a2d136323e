"""One worker's packet engine, and the memory that it works on.

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

from forwarder.abi.af_packet import ETH_P_IP, SOCKADDR_LL
from forwarder.abi.jit import compiled_entry
from forwarder.abi.uring_setup import open_uring
from forwarder.engines.packet import schema
from forwarder.engines.packet.accounting import Block
from forwarder.engines.packet.loop import serve
from forwarder.engines.packet.receive import detach
from forwarder.engines.packet.rewrite import HEADER_BYTES
from forwarder.engines.packet.rule_table import new_table

_WORKSPACE_BYTES: Final = 1 << 20
_SECTIONS: Final = {
    "counters": (schema.COUNTERS,),
    "journal": (schema.JOURNAL,),
    "entries": (schema.ENTRIES, schema.ENTRY_COLUMNS),
    "cursors": (schema.SOCKETS, schema.CURSOR_COLUMNS),
    "rule_matched": (schema.RULES, 2),
    "rule_unsent": (schema.RULES, 2),
    "rule_first": (schema.RULES,),
}
"""The arrays of ``uint64`` of a block, and their shapes."""
BLOCK_BYTES: Final = -(-sum(map(math.prod, _SECTIONS.values())) * 8 // mmap.PAGESIZE) * mmap.PAGESIZE


class HasDescriptor(Protocol):
    """A socket, to those who want its descriptor alone."""

    def fileno(self) -> int: ...


class PacketEngine:
    """Receive rings, rule table, transmit queue and io_uring of one worker.

    Args:
        block: this worker's shared memory.
        transmitter: from :func:`~forwarder.net.packet_sockets.open_transmitter`.
        tx_ring: from :func:`~forwarder.net.packet_sockets.open_tx_rings`; ``None`` sends every copy as a
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
        self._transmitter, self._tx_ring = transmitter, tx_ring  # kept open
        self._uring = open_uring(schema.ENTRIES, schema.COMPLETIONS)
        space = Workspace(_WORKSPACE_BYTES)
        self._worker = schema.Worker(
            sockets=space.zeros((schema.SOCKETS, schema.SOCKET_COLUMNS), np.int64),
            transmit=_make_transmit(space, block),
            batch=_make_batch(space),
            inbox=_make_inbox(space),
            scalars=space.zeros((schema.SCALARS,), np.int64),
            rules=new_table(),
            uring=schema.Uring(*(getattr(self._uring, name) for name in schema.Uring._fields)),
            shared=block.shared,
        )
        self._serve = compiled_entry(serve)
        scalars = self._worker.scalars
        scalars[schema.RING_FD] = self._uring.fd
        scalars[schema.TRANSMIT_FD] = transmitter.fileno()
        scalars[schema.TX_RING_FD] = -1 if tx_ring is None else tx_ring.fileno()
        scalars[schema.CONTROL_FD] = control_fd
        scalars[schema.BUSY_POLL_NS] = busy_poll_ns
        # Identifications of several workers with one source address should not run in step.
        scalars[schema.IDENTIFICATION] = int.from_bytes(os.urandom(2), "little")

    @property
    def uring_fd(self) -> int:
        return self._uring.fd

    @property
    def uring_mappings(self) -> dict[int, int]:
        """Address and size of the io_uring's mappings; once the worker runs, no other process has them."""
        return self._uring.mappings

    @property
    def head_offset(self) -> int:
        return self._uring.head_offset

    def serve(self) -> None:
        """Forward, and do what the messages on the channel say, until one says stop or the channel closes.

        The io_uring belongs to the first thread that calls this.
        """
        self._worker = self._worker._replace(rules=self._serve(self._worker))

    def close(self) -> None:
        """Give back the io_uring, and with it every armed poll, then rings and receive sockets."""
        self._uring.close()
        sockets = self._worker.sockets
        for row in np.flatnonzero(sockets[:, schema.SOCKET_ADDRESS]):
            detach(sockets[row])


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


class SharedMemory:
    """Memory that workers share with the supervisor: a block of counters and a journal for each.

    A worker alone writes its block, and the supervisor only reads while the worker lives. The block outlives
    the process, so counters survive and a successor finds where to go on. One sparse memfd holds all blocks,
    in as few mappings as can be, since every fork copies the list of them; untouched pages cost nothing.
    """

    def __init__(self, workers: int) -> None:
        self.fd = os.memfd_create("mcrd-counters", os.MFD_CLOEXEC)
        self._workers = 0
        self._mapped: list[tuple[int, mmap.mmap]] = []
        """The first worker of each mapping, and the mapping."""
        self.reserve(workers)

    def reserve(self, workers: int) -> None:
        """Make room for at least this many workers; existing blocks stay in place."""
        if workers > self._workers:
            os.ftruncate(self.fd, workers * BLOCK_BYTES)
            first, more = self._workers, workers - self._workers
            mapped = mmap.mmap(self.fd, more * BLOCK_BYTES, offset=first * BLOCK_BYTES)
            self._mapped.append((first, mapped))
            self._workers = workers

    def block(self, worker: int) -> Block:
        """One worker's block."""
        first, mapped = next(entry for entry in reversed(self._mapped) if entry[0] <= worker)
        start = (worker - first) * BLOCK_BYTES
        parts: dict[str, NDArray[np.uint64]] = {}
        for name, shape in _SECTIONS.items():
            count = math.prod(shape)
            parts[name] = np.frombuffer(mapped, np.uint64, count, start).reshape(shape)
            start += count * 8
        return Block(**parts)

    def close(self) -> None:
        os.close(self.fd)


def _make_batch(space: Workspace) -> schema.Batch:
    oversize = space.zeros((schema.OVERSIZE_BYTES,), np.uint8)
    return schema.Batch(
        frames=space.zeros((schema.BATCH, schema.FRAME_COLUMNS), np.uint32),
        bursts=space.zeros((schema.BATCH, schema.BURST_COLUMNS), np.int64),
        flows=space.zeros((schema.FLOW_BUCKETS, schema.FLOW_COLUMNS), np.int64),
        oversize=oversize,
        oversize_words=oversize.view(np.uint32),
        totals=space.zeros((schema.COUNTERS,), np.int64),
    )


def _make_transmit(space: Workspace, block: Block) -> schema.Transmit:
    arena = space.zeros((schema.ARENA_BYTES,), np.uint8)
    headers = space.zeros((schema.ENTRIES, 64), np.uint8)
    vectors = space.zeros((schema.ENTRIES, 4), np.uint64)
    messages = space.zeros((schema.ENTRIES, schema.MSGHDR_COLUMNS), np.uint64)
    entries = np.arange(schema.ENTRIES, dtype=np.uint64)
    vectors[:, 0] = np.uint64(headers.ctypes.data) + entries * np.uint64(64)
    vectors[:, 1] = HEADER_BYTES
    messages[:, schema.MSGHDR_NAME_BYTES] = SOCKADDR_LL.size
    messages[:, schema.MSGHDR_VECTORS] = np.uint64(vectors.ctypes.data) + entries * np.uint64(32)
    links = space.zeros((schema.LINKS, schema.LINK_COLUMNS), np.uint32)
    names = space.zeros((schema.LINKS, 8), np.uint32)
    name = SOCKADDR_LL.pack(socket.AF_PACKET, socket.htons(ETH_P_IP), 0, 0, 0, 6, b"")
    names[:] = np.frombuffer(name.ljust(32, b"\0"), np.uint32)
    return schema.Transmit(
        headers=headers,
        messages=messages,
        vectors=vectors,
        entries=block.entries,
        links=links,
        names=names,
        addresses=np.uint64(names.ctypes.data) + np.arange(schema.LINKS, dtype=np.uint64) * np.uint64(32),
        arena=arena,
        arena_words=arena.view(np.uint32),
        slot_bursts=space.zeros((schema.TX_SLOTS,), np.int64),
    )


def _make_inbox(space: Workspace) -> schema.Inbox:
    longs = space.zeros((schema.MESSAGE_BYTES // 8,), np.uint64)
    ancillary = space.zeros((8,), np.uint32)
    vector = space.zeros((2,), np.uint64)
    vector[:] = longs.ctypes.data, longs.nbytes
    header = space.zeros((schema.MSGHDR_COLUMNS,), np.uint64)
    header[schema.MSGHDR_VECTORS], header[schema.MSGHDR_VECTOR_COUNT] = vector.ctypes.data, 1
    header[schema.MSGHDR_CONTROL], header[schema.MSGHDR_CONTROL_BYTES] = (
        ancillary.ctypes.data,
        ancillary.nbytes,
    )
    reply = space.zeros((schema.HEADER_WORDS,), np.uint32)
    return schema.Inbox(longs.view(np.uint32), longs, header, ancillary, reply)
