"""From bursts to copies: each burst to every output of its rule, as a message of its own.

One system call hands over the messages of a whole turn (:mod:`forwarder.engines.packet.transmit`).
"""

from typing import Any, Final

import numpy as np

from forwarder.abi.jit import njit
from forwarder.abi.native import words_at
from forwarder.engines.packet import schema
from forwarder.engines.packet.accounting import drop
from forwarder.engines.packet.rewrite import copy_payload, outgoing_ttl, write_header
from forwarder.engines.packet.transmit import flush, flush_and_keep, next_entry, queue_send, queued

_VECTORS: Final = 2
"""Parts of a message: header and payload."""
_PAYLOAD_ADDRESS, _PAYLOAD_BYTES = 2, 3
"""Columns of ``Transmit.vectors``."""


@njit
def rule_of(worker: Any, burst: Any) -> int:
    """The slot of a burst's rule."""
    return np.int64(worker.batch.frames[burst[schema.BURST_FIRST], schema.FRAME_RULE])


@njit
def outputs_of(rules: Any, rule: int) -> Any:
    first = np.int64(rules.spans[rule, 0])
    return rules.outputs[first : first + np.int64(rules.spans[rule, 1])]


@njit
def segment_bytes(burst: Any, frame: Any) -> int:
    """Payload bytes of the datagrams that the kernel is to cut a burst into, 0: it is one datagram."""
    segment = np.int64(frame[schema.FRAME_SEGMENT])
    if burst[schema.BURST_SEGMENTS] > 1 and segment == 0:
        segment = np.int64(frame[schema.FRAME_LENGTH])
    return segment


@njit
def copy_to_arena(worker: Any, words: Any, data: Any, burst: Any) -> None:
    """Copy a burst's payload into the arena, which has room, and assign its identifications."""
    scalars = worker.state.scalars
    start = scalars[schema.ARENA_USED]
    first = burst[schema.BURST_FIRST]
    arena = worker.transmit.arena
    arena_words = words_at(arena.ctypes.data, schema.ARENA_BYTES >> 2)
    copy_payload(words, data, worker.batch.frames, first, arena_words, arena, start)
    scalars[schema.ARENA_USED] = (start + burst[schema.BURST_BYTES] + 63) & ~63
    burst[schema.BURST_START] = start
    identification = scalars[schema.IDENTIFICATION]
    burst[schema.BURST_IDENTIFICATION] = identification
    scalars[schema.IDENTIFICATION] = (identification + burst[schema.BURST_SEGMENTS]) & 0xFFFF


@njit
def leaving_ttl(frame: Any, output: Any, link: Any, largest: int) -> int:
    """The TTL of copies whose longest payload is ``largest`` bytes, or -1 less why they may not leave."""
    if link[schema.LINK_INDEX] == 0:
        return -1 - schema.OUTPUT_ABSENT
    ttl = outgoing_ttl(frame, output)
    if ttl == 0:
        return -1 - schema.TTL_EXPIRED
    if largest + 28 > np.int64(link[schema.LINK_MTU]):
        return -1 - schema.TOO_BIG
    return ttl


@njit
def send_burst(worker: Any, rules: Any, words: Any, data: Any, burst: Any) -> None:
    """Queue a burst to every output of its rule; ``words`` and ``data`` hold the frames' payloads."""
    if worker.state.scalars[schema.ARENA_USED] + burst[schema.BURST_BYTES] > schema.ARENA_BYTES:
        flush(worker)
    copy_to_arena(worker, words, data, burst)
    for output in outputs_of(rules, rule_of(worker, burst)):
        send_copy(worker, burst, output)


@njit
def send_copy(worker: Any, burst: Any, output: Any) -> None:
    """Queue a burst, whose payload is in the arena, to an output of its rule."""
    transmit = worker.transmit
    frame = worker.batch.frames[burst[schema.BURST_FIRST]]
    rule = np.int64(frame[schema.FRAME_RULE])
    segments = burst[schema.BURST_SEGMENTS]
    payload = burst[schema.BURST_BYTES]
    segment = segment_bytes(burst, frame)
    number = np.int64(output[schema.OUTPUT_INTERFACE])
    link = transmit.links[number]
    ttl = leaving_ttl(frame, output, link, segment if segment else payload)
    if ttl < 0:
        drop(worker.shared, -1 - ttl, rule, segments, payload)
        return
    if queued(worker) == schema.ENTRIES:
        flush_and_keep(worker)
    entry = next_entry(worker)
    identification = burst[schema.BURST_IDENTIFICATION]
    write_header(transmit.headers[entry], frame, output, link, ttl, payload, segment, identification)
    transmit.vectors[entry, _PAYLOAD_ADDRESS] = transmit.arena.ctypes.data + burst[schema.BURST_START]
    transmit.vectors[entry, _PAYLOAD_BYTES] = payload
    fd = worker.state.scalars[schema.TRANSMIT_FD]
    queue_send(worker, fd, _VECTORS, number, rule, segments, payload, 1, entry)
