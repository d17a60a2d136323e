"""The transmit ring (PACKET_TX_RING): many short datagrams that leave together cost less through it.

The kernel has done with a slot once it has cut the burst up, whereas every datagram cut from a message holds
the socket's send buffer until it is freed (``__udp_gso_segment`` in net/ipv4/udp_offload.c hands
``sock_wfree`` on to each), which takes three locked operations.

Rules of the ring:

* the kernel sends whatever is ready in it to one interface, up to the first slot that is not
  (``tpacket_snd`` in net/packet/af_packet.c). So bursts go in together, output by output, whose rules have
  outputs on the same interfaces in the same order;
* that is a system call for each output, which too few datagrams do not make good;
* what was queued before goes first, or a flow would overtake itself;
* nobody waits for a slot that the kernel still holds because its burst leaves whole and is on its way: the
  new burst is sent as a message;
* where a frame fails the kernel stops, before the next one. That burst is refused, as a message would have
  been, and those behind it become messages.
"""

from typing import Any, Final

import numpy as np

from forwarder.abi import af_packet as ap
from forwarder.abi.jit import njit
from forwarder.abi.native import bytes_at, copy_memory, load_acquire, map_shared, store_release, words_at
from forwarder.engines.packet import schema
from forwarder.engines.packet.accounting import drop, take_back
from forwarder.engines.packet.emit import (
    copy_to_arena,
    leaving_ttl,
    outputs_of,
    rule_of,
    segment_bytes,
    send_copy,
)
from forwarder.engines.packet.rewrite import HEADER_BYTES, SHORT_SEGMENT, write_header
from forwarder.engines.packet.transmit import KIND_IGNORED, flush, flush_and_keep, queue_send, queued

LEAST_SEGMENTS: Final = 24
"""Datagrams, in all bursts that go together, that are worth a system call."""
MOST_PAYLOAD: Final = schema.TX_SLOT_BYTES - ap.TX_OFFSET - HEADER_BYTES
_NO_VECTORS: Final = 0
"""Parts of a message that only says: send what the ring holds."""


@njit
def attach_tx_ring(worker: Any) -> None:
    """Map the transmit ring, if there is one; if that fails it is as if there were none."""
    scalars = worker.state.scalars
    if scalars[schema.TX_RING_FD] >= 0 and not scalars[schema.TX_RING_ADDRESS]:
        address = map_shared(scalars[schema.TX_RING_FD], schema.TX_SLOTS * schema.TX_SLOT_BYTES)
        scalars[schema.TX_RING_ADDRESS] = max(address, 0)


@njit
def bursts_for_ring(worker: Any, rules: Any, first: int, end: int) -> int:
    """How many of the bursts from ``first`` to before ``end`` go through the ring together, 0: none."""
    if worker.state.scalars[schema.TX_RING_ADDRESS] == 0:
        return 0
    bursts = worker.batch.bursts
    most = min(end - first, schema.TX_SLOTS)
    segments = 0
    for index in range(first, first + most):  # nearly always the whole answer, without a look at rules
        segments += bursts[index, schema.BURST_SEGMENTS]
    if segments < LEAST_SEGMENTS:
        return 0
    rule = rule_of(worker, bursts[first])
    count = segments = 0
    while count < most:
        burst = bursts[first + count]
        frame = worker.batch.frames[burst[schema.BURST_FIRST]]
        if (
            burst[schema.BURST_SEGMENTS] < 2
            or burst[schema.BURST_BYTES] > MOST_PAYLOAD
            or segment_bytes(burst, frame) > SHORT_SEGMENT
            or not _same_interfaces(rules, rule, rule_of(worker, burst))
        ):
            break
        segments += burst[schema.BURST_SEGMENTS]
        count += 1
    return count if segments >= LEAST_SEGMENTS else 0


@njit
def _same_interfaces(rules: Any, rule: int, other: int) -> bool:
    """Whether the outputs of two rules are on the same interfaces, in the same order."""
    if rule == other:
        return True
    if rules.spans[rule, 1] != rules.spans[other, 1]:
        return False
    here, there = np.int64(rules.spans[rule, 0]), np.int64(rules.spans[other, 0])
    for nth in range(np.int64(rules.spans[rule, 1])):
        link = rules.outputs[here + nth, schema.OUTPUT_INTERFACE]
        if link != rules.outputs[there + nth, schema.OUTPUT_INTERFACE]:
            return False
    return True


@njit
def send_bursts(worker: Any, rules: Any, words: Any, data: Any, first: int, count: int) -> None:
    """Send bursts that go through the ring together, in these rows, to every output of their rules.

    ``words``, ``data``: the memory that the frames' payload indices refer to.
    """
    if queued(worker):
        flush(worker)
    worker.state.scalars[schema.ARENA_USED] = 0
    bursts = worker.batch.bursts
    for index in range(first, first + count):
        copy_to_arena(worker, words, data, bursts[index])
    for nth in range(np.int64(rules.spans[rule_of(worker, bursts[first]), 1])):
        _send_to_output(worker, rules, first, count, nth)


@njit
def _send_to_output(worker: Any, rules: Any, first: int, count: int, nth: int) -> None:
    """Send bursts, whose payloads are in the arena, to the ``nth`` output of their rules."""
    ready, room = 0, True
    for index in range(first, first + count):
        burst = worker.batch.bursts[index]
        frame = worker.batch.frames[burst[schema.BURST_FIRST]]
        rule = rule_of(worker, burst)
        output = outputs_of(rules, rule)[nth]
        link = worker.transmit.links[np.int64(output[schema.OUTPUT_INTERFACE])]
        segment = segment_bytes(burst, frame)
        ttl = leaving_ttl(frame, output, link, segment)
        if ttl < 0:
            drop(worker.shared, -1 - ttl, rule, burst[schema.BURST_SEGMENTS], burst[schema.BURST_BYTES])
            continue
        address = _slot_address(worker, ready)
        room = room and load_acquire(words_at(address, 1), 0) == ap.TP_STATUS_AVAILABLE
        if room:
            payload = burst[schema.BURST_BYTES]
            words_at(address, 2)[1] = HEADER_BYTES + payload
            header = bytes_at(address + ap.TX_OFFSET, HEADER_BYTES)
            identification = burst[schema.BURST_IDENTIFICATION]
            write_header(header, frame, output, link, ttl, payload, segment, identification)
            start = worker.transmit.arena.ctypes.data + burst[schema.BURST_START]
            copy_memory(address + ap.TX_OFFSET + HEADER_BYTES, start, payload)
            store_release(words_at(address, 1), 0, ap.TP_STATUS_SEND_REQUEST)
            worker.transmit.slot_bursts[ready] = index
            ready += 1
        else:
            if ready:
                _send_slots(worker, rules, ready, nth)
                ready = 0
            send_copy(worker, burst, output)
    if ready:
        _send_slots(worker, rules, ready, nth)


@njit
def _slot_address(worker: Any, ahead: int) -> int:
    """Address of the slot that the kernel will look at ``ahead`` slots after the next one."""
    slot = (worker.state.scalars[schema.TX_RING_NEXT] + ahead) % schema.TX_SLOTS
    return worker.state.scalars[schema.TX_RING_ADDRESS] + slot * schema.TX_SLOT_BYTES


@njit
def _send_slots(worker: Any, rules: Any, ready: int, nth: int) -> None:
    """Have the kernel send ready slots to the ``nth`` output of their rules; handle those it did not send."""
    bursts, slot_bursts = worker.batch.bursts, worker.transmit.slot_bursts
    first = rule = rule_of(worker, bursts[slot_bursts[0]])
    copies = payload = 0
    for slot in range(ready):
        burst = bursts[slot_bursts[slot]]
        copies += burst[schema.BURST_SEGMENTS]
        payload += burst[schema.BURST_BYTES]
        if rule_of(worker, burst) != first:
            rule = schema.NONE
    if queued(worker) == schema.ENTRIES:
        flush_and_keep(worker)
    link = np.int64(outputs_of(rules, first)[nth, schema.OUTPUT_INTERFACE])
    fd = worker.state.scalars[schema.TX_RING_FD]
    queue_send(worker, fd, _NO_VECTORS, link, rule, copies, payload, ready, KIND_IGNORED)
    flush_and_keep(worker)
    sent = 0
    while sent < ready:
        status = load_acquire(words_at(_slot_address(worker, sent), 1), 0)
        if status in (ap.TP_STATUS_SEND_REQUEST, ap.TP_STATUS_WRONG_FORMAT):
            break
        sent += 1
    worker.state.scalars[schema.TX_RING_NEXT] = (
        worker.state.scalars[schema.TX_RING_NEXT] + sent
    ) % schema.TX_SLOTS
    for slot in range(sent, ready):
        store_release(words_at(_slot_address(worker, slot - sent), 1), 0, ap.TP_STATUS_AVAILABLE)
        burst = bursts[slot_bursts[slot]]
        copies, payload = burst[schema.BURST_SEGMENTS], burst[schema.BURST_BYTES]
        take_back(worker.shared, copies, payload, 1)
        if slot == sent:
            drop(worker.shared, schema.TRANSMIT_REFUSED, rule_of(worker, burst), copies, payload)
        else:
            send_copy(worker, burst, outputs_of(rules, rule_of(worker, burst))[nth])
