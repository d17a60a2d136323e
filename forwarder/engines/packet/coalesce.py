"""From the frames of one batch to bursts: runs of datagrams that leave as one GSO frame.

Rules:

* a burst holds datagrams of one flow (rule, source, ports) with equal TTL, TOS and DF, and equal length but
  for a shorter last one: what UDP GSO can carry (``__udp_gso_segment`` in ``net/ipv4/udp_offload.c``);
* a shorter last one only joins such as fit every output: what is too big for one is refused burst by burst;
* the kernel computes a checksum for every segment anew, so only datagrams whose checksum was found right
  are put together: a corrupt one leaves alone, its wrong checksum still wrong;
* datagrams of one flow stay in order. A burst is closed as soon as a datagram of its flow cannot join, and
  bursts leave in the order in which they were opened. Flows may overtake one another within a batch;
* nothing waits: a batch is what was queued when the worker looked.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from forwarder.abi.jit import njit
from forwarder.engines.packet import schema as layout
from forwarder.engines.packet.parse import verify

BURST_FIRST: Final = 0
"""First frame's row; the others follow by FRAME_NEXT."""
BURST_LAST: Final = 1
BURST_SEGMENTS: Final = 2
BURST_BYTES: Final = 3
"""Payload bytes of all segments."""
BURST_OPEN: Final = 4
"""1 while another datagram may join."""
BURST_START: Final = 5
"""Where its payload stands in the arena, once it is there."""
BURST_IDENTIFICATION: Final = 6
"""Of its first datagram, once it has one; the others follow."""
BURST_COLUMNS: Final = 7

FLOW_BURST: Final = 0
FLOW_STAMP: Final = 1
FLOW_COLUMNS: Final = 2

MAX_SEGMENTS: Final = 64
MAX_PAYLOAD: Final = 65_535 - 28
"""What fits the 16-bit IPv4 total length."""


@njit
def _same_flow(a: Any, b: Any) -> bool:
    return (
        a[layout.FRAME_RULE] == b[layout.FRAME_RULE]
        and a[layout.FRAME_SOURCE] == b[layout.FRAME_SOURCE]
        and a[layout.FRAME_PORTS] == b[layout.FRAME_PORTS]
    )


@njit
def _flow_home(frame: Any, mask: int) -> int:
    mixed = (
        np.uint64(frame[layout.FRAME_RULE]) * np.uint64(0x9E3779B97F4A7C15)
        ^ np.uint64(frame[layout.FRAME_SOURCE]) * np.uint64(0xC2B2AE3D27D4EB4F)
        ^ np.uint64(frame[layout.FRAME_PORTS]) * np.uint64(0x165667B19E3779F9)
    )
    return np.int64(mixed >> np.uint64(40)) & mask


@njit
def _settle(words: Any, data: Any, frame: Any) -> bool:
    """Whether a datagram may be put together with others; verifies it once, if that is needed."""
    if frame[layout.FRAME_TRUST] == layout.TRUST_UNVERIFIED:
        frame[layout.FRAME_TRUST] = verify(words, data, frame)
    return frame[layout.FRAME_TRUST] == layout.TRUST_VERIFIED


@njit
def place(
    words: Any,
    data: Any,
    frames: Any,
    row: int,
    bursts: Any,
    burst_count: int,
    flows: Any,
    stamp: int,
    fits_all: int,
) -> int:
    """Put one parsed, matched frame into a burst; the number of bursts afterwards.

    Args:
        words, data: the memory that the frame's payload index refers to.
        frames: ``uint32[batch, FRAME_COLUMNS]``; ``row`` is the frame.
        bursts: ``int64[batch, BURST_COLUMNS]``, of which ``burst_count`` are in use.
        flows: ``int64[2^k, FLOW_COLUMNS]``, at least twice the batch: which burst a flow uses now.
        stamp: this batch's number, positive, different from earlier ones (saves clearing ``flows``).
        fits_all: payload bytes of the longest datagram that fits all outputs (``state.SHORTER_LAST``).
    """
    frame = frames[row]
    frame[layout.FRAME_NEXT] = layout.NONE
    length = np.int64(frame[layout.FRAME_LENGTH])
    mask = len(flows) - 1
    at = _flow_home(frame, mask)
    while flows[at, FLOW_STAMP] == stamp:
        current = flows[at, FLOW_BURST]
        if _same_flow(frames[bursts[current, BURST_FIRST]], frame):
            break
        at = (at + 1) & mask
    if flows[at, FLOW_STAMP] == stamp:
        burst = bursts[flows[at, FLOW_BURST]]
        if burst[BURST_OPEN]:
            first = frames[burst[BURST_FIRST]]
            segment = np.int64(first[layout.FRAME_LENGTH])
            if (
                (length == segment or 0 < length < segment <= fits_all)
                and frame[layout.FRAME_SEGMENT] == 0
                and first[layout.FRAME_TTL_TOS_DF] == frame[layout.FRAME_TTL_TOS_DF]
                and burst[BURST_BYTES] + length <= MAX_PAYLOAD
                and _settle(words, data, first)
                and _settle(words, data, frame)
            ):
                frames[burst[BURST_LAST], layout.FRAME_NEXT] = row
                burst[BURST_LAST] = row
                burst[BURST_SEGMENTS] += 1
                burst[BURST_BYTES] += length
                if length < segment or burst[BURST_SEGMENTS] == MAX_SEGMENTS:
                    burst[BURST_OPEN] = 0
                return burst_count
    flows[at, FLOW_STAMP] = stamp
    flows[at, FLOW_BURST] = burst_count
    opened = bursts[burst_count]
    opened[BURST_FIRST] = row
    opened[BURST_LAST] = row
    opened[BURST_BYTES] = length
    segment = np.int64(frame[layout.FRAME_SEGMENT])
    if segment:
        opened[BURST_SEGMENTS] = (length + segment - 1) // segment
        opened[BURST_OPEN] = 0
    else:
        opened[BURST_SEGMENTS] = 1
        trust = frame[layout.FRAME_TRUST]
        opened[BURST_OPEN] = length > 0 and (
            trust == layout.TRUST_UNVERIFIED or trust == layout.TRUST_VERIFIED
        )
    return burst_count + 1
