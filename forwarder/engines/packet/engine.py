"""One worker's packet engine, and the memory that it works on.

The engine is made before the worker is forked: building it in the worker would touch a megabyte of pages
that all workers share otherwise.
"""

import mmap
import os
import socket
from itertools import accumulate
from typing import Any, Final, Protocol

import numpy as np

from forwarder.abi.af_packet import ETH_P_IP, SOCKADDR_LL
from forwarder.abi.jit import compiled_entry
from forwarder.abi.uring_setup import open_uring
from forwarder.engines.packet import schema
from forwarder.engines.packet.accounting import Block
from forwarder.engines.packet.loop import serve
from forwarder.engines.packet.receive import detach
from forwarder.engines.packet.rewrite import HEADER_BYTES
from forwarder.engines.packet.rule_table import new_table

BLOCK_BYTES: Final = -(-schema.SHARED.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE


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
        coalesce: whether datagrams that are queued together leave as one frame.
        fill_checksums: whether copies of datagrams without a UDP checksum get one; if not, each leaves alone.
    """

    def __init__(
        self,
        block: Block,
        transmitter: socket.socket,
        control_fd: int,
        *,
        tx_ring: HasDescriptor | None = None,
        busy_poll_ns: int = 0,
        coalesce: bool = True,
        fill_checksums: bool = True,
    ) -> None:
        self._transmitter, self._tx_ring = transmitter, tx_ring  # kept open
        self._uring = open_uring(schema.ENTRIES, schema.COMPLETIONS)
        state, transmit, batch, uring, inbox = _zeroed(
            schema.STATE, schema.TRANSMIT, schema.FORWARDING, schema.URING, schema.INBOX
        )
        _prepare_messages(transmit)
        _prepare_inbox(inbox)
        for name in uring.dtype.names:
            uring[name] = getattr(self._uring, name).ctypes.data
        self._worker = schema.Worker(state, batch, transmit, uring, inbox, block.shared)
        addresses = [record.__array_interface__["data"][0] for record in self._worker]
        self._addresses = np.array(addresses, np.int64)
        self._rules = new_table()
        self._serve = compiled_entry(serve)
        scalars = self._worker.state.scalars
        scalars[schema.RING_FD] = self._uring.fd
        scalars[schema.TRANSMIT_FD] = transmitter.fileno()
        scalars[schema.TX_RING_FD] = -1 if tx_ring is None else tx_ring.fileno()
        scalars[schema.CONTROL_FD] = control_fd
        scalars[schema.BUSY_POLL_NS] = busy_poll_ns
        scalars[schema.MOST_TOGETHER] = schema.MAX_SEGMENTS if coalesce else 1
        scalars[schema.FILL_CHECKSUMS] = fill_checksums
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
        self._rules = self._serve(self._addresses, self._rules)

    def close(self) -> None:
        """Give back the io_uring, and with it every armed poll, then rings and receive sockets."""
        self._uring.close()
        sockets = self._worker.state.sockets
        for row in np.flatnonzero(sockets[:, schema.SOCKET_ADDRESS]):
            detach(sockets[row])


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
        first, mapped = next(entry for entry in reversed(self._mapped) if entry[0] <= worker)
        return Block(_record_at(mapped, schema.SHARED, (worker - first) * BLOCK_BYTES))

    def close(self) -> None:
        os.close(self.fd)


def _record_at(memory: mmap.mmap, layout: Any, offset: int) -> Any:
    return np.frombuffer(memory, layout, 1, offset).view(np.recarray)[0]


def _zeroed(*layouts: Any) -> list[Any]:
    """Records in private memory that costs nothing until it is touched.

    The allocator would place arrays of this size on its heap and clear them, which touches every page in
    every worker.
    """
    ends = list(accumulate((layout.itemsize + 63) & ~63 for layout in layouts))
    memory = mmap.mmap(-1, ends[-1], mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return [_record_at(memory, *each) for each in zip(layouts, [0, *ends], strict=False)]


def _prepare_messages(transmit: Any) -> None:
    """Point each message at its header and its parts, and name no interface yet."""
    entries = np.arange(schema.ENTRIES, dtype=np.uint64)
    transmit.vectors[:, 0] = np.uint64(transmit.headers.ctypes.data) + entries * np.uint64(64)
    transmit.vectors[:, 1] = HEADER_BYTES
    vectors = np.uint64(transmit.vectors.ctypes.data) + entries * np.uint64(32)
    transmit.messages[:, schema.MSGHDR_VECTORS] = vectors
    transmit.messages[:, schema.MSGHDR_NAME_BYTES] = SOCKADDR_LL.size
    name = SOCKADDR_LL.pack(socket.AF_PACKET, socket.htons(ETH_P_IP), 0, 0, 0, 6, b"")
    transmit.names[:] = np.frombuffer(name.ljust(32, b"\0"), np.uint32)


def _prepare_inbox(inbox: Any) -> None:
    """Point the header of a received message at its buffers."""
    inbox.vector[:] = inbox.words.ctypes.data, inbox.words.nbytes
    inbox.header[schema.MSGHDR_VECTORS] = inbox.vector.ctypes.data
    inbox.header[schema.MSGHDR_VECTOR_COUNT] = 1
    inbox.header[schema.MSGHDR_CONTROL] = inbox.ancillary.ctypes.data
    inbox.header[schema.MSGHDR_CONTROL_BYTES] = inbox.ancillary.nbytes
