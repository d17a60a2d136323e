"""What Linux does to a frame that was sent through a packet socket with a ``virtio_net_hdr``.

Follows ``virtio_net_hdr_to_skb`` (``include/linux/virtio_net.h``), ``skb_checksum_help``
(``net/core/dev.c``), ``__udp_gso_segment`` (``net/ipv4/udp_offload.c``) and ``inet_gso_segment``
(``net/ipv4/af_inet.c``), step by step: the stack starts from the checksum that it finds in the header, so a
wrong pseudo-header sum comes out as a wrong datagram here too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from forwarder.abi import af_packet as ap

_VNET = struct.Struct("<BBHHHH")
_MANGLED_ZERO = 0xFFFF
"""``CSUM_MANGLED_0``: a computed UDP checksum of 0 is sent as 0xFFFF (RFC 768)."""


@dataclass(frozen=True)
class VnetHeader:
    flags: int = 0
    gso_type: int = 0
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def pack(self) -> bytes:
        return _VNET.pack(
            self.flags, self.gso_type, self.hdr_len, self.gso_size, self.csum_start, self.csum_offset
        )

    @classmethod
    def unpack(cls, data: bytes) -> VnetHeader:
        return cls(*_VNET.unpack_from(data))


def ones_sum(data: bytes) -> int:
    """16-bit one's complement sum, big-endian words (RFC 1071), written independently of the kernels'."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def transmitted(message: bytes) -> list[bytes]:
    """The Ethernet frames that leave when ``message`` (virtio_net_hdr and frame) is written to the socket."""
    header = VnetHeader.unpack(message)
    frame = message[ap.VNET_HDR_BYTES :]
    needs_checksum = bool(header.flags & ap.VIRTIO_NET_HDR_F_NEEDS_CSUM)
    if needs_checksum and header.csum_start + header.csum_offset + 2 > len(frame):
        raise OSError(22, "checksum field outside the frame")
    if header.gso_type == ap.VIRTIO_NET_HDR_GSO_UDP_L4:
        if header.csum_offset != 6 or not needs_checksum or header.gso_size == 0:
            raise OSError(22, "UDP GSO without a partial UDP checksum or a segment size")
        if len(frame) - header.csum_start - 8 > header.gso_size:
            return segmented(frame, header.csum_start, header.gso_size)
    elif header.gso_type != 0:  # VIRTIO_NET_HDR_GSO_NONE
        raise OSError(22, f"gso_type {header.gso_type}")
    return [_completed(frame, header.csum_start) if needs_checksum else frame]


def segmented(frame: bytes, udp: int, size: int) -> list[bytes]:
    """Cut a UDP GSO frame into datagrams of ``size`` payload bytes, the last one shorter."""
    headers, payload = frame[: udp + 8], frame[udp + 8 :]
    found_length, found_check = struct.unpack_from(">HH", headers, udp + 4)
    (identification,) = struct.unpack_from(">H", headers, 14 + 4)
    segments = []
    for number, start in enumerate(range(0, len(payload), size)):
        part = payload[start : start + size]
        length = len(part) + 8
        segment = bytearray(headers + part)
        # csum16_add(csum16_sub(uh->check, uh->len), newlen)
        check = ones_sum(struct.pack(">HHH", found_check, found_length ^ 0xFFFF, length))
        struct.pack_into(">HH", segment, udp + 4, length, check)
        struct.pack_into(">H", segment, 14 + 2, udp - 14 + length)
        struct.pack_into(">H", segment, 14 + 4, (identification + number) & 0xFFFF)
        struct.pack_into(">H", segment, 14 + 10, 0)
        struct.pack_into(">H", segment, 14 + 10, ones_sum(bytes(segment[14:udp])) ^ 0xFFFF)
        segments.append(_completed(bytes(segment), udp))
    return segments


def _completed(frame: bytes, udp: int) -> bytes:
    """``skb_checksum_help``: sum from the UDP header on, the field's own pseudo-header sum included."""
    checksum = (ones_sum(frame[udp:]) ^ 0xFFFF) or _MANGLED_ZERO
    return frame[: udp + 6] + struct.pack(">H", checksum) + frame[udp + 8 :]
