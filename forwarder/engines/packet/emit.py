"""From bursts to copies: every burst to each output of its rule, as a message or through the transmit ring.

A copy is a message of its own, and one system call hands over the messages of a whole turn. Many short
datagrams that leave together cost less through a transmit ring (PACKET_TX_RING): the kernel has done with a
slot once it has cut the burst up, whereas every datagram cut from a message holds the socket's send buffer
until it is freed (``__udp_gso_segment`` in net/ipv4/udp_offload.c hands ``sock_wfree`` on to each), which
takes three locked operations.

Rules of the ring:

* the kernel sends whatever is ready in it to one interface, up to the first slot that is not
  (``tpacket_snd`` in net/packet/af_packet.c). So bursts go in together, output by output, whose rules have
  outputs on the same interfaces in the same order;
* that is a system call for each output, which too few datagrams do not make good;
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
from forwarder.engines.packet import schema as layout
from forwarder.engines.packet import state
from forwarder.engines.packet.accounting import begin_update, end_update, unsent
from forwarder.engines.packet.coalesce import (
    BURST_BYTES,
    BURST_FIRST,
    BURST_IDENTIFICATION,
    BURST_SEGMENTS,
    BURST_START,
)
from forwarder.engines.packet.rewrite import (
    HEADER_BYTES,
    SHORT_SEGMENT,
    copy_payload,
    outgoing_ttl,
    write_header,
)
from forwarder.engines.packet.transmit import KIND_IGNORED, MESSAGE_FLAGS, flush, queue, queued

LEAST_SEGMENTS: Final = 24
"""Datagrams, in all bursts that go together, that are worth a system call."""
ALL: Final = -1
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
        count = ring_takes(batch, index, bursts, rules, scalars)
        if count:
            through_ring(words, data, index, count, rules, batch, transmit, uring, shared, scalars, sockets)
            index += count
        else:
            as_messages(words, data, index, 0, ALL, rules, batch, transmit, uring, shared, scalars, sockets)
            index += 1


@njit
def segment_bytes(burst: Any, frame: Any) -> int:
    """Payload bytes of the datagrams that the kernel is to cut a burst into, 0: it is one datagram."""
    segment = np.int64(frame[layout.FRAME_SEGMENT])
    if burst[BURST_SEGMENTS] > 1 and segment == 0:
        segment = np.int64(frame[layout.FRAME_LENGTH])
    return segment


@njit
def ring_takes(batch: Any, first: int, bursts: int, rules: Any, scalars: Any) -> int:
    """How many bursts from the first on go through the ring together."""
    if scalars[state.TX_RING_ADDRESS] == 0:
        return 0
    most = min(bursts - first, state.TX_SLOTS)
    segments = 0
    for index in range(first, first + most):  # nearly always the whole answer, without a look at rules
        segments += batch.bursts[index, BURST_SEGMENTS]
    if segments < LEAST_SEGMENTS:
        return 0
    rule = np.int64(batch.frames[batch.bursts[first, BURST_FIRST], layout.FRAME_RULE])
    count = 0
    segments = 0
    while count < most:
        burst = batch.bursts[first + count]
        frame = batch.frames[burst[BURST_FIRST]]
        if (
            burst[BURST_SEGMENTS] < 2
            or burst[BURST_BYTES] > MOST_PAYLOAD
            or segment_bytes(burst, frame) > SHORT_SEGMENT
            or not same_way(rules, rule, np.int64(frame[layout.FRAME_RULE]))
        ):
            break
        segments += burst[BURST_SEGMENTS]
        count += 1
    return count if segments >= LEAST_SEGMENTS else 0


@njit
def same_way(rules: Any, rule: int, other: int) -> bool:
    """Whether the outputs of two rules are on the same interfaces, in the same order."""
    if rule == other:
        return True
    if rules.spans[rule, 1] != rules.spans[other, 1]:
        return False
    here, there = np.int64(rules.spans[rule, 0]), np.int64(rules.spans[other, 0])
    for nth in range(np.int64(rules.spans[rule, 1])):
        link = rules.outputs[here + nth, layout.OUTPUT_INTERFACE]
        if link != rules.outputs[there + nth, layout.OUTPUT_INTERFACE]:
            return False
    return True


@njit
def gather(
    words: Any, data: Any, burst: Any, frames: Any, arena_words: Any, arena: Any, scalars: Any
) -> None:
    """Put a burst's payload into the arena, which has room, and give it its identifications."""
    start = scalars[state.ARENA_USED]
    copy_payload(words, data, frames, burst[BURST_FIRST], arena_words, arena, start)
    scalars[state.ARENA_USED] = (start + burst[BURST_BYTES] + 63) & ~63
    burst[BURST_START] = start
    burst[BURST_IDENTIFICATION] = scalars[state.IDENTIFICATION]
    scalars[state.IDENTIFICATION] = (scalars[state.IDENTIFICATION] + burst[BURST_SEGMENTS]) & 0xFFFF


@njit
def leaving_ttl(frame: Any, output: Any, link: Any, largest: int) -> int:
    """The TTL of a burst's copies at an output, or -1 less the reason why they may not leave.

    Args:
        largest: payload bytes of the longest datagram.
    """
    if link[layout.LINK_INDEX] == 0:
        return -1 - layout.OUTPUT_ABSENT
    ttl = outgoing_ttl(frame, output)
    if ttl == 0:
        return -1 - layout.TTL_EXPIRED
    if largest + 28 > np.int64(link[layout.LINK_MTU]):
        return -1 - layout.TOO_BIG
    return ttl


# -- messages --


@njit
def as_messages(
    words: Any,
    data: Any,
    index: int,
    first: int,
    last: int,
    rules: Any,
    batch: Any,
    transmit: Any,
    uring: Any,
    shared: Any,
    scalars: Any,
    sockets: Any,
) -> None:
    """Queue a burst to the outputs of its rule from the ``first`` to before the ``last``, ``ALL`` for each.

    With ``ALL`` it is put into the arena, where it is otherwise. One function for all that: calls with as
    many arrays are a good part of what a message costs here.
    """
    burst = batch.bursts[index]
    frame = batch.frames[burst[BURST_FIRST]]
    rule = np.int64(frame[layout.FRAME_RULE])
    segments = burst[BURST_SEGMENTS]
    payload = burst[BURST_BYTES]
    segment = segment_bytes(burst, frame)
    largest = segment if segment else payload
    start = np.int64(rules.spans[rule, 0])
    if last == ALL:
        last = np.int64(rules.spans[rule, 1])
        if scalars[state.ARENA_USED] + payload > state.ARENA_BYTES:
            flush(uring, transmit, shared, scalars, sockets, False)
        gather(words, data, burst, batch.frames, transmit.arena_words, transmit.arena, scalars)
    for position in range(start + first, start + last):
        output = rules.outputs[position]
        number = np.int64(output[layout.OUTPUT_INTERFACE])
        ttl = leaving_ttl(frame, output, transmit.links[number], largest)
        if ttl < 0:
            unsent(shared, -1 - ttl, rule, segments, payload)
            continue
        if queued(scalars) == state.ENTRIES:
            flush_and_keep(transmit, uring, shared, scalars, sockets)
        entry = scalars[state.QUEUED_TAIL] & (state.ENTRIES - 1)
        write_header(
            transmit.headers[entry],
            frame,
            output,
            transmit.links[number],
            ttl,
            payload,
            segment,
            burst[BURST_IDENTIFICATION],
        )
        transmit.vectors[entry, 2] = transmit.arena.ctypes.data + burst[BURST_START]
        transmit.vectors[entry, 3] = payload
        queue_send(
            scalars[state.TRANSMIT_FD], 2, number, rule, segments, payload, 1, entry,
            transmit, uring, scalars,
        )  # fmt: skip


@njit
def queue_send(
    fd: int,
    vectors: int,
    link: int,
    rule: int,
    copies: int,
    payload: int,
    frames: int,
    user: int,
    transmit: Any,
    uring: Any,
    scalars: Any,
) -> None:
    """Queue a ``sendmsg`` of the message in the next place, out of an interface."""
    index = scalars[state.QUEUED_TAIL] & (state.ENTRIES - 1)
    transmit.entries[index, layout.ENTRY_RULE] = rule
    transmit.entries[index, layout.ENTRY_BYTES] = payload
    transmit.entries[index, layout.ENTRY_FRAMES] = frames
    transmit.messages[index, 0] = transmit.addresses[link]
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
def output_of(burst: Any, nth: int, rules: Any, batch: Any) -> Any:
    """The row of the ``nth`` output of a burst's rule."""
    rule = np.int64(batch.frames[burst[BURST_FIRST], layout.FRAME_RULE])
    return rules.outputs[np.int64(rules.spans[rule, 0]) + nth]


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
    """Send bursts to every output of their rules."""
    if queued(scalars):
        flush(uring, transmit, shared, scalars, sockets, False)
    scalars[state.ARENA_USED] = 0
    for index in range(first, first + count):
        burst = batch.bursts[index]
        gather(words, data, burst, batch.frames, transmit.arena_words, transmit.arena, scalars)
    rule = np.int64(batch.frames[batch.bursts[first, BURST_FIRST], layout.FRAME_RULE])
    for nth in range(np.int64(rules.spans[rule, 1])):
        put = 0
        room = True
        for index in range(first, first + count):
            burst = batch.bursts[index]
            frame = batch.frames[burst[BURST_FIRST]]
            output = output_of(burst, nth, rules, batch)
            link = transmit.links[np.int64(output[layout.OUTPUT_INTERFACE])]
            segment = segment_bytes(burst, frame)
            ttl = leaving_ttl(frame, output, link, segment)
            if ttl < 0:
                of = np.int64(frame[layout.FRAME_RULE])
                unsent(shared, -1 - ttl, of, burst[BURST_SEGMENTS], burst[BURST_BYTES])
                continue
            place = scalars[state.TX_RING_NEXT] + put
            room = room and put_in(burst, frame, output, link, ttl, segment, place, transmit, scalars)
            if room:
                transmit.in_slots[put] = index
                put += 1
            else:
                if put:
                    hand_over(words, data, put, nth, rules, batch, transmit, uring, shared, scalars, sockets)
                    put = 0
                as_messages(
                    words, data, index, nth, nth + 1, rules, batch, transmit, uring, shared, scalars, sockets
                )
        if put:
            hand_over(words, data, put, nth, rules, batch, transmit, uring, shared, scalars, sockets)


@njit
def put_in(
    burst: Any,
    frame: Any,
    output: Any,
    link: Any,
    ttl: int,
    segment: int,
    place: int,
    transmit: Any,
    scalars: Any,
) -> bool:
    """Make a slot ready for sending; False when the kernel has it still."""
    status = slot_status(scalars, place)
    if load_acquire(status, 0) != TP_STATUS_AVAILABLE:
        return False
    payload = burst[BURST_BYTES]
    address = scalars[state.TX_RING_ADDRESS] + place % state.TX_SLOTS * state.TX_SLOT_BYTES
    words_at(address, 2)[1] = HEADER_BYTES + payload
    header = bytes_at(address + TX_OFFSET, HEADER_BYTES)
    write_header(header, frame, output, link, ttl, payload, segment, burst[BURST_IDENTIFICATION])
    start = transmit.arena.ctypes.data + burst[BURST_START]
    copy_memory(address + TX_OFFSET + HEADER_BYTES, start, payload)
    store_release(status, 0, TP_STATUS_SEND_REQUEST)
    return True


@njit
def hand_over(
    words: Any,
    data: Any,
    put: int,
    nth: int,
    rules: Any,
    batch: Any,
    transmit: Any,
    uring: Any,
    shared: Any,
    scalars: Any,
    sockets: Any,
) -> None:
    """Have the kernel send the slots that were made ready to the ``nth`` output of their rules, and see to
    what it did not send."""
    first = batch.bursts[transmit.in_slots[0]]
    rule = np.int64(batch.frames[first[BURST_FIRST], layout.FRAME_RULE])
    copies = payload = 0
    for slot in range(put):
        burst = batch.bursts[transmit.in_slots[slot]]
        copies += burst[BURST_SEGMENTS]
        payload += burst[BURST_BYTES]
        if np.int64(batch.frames[burst[BURST_FIRST], layout.FRAME_RULE]) != rule:
            rule = layout.NONE
    if queued(scalars) == state.ENTRIES:
        flush_and_keep(transmit, uring, shared, scalars, sockets)
    queue_send(
        scalars[state.TX_RING_FD], 0,
        np.int64(output_of(first, nth, rules, batch)[layout.OUTPUT_INTERFACE]), rule, copies, payload, put,
        KIND_IGNORED, transmit, uring, scalars,
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
    for slot in range(sent, put):
        store_release(slot_status(scalars, place + slot), 0, TP_STATUS_AVAILABLE)
        burst = batch.bursts[transmit.in_slots[slot]]
        frame = batch.frames[burst[BURST_FIRST]]
        take_back(burst, np.int64(frame[layout.FRAME_RULE]), slot == sent, shared)
        if slot > sent:
            index = transmit.in_slots[slot]
            as_messages(
                words, data, index, nth, nth + 1, rules, batch, transmit, uring, shared, scalars, sockets
            )


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
