"""The headers of a forwarded datagram.

Ethernet destination from the group (RFC 1112 section 6.4), source from the output interface; IP source the
output interface's, the sender's, or a given one; group and port of the output; UDP source port, TOS, DF and
payload kept; TTL one less, or as the output says. IP options are not carried over: the datagram starts anew
here, with an identification of its own (RFC 6864).
"""

from typing import Any, Final

import numpy as np

from forwarder.abi.jit import njit
from forwarder.engines.packet import schema
from forwarder.engines.packet.checksum import fold, pseudo_header, update

HEADER_BYTES: Final = 10 + 14 + 20 + 8
"""virtio_net_hdr, Ethernet, IPv4, UDP."""
SHORT_SEGMENT: Final = 256
"""Payload bytes of a segment that is copied rather than referred to."""
_ETHERNET: Final = 10
_NETWORK: Final = _ETHERNET + 14
_UDP: Final = _NETWORK + 20


@njit
def _put16(data: Any, at: int, value: int) -> None:
    """A host-order value in network order."""
    data[at] = (value >> 8) & 0xFF
    data[at + 1] = value & 0xFF


@njit
def _put16_raw(data: Any, at: int, value: int) -> None:
    data[at] = value & 0xFF
    data[at + 1] = (value >> 8) & 0xFF


@njit
def _put32_raw(data: Any, at: int, value: int) -> None:
    data[at] = value & 0xFF
    data[at + 1] = (value >> 8) & 0xFF
    data[at + 2] = (value >> 16) & 0xFF
    data[at + 3] = (value >> 24) & 0xFF


@njit
def outgoing_ttl(frame: Any, output: Any) -> int:
    """The TTL a copy leaves with; 0 when it may not leave (it came in with 1 or 0 and none is set)."""
    given = np.int64(output[schema.OUTPUT_PORT_TTL]) >> 16
    if given:
        return given
    return max(np.int64(frame[schema.FRAME_TTL_TOS_DF]) & 0xFF, 1) - 1


@njit
def contiguous_bytes(length: int, segment: int) -> int:
    """How much of a frame that the kernel is to cut it should hold in one piece (``hdr_len``).

    The rest goes into pages, of which each segment gets a reference: cheap for long ones, dearer than a copy
    for short ones (``packet_alloc_skb`` in net/packet/af_packet.c, ``skb_segment`` in net/core/skbuff.c).
    """
    if not segment:
        return 0
    return 42 + (length if segment <= SHORT_SEGMENT else 0)


@njit
def write_header(
    header: Any, frame: Any, output: Any, link: Any, ttl: int, length: int, segment: int, identification: int
) -> None:
    """Fill ``uint8[64]``: a virtio_net_hdr and the Ethernet, IPv4 and UDP headers.

    Args:
        frame: the (first) datagram, ``uint32[FRAME_COLUMNS]``.
        output: ``uint32[OUTPUT_COLUMNS]``; ``link`` its interface, ``uint32[LINK_COLUMNS]``.
        length: payload bytes of all segments.
        segment: payload bytes of one segment when the frame is to be cut by the kernel, else 0.
        identification: of the (first) datagram.
    """
    trust = frame[schema.FRAME_TRUST]
    group = np.int64(output[schema.OUTPUT_GROUP])
    source = np.int64(output[schema.OUTPUT_SOURCE])
    if source == schema.SOURCE_INTERFACE:
        source = np.int64(link[schema.LINK_SOURCE])
    elif source == schema.SOURCE_PRESERVE:
        source = np.int64(frame[schema.FRAME_SOURCE])
    ports_in = np.int64(frame[schema.FRAME_PORTS])
    port = np.int64(output[schema.OUTPUT_PORT_TTL]) & 0xFFFF
    partial = segment > 0 or trust == schema.TRUST_PARTIAL

    header[0] = 1 if partial else 0
    header[1] = 5 if segment else 0
    _put16_raw(header, 2, contiguous_bytes(length, segment))
    _put16_raw(header, 4, segment)
    _put16_raw(header, 6, 34 if partial else 0)
    _put16_raw(header, 8, 6 if partial else 0)

    header[_ETHERNET] = 0x01
    header[_ETHERNET + 1] = 0x00
    header[_ETHERNET + 2] = 0x5E
    header[_ETHERNET + 3] = (group >> 8) & 0x7F
    header[_ETHERNET + 4] = (group >> 16) & 0xFF
    header[_ETHERNET + 5] = (group >> 24) & 0xFF
    _put32_raw(header, _ETHERNET + 6, np.int64(link[schema.LINK_MAC_LOW]))
    _put16_raw(header, _ETHERNET + 10, np.int64(link[schema.LINK_MAC_HIGH]))
    _put16(header, _ETHERNET + 12, 0x0800)

    flags = np.int64(frame[schema.FRAME_TTL_TOS_DF])
    tos = (flags >> 8) & 0xFF
    unfragmentable = (flags >> 16) & 1
    total = length + 28
    header[_NETWORK] = 0x45
    header[_NETWORK + 1] = tos
    _put16(header, _NETWORK + 2, total)
    _put16(header, _NETWORK + 4, identification)
    header[_NETWORK + 6] = unfragmentable << 6
    header[_NETWORK + 7] = 0
    header[_NETWORK + 8] = ttl
    header[_NETWORK + 9] = 17
    _put32_raw(header, _NETWORK + 12, source)
    _put32_raw(header, _NETWORK + 16, group)
    ip_sum = (
        np.uint64(0x45 | (tos << 8))
        + np.uint64(((total & 0xFF) << 8) | (total >> 8))
        + np.uint64(((identification & 0xFF) << 8) | ((identification >> 8) & 0xFF))
        + np.uint64(unfragmentable << 6)
        + np.uint64(ttl | (17 << 8))
        + np.uint64(source)
        + np.uint64(group)
    )
    _put16_raw(header, _NETWORK + 10, np.int64(fold(ip_sum) ^ np.uint64(0xFFFF)))

    _put16_raw(header, _UDP, ports_in & 0xFFFF)
    _put16_raw(header, _UDP + 2, port)
    _put16(header, _UDP + 4, length + 8)
    if partial:
        checksum = np.int64(fold(pseudo_header(source, group, length + 8)))
    elif trust == schema.TRUST_ABSENT:
        checksum = 0
    else:
        removed = (
            np.uint64(frame[schema.FRAME_SOURCE])
            + np.uint64(frame[schema.FRAME_GROUP])
            + np.uint64(ports_in >> 16)
        )
        added = np.uint64(source) + np.uint64(group) + np.uint64(port)
        checksum = np.int64(update(np.int64(frame[schema.FRAME_CHECKSUM]), removed, added))
        if checksum == 0:
            checksum = 0xFFFF
    _put16_raw(header, _UDP + 6, checksum)


@njit
def copy_payload(
    words: Any, data: Any, frames: Any, row: int, arena_words: Any, arena: Any, start: int
) -> int:
    """Copy the payloads of a burst, end to end, to byte ``start`` (a multiple of 4) of the arena.

    ``row`` is the burst's first frame. Returns the bytes copied.
    """
    at = start
    while True:
        length = np.int64(frames[row, schema.FRAME_LENGTH])
        first = np.int64(frames[row, schema.FRAME_PAYLOAD])
        if at & 3:
            begin = first << 2
            for index in range(length):
                arena[at + index] = data[begin + index]
        else:
            whole = length >> 2
            to = at >> 2
            for index in range(whole):
                arena_words[to + index] = words[first + index]
            done = whole << 2
            begin = (first << 2) + done
            for index in range(length - done):
                arena[at + done + index] = data[begin + index]
        at += length
        following = frames[row, schema.FRAME_NEXT]
        if following == schema.NONE:
            return at - start
        row = np.int64(following)
