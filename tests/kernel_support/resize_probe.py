"""What a fanout group does when a member joins or leaves under load, by the way in which that is done.

Run inside the namespace of the interface that a request names: ``{"interface", "way", "members", "after",
"ready"}`` on standard input, ``after`` being one member more or less. It makes the file ``ready`` when all
sockets listen, makes its change a moment after the first datagrams have come, and writes, when no more come,
what is in the members' rings: ``Found`` as JSON. Nobody takes anything from the rings before.
"""

from __future__ import annotations

import json
import mmap
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from forwarder.abi import af_packet as ap
from forwarder.abi.netdev import wait_for_receivers
from forwarder.net import packet_sockets, steering
from forwarder.net.handover import Handover
from forwarder.net.packet_sockets import Ring

RING: Final = Ring(256, 1 << 16)
START_S: Final = 0.05
"""What a new worker takes until it forwards, about."""
DRAIN_S: Final = 0.005
BEFORE_S: Final = 0.3
QUIET_S: Final = 0.3
STREAM_AT: Final = ap.NET_OFFSET + 28 + 2
"""Of the stamp that the generator writes, in a slot."""


@dataclass(frozen=True)
class Found:
    """``copies``: of each stream; ``distinct``: its datagrams among them."""

    copies: Mapping[int, int]
    distinct: Mapping[int, int]
    moved: int
    """Streams that another member gets after the change."""
    moved_between_staying: int
    """Those of them that neither came to the new member nor from the leaving one."""
    took_ms: float


class Members:
    """A group, and all that was ever in it; a socket's number is its place in ``all``."""

    def __init__(self, interface: str, members: int, mode: int) -> None:
        self.index = socket.if_nametoindex(interface)
        self.mode = mode
        self.all: list[socket.socket] = []
        self.inside: list[socket.socket] = []
        self.add(members)
        if mode == ap.PACKET_FANOUT_CBPF:
            packet_sockets.steer(self.inside[0], steering.flow_program(members))

    def open(self, count: int) -> list[socket.socket]:
        """Deaf, and in no group."""
        opened = packet_sockets.open_receivers(self.index, [RING] * count)
        self.all += opened
        return opened

    def add(self, count: int) -> None:
        for sock in self.open(count):
            self.join(sock)

    def join(self, sock: socket.socket) -> None:
        group = packet_sockets.fanout_group(self.inside[0]) if self.inside else None
        packet_sockets.join_fanout(sock, group, self.mode, 2)
        self.inside.append(sock)


def native_join_then_listen(members: Members) -> None:
    (newcomer,) = members.open(1)
    members.join(newcomer)
    time.sleep(START_S)
    packet_sockets.listen(newcomer)


def native_listen_then_join(members: Members) -> None:
    (newcomer,) = members.open(1)
    time.sleep(START_S)
    packet_sockets.listen(newcomer)
    members.join(newcomer)


def native_leave(members: Members) -> None:
    """Datagrams that are in its ring can only be had before it is closed, and it leaves with being closed."""
    leaving = members.inside.pop()
    packet_sockets.mute(leaving)
    drain(leaving)


def drain(leaving: socket.socket) -> None:
    """For as long as a worker would take, then it is closed."""
    time.sleep(DRAIN_S)
    keep_ring(leaving)
    leaving.close()


def program_join(members: Members) -> None:
    members.add(1)
    packet_sockets.listen(members.inside[-1])
    time.sleep(START_S)
    packet_sockets.steer(members.inside[0], steering.flow_program(len(members.inside)))


def program_leave(members: Members) -> None:
    leaving = members.inside.pop()
    packet_sockets.steer(members.inside[0], steering.flow_program(len(members.inside)))
    drain(leaving)


def spare_group(members: Members, count: int) -> None:
    former, members.inside = members.inside, []
    handover = Handover()
    members.add(count)
    packet_sockets.steer(members.inside[0], steering.flow_program(count))
    for sock in members.inside:
        handover.hold_back(sock)
    time.sleep(START_S)
    for sock in former:
        handover.keep_on(sock)
    handover.switch()
    for sock in former:
        packet_sockets.mute(sock)
    for sock in members.inside:
        packet_sockets.listen(sock)
    wait_for_receivers()
    handover.close()


WAYS: Final[Mapping[str, tuple[int, Callable[[Members, int], None]]]] = {
    "native join, then listen": (ap.PACKET_FANOUT_HASH, lambda members, _: native_join_then_listen(members)),
    "native listen, then join": (ap.PACKET_FANOUT_HASH, lambda members, _: native_listen_then_join(members)),
    "native leave": (ap.PACKET_FANOUT_HASH, lambda members, _: native_leave(members)),
    "program, join": (ap.PACKET_FANOUT_CBPF, lambda members, _: program_join(members)),
    "program, leave": (ap.PACKET_FANOUT_CBPF, lambda members, _: program_leave(members)),
    "spare group, join": (ap.PACKET_FANOUT_CBPF, spare_group),
    "spare group, leave": (ap.PACKET_FANOUT_CBPF, spare_group),
}
_kept: dict[socket.socket, npt.NDArray[np.uint8]] = {}


def keep_ring(sock: socket.socket) -> None:
    """Of one that is about to be closed."""
    with mmap.mmap(sock.fileno(), RING.ring_bytes) as ring:
        _kept[sock] = np.frombuffer(ring.read(), np.uint8)


def frames(sock: socket.socket) -> npt.NDArray[np.uint8]:
    """Slots with a datagram of the generator, in order of arrival."""
    if sock not in _kept:
        keep_ring(sock)
    slots = _kept[sock].reshape(RING.frames, RING.frame_bytes)
    status = slots[:, ap.TP2_STATUS]
    stamped = (slots[:, STREAM_AT - 2] == 0x4D) & (slots[:, STREAM_AT - 1] == 0x43)
    found: npt.NDArray[np.uint8] = slots[(status & ap.TP_STATUS_USER).astype(bool) & stamped]
    return found


def field(slots: npt.NDArray[np.uint8], at: int, kind: str) -> npt.NDArray[np.int64]:
    width = np.dtype(kind).itemsize
    return np.ascontiguousarray(slots[:, at : at + width]).view(kind)[:, 0].astype(np.int64)


def find(members: Members, began_ns: int, ended_ns: int, stayed: Sequence[int]) -> Found:
    rows = []
    for member, sock in enumerate(members.all):
        slots = frames(sock)
        stamps = (field(slots, STREAM_AT, ">u2"), field(slots, STREAM_AT + 2, ">u4"))
        times = field(slots, ap.TP2_SEC, "<u4") * 10**9 + field(slots, ap.TP2_NSEC, "<u4")
        rows.append(np.stack((*stamps, times, np.full(len(slots), member)), axis=1))
    every = np.concatenate(rows)
    copies, distinct, moved, staying = {}, {}, 0, 0
    for stream in np.unique(every[:, 0]).tolist():
        of = every[every[:, 0] == stream]
        copies[stream], distinct[stream] = len(of), len(np.unique(of[:, 1]))
        before, after = set(of[of[:, 2] < began_ns, 3].tolist()), set(of[of[:, 2] > ended_ns, 3].tolist())
        moved += before != after
        staying += before != after and (before | after) <= set(stayed)
    return Found(copies, distinct, moved, staying, (ended_ns - began_ns) / 1e6)


def main() -> None:
    request = json.load(sys.stdin)
    mode, change = WAYS[request["way"]]
    members = Members(request["interface"], request["members"], mode)
    for sock in members.inside:
        packet_sockets.listen(sock)
    first = list(members.inside)
    Path(request["ready"]).touch()
    while not any(packet_sockets.arrivals(sock)[0] for sock in first):
        time.sleep(0.01)
    time.sleep(BEFORE_S)
    began_ns = time.time_ns()
    change(members, request["after"])
    ended_ns = time.time_ns()
    quiet_at = time.monotonic()
    while time.monotonic() - quiet_at < QUIET_S:
        if any(packet_sockets.arrivals(sock)[0] for sock in members.inside):
            quiet_at = time.monotonic()
        time.sleep(0.01)
    stayed = [members.all.index(sock) for sock in members.inside if sock in first]
    json.dump(asdict(find(members, began_ns, ended_ns, stayed)), sys.stdout)


if __name__ == "__main__":
    main()
