"""A relay that forwards multicast between two packet sockets, and makes the mistakes that it is told to make.

Runs in the forwarder's namespace as ``python -I -S faulty_relay.py INPUT OUTPUT`` (standard library only).
Each line on stdin is a JSON object, and answered by one::

    {"do": "faults", "drop_every": 10000, "duplicate": [7], "swap": [9], "delay": [11], "hold": false}
    {"do": "stats"}   →   {"received": n, "dropped": n, "refused": n, "pending": n}
    {"do": "took"}    →   {"took": [[ns, ns], …]}

Datagrams are counted from 1, anew with each ``faults``: every ``drop_every``-th is dropped; those in
``duplicate`` are sent twice, those in ``swap`` after the next one, those in ``delay`` a millisecond late;
with ``hold`` all are. ``refused`` are frames that its receive buffer had no room for; ``pending`` those that
it holds back; ``took``: of the first thousand that it sent, how old each stamp was before and after the call
that sent it. Frames leave as they came.
"""

from __future__ import annotations

import collections
import json
import select
import socket
import struct
import sys
import time

SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
SO_RCVBUFFORCE = 33
ETH_P_IP = 0x0800
BUFFER_BYTES = 128 << 20
DELAY_NS = 1_000_000
RECORDED = 1000
STAMP_TIME_OFFSET = 14 + 20 + 8 + 8
"""In a frame: Ethernet, IP and UDP headers, and what comes before the time (lab/load/stamp.py)."""
BATCH = 64
"""Frames between two looks at stdin and at what is due."""


class Relay:
    def __init__(self, input_name: str, output_name: str) -> None:
        self.input = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.input.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self.input.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.input.bind((input_name, ETH_P_IP))
        self.input.setblocking(False)
        self.output = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.output.bind((output_name, 0))
        self.received = self.dropped = self.refused = 0
        self.late: collections.deque[tuple[int, bytes]] = collections.deque()
        self.faults({})

    def faults(self, asked: dict) -> None:
        self.number = 0
        self.drop_every = asked.get("drop_every", 0)
        self.duplicate = set(asked.get("duplicate", ()))
        self.swap = set(asked.get("swap", ()))
        self.delay = set(asked.get("delay", ()))
        self.hold = asked.get("hold", False)
        self.waiting: bytes | None = None
        self.took: list[tuple[int, int]] = []

    def send(self, frame: bytes) -> None:
        before = time.time_ns()
        self.output.send(frame)
        after = time.time_ns()
        if len(self.took) < RECORDED:
            (stamped,) = struct.unpack_from("!Q", frame, STAMP_TIME_OFFSET)
            self.took.append((before - stamped, after - stamped))

    def stats(self) -> dict[str, int]:
        # Reading resets the kernel's counters.
        packets = self.input.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.refused += struct.unpack("II", packets)[1]
        pending = len(self.late) + (self.waiting is not None)
        counted = {"received": self.received, "dropped": self.dropped, "refused": self.refused}
        return {**counted, "pending": pending}

    def take(self) -> None:
        """Up to a batch of frames."""
        for _ in range(BATCH):
            try:
                frame = self.input.recv(65536)
            except BlockingIOError:
                return
            if frame[23] == socket.IPPROTO_UDP and frame[30] >> 4 == 14:  # to a multicast group
                self.forward(frame)

    def forward(self, frame: bytes) -> None:
        self.received += 1
        self.number += 1
        if self.drop_every and self.number % self.drop_every == 0:
            self.dropped += 1
            return
        if self.number in self.swap:
            self.waiting = frame
            return
        if self.hold or self.number in self.delay:
            self.late.append((time.monotonic_ns() + DELAY_NS, frame))
            return
        for _ in range(2 if self.number in self.duplicate else 1):
            self.send(frame)
        if self.waiting is not None:
            self.send(self.waiting)
            self.waiting = None

    def release(self) -> float | None:
        """Send what is due; returns the seconds until the next one is."""
        while self.late:
            left_ns = self.late[0][0] - time.monotonic_ns()
            if left_ns > 0:
                return left_ns / 1e9
            self.send(self.late.popleft()[1])
        return None


def main() -> int:
    relay = Relay(*sys.argv[1:3])
    print(json.dumps({"ready": True}), flush=True)
    while True:
        ready, _, _ = select.select([relay.input, sys.stdin], [], [], relay.release())
        if relay.input in ready:
            relay.take()
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return 0
            request = json.loads(line)
            verb = request.pop("do")
            if verb == "faults":
                relay.faults(request)
            print(json.dumps({"took": relay.took} if verb == "took" else relay.stats()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
