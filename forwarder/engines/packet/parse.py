"""From a received frame to its fields, or to the reason why it is not forwarded.

Pure functions over arrays: ``words`` (``uint32[]``) and ``data`` (``uint8[]``) view the same memory, and the
network header starts on a 32-bit word.
"""

from typing import Any

import numpy as np

from forwarder.abi import af_packet as ap
from forwarder.abi.jit import njit
from forwarder.engines.packet import schema
from forwarder.engines.packet.checksum import fold, pseudo_header, sum_bytes


@njit
def parse(
    words: Any,
    data: Any,
    network: int,
    captured: int,
    length: int,
    tagged: bool,
    vnet_flags: int,
    gso_type: int,
    gso_size: int,
    frame: Any,
) -> int:
    """Read one Ethernet frame: ``OK``, or a reason of :data:`schema.INGRESS_REASONS` by number.

    Args:
        network: byte offset of the network header (a multiple of 4); the Ethernet header ends there.
        captured: bytes of the frame that are in memory, Ethernet header included.
        length: bytes of the frame on the wire, Ethernet header included.
        tagged: the kernel took a VLAN tag off the frame (``TP_STATUS_VLAN_VALID``).
        vnet_flags, gso_type, gso_size: of the frame's ``virtio_net_hdr``.
        frame: ``uint32[FRAME_COLUMNS]``, filled except for its rule and next columns.
    """
    if tagged:
        return schema.VLAN_TAGGED
    if captured < 14:
        return schema.MALFORMED if length < 14 else schema.TRUNCATED
    ethertype = (np.int64(data[network - 2]) << 8) | np.int64(data[network - 1])
    if ethertype != 0x0800:
        if ethertype == 0x8100 or ethertype == 0x88A8:
            return schema.VLAN_TAGGED
        return schema.NOT_IPV4
    if length < 34:
        return schema.MALFORMED
    if captured < 34:
        return schema.TRUNCATED
    version_ihl = np.int64(data[network])
    header = (version_ihl & 15) << 2
    if version_ihl >> 4 != 4 or header < 20:
        return schema.MALFORMED
    total = (np.int64(data[network + 2]) << 8) | np.int64(data[network + 3])
    if total < header or total > length - 14:
        return schema.MALFORMED
    if total > captured - 14:
        return schema.TRUNCATED
    at = network >> 2
    if fold(sum_bytes(words, data, at, header)) != np.uint64(0xFFFF):
        return schema.BAD_CHECKSUM
    if data[network + 16] >> 4 != 14:
        return schema.NOT_MULTICAST
    if data[network + 9] != 17:
        return schema.NOT_UDP
    fragment = (np.int64(data[network + 6]) << 8) | np.int64(data[network + 7])
    if fragment & 0x3FFF:
        return schema.FRAGMENT
    if total < header + 8:
        return schema.MALFORMED
    udp = network + header
    udp_length = (np.int64(data[udp + 4]) << 8) | np.int64(data[udp + 5])
    if udp_length < 8 or udp_length > total - header:
        return schema.MALFORMED
    payload = udp_length - 8
    checksum = np.int64(data[udp + 6]) | (np.int64(data[udp + 7]) << 8)
    frame[schema.FRAME_SOURCE] = words[at + 3]
    frame[schema.FRAME_GROUP] = words[at + 4]
    frame[schema.FRAME_PORTS] = words[udp >> 2]
    frame[schema.FRAME_TTL_TOS_DF] = (
        np.int64(data[network + 8]) | (np.int64(data[network + 1]) << 8) | ((fragment & 0x4000) << 2)
    )
    frame[schema.FRAME_CHECKSUM] = checksum
    frame[schema.FRAME_PAYLOAD] = (udp >> 2) + 2
    frame[schema.FRAME_LENGTH] = payload
    segment = 0
    if gso_type == ap.VIRTIO_NET_HDR_GSO_UDP_L4 and 0 < gso_size < payload:
        segment = gso_size
    frame[schema.FRAME_SEGMENT] = segment
    if vnet_flags & ap.VIRTIO_NET_HDR_F_NEEDS_CSUM or segment:
        trust = schema.TRUST_PARTIAL
    elif checksum == 0:
        trust = schema.TRUST_ABSENT
    elif vnet_flags & ap.VIRTIO_NET_HDR_F_DATA_VALID:
        trust = schema.TRUST_VERIFIED
    else:
        trust = schema.TRUST_UNVERIFIED
    frame[schema.FRAME_TRUST] = trust
    return schema.OK


@njit
def verify(words: Any, data: Any, frame: Any) -> int:
    """What the UDP checksum says of an unverified frame: ``TRUST_VERIFIED`` or ``TRUST_CORRUPT``."""
    length = np.int64(frame[schema.FRAME_LENGTH])
    total = pseudo_header(frame[schema.FRAME_SOURCE], frame[schema.FRAME_GROUP], length + 8) + sum_bytes(
        words, data, np.int64(frame[schema.FRAME_PAYLOAD]) - 2, length + 8
    )
    if fold(total) == np.uint64(0xFFFF):
        return schema.TRUST_VERIFIED
    return schema.TRUST_CORRUPT


@njit
def finish_inner(data: Any, network: int, start: int, offset: int, frame: Any) -> None:
    """Finish a checksum that is left to the device and is not the datagram's own, but one of its payload.

    Tunnels leave the checksum of what they carry, and their own is none or counts on it (``lco_csum``).

    Args:
        network: as in :func:`parse`; ``start``, ``offset``: of the frame's ``virtio_net_hdr``.
        frame: parsed, and not a GSO frame.
    """
    first, udp = network - 14 + start, (np.int64(frame[schema.FRAME_PAYLOAD]) - 2) << 2
    end = udp + 8 + np.int64(frame[schema.FRAME_LENGTH])
    if first == udp or first < udp + 8 or first + offset + 2 > end:
        return
    total = np.uint64(0)
    for at in range(first, end):
        total += np.uint64(data[at]) << np.uint64(8 * ((at - first) & 1))
    checksum = fold(total) ^ np.uint64(0xFFFF)
    if checksum == np.uint64(0):
        checksum = np.uint64(0xFFFF)
    data[first + offset] = checksum & np.uint64(0xFF)
    data[first + offset + 1] = checksum >> np.uint64(8)
    absent = frame[schema.FRAME_CHECKSUM] == 0
    frame[schema.FRAME_TRUST] = schema.TRUST_ABSENT if absent else schema.TRUST_UNVERIFIED


@njit
def datagrams(frame: Any) -> int:
    """How many datagrams a parsed frame carries: one, or the segments of a GSO frame."""
    segment = np.int64(frame[schema.FRAME_SEGMENT])
    if segment == 0:
        return 1
    return (np.int64(frame[schema.FRAME_LENGTH]) + segment - 1) // segment
