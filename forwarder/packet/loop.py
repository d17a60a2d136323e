"""The packet loop of one worker, compiled: rings in, io_uring out, no Python in between.

One turn takes up to a batch of frames from each ready socket, sorts them into bursts, queues a send for every
burst and output, and hands all of it to the kernel with one ``io_uring_enter``. A socket whose ring was found
empty has a one-shot poll queued behind its sends; arming checks readiness again, so nothing is missed, and a
busy socket costs no wake-up at all. When every socket waits, the same system call sleeps.

Accounting (``Shared``): a batch is *claimed* (counters, cursor, copies owed) before its first send, and a
submission is *announced* (sent, entries) before the kernel sees it. Whoever looks after a sudden death finds
how many copies were owed and, from the submission ring's head, which sends the kernel had taken.
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
from forwarder.abi.io_uring import (
    IORING_ENTER_GETEVENTS,
    IORING_OP_ASYNC_CANCEL,
    IORING_OP_POLL_ADD,
    IORING_OP_SENDMSG,
    IOSQE_CQE_SKIP_SUCCESS,
    NR_IO_URING_ENTER,
)
from forwarder.abi.jit import njit
from forwarder.abi.native import bytes_at, load_acquire, store_release, syscall, words_at
from forwarder.packet import layout, state
from forwarder.packet.coalesce import BURST_BYTES, BURST_FIRST, BURST_SEGMENTS, place
from forwarder.packet.parse import datagrams, parse
from forwarder.packet.rewrite import copy_payload, outgoing_ttl, write_header
from forwarder.packet.table import find, pack_key

_CLOCK_MONOTONIC: Final = 1
_MSG_DONTWAIT: Final = 0x40
_POLLIN: Final = 1
_POLLERR: Final = 8
_FIRST_ERRNO: Final = 1 << 31
_HIGHEST_ERRNO: Final = 4095
_PROT_READ, _PROT_WRITE = 1, 2
_MAP_SHARED, _MAP_POPULATE = 0x1, 0x8000
_SOL_SOCKET: Final = 1
_EINTR, _EAGAIN, _EBUSY = 4, 11, 16
_SO_ERROR: Final = 4

_KIND_SOCKET = np.uint64(1 << 32)
_KIND_CONTROL = np.uint64(2 << 32)
_KIND_IGNORED = np.uint64(3 << 32)
_SEND_ENTRY = np.uint64(IORING_OP_SENDMSG | (IOSQE_CQE_SKIP_SUCCESS << 8))
_SEND_LENGTH = np.uint64(1 | (_MSG_DONTWAIT << 32))


@njit
def begin_update(journal: Any) -> None:
    """Open a change of counters: readers retry until :func:`end_update`."""
    store_release(journal, layout.JOURNAL_SEQUENCE, journal[layout.JOURNAL_SEQUENCE] | np.uint64(1))


@njit
def end_update(journal: Any) -> None:
    store_release(
        journal, layout.JOURNAL_SEQUENCE, (journal[layout.JOURNAL_SEQUENCE] | np.uint64(1)) + np.uint64(1)
    )


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
                bursts = place(words, data, batch.frames, kept, batch.bursts, bursts, batch.flows, stamp)
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
            matched = shared.rule_matched[np.int64(frame[layout.FRAME_RULE])]
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
    address = syscall(
        syscalls.MMAP, 0, frames * frame_bytes, _PROT_READ | _PROT_WRITE, _MAP_SHARED | _MAP_POPULATE, fd, 0
    )
    if -_HIGHEST_ERRNO <= address < 0:
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
def detach(sockets: Any, cursors: Any, row: int) -> None:
    """Unmap a socket's ring and close it; its cursor starts at zero for the next one."""
    socket = sockets[row]
    syscall(
        syscalls.MUNMAP,
        socket[layout.SOCKET_ADDRESS],
        socket[layout.SOCKET_FRAMES] * socket[layout.SOCKET_FRAME_BYTES],
    )
    socket[:] = 0
    cursors[row, :] = 0


@njit
def flush(uring: Any, transmit: Any, shared: Any, scalars: Any, sockets: Any, wait: bool) -> None:
    """Hand the queued entries to the kernel, sleep if asked to, and take in the completions."""
    head = scalars[state.QUEUED_HEAD]
    tail = scalars[state.QUEUED_TAIL]
    mask = state.ENTRIES - 1
    counters = shared.counters
    journal = shared.journal
    copies = np.uint64(0)
    payload = np.uint64(0)
    sends = np.uint64(0)
    for entry in range(head, tail):
        queued_entry = transmit.entries[entry & mask]
        if queued_entry[layout.ENTRY_COPIES]:
            copies += queued_entry[layout.ENTRY_COPIES]
            payload += queued_entry[layout.ENTRY_BYTES]
            sends += np.uint64(1)
    begin_update(journal)
    counters[layout.SENT] += copies
    counters[layout.SENT_BYTES] += payload
    counters[layout.FRAMES_SENT] += sends
    counters[layout.ENTERS] += np.uint64(1)
    journal[layout.JOURNAL_PENDING] -= copies
    journal[layout.JOURNAL_FLUSH_HEAD] = np.uint64(head)
    journal[layout.JOURNAL_FLUSH_TAIL] = np.uint64(tail)
    store_release(journal, layout.JOURNAL_FLUSH, 1)
    end_update(journal)
    store_release(uring.sq_tail, 0, tail & 0xFFFFFFFF)
    least = 1 if wait else 0
    while True:
        left = (tail - np.int64(load_acquire(uring.sq_head, 0))) & 0xFFFFFFFF
        outcome = syscall(
            NR_IO_URING_ENTER, scalars[state.RING_FD], left, least, IORING_ENTER_GETEVENTS, 0, 0
        )
        reap(uring, transmit, shared, scalars, sockets)
        # The kernel takes fewer when it is short of memory or of room for completions, for a moment.
        if outcome == left or (outcome < 0 and outcome not in (-_EINTR, -_EAGAIN, -_EBUSY)):
            break
        least = 0
    store_release(journal, layout.JOURNAL_FLUSH, 0)
    scalars[state.QUEUED_HEAD] = tail
    scalars[state.ARENA_USED] = 0
    if wait:
        counters[layout.WAKEUPS] += np.uint64(1)


@njit
def clear_error(fd: int, scalars: Any) -> None:
    """Take a socket's pending error (SO_ERROR) and forget it."""
    scalars[state.OPTION_LENGTH] = 4
    syscall(
        syscalls.GETSOCKOPT,
        fd,
        _SOL_SOCKET,
        _SO_ERROR,
        scalars.ctypes.data + state.OPTION_VALUE * 8,
        scalars.ctypes.data + state.OPTION_LENGTH * 8,
        0,
    )


@njit
def reap(uring: Any, transmit: Any, shared: Any, scalars: Any, sockets: Any) -> None:
    """Take in completions: sends that failed, sockets and the control channel that became ready."""
    head = np.int64(uring.cq_head[0])
    tail = np.int64(load_acquire(uring.cq_tail, 0))
    mask = state.COMPLETIONS - 1
    while head != tail:
        user = np.uint64(uring.cqes[head & mask, 0])
        low = np.int64(user & np.uint64(0xFFFFFFFF))
        if user >= _KIND_IGNORED:
            pass
        elif user >= _KIND_CONTROL:
            scalars[state.CONTROL_READY] = 1
            scalars[state.CONTROL_ARMED] = 0
        elif user >= _KIND_SOCKET:
            sockets[low, layout.SOCKET_READY] = 1
            outcome = np.int64(uring.cqes[head & mask, 1] & np.uint64(0xFFFFFFFF))
            if outcome & _POLLERR and outcome < _FIRST_ERRNO:
                # The interface went down. Until somebody asks for the error, every poll fires at once.
                clear_error(sockets[low, layout.SOCKET_FD], scalars)
        else:
            refused = transmit.entries[low]
            copies = refused[layout.ENTRY_COPIES]
            payload = refused[layout.ENTRY_BYTES]
            rule = np.int64(refused[layout.ENTRY_RULE])
            begin_update(shared.journal)
            shared.counters[layout.SENT] -= copies
            shared.counters[layout.SENT_BYTES] -= payload
            shared.counters[layout.FRAMES_SENT] -= np.uint64(1)
            shared.counters[layout.TRANSMIT_REFUSED] += copies
            shared.rule_unsent[rule, 0] += copies
            shared.rule_unsent[rule, 1] += payload
            end_update(shared.journal)
        head = (head + 1) & 0xFFFFFFFF
    store_release(uring.cq_head, 0, head)


@njit
def unsent(shared: Any, reason: int, rule: int, copies: int, payload: int) -> None:
    """Account for copies that are not even tried."""
    begin_update(shared.journal)
    shared.counters[reason] += np.uint64(copies)
    shared.rule_unsent[rule, 0] += np.uint64(copies)
    shared.rule_unsent[rule, 1] += np.uint64(payload)
    shared.journal[layout.JOURNAL_PENDING] -= np.uint64(copies)
    end_update(shared.journal)


@njit
def set_links(links: Any, names: Any, changes: Any) -> None:
    """Take in how output interfaces are reached now.

    Args:
        links: ``uint32[LINKS, LINK_COLUMNS]``.
        names: ``uint32[LINKS, 8]``: each link's ``sockaddr_ll``, whose second word is the interface index.
        changes: ``uint32[n, 1 + LINK_COLUMNS]``: slot and row.
    """
    for change in changes:
        slot = change[0]
        for column in range(layout.LINK_COLUMNS):
            links[slot, column] = change[1 + column]
        names[slot, 1] = change[1 + layout.LINK_INDEX]


@njit
def queue_send(
    transmit: Any, uring: Any, scalars: Any, link: int, rule: int, copies: int, payload: int
) -> None:
    """Queue the entry whose header and payload vector were just written."""
    tail = scalars[state.QUEUED_TAIL]
    index = tail & (state.ENTRIES - 1)
    transmit.entries[index, layout.ENTRY_COPIES] = copies
    transmit.entries[index, layout.ENTRY_RULE] = rule
    transmit.entries[index, layout.ENTRY_BYTES] = payload
    transmit.messages[index, 0] = transmit.addresses[link]
    entry = uring.sqes[index]
    entry[0] = _SEND_ENTRY | (np.uint64(scalars[state.TRANSMIT_FD]) << np.uint64(32))
    entry[1] = 0
    entry[2] = transmit.messages.ctypes.data + index * 56
    entry[3] = _SEND_LENGTH
    entry[4] = index
    entry[5] = 0
    entry[6] = 0
    entry[7] = 0
    scalars[state.QUEUED_TAIL] = tail + 1


@njit
def queue_poll(transmit: Any, uring: Any, scalars: Any, fd: int, user: int) -> None:
    """Queue a one-shot poll for input."""
    tail = scalars[state.QUEUED_TAIL]
    index = tail & (state.ENTRIES - 1)
    transmit.entries[index, layout.ENTRY_COPIES] = 0
    entry = uring.sqes[index]
    entry[0] = np.uint64(IORING_OP_POLL_ADD) | (np.uint64(fd) << np.uint64(32))
    entry[1] = 0
    entry[2] = 0
    entry[3] = np.uint64(_POLLIN << 32)
    entry[4] = user
    entry[5] = 0
    entry[6] = 0
    entry[7] = 0
    scalars[state.QUEUED_TAIL] = tail + 1


@njit
def queued(scalars: Any) -> int:
    return scalars[state.QUEUED_TAIL] - scalars[state.QUEUED_HEAD]


@njit
def emit(
    words: Any,
    data: Any,
    burst: Any,
    rules: Any,
    batch: Any,
    transmit: Any,
    uring: Any,
    shared: Any,
    scalars: Any,
    sockets: Any,
) -> None:
    """Queue one burst to every output of its rule."""
    row = burst[BURST_FIRST]
    frame = batch.frames[row]
    rule = np.int64(frame[layout.FRAME_RULE])
    segments = burst[BURST_SEGMENTS]
    payload = burst[BURST_BYTES]
    if scalars[state.ARENA_USED] + payload > state.ARENA_BYTES:
        flush(uring, transmit, shared, scalars, sockets, False)
    start = scalars[state.ARENA_USED]
    copy_payload(words, data, batch.frames, row, transmit.arena_words, transmit.arena, start)
    scalars[state.ARENA_USED] = (start + payload + 63) & ~63
    segment = np.int64(frame[layout.FRAME_SEGMENT])
    if segments > 1 and segment == 0:
        segment = np.int64(frame[layout.FRAME_LENGTH])
    largest = segment if segment else payload
    first = np.int64(rules.spans[rule, 0])
    for position in range(first, first + np.int64(rules.spans[rule, 1])):
        output = rules.outputs[position]
        link = np.int64(output[layout.OUTPUT_INTERFACE])
        if transmit.links[link, layout.LINK_INDEX] == 0:
            unsent(shared, layout.OUTPUT_ABSENT, rule, segments, payload)
            continue
        ttl = outgoing_ttl(frame, output)
        if ttl == 0:
            unsent(shared, layout.TTL_EXPIRED, rule, segments, payload)
            continue
        if largest + 28 > np.int64(transmit.links[link, layout.LINK_MTU]):
            unsent(shared, layout.TOO_BIG, rule, segments, payload)
            continue
        if queued(scalars) == state.ENTRIES:
            # The payload must outlive this flush, and it does: the arena is only rewritten from its start
            # by the next burst.
            flush(uring, transmit, shared, scalars, sockets, False)
            scalars[state.ARENA_USED] = (start + payload + 63) & ~63
        index = scalars[state.QUEUED_TAIL] & (state.ENTRIES - 1)
        write_header(
            transmit.headers[index],
            frame,
            output,
            transmit.links[link],
            ttl,
            payload,
            segment,
            scalars[state.IDENTIFICATION],
        )
        transmit.vectors[index, 2] = transmit.arena.ctypes.data + start
        transmit.vectors[index, 3] = payload
        queue_send(transmit, uring, scalars, link, rule, segments, payload)
    scalars[state.IDENTIFICATION] = (scalars[state.IDENTIFICATION] + segments) & 0xFFFF


@njit
def arm(transmit: Any, uring: Any, shared: Any, scalars: Any, sockets: Any, fd: int, user: int) -> None:
    """Queue a poll, making room first when the submission ring is full."""
    if queued(scalars) == state.ENTRIES:
        flush(uring, transmit, shared, scalars, sockets, False)
    queue_poll(transmit, uring, scalars, fd, user)


@njit
def cancel_poll(transmit: Any, uring: Any, shared: Any, scalars: Any, sockets: Any, row: int) -> None:
    """Take back the poll of a socket that is about to go; what is queued goes to the kernel first."""
    flush(uring, transmit, shared, scalars, sockets, False)
    tail = scalars[state.QUEUED_TAIL]
    index = tail & (state.ENTRIES - 1)
    transmit.entries[index, layout.ENTRY_COPIES] = 0
    entry = uring.sqes[index]
    entry[:] = 0
    entry[0] = np.uint64(IORING_OP_ASYNC_CANCEL)
    entry[2] = _KIND_SOCKET | np.uint64(row)
    entry[4] = _KIND_IGNORED
    scalars[state.QUEUED_TAIL] = tail + 1
    flush(uring, transmit, shared, scalars, sockets, False)


@njit
def _now_ns(clock: Any) -> int:
    syscall(syscalls.CLOCK_GETTIME, _CLOCK_MONOTONIC, clock.ctypes.data, 0, 0, 0, 0)
    return clock[0] * 1_000_000_000 + clock[1]


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
            arm(transmit, uring, shared, scalars, sockets, scalars[state.CONTROL_FD], _KIND_CONTROL)
        if busy_poll_ns:
            now = _now_ns(clock)
        spinning = now - last_work < busy_poll_ns
        waiting = True
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
                for index in range(bursts):
                    emit(
                        words,
                        data,
                        batch.bursts[index],
                        rules,
                        batch,
                        transmit,
                        uring,
                        shared,
                        scalars,
                        sockets,
                    )
            if taken:
                release(socket, cursor)
                last_work = now
            if not empty or spinning:
                waiting = False
            else:
                socket[layout.SOCKET_READY] = 0
                user = _KIND_SOCKET | np.uint64(row)
                arm(transmit, uring, shared, scalars, sockets, socket[layout.SOCKET_FD], user)
        sleep = waiting and turns < 0 and not scalars[state.CONTROL_READY]
        flush(uring, transmit, shared, scalars, sockets, sleep)
        if scalars[state.CONTROL_READY]:
            break
    return turn
