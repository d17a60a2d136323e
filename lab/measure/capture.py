"""A bounded capture at every interface of a lab, for the frames around a failure.

An AF_PACKET socket holds frames in its receive buffer until they are read after the trial: no process and no
ring, so what is captured costs the kernel a clone of each frame, and what does not fit costs nothing. Too
dear for a trial whose figures count.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from forwarder.abi import af_packet
from lab.journal.evidence import Captured, CapturedFrame
from lab.netns import namespaces as netns
from lab.netns.build import Lab

FRAMES_MAX = 5_000
"""At each interface; all of them share :data:`ALL_FRAMES_MAX` and :data:`BUFFERS_BYTES`."""
ALL_FRAMES_MAX = 40_000
BUFFERS_BYTES = 64 << 20
LARGEST_FRAME = 1 << 17

SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
PACKET_AUXDATA = 8
AUXDATA = struct.Struct("=IIIHHHH")
"""tpacket_auxdata: status, length, captured length, mac, net, VLAN tag and its protocol."""
PACKET_OUTGOING = 4
VLAN_AT = 12


@dataclass(frozen=True, slots=True)
class _Tap:
    interface: str
    side: str
    opened: socket.socket


class Capture:
    """From :func:`capturing`; sees nothing before :meth:`begin`."""

    def __init__(self, taps: list[_Tap]) -> None:
        self._taps = taps
        self.frames_max = min(FRAMES_MAX, ALL_FRAMES_MAX // len(taps))
        """Frames kept of an interface, the first ones."""

    def begin(self) -> None:
        for tap in self._taps:
            tap.opened.bind((tap.interface, af_packet.ETH_P_ALL))

    def take(self) -> Captured:
        """What was captured until now; once."""
        interfaces: list[tuple[str, str]] = []
        frames: list[CapturedFrame] = []
        for tap in self._taps:
            found = _read(tap.opened, tap.interface, self.frames_max)
            statistics = tap.opened.getsockopt(af_packet.SOL_PACKET, af_packet.PACKET_STATISTICS, 8)
            seen, _dropped = struct.unpack("=II", statistics)
            where = f"{tap.interface} in the namespace {tap.side}"
            interfaces.append((tap.interface, f"{where}: {len(found):,} of {max(seen, len(found)):,} frames"))
            frames += found
        return Captured(interfaces, frames)


@contextmanager
def capturing(lab: Lab) -> Iterator[Capture]:
    """A capture at the interfaces of ``lab``, at most 250 a namespace, for the length of a ``with`` block.

    Raises NetnsError.
    """
    with ExitStack() as stack:
        taps = []
        for side in lab.topology.sides:
            ends = lab.topology.ends(side)[:250]
            sockets = netns.open_sockets(lab.namespace(side), socket.AF_PACKET, 0, len(ends))
            for end, opened in zip(ends, sockets, strict=True):
                taps.append(_Tap(end.interface, side, stack.enter_context(opened)))
        for tap in taps:
            tap.opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFERS_BYTES // len(taps) // 2)
            tap.opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            tap.opened.setsockopt(af_packet.SOL_PACKET, PACKET_AUXDATA, 1)
        yield Capture(taps)


def _read(opened: socket.socket, interface: str, most: int) -> list[CapturedFrame]:
    found: list[CapturedFrame] = []
    while len(found) < most:
        try:
            data, ancillary, _, sender = opened.recvmsg(LARGEST_FRAME, 256, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        time_ns, status = 0, 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("=qq", value)
                time_ns = seconds * 1_000_000_000 + nanoseconds
            elif (level, kind) == (af_packet.SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tag, protocol = AUXDATA.unpack(value)
                if status & af_packet.TP_STATUS_VLAN_VALID:  # the kernel has taken the tag out of the frame
                    data = data[:VLAN_AT] + struct.pack("!HH", protocol or 0x8100, tag) + data[VLAN_AT:]
        ready = not status & af_packet.TP_STATUS_CSUMNOTREADY
        found.append(CapturedFrame(interface, time_ns, data, sender[2] == PACKET_OUTGOING, ready))
    return found
