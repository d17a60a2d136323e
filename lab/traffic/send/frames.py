"""The generator's frames, built with scapy; a payload begins with a stamp (``lab/load/stamp.py``)."""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scapy.fields import IntField, LongField, ShortField, XShortField
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from lab.load.jobs import Stream, TrafficError
from lab.load.stamp import ETHERNET_BYTES, HEADER_BYTES, IP_BYTES, MAGIC, STAMP_BYTES
from lab.traffic.compiled import Bytes, fold, stamp_at, sum_words

SOURCE_MAC = "02:00:00:00:00:01"


class Stamp(Packet):  # type: ignore[misc]  # scapy carries no types
    """The stamp as scapy sees it, for tests and functional scenarios."""

    name = "mcastlab stamp"
    fields_desc = [  # noqa: RUF012 (scapy's own convention)
        XShortField("magic", MAGIC),
        ShortField("stream", 0),
        IntField("sequence", 0),
        LongField("sent_ns", 0),
        XShortField("check", None),
    ]

    def post_build(self, packet: bytes, payload: bytes) -> bytes:
        if self.check is None:
            words = bytearray(packet)
            words[16:18] = words[6:8]  # so the low word of the sequence number counts twice
            check = 0xFFFF - fold(sum_words(np.frombuffer(bytes(words), np.uint8), 0, STAMP_BYTES))
            packet = packet[:16] + check.to_bytes(2, "big")
        return packet + payload


def group_mac(group: IPv4Address | str) -> str:
    """The Ethernet address of an IPv4 multicast group (RFC 1112, section 6.4)."""
    low = int(IPv4Address(group)) & 0x7FFFFF
    return f"01:00:5e:{low >> 16:02x}:{low >> 8 & 0xFF:02x}:{low & 0xFF:02x}"


def octets(mac: str) -> list[int]:
    return [int(octet, 16) for octet in mac.split(":")]


def source_macs(interfaces: Sequence[str]) -> Bytes:
    """The Ethernet address of each interface, a row of six octets. Raises TrafficError."""
    found = {}
    for name in set(interfaces):
        try:
            found[name] = octets(Path(f"/sys/class/net/{name}/address").read_text().strip())
        except OSError as error:
            raise TrafficError(f"interface {name}: {error.strerror}") from error
    return np.array([found[name] for name in interfaces], np.uint8)


def datagram(
    stream: Stream, payload_bytes: int, sequence: int = 0, sent_ns: int = 0, source_mac: str = SOURCE_MAC
) -> Packet:
    """One stamped datagram of ``stream``, as scapy builds it."""
    addresses = {"src": str(stream.source), "dst": str(stream.group)}
    return (
        Ether(dst=stream.mac or group_mac(stream.group), src=source_mac)
        / IP(**addresses, ttl=stream.ttl, tos=stream.dscp << 2, id=0, flags="DF")
        / UDP(sport=stream.source_port, dport=stream.port)
        / Stamp(stream=stream.stream_id, sequence=sequence, sent_ns=sent_ns)
        / Raw(bytes(i & 0xFF for i in range(STAMP_BYTES, payload_bytes)))
    )


@dataclass(frozen=True, slots=True)
class Templates:
    """Frames ready to be stamped.

    ``frames``: (streams, bytes) of uint8, each the stream's frame with ``segments`` payloads behind one set
    of headers; ``checksum_sums``: (streams,) of int64, the sum that the UDP checksum is the complement of,
    for sequence number 0; 0 where there is none.
    """

    frames: Bytes
    checksum_sums: npt.NDArray[np.int64]


def templates(
    streams: Sequence[Stream],
    payload_bytes: int,
    source_mac: str,
    segments: int = 1,
    udp_checksum: bool = True,
) -> Templates:
    """The template of every stream; scapy makes the first and the rest differ in addresses and ports.

    (scapy takes 0.3 ms for a frame: 10,000 streams would take longer than the trial that they are for.)
    With ``segments`` > 1 the UDP checksum field holds the sum of the pseudo header, as the kernel wants it of
    a frame that it is to cut up (CHECKSUM_PARTIAL). Without ``udp_checksum`` it is zero (RFC 768: none).
    """
    model = np.frombuffer(bytes(datagram(streams[0], payload_bytes, source_mac=source_mac)), np.uint8)
    frames = np.empty((len(streams), HEADER_BYTES + segments * payload_bytes), np.uint8)
    sums = np.zeros(len(streams), np.int64)
    payload = np.arange(payload_bytes, dtype=np.int64).astype(np.uint8)
    payload[:STAMP_BYTES] = 0
    for index, stream in enumerate(streams):
        frame = frames[index]
        frame[:HEADER_BYTES] = model[:HEADER_BYTES]
        frame[HEADER_BYTES:] = np.tile(payload, segments)
        for segment in range(segments):
            stamp_at(frame, HEADER_BYTES + segment * payload_bytes, stream.stream_id, segment, 0)
        _address(frame, stream)
        if udp_checksum:
            sums[index] = _checksum(frame, segments)
        else:
            frame[HEADER_BYTES - 2 : HEADER_BYTES] = 0
    return Templates(frames, sums)


def _address(frame: Bytes, stream: Stream) -> None:
    """Write the stream's addresses, ports, TTL and DSCP, and the IPv4 header's length and checksum."""
    ip, udp = ETHERNET_BYTES, ETHERNET_BYTES + IP_BYTES
    frame[0:6] = octets(stream.mac or group_mac(stream.group))
    struct.pack_into("!BH", frame.data, ip + 1, stream.dscp << 2, len(frame) - ip)
    addresses = (stream.source.packed, stream.group.packed)
    struct.pack_into("!BBH4s4s", frame.data, ip + 8, stream.ttl, socket.IPPROTO_UDP, 0, *addresses)
    struct.pack_into("!H", frame.data, ip + 10, 0xFFFF - fold(sum_words(frame, ip, IP_BYTES)))
    struct.pack_into("!HHH", frame.data, udp, stream.source_port, stream.port, len(frame) - udp)


def _checksum(frame: Bytes, segments: int) -> int:
    """Write the UDP checksum field and return the sum that it comes from."""
    udp = ETHERNET_BYTES + IP_BYTES
    length = len(frame) - udp
    pseudo = sum_words(frame, ETHERNET_BYTES + 12, 8) + socket.IPPROTO_UDP + length
    frame[udp + 6 : udp + 8] = 0
    if segments > 1:
        total, field = pseudo, fold(pseudo)
    else:
        total = fold(pseudo + sum_words(frame, udp, length))
        field = (0xFFFF - total) or 0xFFFF
    struct.pack_into("!H", frame.data, udp + 6, field)
    return total
