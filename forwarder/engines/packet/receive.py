"""Receiving: a mapped packet ring's frames become parsed frames in bursts, and its slots go back.

``tpacket_rcv`` (``net/packet/af_packet.c``) fills slots in turn and hands each over by its status word, so
that word is read with acquire and written with release order.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from forwarder.abi import syscalls
from forwarder.abi.af_packet import (
    MAC_OFFSET,
    NET_OFFSET,
    TP_STATUS_COPY,
    TP_STATUS_USER,
    TP_STATUS_VLAN_VALID,
    VNET_OFFSET,
)
from forwarder.abi.clock import monotonic_ns
from forwarder.abi.jit import njit
from forwarder.abi.mapping import map_shared
from forwarder.abi.native import bytes_at, load_acquire, store_release, syscall, words_at
from forwarder.engines.packet import schema as layout
from forwarder.engines.packet import state
from forwarder.engines.packet.accounting import begin_update, end_update
from forwarder.engines.packet.coalesce import place
from forwarder.engines.packet.parse import datagrams, parse
from forwarder.engines.packet.table import find, pack_key

_MSG_DONTWAIT: Final = 0x40


@njit
def take(
    socket: Any, cursor: Any, rules: Any, batch: Any, shared: Any, scalars: Any, totals: Any
) -> tuple[int, int, bool, bool]:
    """Parse, match and sort up to a batch of frames of one socket.

    ``totals`` is ``int64[COUNTERS]`` scratch, added to the shared counters when the batch is claimed.

    Returns:
        frames taken, bursts made, whether their payloads stand in the side buffer, whether the ring is empty.
    """
    frame_count = socket[layout.SOCKET_FRAMES]
    frame_bytes = socket[layout.SOCKET_FRAME_BYTES]
    ring_bytes = frame_count * frame_bytes
    ring_words = words_at(socket[layout.SOCKET_ADDRESS], ring_bytes >> 2)
    ring_data = bytes_at(socket[layout.SOCKET_ADDRESS], ring_bytes)
    claimed = np.int64(cursor[layout.CURSOR_CLAIMED])
    interface = socket[layout.SOCKET_INTERFACE]
    scalars[state.STAMP] += 1
    stamp = scalars[state.STAMP]
    fits_all = scalars[state.SHORTER_LAST]
    taken = 0
    kept = 0
    bursts = 0
    owed = 0
    aside = False
    empty = False
    # Slots stay the user's until they are released: once round the ring and they would be read again.
    limit = min(np.int64(state.BATCH), frame_count)
    while taken < limit:
        slot = (claimed + taken) % frame_count
        base = slot * frame_bytes
        status = np.int64(load_acquire(ring_words, base >> 2))
        if not status & TP_STATUS_USER:
            empty = True
            break
        length = np.int64(ring_words[(base >> 2) + 1])
        captured = np.int64(ring_words[(base >> 2) + 2])
        network = base + NET_OFFSET
        words = ring_words
        data = ring_data
        if status & TP_STATUS_COPY:
            # The slot holds the beginning only, and no virtio_net_hdr; the whole frame waits in the
            # socket's queue. It is a batch of its own, because its payload lies elsewhere.
            if taken:
                break
            aside = True
            words = batch.side_words
            data = batch.side
            network = NET_OFFSET
            captured = syscall(
                syscalls.RECVFROM,
                socket[layout.SOCKET_FD],
                batch.side.ctypes.data + VNET_OFFSET,
                state.SIDE_BYTES - VNET_OFFSET,
                _MSG_DONTWAIT,
                0,
                0,
            ) - (MAC_OFFSET - VNET_OFFSET)
            captured = max(captured, 0)
        vnet = network - (NET_OFFSET - VNET_OFFSET)
        frame = batch.frames[kept]
        outcome = parse(
            words,
            data,
            network,
            captured,
            length,
            (status & TP_STATUS_VLAN_VALID) != 0,
            np.int64(data[vnet]),
            np.int64(data[vnet + 1]),
            np.int64(data[vnet + 4]) | (np.int64(data[vnet + 5]) << 8),
            frame,
        )
        taken += 1
        totals[layout.FRAMES_RECEIVED] += 1
        if outcome != layout.OK:
            totals[layout.RECEIVED] += 1
            totals[outcome] += 1
        else:
            count = datagrams(frame)
            payload = np.int64(frame[layout.FRAME_LENGTH])
            totals[layout.RECEIVED] += count
            totals[layout.RECEIVED_BYTES] += payload
            key = pack_key(interface, frame[layout.FRAME_PORTS] >> 16, frame[layout.FRAME_GROUP])
            rule = find(rules.keys, rules.values, key)
            if rule < 0:
                totals[layout.NO_RULE] += count
            else:
                totals[layout.MATCHED] += count
                totals[layout.MATCHED_BYTES] += payload
                owed += count * np.int64(rules.spans[rule, 1])
                frame[layout.FRAME_RULE] = rule
                bursts = place(
                    words, data, batch.frames, kept, batch.bursts, bursts, batch.flows, stamp, fits_all
                )
                kept += 1
        if aside:
            break
    if taken:
        begin_update(shared.journal)
        for index in range(layout.COUNTERS):
            shared.counters[index] += np.uint64(totals[index])
            totals[index] = 0
        for index in range(kept):
            frame = batch.frames[index]
            rule = np.int64(frame[layout.FRAME_RULE])
            matched = shared.rule_matched[rule]
            if matched[0] == 0:
                shared.rule_first[rule] = np.uint64(monotonic_ns(np.zeros(2, np.int64)))
            matched[0] += np.uint64(datagrams(frame))
            matched[1] += np.uint64(frame[layout.FRAME_LENGTH])
        cursor[layout.CURSOR_CLAIMED] = claimed + taken
        shared.journal[layout.JOURNAL_PENDING] += np.uint64(owed)
        end_update(shared.journal)
    return taken, bursts, aside, empty


@njit
def release(socket: Any, cursor: Any) -> None:
    """Give every claimed slot back to the kernel."""
    frame_count = socket[layout.SOCKET_FRAMES]
    frame_bytes = socket[layout.SOCKET_FRAME_BYTES]
    ring_words = words_at(socket[layout.SOCKET_ADDRESS], (frame_count * frame_bytes) >> 2)
    released = np.int64(cursor[layout.CURSOR_RELEASED])
    claimed = np.int64(cursor[layout.CURSOR_CLAIMED])
    while released < claimed:
        store_release(ring_words, ((released % frame_count) * frame_bytes) >> 2, 0)
        released += 1
    store_release(cursor, layout.CURSOR_RELEASED, released)


@njit
def attach(
    sockets: Any, cursors: Any, scalars: Any, row: int, fd: int, frames: int, frame_bytes: int, interface: int
) -> int:
    """Map a receive socket's ring and serve it from the next turn on.

    Args:
        row: of ``sockets`` and ``cursors``.
        interface: the slot that its rules' keys carry.

    Returns:
        0, or a negative errno when the ring cannot be mapped.
    """
    address = map_shared(fd, frames * frame_bytes)
    if address < 0:
        return address
    socket = sockets[row]
    socket[layout.SOCKET_FD] = fd
    socket[layout.SOCKET_FRAMES] = frames
    socket[layout.SOCKET_FRAME_BYTES] = frame_bytes
    socket[layout.SOCKET_INTERFACE] = interface
    socket[layout.SOCKET_READY] = 1
    socket[layout.SOCKET_ADDRESS] = address
    scalars[state.SOCKET_ROWS] = max(scalars[state.SOCKET_ROWS], row + 1)
    # A predecessor may have died between claiming frames and giving them back.
    release(socket, cursors[row])
    return 0


@njit
def detach(sockets: Any, row: int) -> None:
    """Unmap a socket's ring and close it; its cursor says how far it came until there is another."""
    socket = sockets[row]
    syscall(
        syscalls.MUNMAP,
        socket[layout.SOCKET_ADDRESS],
        socket[layout.SOCKET_FRAMES] * socket[layout.SOCKET_FRAME_BYTES],
    )
    syscall(syscalls.CLOSE, socket[layout.SOCKET_FD], 0, 0, 0, 0, 0)
    socket[:] = 0
