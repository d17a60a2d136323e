"""From bursts to copies: every burst to each output of its rule, as a message or through the transmit ring.

A copy is a message of its own, and one system call hands over the messages of a whole turn. Many short
datagrams that leave together cost less through a transmit ring (PACKET_TX_RING): the kernel has done with a
slot once it has cut the burst up, whereas every datagram cut from a message holds the socket's send buffer
until it is freed (``__udp_gso_segment`` in net/ipv4/udp_offload.c hands ``sock_wfree`` on to each), which
takes three locked operations.

Rules of the ring:

* the kernel sends whatever is ready in it to one interface, up to the first slot that is not
  (``tpacket_snd`` in net/packet/af_packet.c). So bursts of one rule go in together, output by output;
* what was queued before goes first, or a flow would overtake itself;
* a slot that the kernel holds, because the burst leaves whole and is still on its way, is waited for by
  nobody: the burst is a message;
* where a frame fails the kernel stops, before the next one. That burst is refused, as a message would have
  been, and those behind it become messages.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from forwarder.abi.af_packet import (
    TP_STATUS_AVAILABLE,
    TP_STATUS_SEND_REQUEST,
    TP_STATUS_WRONG_FORMAT,
    TX_OFFSET,
)
from forwarder.abi.io_uring import IORING_OP_SENDMSG, IOSQE_CQE_SKIP_SUCCESS
from forwarder.abi.jit import njit
from forwarder.abi.native import bytes_at, copy_memory, load_acquire, store_release, words_at
from forwarder.packet import layout, state
from forwarder.packet.coalesce import (
    BURST_BYTES,
    BURST_FIRST,
    BURST_IDENTIFICATION,
    BURST_SEGMENTS,
    BURST_START,
)
from forwarder.packet.journal import begin_update, end_update, unsent
from forwarder.packet.rewrite import HEADER_BYTES, SHORT_SEGMENT, copy_payload, outgoing_ttl, write_header
from forwarder.packet.transmit import KIND_IGNORED, MESSAGE_FLAGS, flush, queue, queued

LEAST_SEGMENTS: Final = 4
"""Datagrams in a burst that is worth a system call of its own."""
MOST_PAYLOAD: Final = state.TX_SLOT_BYTES - TX_OFFSET - HEADER_BYTES
_ENTRY: Final = np.uint64(IORING_OP_SENDMSG | (IOSQE_CQE_SKIP_SUCCESS << 8))


@njit
def emit(
    words: Any,
    data: Any,
    bursts: int,
    rules: Any,
    batch: Any,
    transmit: Any,
    uring: Any,
    shared: Any,
    scalars: Any,
    sockets: Any,
) -> None:
    """Send the bursts of a batch, or queue them; what is queued leaves with the next flush.

    Args:
        words, data: the memory that the frames' payload indices refer to.
        bursts: rows of ``batch.bursts``.
    """
    index = 0
    while index < bursts:
        count = ring_takes(batch, index, bursts, scalars)
        if count:
            through_ring(words, data, index, count, rules, batch, transmit, uring, shared, scalars, sockets)
            index += count
        else:
            as_messages(words, data, index, rules, batch, transmit, uring, shared, scalars, sockets)
            index += 1


@njit
def segment_bytes(burst: Any, frame: Any) -> int:
    """Payload bytes of the datagrams that the kernel is to cut a burst into, 0: it is one datagram."""
    segment = np.int64(frame[layout.FRAME_SEGMENT])
    if burst[BURST_SEGMENTS] > 1 and segment == 0:
        segment = np.int64(frame[layout.FRAME_LENGTH])
    return segment


@njit
def ring_takes(batch: Any, first: int, bursts: int, scalars: Any) -> int:
    """How many bursts from the first on, all of one rule, go through the ring together."""
    if scalars[state.TX_RING_ADDRESS] == 0:
        return 0
    rule = batch.frames[batch.bursts[first, BURST_FIRST], layout.FRAME_RULE]
    most = min(bursts - first, state.TX_SLOTS)
    count = 0
    while count < most:
        burst = batch.bursts[first + count]
        frame = batch.frames[burst[BURST_FIRST]]
        if (
            frame[layout.FRAME_RULE] != rule
            or burst[BURST_SEGMENTS] < LEAST_SEGMENTS
            or burst[BURST_BYTES] > MOST_PAYLOAD
            or segment_bytes(burst, frame) > SHORT_SEGMENT
        ):
            break
        count += 1
    return count


@njit
def gather(words: Any, data: Any, burst: Any, batch: Any, transmit: Any, scalars: Any) -> None:
    """Put a burst's payload into the arena, which has room, and give it its identifications."""
    start = scalars[state.ARENA_USED]
    frames = batch.frames
    copy_payload(words, data, frames, burst[BURST_FIRST], transmit.arena_words, transmit.arena, start)
    scalars[state.ARENA_USED] = (start + burst[BURST_BYTES] + 63) & ~63
    burst[BURST_START] = start
    burst[BURST_IDENTIFICATION] = scalars[state.IDENTIFICATION]
    scalars[state.IDENTIFICATION] = (scalars[state.IDENTIFICATION] + burst[BURST_SEGMENTS]) & 0xFFFF


@njit
def may_leave(burst: Any, output: Any, batch: Any, transmit: Any, shared: Any) -> int:
    """The TTL of a burst's copies at an output; 0 when they may not leave, which is accounted for."""
    frame = batch.frames[burst[BURST_FIRST]]
    link = transmit.links[np.int64(output[layout.OUTPUT_INTERFACE])]
    segment = segment_bytes(burst, frame)
    largest = segment if segment else burst[BURST_BYTES]
    ttl = outgoing_ttl(frame, output)
    if link[layout.LINK_INDEX] == 0:
        reason = layout.OUTPUT_ABSENT
    elif ttl == 0:
        reason = layout.TTL_EXPIRED
    elif largest + 28 > np.int64(link[layout.LINK_MTU]):
        reason = layout.TOO_BIG
    else:
        return ttl
    rule = np.int64(frame[layout.FRAME_RULE])
    unsent(shared, reason, rule, burst[BURST_SEGMENTS], burst[BURST_BYTES])
    return 0


@njit
def write_headers(header: Any, burst: Any, output: Any, ttl: int, batch: Any, transmit: Any) -> None:
    """The headers of a burst's copies at an output, see :func:`forwarder.packet.rewrite.write_header`."""
    frame = batch.frames[burst[BURST_FIRST]]
    write_header(
        header,
        frame,
        output,
        transmit.links[np.int64(output[layout.OUTPUT_INTERFACE])],
        ttl,
        burst[BURST_BYTES],
        segment_bytes(burst, frame),
        burst[BURST_IDENTIFICATION],
    )


# -- messages --


@njit
def as_messages(
    words: Any,
    data: Any,
    index: int,
    rules: Any,
    batch: Any,
    transmit: Any,
    uring: Any,
    shared: Any,
    scalars: Any,
    sockets: Any,
) -> None:
    """Queue one burst to every output of its rule."""
    burst = batch.bursts[index]
    if scalars[state.ARENA_USED] + burst[BURST_BYTES] > state.ARENA_BYTES:
        flush(uring, transmit, shared, scalars, sockets, False)
    gather(words, data, burst, batch, transmit, scalars)
    rule = np.int64(batch.frames[burst[BURST_FIRST], layout.FRAME_RULE])
    first = np.int64(rules.spans[rule, 0])
    for position in range(first, first + np.int64(rules.spans[rule, 1])):
        output = rules.outputs[position]
        ttl = may_leave(burst, output, batch, transmit, shared)
        if ttl:
            queue_message(burst, output, ttl, batch, transmit, uring, shared, scalars, sockets)


@njit
def queue_message(
    burst: Any,
    output: Any,
    ttl: int,
    batch: Any,
    transmit: Any,
    uring: Any,
    shared: Any,
    scalars: Any,
    sockets: Any,
) -> None:
    """Queue a copy of a burst that is in the arena."""
    if queued(scalars) == state.ENTRIES:
        flush_and_keep(transmit, uring, shared, scalars, sockets)
    index = scalars[state.QUEUED_TAIL] & (state.ENTRIES - 1)
    write_headers(transmit.headers[index], burst, output, ttl, batch, transmit)
    transmit.vectors[index, 2] = transmit.arena.ctypes.data + burst[BURST_START]
    transmit.vectors[index, 3] = burst[BURST_BYTES]
    queue_send(
        scalars[state.TRANSMIT_FD], 2, output, batch.frames[burst[BURST_FIRST], layout.FRAME_RULE],
        burst[BURST_SEGMENTS], burst[BURST_BYTES], 1, index, transmit, uring, scalars,
    )  # fmt: skip


@njit
def queue_send(
    fd: int,
    vectors: int,
    output: Any,
    rule: int,
    copies: int,
    payload: int,
    frames: int,
    user: int,
    transmit: Any,
    uring: Any,
    scalars: Any,
) -> None:
    """Queue a ``sendmsg`` of the message in the next place, to the interface of an output."""
    index = scalars[state.QUEUED_TAIL] & (state.ENTRIES - 1)
    transmit.entries[index, layout.ENTRY_RULE] = rule
    transmit.entries[index, layout.ENTRY_BYTES] = payload
    transmit.entries[index, layout.ENTRY_FRAMES] = frames
    transmit.messages[index, 0] = transmit.addresses[np.int64(output[layout.OUTPUT_INTERFACE])]
    transmit.messages[index, 3] = vectors
    head = _ENTRY | (np.uint64(fd) << np.uint64(32))
    address = transmit.messages.ctypes.data + index * 56
    queue(transmit, uring, scalars, copies, head, address, MESSAGE_FLAGS, user)


@njit
def flush_and_keep(transmit: Any, uring: Any, shared: Any, scalars: Any, sockets: Any) -> None:
    """Flush while bursts in the arena have not been sent everywhere: it is filled behind them afterwards."""
    used = scalars[state.ARENA_USED]
    flush(uring, transmit, shared, scalars, sockets, False)
    scalars[state.ARENA_USED] = used


# -- the ring --


@njit
def slot_status(scalars: Any, place: int) -> Any:
    """The status word of a slot, ``uint32[1]``; ``place`` counts on and on."""
    return words_at(scalars[state.TX_RING_ADDRESS] + place % state.TX_SLOTS * state.TX_SLOT_BYTES, 1)


@njit
def through_ring(
    words: Any,
    data: Any,
    first: int,
    count: int,
    rules: Any,
    batch: Any,
    transmit: Any,
    uring: Any,
    shared: Any,
    scalars: Any,
    sockets: Any,
) -> None:
    """Send bursts of one rule to every output of it."""
    if queued(scalars):
        flush(uring, transmit, shared, scalars, sockets, False)
    scalars[state.ARENA_USED] = 0
    for index in range(first, first + count):
        gather(words, data, batch.bursts[index], batch, transmit, scalars)
    rule = np.int64(batch.frames[batch.bursts[first, BURST_FIRST], layout.FRAME_RULE])
    start = np.int64(rules.spans[rule, 0])
    for position in range(start, start + np.int64(rules.spans[rule, 1])):
        output = rules.outputs[position]
        put = 0
        room = True
        for index in range(first, first + count):
            burst = batch.bursts[index]
            ttl = may_leave(burst, output, batch, transmit, shared)
            if not ttl:
                continue
            room = room and put_in(
                burst, output, ttl, scalars[state.TX_RING_NEXT] + put, batch, transmit, scalars
            )
            if room:
                transmit.in_slots[put] = index
                put += 1
            else:
                if put:
                    hand_over(put, output, batch, transmit, uring, shared, scalars, sockets)
                    put = 0
                queue_message(burst, output, ttl, batch, transmit, uring, shared, scalars, sockets)
        if put:
            hand_over(put, output, batch, transmit, uring, shared, scalars, sockets)


@njit
def put_in(burst: Any, output: Any, ttl: int, place: int, batch: Any, transmit: Any, scalars: Any) -> bool:
    """Make a slot ready for sending; False when the kernel has it still."""
    status = slot_status(scalars, place)
    if load_acquire(status, 0) != TP_STATUS_AVAILABLE:
        return False
    payload = burst[BURST_BYTES]
    address = scalars[state.TX_RING_ADDRESS] + place % state.TX_SLOTS * state.TX_SLOT_BYTES
    slot = bytes_at(address, state.TX_SLOT_BYTES)
    words_at(address, 2)[1] = HEADER_BYTES + payload
    write_headers(slot[TX_OFFSET:], burst, output, ttl, batch, transmit)
    start = transmit.arena.ctypes.data + burst[BURST_START]
    copy_memory(address + TX_OFFSET + HEADER_BYTES, start, payload)
    store_release(status, 0, TP_STATUS_SEND_REQUEST)
    return True


@njit
def hand_over(
    put: int, output: Any, batch: Any, transmit: Any, uring: Any, shared: Any, scalars: Any, sockets: Any
) -> None:
    """Have the kernel send the slots that were made ready, and see to what it did not send."""
    copies = payload = 0
    for nth in range(put):
        burst = batch.bursts[transmit.in_slots[nth]]
        copies += burst[BURST_SEGMENTS]
        payload += burst[BURST_BYTES]
    rule = batch.frames[batch.bursts[transmit.in_slots[0], BURST_FIRST], layout.FRAME_RULE]
    if queued(scalars) == state.ENTRIES:
        flush_and_keep(transmit, uring, shared, scalars, sockets)
    queue_send(
        scalars[state.TX_RING_FD], 0, output, rule, copies, payload, put, KIND_IGNORED,
        transmit, uring, scalars,
    )  # fmt: skip
    flush_and_keep(transmit, uring, shared, scalars, sockets)
    place = scalars[state.TX_RING_NEXT]
    sent = 0
    while sent < put:
        status = load_acquire(slot_status(scalars, place + sent), 0)
        if status in (TP_STATUS_SEND_REQUEST, TP_STATUS_WRONG_FORMAT):
            break
        sent += 1
    scalars[state.TX_RING_NEXT] = (place + sent) % state.TX_SLOTS
    for nth in range(sent, put):
        store_release(slot_status(scalars, place + nth), 0, TP_STATUS_AVAILABLE)
        burst = batch.bursts[transmit.in_slots[nth]]
        take_back(burst, rule, nth == sent, shared)
        if nth > sent:
            ttl = outgoing_ttl(batch.frames[burst[BURST_FIRST]], output)
            queue_message(burst, output, ttl, batch, transmit, uring, shared, scalars, sockets)


@njit
def take_back(burst: Any, rule: int, refused: bool, shared: Any) -> None:
    """A burst that was counted as sent was not: it is refused, or still owed."""
    copies = np.uint64(burst[BURST_SEGMENTS])
    payload = np.uint64(burst[BURST_BYTES])
    begin_update(shared.journal)
    shared.counters[layout.SENT] -= copies
    shared.counters[layout.SENT_BYTES] -= payload
    shared.counters[layout.FRAMES_SENT] -= np.uint64(1)
    if refused:
        shared.counters[layout.TRANSMIT_REFUSED] += copies
        shared.rule_unsent[rule, 0] += copies
        shared.rule_unsent[rule, 1] += payload
    else:
        shared.journal[layout.JOURNAL_PENDING] += copies
    end_update(shared.journal)
