"""From the frames of one batch to bursts: runs of datagrams that leave as one GSO frame.

Rules:

* a burst holds datagrams of one flow (rule, source, ports) with equal TTL, TOS and DF, and equal length but
  for a shorter last one: what UDP GSO can carry (``__udp_gso_segment`` in ``net/ipv4/udp_offload.c``);
* a shorter last one only joins datagrams that fit every output: what is too big for an output is dropped
  burst by burst, and the last one might have fitted;
* the kernel computes a checksum for every segment anew, so only datagrams whose checksum was found right or
  is to be filled in are put together: a corrupt one leaves alone, its wrong checksum still wrong, and so
  does one that is to leave without any, which UDP GSO cannot make;
* datagrams of one flow stay in order. A burst is closed as soon as a datagram of its flow cannot join, and
  bursts leave in the order in which they were opened. Flows may overtake one another within a batch;
* nothing waits: a batch is what was queued when the worker looked.
"""

from typing import Any

import numpy as np

from forwarder.abi.jit import njit
from forwarder.engines.packet import schema
from forwarder.engines.packet.parse import verify


@njit
def _same_flow(a: Any, b: Any) -> bool:
    return (
        a[schema.FRAME_RULE] == b[schema.FRAME_RULE]
        and a[schema.FRAME_SOURCE] == b[schema.FRAME_SOURCE]
        and a[schema.FRAME_PORTS] == b[schema.FRAME_PORTS]
    )


@njit
def _flow_bucket(frame: Any, mask: int) -> int:
    mixed = (
        np.uint64(frame[schema.FRAME_RULE]) * np.uint64(0x9E3779B97F4A7C15)
        ^ np.uint64(frame[schema.FRAME_SOURCE]) * np.uint64(0xC2B2AE3D27D4EB4F)
        ^ np.uint64(frame[schema.FRAME_PORTS]) * np.uint64(0x165667B19E3779F9)
    )
    return np.int64(mixed >> np.uint64(40)) & mask


@njit
def _may_be_sound(trust: int) -> bool:
    return trust != schema.TRUST_ABSENT and trust != schema.TRUST_CORRUPT


@njit
def _sound(words: Any, data: Any, frame: Any) -> bool:
    """Whether a datagram's checksum may be made anew; verifies it once, if that is needed."""
    if frame[schema.FRAME_TRUST] == schema.TRUST_UNVERIFIED:
        frame[schema.FRAME_TRUST] = verify(words, data, frame)
    return _may_be_sound(frame[schema.FRAME_TRUST])


@njit
def add_to_burst(
    words: Any, data: Any, batch: Any, row: int, burst_count: int, stamp: int, fits_all: int, most: int
) -> int:
    """Put one parsed, matched frame into a burst; the number of bursts afterwards.

    Args:
        words, data: the memory that the frame's payload index refers to.
        batch: of which ``row`` is the frame, and ``burst_count`` bursts are in use.
        stamp: this batch's number, positive, different from earlier ones (saves clearing ``batch.flows``).
        fits_all: payload bytes of the longest datagram that fits all outputs (``SHORTER_LAST``).
        most: datagrams that may leave together (``MOST_TOGETHER``).
    """
    frames, bursts, flows = batch.frames, batch.bursts, batch.flows
    frame = frames[row]
    frame[schema.FRAME_NEXT] = schema.NONE
    length = np.int64(frame[schema.FRAME_LENGTH])
    mask = len(flows) - 1
    bucket = _flow_bucket(frame, mask)
    while flows[bucket, schema.FLOW_STAMP] == stamp:
        current = flows[bucket, schema.FLOW_BURST]
        if _same_flow(frames[bursts[current, schema.BURST_FIRST]], frame):
            break
        bucket = (bucket + 1) & mask
    if flows[bucket, schema.FLOW_STAMP] == stamp:
        burst = bursts[flows[bucket, schema.FLOW_BURST]]
        if burst[schema.BURST_OPEN]:
            first = frames[burst[schema.BURST_FIRST]]
            segment = np.int64(first[schema.FRAME_LENGTH])
            if (
                (length == segment or 0 < length < segment <= fits_all)
                and frame[schema.FRAME_SEGMENT] == 0
                and first[schema.FRAME_TTL_TOS_DF] == frame[schema.FRAME_TTL_TOS_DF]
                and burst[schema.BURST_BYTES] + length <= schema.MAX_PAYLOAD
                and _sound(words, data, first)
                and _sound(words, data, frame)
            ):
                frames[burst[schema.BURST_LAST], schema.FRAME_NEXT] = row
                burst[schema.BURST_LAST] = row
                burst[schema.BURST_SEGMENTS] += 1
                burst[schema.BURST_BYTES] += length
                if length < segment or burst[schema.BURST_SEGMENTS] == most:
                    burst[schema.BURST_OPEN] = 0
                return burst_count
    flows[bucket, schema.FLOW_STAMP] = stamp
    flows[bucket, schema.FLOW_BURST] = burst_count
    opened = bursts[burst_count]
    opened[schema.BURST_FIRST] = row
    opened[schema.BURST_LAST] = row
    opened[schema.BURST_BYTES] = length
    segment = np.int64(frame[schema.FRAME_SEGMENT])
    if segment:
        opened[schema.BURST_SEGMENTS] = (length + segment - 1) // segment
        opened[schema.BURST_OPEN] = 0
    else:
        opened[schema.BURST_SEGMENTS] = 1
        opened[schema.BURST_OPEN] = length > 0 and most > 1 and _may_be_sound(frame[schema.FRAME_TRUST])
    return burst_count + 1
