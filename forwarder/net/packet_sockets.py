"""AF_PACKET sockets as the engine needs them: memory-mapped receive rings; to send, a socket and a ring.

The supervisor opens them all and keeps a descriptor of each: a socket, its place in a fanout group and what
its ring holds outlive the worker that reads it.
"""

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from forwarder.abi import af_packet as ap
from forwarder.abi import mempolicy
from forwarder.abi.cbpf import RET, Instruction, K, Program, assemble
from forwarder.abi.libc import checked, libc
from forwarder.plan.resources import TX_RING, RingPlan

_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 4 << 20
"""Buffer of a socket: what it sends, or received frames larger than a slot (``PACKET_COPY_THRESH``)."""
_WAITING_TOGETHER = 64
T = TypeVar("T")
_DROP_ALL = (Instruction(RET | K, 0, 0, 0),)


@dataclass(frozen=True)
class Ring(RingPlan):
    memory_node: int | None = None
    """Where its pages are to come from; ``None``: wherever the kernel takes them."""


def open_receivers(ifindex: int, rings: Sequence[Ring]) -> list[socket.socket]:
    """Receive sockets bound to an interface, their rings made, deaf until :func:`listen`.

    They are *made* one after another, in the order of ``rings``. Each ring then waits for a grace period of
    the kernel (``packet_set_ring`` calls ``synchronize_net``, some 8 ms), and they wait together.

    Raises OSError: no such interface, no permission, no memory for the rings; none is left open.
    """
    return _all_or_none(_packet_socket, lambda sock, ring: _set_up(sock, ring, ifindex), rings)


def _packet_socket() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)


def _all_or_none(
    make: Callable[[], socket.socket], set_up: Callable[[socket.socket, T], None], parts: Sequence[T]
) -> list[socket.socket]:
    """A socket for each part, made in turn and set up together; none is left open when one fails."""
    made: list[socket.socket] = []
    try:
        for _ in parts:
            made.append(make())  # noqa: PERF401
        _together(lambda pair: set_up(*pair), list(zip(made, parts, strict=True)))
    except BaseException:
        close_all(made)
        raise
    return made


def close_all(receivers: Sequence[socket.socket]) -> None:
    """Close sockets and free their rings, which waits for grace periods, too."""
    try:
        _together(socket.socket.close, receivers)
    except OSError:  # one after another, then; those that are closed stay so
        for receiver in receivers:
            receiver.close()


def identities(receivers: Iterable[socket.socket]) -> set[int]:
    """What the kernel tells sockets apart by, also when they are closed here."""
    return {os.fstat(receiver.fileno()).st_ino for receiver in receivers}


def linger(closed: Collection[int]) -> bool:
    """Whether any of these sockets still is in its fanout group, because somebody has it open."""
    if not closed:
        return False
    _, *lines = Path("/proc/self/net/packet").read_text().splitlines()
    return any(int(line.split()[8]) in closed for line in lines)


def _together(work: Callable[[T], object], items: Sequence[T]) -> None:
    """Do something that only waits for the kernel to all items at once; threads are gone when it returns.

    Raises OSError: no thread to be had, among others; some items may be done then.
    """
    if len(items) < 2:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(min(len(items), _WAITING_TOGETHER)) as pool:
        try:
            done = pool.map(work, items)
        except RuntimeError as error:  # what Python makes of clone(2)'s refusal
            raise OSError(errno.EAGAIN, f"{os.strerror(errno.EAGAIN)}: no thread to be had") from error
        for _ in done:
            pass


def _set_up(sock: socket.socket, ring: Ring, ifindex: int) -> None:
    # A bound packet socket receives everything at once, also before it has joined a fanout group.
    mute(sock)
    sock.setsockopt(ap.SOL_PACKET, ap.PACKET_VERSION, ap.TPACKET_V2)
    sock.setsockopt(ap.SOL_PACKET, ap.PACKET_RESERVE, ap.RESERVE)
    sock.setsockopt(ap.SOL_PACKET, ap.PACKET_VNET_HDR, 1)
    sock.setsockopt(ap.SOL_PACKET, ap.PACKET_COPY_THRESH, 1)
    sock.setsockopt(ap.SOL_PACKET, ap.PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    _make_ring(sock, ap.PACKET_RX_RING, ring)
    _bind(sock, ifindex)


def _make_ring(sock: socket.socket, option: int, ring: Ring) -> None:
    block = max(ring.frame_bytes, min(ring.ring_bytes, 64 * 1024))
    request = ap.TPACKET_REQ.pack(block, ring.ring_bytes // block, ring.frame_bytes, ring.frames)
    with mempolicy.preferring(ring.memory_node):
        # Through libc: Python's own call keeps the interpreter's lock while the kernel waits.
        checked(libc.setsockopt(sock.fileno(), ap.SOL_PACKET, option, request, len(request)))


def join_fanout(sock: socket.socket, group: int | None, mode: int, members: int) -> int:
    """Join a fanout group; the group's id.

    The member's index is its place in the order of joining (``fanout_add`` in ``net/packet/af_packet.c``).

    Args:
        group: None asks the kernel for an id that nobody in the namespace uses.
        members: the most that the group will have (only above 256 does the kernel need to know).
    """
    # A member's own PACKET_IGNORE_OUTGOING has no effect: the group has one hook, and a flag of its own.
    flags = mode | ap.PACKET_FANOUT_FLAG_IGNORE_OUTGOING
    if group is None:
        flags |= ap.PACKET_FANOUT_FLAG_UNIQUEID
    if group is None or members > 256:
        value = ap.FANOUT_ARGS.pack(group or 0, flags, max(members, 256))
    else:
        value = ap.FANOUT_ARGS.pack(group, flags, 0)
    sock.setsockopt(ap.SOL_PACKET, ap.PACKET_FANOUT, value)
    return fanout_group(sock)


def fanout_group(sock: socket.socket) -> int:
    """The id of the fanout group that a socket is in."""
    return sock.getsockopt(ap.SOL_PACKET, ap.PACKET_FANOUT) & 0xFFFF


def steer(sock: socket.socket, program: Program) -> None:
    """Give the PACKET_FANOUT_CBPF group that a socket is in the program that picks the member of a frame.

    One member's call is for all; until then, and when the program ends early, member 0 is picked.

    Raises OSError: the socket is in no such group, or the kernel does not take the program.
    """
    _set_program(sock, ap.SOL_PACKET, ap.PACKET_FANOUT_DATA, program)


def listen(sock: socket.socket, only: Program | None = None) -> None:
    """Let frames in; with ``only``, those that it accepts.

    Raises OSError: the kernel does not take the program (``net.core.optmem_max`` bounds a socket's filter).
    """
    if only is None:
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    else:
        _set_program(sock, socket.SOL_SOCKET, _SO_ATTACH_FILTER, only)


def mute(sock: socket.socket) -> None:
    """Let nothing more in; what the ring holds stays."""
    _set_program(sock, socket.SOL_SOCKET, _SO_ATTACH_FILTER, _DROP_ALL)


def arrivals(sock: socket.socket) -> tuple[int, int]:
    """Frames that came since the last call, and those of them that found no free slot.

    Reading resets the kernel's counts; the first holds the second (``packet_getsockopt``).
    """
    raw = sock.getsockopt(ap.SOL_PACKET, ap.PACKET_STATISTICS, ap.TPACKET_STATS.size)
    came, dropped = ap.TPACKET_STATS.unpack(raw)[:2]
    return int(came), int(dropped)


def open_transmitter() -> socket.socket:
    """An unbound transmit socket that receives nothing; each send names its interface."""
    sock = _packet_socket()
    try:
        sock.setsockopt(ap.SOL_PACKET, ap.PACKET_VNET_HDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
    except BaseException:
        sock.close()
        raise
    return sock


def open_tx_rings(memory_nodes: Sequence[int | None]) -> list[socket.socket]:
    """Transmit sockets like :func:`open_transmitter`'s, with a ring (PACKET_TX_RING) of these nodes' memory.

    Raises OSError: no memory; none is left open.
    """
    return _all_or_none(open_transmitter, _set_up_tx, memory_nodes)


def _set_up_tx(sock: socket.socket, memory_node: int | None) -> None:
    sock.setsockopt(ap.SOL_PACKET, ap.PACKET_VERSION, ap.TPACKET_V2)
    _make_ring(sock, ap.PACKET_TX_RING, Ring(TX_RING.frame_bytes, TX_RING.frames, memory_node))


def _set_program(sock: socket.socket, level: int, option: int, program: Program) -> None:
    code = assemble(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(level, option, ap.SOCK_FPROG.pack(len(program), ctypes.addressof(buffer)))


def _bind(sock: socket.socket, ifindex: int) -> None:
    """Bind by index: a name, which is all that ``socket.bind`` takes, could mean another interface by now."""
    address = ap.SOCKADDR_LL.pack(socket.AF_PACKET, socket.htons(ap.ETH_P_ALL), ifindex, 0, 0, 0, b"")
    checked(libc.bind(sock.fileno(), address, len(address)))
