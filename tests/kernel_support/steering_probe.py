"""Which of several packet sockets the kernel gives each frame to.

Run inside a namespace of its own: ``steering_probe.py`` reads a JSON request on standard input,
``{"how": "fanout" | "filter" | "cpus", "members", "hashing", "frames": [hex, …]}``, and writes, for each
frame in turn, the members that received it. ``cpus``: those that frames are sent from, and so received on, in
turn; with ``"how": "cpus"`` they are the ones that the program tells apart.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from pathlib import Path

from pyroute2 import IPRoute

from forwarder.abi import af_packet as ap
from forwarder.net import packet_sockets
from forwarder.net.steering import cpu_program, filter_program, owner_program
from forwarder.plan.strategy import Hashing

DEADLINE_S = 10.0
RECEIVE_BYTES = 8 << 20
NO_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


def main() -> None:
    request = json.load(sys.stdin)
    members, hashing = request["members"], Hashing(request["hashing"])
    frames = [bytes.fromhex(frame) for frame in request["frames"]]
    index = make_pair()
    group = None
    opened: list[socket.socket] = []
    for slot in range(members):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        packet_sockets.mute(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES // members)
        sock.setsockopt(ap.SOL_PACKET, ap.PACKET_IGNORE_OUTGOING, 1)
        sock.bind(("probe1", ap.ETH_P_ALL))
        if request["how"] != "filter":
            group = packet_sockets.join_fanout(sock, group, ap.PACKET_FANOUT_CBPF, members)
        opened.append(sock)
        assert socket.if_nametoindex("probe1") == index
        if request["how"] == "filter":
            packet_sockets.listen(sock, filter_program(slot, members, hashing))
    if request["how"] != "filter":
        by_owner = request["how"] == "fanout"
        program = owner_program(members, hashing) if by_owner else cpu_program(request["cpus"], members)
        packet_sockets.steer(opened[-1], program)
        for sock in opened:
            packet_sockets.listen(sock)
    json.dump(deliver(frames, opened, request.get("cpus", [])), sys.stdout)
    packet_sockets.close_all(opened)  # together: one by one they would wait for the kernel


def make_pair() -> int:
    """A veth pair, both ends up and quiet; the index of the end that receives."""
    NO_IPV6.write_text("1")  # or it would send of its own accord
    with IPRoute() as route:
        route.link("add", ifname="probe0", kind="veth", peer={"ifname": "probe1"})
        [index] = route.link_lookup(ifname="probe1")
        for name in ("probe0", "probe1"):
            [number] = route.link_lookup(ifname=name)
            route.link("set", index=number, state="up", arp=False, multicast=False)
        await_carrier(route)
    return int(index)


def await_carrier(route: IPRoute) -> None:
    """Until the kernel has noticed the carrier, in a work queue, both ends drop what they are given."""
    deadline = time.monotonic() + DEADLINE_S
    while not all(
        link.get("operstate") == "UP"
        for name in ("probe0", "probe1")
        for link in route.link("get", ifname=name)
    ):
        assert time.monotonic() < deadline, "the pair has no carrier"
        time.sleep(0.002)


def deliver(frames: list[bytes], opened: list[socket.socket], cpus: list[int]) -> list[list[int]]:
    """Send frames one at a time: who got it is known before the next is sent."""
    found = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender, select.epoll() as poll:
        sender.bind(("probe0", 0))
        member_of = {sock.fileno(): member for member, sock in enumerate(opened)}
        for descriptor in member_of:
            poll.register(descriptor, select.EPOLLIN)
        for number, frame in enumerate(frames):
            if cpus:
                os.sched_setaffinity(0, {cpus[number % len(cpus)]})
            sender.send(frame)
            receivers = []
            events = poll.poll(DEADLINE_S)
            # The kernel runs all of an interface's sockets before it goes on to the next frame, so a second
            # copy would be here now, or with the next frame at the latest, where it would be unexpected.
            for descriptor, _ in events:
                receivers += take_all(opened[member_of[descriptor]], member_of[descriptor], frame)
            found.append(receivers)
    return found


def take_all(sock: socket.socket, member: int, frame: bytes) -> list[int]:
    receivers = []
    while True:
        try:
            received = sock.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return receivers
        assert received == frame, f"member {member} received {received.hex()}, not {frame.hex()}"
        receivers.append(member)


if __name__ == "__main__":
    main()
