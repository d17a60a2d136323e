"""Receiving: a mapped packet ring's frames become parsed frames in bursts, and its slots go back.

``tpacket_rcv`` (``net/packet/af_packet.c``) fills slots in turn and hands each over by its status word, so
that word is read with acquire and written with release order.
"""

from typing import Any, Final

import numpy as np

from forwarder.abi import af_packet as ap
from forwarder.abi import syscalls
from forwarder.abi.jit import njit
from forwarder.abi.native import (
    bytes_at,
    load_acquire,
    longs_at,
    map_shared,
    monotonic_ns,
    store_release,
    syscall,
    words_at,
)
from forwarder.engines.packet import schema
from forwarder.engines.packet.accounting import begin_update, end_update
from forwarder.engines.packet.coalesce import add_to_burst
from forwarder.engines.packet.parse import datagrams, finish_inner, parse
from forwarder.engines.packet.rule_table import find, pack_key

_MSG_DONTWAIT: Final = 0x40


@njit
def receive_batch(worker: Any, rules: Any, row: int) -> tuple[int, int, bool, bool]:
    """Parse, match and sort up to a batch of frames of one socket, and claim them.

    Returns frames taken, bursts made, whether their payloads are in the buffer for an oversize frame, whether
    the ring is empty.
    """
    socket, cursor = worker.state.sockets[row], worker.shared.cursors[row]
    batch, scalars = worker.batch, worker.state.scalars
    totals = batch.totals
    frame_count = socket[schema.SOCKET_FRAMES]
    frame_bytes = socket[schema.SOCKET_FRAME_BYTES]
    ring_bytes = frame_count * frame_bytes
    ring_words = words_at(socket[schema.SOCKET_ADDRESS], ring_bytes >> 2)
    ring_data = bytes_at(socket[schema.SOCKET_ADDRESS], ring_bytes)
    claimed = np.int64(cursor[schema.CURSOR_CLAIMED])
    interface = socket[schema.SOCKET_INTERFACE]
    scalars[schema.STAMP] += 1
    stamp = scalars[schema.STAMP]
    fits_all, most = scalars[schema.SHORTER_LAST], scalars[schema.MOST_TOGETHER]
    taken = kept = bursts = owed = 0
    oversize = empty = False
    # Slots stay the user's until they are released: once round the ring and they would be read again.
    limit = min(np.int64(schema.BATCH), frame_count)
    while taken < limit:
        slot = (claimed + taken) % frame_count
        base = slot * frame_bytes
        status = np.int64(load_acquire(ring_words, base >> 2))
        if not status & ap.TP_STATUS_USER:
            empty = True
            break
        length = np.int64(ring_words[(base >> 2) + 1])
        captured = np.int64(ring_words[(base >> 2) + 2])
        network = base + ap.NET_OFFSET
        words = ring_words
        data = ring_data
        if status & ap.TP_STATUS_COPY:
            # The slot holds the beginning only, and no virtio_net_hdr; the whole frame waits in the
            # socket's queue. It is a batch of its own, because its payload is elsewhere.
            if taken:
                break
            oversize = True
            words = words_at(batch.oversize.ctypes.data, schema.OVERSIZE_BYTES >> 2)
            data = bytes_at(batch.oversize.ctypes.data, schema.OVERSIZE_BYTES)
            network = ap.NET_OFFSET
            captured = _receive_oversize(batch, socket[schema.SOCKET_FD])
        vnet = network - (ap.NET_OFFSET - ap.VNET_OFFSET)
        frame = batch.frames[kept]
        outcome = parse(
            words,
            data,
            network,
            captured,
            length,
            (status & ap.TP_STATUS_VLAN_VALID) != 0,
            np.int64(data[vnet]),
            np.int64(data[vnet + 1]),
            np.int64(data[vnet + 4]) | (np.int64(data[vnet + 5]) << 8),
            frame,
        )
        taken += 1
        totals[schema.FRAMES_RECEIVED] += 1
        if outcome != schema.OK:
            totals[schema.RECEIVED] += 1
            totals[outcome] += 1
        else:
            count = datagrams(frame)
            payload = np.int64(frame[schema.FRAME_LENGTH])
            totals[schema.RECEIVED] += count
            totals[schema.RECEIVED_BYTES] += payload
            key = pack_key(interface, frame[schema.FRAME_PORTS] >> 16, frame[schema.FRAME_GROUP])
            rule = find(rules.keys, rules.values, key)
            if rule < 0:
                totals[schema.NO_RULE] += count
            else:
                totals[schema.MATCHED] += count
                totals[schema.MATCHED_BYTES] += payload
                owed += count * np.int64(rules.spans[rule, 1])
                frame[schema.FRAME_RULE] = rule
                if data[vnet] & ap.VIRTIO_NET_HDR_F_NEEDS_CSUM and frame[schema.FRAME_SEGMENT] == 0:
                    start = np.int64(data[vnet + 6]) | (np.int64(data[vnet + 7]) << 8)
                    finish_inner(data, network, start, np.int64(data[vnet + 8]), frame)
                if frame[schema.FRAME_TRUST] == schema.TRUST_ABSENT and scalars[schema.FILL_CHECKSUMS]:
                    frame[schema.FRAME_TRUST] = schema.TRUST_PARTIAL
                bursts = add_to_burst(words, data, batch, kept, bursts, stamp, fits_all, most)
                kept += 1
        if oversize:
            break
    if taken:
        _claim(worker, row, taken, kept, owed)
    return taken, bursts, oversize, empty


@njit
def _receive_oversize(batch: Any, fd: int) -> int:
    """Fetch a frame larger than its slot from the socket's queue; its bytes, 0 when it is gone."""
    address = batch.oversize.ctypes.data + ap.VNET_OFFSET
    room = schema.OVERSIZE_BYTES - ap.VNET_OFFSET
    captured = syscall(syscalls.RECVFROM, fd, address, room, _MSG_DONTWAIT) - (ap.MAC_OFFSET - ap.VNET_OFFSET)
    return max(captured, 0)


@njit
def _claim(worker: Any, row: int, taken: int, kept: int, owed: int) -> None:
    """Count a batch as received, and its copies as owed, before the first is sent."""
    shared, batch = worker.shared, worker.batch
    begin_update(shared.journal)
    for index in range(schema.COUNTERS):
        shared.counters[index] += np.uint64(batch.totals[index])
        batch.totals[index] = 0
    for index in range(kept):
        frame = batch.frames[index]
        rule = np.int64(frame[schema.FRAME_RULE])
        matched = shared.rule_matched[rule]
        if matched[0] == 0:
            shared.rule_first[rule] = np.uint64(monotonic_ns(np.zeros(2, np.int64)))
        matched[0] += np.uint64(datagrams(frame))
        matched[1] += np.uint64(frame[schema.FRAME_LENGTH])
    shared.cursors[row, schema.CURSOR_CLAIMED] += np.uint64(taken)
    shared.journal[schema.JOURNAL_PENDING] += np.uint64(owed)
    end_update(shared.journal)


@njit
def release(worker: Any, row: int) -> None:
    """Give every claimed slot back to the kernel."""
    socket, cursor = worker.state.sockets[row], worker.shared.cursors[row]
    frame_count = socket[schema.SOCKET_FRAMES]
    frame_bytes = socket[schema.SOCKET_FRAME_BYTES]
    ring_words = words_at(socket[schema.SOCKET_ADDRESS], (frame_count * frame_bytes) >> 2)
    released = np.int64(cursor[schema.CURSOR_RELEASED])
    claimed = np.int64(cursor[schema.CURSOR_CLAIMED])
    while released < claimed:
        slot = released % frame_count
        store_release(ring_words, (slot * frame_bytes) >> 2, ap.TP_STATUS_KERNEL)
        released += 1
    store_release(cursor, schema.CURSOR_RELEASED, released)


@njit
def passed(worker: Any, row: int) -> int:
    """Frames that the early filter has let through to a socket's ring; 0 where there is none."""
    address = worker.state.sockets[row, schema.SOCKET_LEVEL]
    if address == 0:
        return np.int64(0)
    return np.int64(load_acquire(longs_at(address, schema.LEVEL_COLUMNS), schema.LEVEL_PASSED))


@njit
def lower_level(worker: Any, row: int, taken: int, empty: bool, passed_before: int) -> None:
    """Tell the early filter that frames have left a socket's ring.

    Some that it let through may never have come (the kernel merged or lost them), others came past it. A ring
    that was found empty sets that right: what had passed before it was looked at has left it, and no more has
    than has passed by now.

    ``passed_before``: :func:`passed` before the batch was received.
    """
    address = worker.state.sockets[row, schema.SOCKET_LEVEL]
    if address == 0:
        return
    level = longs_at(address, schema.LEVEL_COLUMNS)
    released = np.int64(level[schema.LEVEL_RELEASED]) + taken
    if empty:
        released = min(max(released, passed_before), passed(worker, row))
    store_release(level, schema.LEVEL_RELEASED, released)


@njit
def attach(worker: Any, row: int, fd: int, frames: int, frame_bytes: int, interface: int, level: int) -> int:
    """Map a receive socket's ring and serve it from the next turn on; a negative errno if that fails.

    ``row``: of the socket and its cursor; ``interface``: the slot that its rules' keys carry; ``level``: the
    address of the ring's level, or 0.
    """
    address = map_shared(fd, frames * frame_bytes)
    if address < 0:
        return address
    socket = worker.state.sockets[row]
    socket[schema.SOCKET_FD] = fd
    socket[schema.SOCKET_FRAMES] = frames
    socket[schema.SOCKET_FRAME_BYTES] = frame_bytes
    socket[schema.SOCKET_INTERFACE] = interface
    socket[schema.SOCKET_READY] = 1
    socket[schema.SOCKET_LEVEL] = level
    socket[schema.SOCKET_ADDRESS] = address
    worker.state.scalars[schema.ROWS_USED] = max(worker.state.scalars[schema.ROWS_USED], row + 1)
    # A predecessor may have died between claiming frames and giving them back.
    release(worker, row)
    return 0


@njit
def detach(socket: Any) -> None:
    """Unmap a socket's ring and close it; its cursor is kept for the row's next socket."""
    ring_bytes = socket[schema.SOCKET_FRAMES] * socket[schema.SOCKET_FRAME_BYTES]
    syscall(syscalls.MUNMAP, socket[schema.SOCKET_ADDRESS], ring_bytes)
    syscall(syscalls.CLOSE, socket[schema.SOCKET_FD])
    socket[:] = 0
