"""An ordinary UDP socket as a local sender, which leaves checksums and segmentation to the device.

Run inside a namespace: ``udp_sender.py SOURCE GROUP PORT COUNT [SEGMENT_BYTES]``. With a segment size it
hands the kernel :data:`SEGMENTS` datagrams at a time (UDP_SEGMENT, udp(7)). With ``-`` for the count, it
sends the payloads that it is given on standard input, in hexadecimal, one a line, a millisecond apart.
"""

from __future__ import annotations

import os
import socket
import sys
import time

UDP_SEGMENT = 103
SEGMENTS = 40
PAYLOAD_BYTES = 103


def payload(number: int, size: int = PAYLOAD_BYTES) -> bytes:
    """The payload of the datagram with this number, different from any other's."""
    return (b"%d." % number).ljust(size, bytes([number & 0xFF]))


def main(source: str, group: str, port: str, count: str, segment_bytes: str = "") -> None:
    # One that moves to another CPU overtakes what waits in the ring of the worker before.
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    if count == "-":
        payloads, pause_s = [bytes.fromhex(line) for line in sys.stdin.read().split("\n")[:-1]], 0.001
    else:
        payloads, pause_s = [payload(number) for number in range(int(count))], 0.0
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
            time.sleep(pause_s)


if __name__ == "__main__":
    main(*sys.argv[1:])
