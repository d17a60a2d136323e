"""A whole packet engine without privileges: a receive ring in a memfd, a Unix socket for the wire.

The engine is the real one, its io_uring too. The bench plays the kernel's packet socket: it fills ring slots
as ``tpacket_rcv`` (``net/packet/af_packet.c``) does, and every output interface's address is that of a
datagram socket which the test reads, so what arrives is each message as ``packet_snd`` would see it.
"""

from __future__ import annotations

import itertools
import mmap
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import numpy as np

from forwarder.abi import af_packet as ap
from forwarder.engines.packet import schema
from forwarder.engines.packet.engine import HasDescriptor, PacketEngine, SharedMemory
from forwarder.engines.packet.rule_table import pack_key
from forwarder.engines.packet.schema import Kind
from forwarder.net.packet_sockets import Ring
from forwarder.workers import encoding
from packet_support.frames import raw_address, raw_port
from packet_support.linux import VnetHeader
from packet_support.outputs import Output

_PLAIN = VnetHeader()
_serial = itertools.count()


def _address() -> bytes:
    """An abstract Unix address as long as a ``sockaddr_ll``: 20 bytes, family included."""
    return b"\0" + f"{os.getpid():08x}{next(_serial):09x}".encode()


class FakeRing:
    """A receive ring that a test fills. ``fileno`` is what the engine maps."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self._fd = os.memfd_create("ring")
        os.ftruncate(self._fd, ring.ring_bytes)
        self._map = mmap.mmap(self._fd, ring.ring_bytes)
        self._next = 0
        self.queue, self.far_queue = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.queue.setblocking(False)

    def fileno(self) -> int:
        return self._fd

    def status(self, slot: int) -> int:
        return int(struct.unpack_from("=I", self._map, slot * self.ring.frame_bytes)[0])

    def receive(
        self,
        frame: bytes,
        vnet: VnetHeader = _PLAIN,
        *,
        tagged: bool = False,
        cut_to: int | None = None,
        copy: bool = False,
    ) -> bool:
        """Put a frame into the next slot; False, and nothing happens, when the slot is not free.

        Args:
            tagged: the kernel took a VLAN tag off.
            cut_to: capture no more than so many bytes.
            copy: a frame that does not fit waits whole in the socket's queue (``PACKET_COPY_THRESH``).
        """
        base = self._next % self.ring.frames * self.ring.frame_bytes
        if self.status(self._next % self.ring.frames) != ap.TP_STATUS_KERNEL:
            return False
        self._next += 1
        status = ap.TP_STATUS_USER | (ap.TP_STATUS_VLAN_VALID if tagged else 0)
        room = self.ring.frame_bytes - ap.MAC_OFFSET
        captured = min(len(frame), room, len(frame) if cut_to is None else cut_to)
        if copy and len(frame) > room:
            status |= ap.TP_STATUS_COPY
            self.far_queue.send(vnet.pack() + frame)
        start = base + ap.MAC_OFFSET
        self._map[start : start + captured] = frame[:captured]
        self._map[base + ap.VNET_OFFSET : start] = vnet.pack()
        struct.pack_into("=II", self._map, base + ap.TP2_LEN, len(frame), captured)
        struct.pack_into("=I", self._map, base, status)
        return True

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)
        self.queue.close()
        self.far_queue.close()


class Bench:
    """One engine with one fake ring as interface slot ``INTERFACE``, spoken to over its encoding.

    Every message lets it live until it has answered.

    Args:
        ringless: no message yet, so that a child may be the one whose thread the engine gets to know:
            it begins with :meth:`add_ring`.
        options: of the engine (``coalesce``, ``fill_checksums``).
        transmitter, tx_ring: a packet socket and a transmit ring, for a bench whose wire is a real one.
    """

    INTERFACE = 3

    def __init__(
        self,
        ring: Ring | None = None,
        *,
        ringless: bool = False,
        transmitter: socket.socket | None = None,
        tx_ring: HasDescriptor | None = None,
        **options: bool,
    ) -> None:
        self._memory = SharedMemory(1)
        self.block = self._memory.block(0)
        ours, self._wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._transmitter = transmitter or ours
        self._wire.setblocking(False)
        self._wire_address = _address()
        self._wire.bind(self._wire_address)
        self.control, self._control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.engine = PacketEngine(
            self.block, self._transmitter, self._control.fileno(), tx_ring=tx_ring, **options
        )
        self.ring = FakeRing(ring or Ring(2048, 64))
        self._rules = 0
        self._sequence = 0
        if not ringless:
            self.add_ring()

    def add_ring(self, row: int = 0, ring: FakeRing | None = None, level: int = 0) -> None:
        """Have the engine map a ring as a socket; it waits at the ring's queue and fetches from there
        what does not fit."""
        ring = ring or self.ring
        body = encoding.pack_socket(row, ring.ring.frames, ring.ring.frame_bytes, self.INTERFACE, level)
        assert self.tell(Kind.ADD_SOCKET, body=body, descriptors=(ring.fileno(),)) == 0
        fd = self.engine._worker.state.sockets[row, schema.SOCKET_FD]
        os.dup2(ring.queue.fileno(), fd)

    def wake(self, row: int = 0) -> None:
        """The ring has frames, as its poll would say: a memfd cannot be waited for."""
        self.engine._worker.state.sockets[row, schema.SOCKET_READY] = 1

    def tell(
        self,
        kind: Kind,
        *,
        count: int = 0,
        argument: int = 0,
        body: bytes = b"",
        descriptors: Sequence[int] = (),
    ) -> int:
        """Let the engine do one thing, after what its ring holds; its answer, 0 or an errno."""
        self._sequence += 1
        header = encoding.HEADER.pack(kind, self._sequence, count, argument)
        socket.send_fds(self.control, [header, body], descriptors)
        if kind is not Kind.STOP:
            self.control.send(b"")  # as if the supervisor were gone: nothing more is forwarded
        self.engine.serve()
        unpack, size = encoding.HEADER.unpack, encoding.HEADER.size
        assert unpack(self.control.recv(size)) == (Kind.READY, 0, 0, 0)
        answer, number, _, error = unpack(self.control.recv(size))
        assert (answer, number) == (Kind.DONE, self._sequence)
        return int(error)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.engine.close()
        self.ring.close()
        for end in (self._transmitter, self._wire, self.control, self._control):
            end.close()
        self._memory.close()

    def connect(
        self, output: Output, *, mtu: int = 65_535, present: bool = True, refuses: bool = False
    ) -> None:
        """Make an output's interface usable; ``refuses``: every send out of it fails."""
        self.set_link(output, 7 + output.link if present else 0, mtu)
        name = struct.pack("=H", socket.AF_UNIX) + (_address() if refuses else self._wire_address)
        self.engine._worker.transmit.names.view(np.uint8)[output.link, : len(name)] = np.frombuffer(
            name, np.uint8
        )

    def set_link(self, output: Output, ifindex: int, mtu: int = 65_535) -> None:
        """Tell the engine how an output's interface is reached."""
        link = encoding.pack_link(
            output.link,
            ifindex,
            mtu,
            raw_address(output.link_source).to_bytes(4, "little"),
            bytes.fromhex(output.link_mac.replace(":", "")),
        )
        assert self.tell(Kind.SET_LINKS, body=link) == 0

    def add_rule(self, group: str, port: int, outputs: Sequence[Output]) -> int:
        """Its slot."""
        key = int(pack_key(self.INTERFACE, raw_port(port), raw_address(group)))
        rule = encoding.WorkerRule(key, self._rules, tuple(output.row() for output in outputs))
        assert self.tell(Kind.ADD_RULES, count=1, body=encoding.pack_rules([rule])) == 0
        self._rules += 1
        return self._rules - 1

    def remove_rule(self, group: str, port: int) -> None:
        key = int(pack_key(self.INTERFACE, raw_port(port), raw_address(group)))
        assert self.tell(Kind.REMOVE_RULES, count=1, body=encoding.pack_keys([key])) == 0

    def forward(self) -> list[bytes]:
        """Let the engine work off its ring; what it sent, as virtio_net_hdr and frame each."""
        assert self.tell(Kind.STOP) == 0
        return self.sent()

    def sent(self) -> list[bytes]:
        messages = []
        while True:
            try:
                messages.append(self._wire.recv(1 << 17))
            except BlockingIOError:
                return messages

    @contextmanager
    def ended_after(self, messages: int) -> Iterator[Callable[[], int]]:
        """Another process reads what is sent, and ends the engine's service after so many messages, or after
        five seconds without one. Yields how many came, to be asked afterwards.

        The engine is compiled and keeps the interpreter to itself, so no thread could do this.
        """
        script = (
            "import socket, sys\n"
            "wire, control = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])\n"
            "wire.settimeout(5)\n"
            "seen = 0\n"
            "try:\n"
            "    while seen < int(sys.argv[3]):\n"
            "        wire.recv(1 << 17)\n"
            "        seen += 1\n"
            "except TimeoutError:\n"
            "    pass\n"
            "control.send(b'')\n"
            "print(seen)\n"
        )
        ends = (self._wire.fileno(), self.control.fileno())
        command = [sys.executable, "-c", script, *map(str, ends), str(messages)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=ends, text=True) as reader:
            yield lambda: int(reader.communicate()[0])

    def counter(self, index: int) -> int:
        return int(self.block.counters[index])

    def reasons(self) -> dict[str, int]:
        """Every reason that occurred, with its count."""
        counts = {name: self.counter(index) for index, name in enumerate(schema.REASONS)}
        return {name: count for name, count in counts.items() if count}

    def assert_balanced(self) -> None:
        """The accounts close: nothing is owed, received and owed copies are explained to the last one."""
        ingress = sum(self.counter(schema.REASONS.index(name)) for name in schema.INGRESS_REASONS)
        assert self.counter(schema.RECEIVED) == self.counter(schema.MATCHED) + ingress
        assert self.block.journal[schema.JOURNAL_PENDING] == 0
        assert self.block.journal[schema.JOURNAL_FLUSH] == 0
        assert self.block.journal[schema.JOURNAL_SEQUENCE] % 2 == 0
        claimed, released = self.block.cursors[0]
        assert claimed == released == self.counter(schema.FRAMES_RECEIVED)
        assert not any(self.ring.status(slot) for slot in range(self.ring.ring.frames))
        rules = self._rules
        assert self.block.rule_matched[:rules].sum(0).tolist() == [
            self.counter(schema.MATCHED),
            self.counter(schema.MATCHED_BYTES),
        ]
        egress = sum(self.counter(schema.REASONS.index(name)) for name in schema.EGRESS_REASONS)
        assert int(self.block.rule_unsent[:rules, 0].sum()) == egress
