"""Ordinary UDP sockets that join multicast groups: what an application at the receiving end sees.

One socket for each interface, group and port, bound to all three, read by a compiled ``recvmmsg`` loop for as
long as the trial runs.
"""

import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address

import numpy as np
import numpy.typing as npt

from forwarder.abi.jit import njit
from forwarder.abi.native import syscall
from lab.load.jobs import Flow, TrafficError
from lab.traffic.compiled import Bytes, Integers
from lab.traffic.receive.check import FRAMES, Expectation, Tally, check_payload

SYS_POLL, SYS_RECVMMSG = 7, 299
"""x86-64; asm/unistd_64.h."""
MSG_DONTWAIT, MSG_TRUNC = 0x40, 0x20
POLLIN = 1
EINTR, EAGAIN = 4, 11
SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
MEMINFO_DROPS = 8
"""SK_MEMINFO_DROPS (linux/sock_diag.h)."""
BATCH = 64
LARGEST_BUFFER = 1 << 30
IDLE_MS = 20


class Sockets:
    """The sockets of ``flows``; ``buffer_bytes``: kernel buffer for all of them together."""

    def __init__(self, flows: Sequence[Flow], interfaces: Sequence[str], buffer_bytes: int) -> None:
        ends = list(dict.fromkeys((flow.interface, flow.group, flow.port) for flow in flows))
        self._interfaces = [interface for interface, _, _ in ends]
        self._sockets: list[socket.socket] = []
        try:
            for interface, group, port in ends:
                self._sockets.append(_join(interface, group, port, buffer_bytes // len(ends)))
        except OSError as error:
            self.close()
            raise TrafficError(f"joining {group}:{port} on {interface}: {error.strerror}") from error
        opened = zip(self._sockets, ends, strict=True)
        rows = [
            (one.fileno(), interfaces.index(name), int(group), port) for one, (name, group, port) in opened
        ]
        self.ends = np.array(rows, np.int64)
        self._polls = np.zeros(len(ends), np.dtype([("fd", "i4"), ("events", "i2"), ("revents", "i2")]))
        self._polls["fd"] = self.ends[:, 0]
        self._polls["events"] = POLLIN
        self._data = np.zeros((BATCH, 65536), np.uint8)
        self._vectors = np.zeros((BATCH, 2), np.uint64)
        self._vectors[:, 0] = self._data.ctypes.data + np.arange(BATCH, dtype=np.uint64) * np.uint64(65536)
        self._vectors[:, 1] = 65536
        self._headers = np.zeros((BATCH, 8), np.uint64)
        self._headers[:, 2] = self._vectors.ctypes.data + np.arange(BATCH, dtype=np.uint64) * np.uint64(16)
        self._headers[:, 3] = 1

    def read_until_idle(self, idle_ms: int, stop: Integers, tally: Tally, expectation: Expectation) -> None:
        """Read until nothing has come for ``idle_ms`` after ``stop[0]`` has become non-zero."""
        polls, data = self._polls.view(np.uint8), self._data.reshape(-1)
        if failed := read_sockets(self.ends, polls, data, self._headers, idle_ms, stop, tally, expectation):
            raise TrafficError(f"reading from a UDP socket: {OSError(failed, '').errno}")

    def drops(self) -> dict[str, int]:
        """Datagrams that did not fit into a socket's buffer or failed its checksum, by interface."""
        total = dict.fromkeys(self._interfaces, 0)
        for interface, opened in zip(self._interfaces, self._sockets, strict=True):
            info = struct.unpack("9I", opened.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
            total[interface] += info[MEMINFO_DROPS]
        return total

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()


def _join(interface: str, group: IPv4Address, port: int, buffer_bytes: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, min(buffer_bytes, LARGEST_BUFFER) // 2)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        opened.bind((str(group), port))
        membership = struct.pack("=4s4si", group.packed, bytes(4), socket.if_nametoindex(interface))
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError:
        opened.close()
        raise
    return opened


@njit
def read_sockets(
    ends: Integers,
    polls: Bytes,
    data: Bytes,
    headers: npt.NDArray[np.uint64],
    idle_ms: int,
    stop: Integers,
    tally: Tally,
    expectation: Expectation,
) -> int:
    """Read ``ends`` (rows of descriptor, interface, group, port) in turn; returns 0, or an error number."""
    address = headers.ctypes.data
    idle = 0
    while True:
        read = 0
        for row in range(ends.shape[0]):
            received = syscall(SYS_RECVMMSG, ends[row, 0], address, BATCH, MSG_DONTWAIT, 0, 0)
            if received in (-EAGAIN, -EINTR):
                continue
            if received < 0:
                return -received
            read += received
            tally.totals[FRAMES] += received
            for i in range(received):
                # The last word of a mmsghdr is msg_len, the one before it msg_flags.
                length = int(headers[i, 7] & np.uint64(0xFFFFFFFF))
                cut = (int(headers[i, 6]) & MSG_TRUNC) != 0
                interface, group, port = int(ends[row, 1]), int(ends[row, 2]), int(ends[row, 3])
                at = i * 65536
                check_payload(tally, interface, group, port, data, at, length, length, cut, 0, expectation)
        if read:
            idle = 0
            continue
        if stop[0] != 0:
            if idle >= idle_ms:
                return 0
            idle += IDLE_MS
        result = syscall(SYS_POLL, polls.ctypes.data, ends.shape[0], IDLE_MS, 0, 0, 0)
        if result > 0:
            idle = 0
        elif result < 0 and result != -EINTR:
            return -result
