"""An ordinary UDP socket as a local sender, which leaves checksums and segmentation to the device.

Run inside a namespace: ``udp_sender.py SOURCE GROUP PORT COUNT [SEGMENT_BYTES]``. With a segment size it
hands the kernel :data:`SEGMENTS` datagrams at a time (UDP_SEGMENT, udp(7)).
"""

from __future__ import annotations

import socket
import sys

UDP_SEGMENT = 103
SEGMENTS = 40
PAYLOAD_BYTES = 103


def payload(number: int, size: int = PAYLOAD_BYTES) -> bytes:
    """The payload of the datagram with this number, different from any other's."""
    return (b"%d." % number).ljust(size, bytes([number & 0xFF]))


def main(source: str, group: str, port: str, count: str, segment_bytes: str = "") -> None:
    payloads = [payload(number) for number in range(int(count))]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        step = 1
        if segment_bytes:
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, int(segment_bytes))
            step = SEGMENTS
        for start in range(0, len(payloads), step):
            sender.sendto(b"".join(payloads[start : start + step]), (group, int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
