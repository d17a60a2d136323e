"""A packet engine with a transmit ring on real interfaces: what leaves, and through what.

Run as a module inside a namespace of its own. Reads a JSON request on standard input: ``{"namespace",
"datagrams", "payload_bytes", "rules", "down", "held"}``: its name, how many are forwarded to each of two
outputs, by how many rules in turn, whether the second one's interface is missing, and whether the kernel
seems to hold the ring's next slot. Writes what left through each interface (hex, without the UDP checksum,
which the device is to fill in), counters, reasons, each rule's copies that did not leave, and by how many
slots the ring went on.
"""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import replace
from typing import Final

from packet_support.bench import Bench
from packet_support.frames import Datagram
from packet_support.outputs import Output

from forwarder.abi import af_packet as ap
from forwarder.abi.native import words_at
from forwarder.engines.packet import schema
from forwarder.net import packet_sockets
from forwarder.net.packet_sockets import Ring
from kernel_support.steering_probe import make_pair
from lab.load.topology import SEGMENTATION
from lab.netns.netlink import Netlink
from lab.traffic.receive.sockets import SO_RCVBUFFORCE

NAMES: Final = ("probe0", "probe1")
OUTPUTS: Final = tuple(
    Output(group=f"239.2.2.{number}", link=number, link_source=f"10.2.{number}.1") for number in range(2)
)
HELD: Final = 2
"""TP_STATUS_SENDING"""


def datagram(number: int, payload_bytes: int, rules: int = 1) -> Datagram:
    """The datagrams that are forwarded: of one flow for each rule, each with its number."""
    group = f"239.1.0.{number % rules}"
    return replace(Datagram(), group=group, payload=number.to_bytes(4, "big") * (payload_bytes // 4))


def main() -> None:
    request = json.load(sys.stdin)
    make_pair()
    with Netlink(request["namespace"]) as netlink:
        for name in NAMES:
            netlink.set_features(name, dict.fromkeys(SEGMENTATION, False))
    taps = []
    for name in NAMES:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ap.ETH_P_ALL))
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        tap.bind((name, ap.ETH_P_ALL))
        tap.setblocking(False)
        taps.append(tap)
    (ring,) = packet_sockets.open_tx_rings([None])
    with Bench(Ring(2048, 1024), transmitter=packet_sockets.open_transmitter(), tx_ring=ring) as bench:
        for output, name in zip(OUTPUTS, NAMES, strict=True):
            bench.set_link(output, socket.if_nametoindex(name))
        if request["down"]:
            bench.set_link(OUTPUTS[1], (1 << 31) - 1)  # there is none
        rules = request["rules"]
        for number in range(rules):
            sample = datagram(number, 4, rules)
            bench.add_rule(sample.group, sample.port, OUTPUTS)
        scalars = bench.engine._worker.state.scalars
        first = words_at(scalars[schema.TX_RING_ADDRESS], 1)
        first[0] = HELD if request["held"] else ap.TP_STATUS_AVAILABLE
        for number in range(request["datagrams"]):
            assert bench.ring.receive(datagram(number, request["payload_bytes"], rules).frame())
        bench.wake()
        assert bench.forward() == []
        bench.assert_balanced()
        json.dump(
            {
                "left": [departures(tap) for tap in taps],
                "sent": bench.counter(schema.SENT),
                "sent_bytes": bench.counter(schema.SENT_BYTES),
                "frames": bench.counter(schema.FRAMES_SENT),
                "reasons": bench.reasons(),
                "unsent": bench.block.rule_unsent[:rules, 0].tolist(),
                "slots": int(scalars[schema.TX_RING_NEXT]),
            },
            sys.stdout,
        )


def departures(tap: socket.socket) -> list[str]:
    """Every frame that left through the interface."""
    found = []
    while True:
        try:
            frame, (_, _, kind, *_) = tap.recvfrom(1 << 16)
        except BlockingIOError:
            return found
        if kind == socket.PACKET_OUTGOING:
            found.append((frame[:40] + frame[42:]).hex())


if __name__ == "__main__":
    main()
