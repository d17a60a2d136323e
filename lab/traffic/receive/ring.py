"""AF_PACKET receive rings (af_packet.TPACKET_V3) that the kernel fills while the receiver sleeps.

Why version 3: frames are packed one after another, so a ring holds headers of 60 bytes and GSO frames of
64 KiB equally well, where version 2 needs slots of the largest size. A block is handed over only when full or
on a timer, which does not matter here: arrival times are the kernel's, and blocks are read after the trial.

Layout (linux/if_packet.h): a block begins with tpacket_block_desc, of which the 32-bit words 2, 3 and 4 are
the status, the number of packets and the offset of the first. A packet begins with tpacket3_hdr (48 bytes):
next offset, seconds, nanoseconds, captured length, length, status (words 0 to 5), tp_mac (bytes 24-25), VLAN
tag (word 8). With af_packet.PACKET_VNET_HDR a virtio_net_hdr stands right before the Ethernet header.
"""

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import numpy.typing as npt

from forwarder.abi import af_packet, bpf
from forwarder.abi.jit import njit
from forwarder.abi.native import load_acquire, store_release
from lab.load.jobs import Frame, TrafficError
from lab.traffic.compiled import NS_PER_S, Bytes, Integers, unsigned_at
from lab.traffic.receive.check import Expectation, Tally, check_frame

_DROP = (bpf.Instruction(bpf.MOV_K, immediate=bpf.TCX_DROP), bpf.Instruction(bpf.EXIT))
Words = npt.NDArray[np.uint32]
Filter = Sequence[tuple[int, int, int, int]]
"""Classic BPF: code, jumps if true and if false, constant."""

JEQ = 0x15
"""Go on if equal, else to the end, which drops."""
SO_ATTACH_FILTER = 26
TPACKET_REQ3 = struct.Struct("=7I")
"""block size, block count, frame size, frame count, retire timeout (ms), private area, features."""
TPACKET_STATS_V3 = struct.Struct("=3I")
"""packets, drops, times that the ring was full; reset when read."""

BLOCK_BYTES = 1 << 17
"""Larger than any frame (a little over 64 KiB), small enough for the kernel to allocate."""
RETIRE_MS = 10
"""Time after which the kernel hands over a block that is not full."""
LEAST_BLOCKS = 64
"""Added to the number of full blocks: slow traffic uses a block each time that one is handed over."""
PACKET_OVERHEAD_BYTES = 48 + 20 + 28
"""In front of the Ethernet header: tpacket3_hdr, sockaddr_ll, alignment, room for a virtio_net_hdr."""
BLOCK_WORDS = BLOCK_BYTES // 4
STATUS_WORD, COUNT_WORD, FIRST_WORD = 2, 3, 4


@contextmanager
def dropping(interfaces: Iterable[str]) -> Iterator[None]:
    """Drop at the ingress what rings have captured, for the length of a ``with`` block.

    Otherwise the IP stack would look up each datagram, on the subject's processor. Where dropping is
    impossible (before Linux 6.6, or without CAP_BPF) it does, for all subjects alike.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            program = bpf.load(_DROP, "mcastlab_taken")
            stack.callback(os.close, program)
            for interface in interfaces:
                stack.callback(os.close, bpf.attach_ingress(program, socket.if_nametoindex(interface)))
        yield


class Ring:
    """The ring of one interface, for what ``program`` keeps; ``vnet``: each frame with a virtio_net_hdr."""

    def __init__(self, interface: str, number: int, blocks: int, program: Filter, *, vnet: bool) -> None:
        self.interface = interface
        self.number = number
        self.vnet = vnet
        self.blocks = blocks
        self.packets = 0
        """Frames that passed the filter, including dropped ones."""
        self.drops = 0
        self.taken = 0
        self.cursor = np.zeros(1, np.int64)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._open(program)
        except OSError as error:
            self._socket.close()
            raise TrafficError(
                f"interface {interface}: a ring of {blocks} blocks of {BLOCK_BYTES} bytes: {error.strerror}"
            ) from error

    def _open(self, program: Filter) -> None:
        attach_filter(self._socket, program)
        self._socket.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_VERSION, af_packet.TPACKET_V3)
        self._socket.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_IGNORE_OUTGOING, 1)
        if self.vnet:
            self._socket.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_VNET_HDR, 1)
        request = TPACKET_REQ3.pack(BLOCK_BYTES, self.blocks, BLOCK_BYTES, self.blocks, RETIRE_MS, 0, 0)
        self._socket.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_RX_RING, request)
        self._map = mmap.mmap(self._socket.fileno(), BLOCK_BYTES * self.blocks)
        self.bytes: Bytes = np.frombuffer(self._map, np.uint8)
        self.words: Words = self.bytes.view(np.uint32)
        self._socket.bind((self.interface, af_packet.ETH_P_ALL))

    def update_statistics(self) -> None:
        packets, drops, _ = TPACKET_STATS_V3.unpack(
            self._socket.getsockopt(af_packet.SOL_PACKET, af_packet.PACKET_STATISTICS, TPACKET_STATS_V3.size)
        )
        self.packets += packets
        self.drops += drops

    @property
    def half_full(self) -> bool:
        return self._handed_over(self.blocks // 2)

    @property
    def waiting_blocks(self) -> int:
        """How many blocks the kernel has handed over and nobody has drained."""
        return next((step for step in range(self.blocks) if not self._handed_over(step)), self.blocks)

    def _handed_over(self, step: int) -> bool:
        status = self._block(step) + STATUS_WORD
        return bool(load_acquire(self.words, status) & af_packet.TP_STATUS_USER)

    def _block(self, step: int) -> int:
        """The first word of the block that is read after ``step`` others."""
        return (int(self.cursor[0]) + step) % self.blocks * BLOCK_WORDS

    def drain(self, tally: Tally, expectation: Expectation, most: int | None = None) -> None:
        """Check every packet in the blocks handed over (at most ``most``), and give them back."""
        limit = self.blocks if most is None else most
        ring = (self.words, self.bytes, self.blocks, limit, self.cursor)
        self.taken += drain_blocks(*ring, self.number, self.vnet, tally, expectation)

    def waiting_frames(self, blocks: int) -> Iterator[Frame]:
        """The frames in the first ``blocks`` blocks handed over, which stay."""
        for step in range(blocks):
            block = self._block(step)
            packet = block + int(self.words[block + FIRST_WORD]) // 4
            for _ in range(int(self.words[block + COUNT_WORD])):
                yield self._frame(packet)
                packet += int(self.words[packet]) // 4

    def _frame(self, packet: int) -> Frame:
        """The frame whose tpacket3_hdr is at word ``packet``."""
        _, seconds, nanoseconds, captured, _, status = (int(word) for word in self.words[packet : packet + 6])
        at = packet * 4 + int(self.words[packet + 6] & 0xFFFF)
        gso_at = at - af_packet.VNET_HDR_BYTES + af_packet.VNET_GSO_SIZE
        return Frame(
            interface=self.interface,
            time_ns=seconds * NS_PER_S + nanoseconds,
            data=self.bytes[at : at + captured].tobytes().hex(),
            gso_size=int(self.bytes[gso_at : gso_at + 2].view(np.uint16)[0]) if self.vnet else 0,
            checksum_ready=not status & af_packet.TP_STATUS_CSUMNOTREADY,
            vlan=int(self.words[packet + 8]) & 0xFFFF if status & af_packet.TP_STATUS_VLAN_VALID else None,
        )

    def close(self) -> None:
        """Free the ring; none of its arrays may be in use."""
        # The map keeps the socket open: the kernel would free the ring when the map is collected.
        del self.words, self.bytes
        self._map.close()
        self._socket.close()


@njit
def drain_blocks(
    words: Words,
    data: Bytes,
    blocks: int,
    most: int,
    cursor: Integers,
    interface: int,
    vnet: bool,
    tally: Tally,
    expectation: Expectation,
) -> int:
    """Check the packets of at most ``most`` blocks, moving ``cursor`` on; returns the number of packets."""
    taken = 0
    for _ in range(most):
        block = cursor[0] * BLOCK_WORDS
        if not load_acquire(words, block + STATUS_WORD) & af_packet.TP_STATUS_USER:
            break
        count = unsigned_at(words, block + COUNT_WORD)
        packet = block + unsigned_at(words, block + FIRST_WORD) // 4
        for _ in range(count):
            at = packet * 4 + (unsigned_at(words, packet + 6) & 0xFFFF)
            gso_size = 0
            if vnet:
                gso_at = at - af_packet.VNET_HDR_BYTES + af_packet.VNET_GSO_SIZE
                gso_size = unsigned_at(data, gso_at) | (unsigned_at(data, gso_at + 1) << 8)
            time_ns = unsigned_at(words, packet + 1) * NS_PER_S + unsigned_at(words, packet + 2)
            captured, length = unsigned_at(words, packet + 3), unsigned_at(words, packet + 4)
            ready = (unsigned_at(words, packet + 5) & af_packet.TP_STATUS_CSUMNOTREADY) == 0
            check_frame(tally, interface, data, at, captured, length, gso_size, ready, time_ns, expectation)
            packet += unsigned_at(words, packet) // 4
        taken += count
        store_release(words, block + STATUS_WORD, af_packet.TP_STATUS_KERNEL)
        cursor[0] = (cursor[0] + 1) % blocks
    return taken


def blocks_for(frames: int, snap: int, bytes_max: int) -> int:
    """Blocks for ``frames`` frames of ``snap`` bytes and a quarter more, within ``bytes_max``."""
    per_block = max(1, (BLOCK_BYTES - 64) // (snap + PACKET_OVERHEAD_BYTES))
    wanted = frames * 5 // 4 // per_block + LEAST_BLOCKS
    return max(LEAST_BLOCKS, min(wanted, bytes_max // BLOCK_BYTES))


def capture_filter(snap: int, *, everything: bool, unicast: bool = False) -> Filter:
    """Classic BPF: UDP over IPv4 to 224.0.0.0/4, cut to ``snap`` bytes.

    ``unicast``: to any address; ``everything``: no condition.
    """
    keep = (0x06, 0, 0, snap)  # ret #snap
    if everything:
        return (keep,)
    conditions = [
        (0x28, 12),  # ldh [12], the EtherType
        (JEQ, af_packet.ETH_P_IP),
        (0x30, 23),  # ldb [23], the protocol
        (JEQ, socket.IPPROTO_UDP),
    ]
    if not unicast:
        conditions += [(0x30, 30), (0x54, 0xF0), (JEQ, 0xE0)]  # ldb [30], the first octet of the destination
    drop = len(conditions)
    checked = [(code, 0, drop - at if code == JEQ else 0, k) for at, (code, k) in enumerate(conditions)]
    return (*checked, keep, (0x06, 0, 0, 0))


def attach_filter(packet_socket: socket.socket, program: Filter) -> None:
    code = ctypes.create_string_buffer(
        b"".join(af_packet.SOCK_FILTER.pack(*instruction) for instruction in program)
    )
    packet_socket.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, af_packet.SOCK_FPROG.pack(len(program), ctypes.addressof(code))
    )
