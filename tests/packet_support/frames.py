"""Datagrams as scapy builds them, and as the kernels read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scapy.layers.inet import IP, UDP, IPOption_NOP, IPOption_Router_Alert, IPOption_Timestamp
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import checksum as scapy_checksum

from forwarder.engines.packet import schema
from forwarder.engines.packet.parse import parse

NETWORK = 16
"""Where :func:`memory` puts the network header: the nearest word boundary behind an Ethernet header."""
ETHERNET = NETWORK - 14


@dataclass(frozen=True)
class Datagram:
    """One UDP datagram as a sender means it."""

    source: str = "10.1.0.9"
    group: str = "239.1.1.1"
    source_port: int = 4000
    port: int = 5001
    ttl: int = 16
    tos: int = 0
    dont_fragment: bool = True
    payload: bytes = b"datagram"
    options: tuple[Any, ...] = ()
    checksum: str = "full"
    """``full``; ``absent``: the field is zero; ``corrupt``: the payload changed under way."""

    def packet(self) -> Any:
        """The scapy packet, with all lengths and checksums as they should be."""
        return (
            Ether(dst="01:00:5e:01:01:01", src="02:00:00:00:00:09")
            / IP(
                src=self.source,
                dst=self.group,
                ttl=self.ttl,
                tos=self.tos,
                flags="DF" if self.dont_fragment else 0,
                options=list(self.options),
            )
            / UDP(
                sport=self.source_port,
                dport=self.port,
                **({"chksum": 0} if self.checksum == "absent" else {}),
            )
            / Raw(self.payload)
        )

    def frame(self) -> bytes:
        """The Ethernet frame that arrives."""
        built = bytes(self.packet())
        if self.checksum != "corrupt":
            return built
        # Any change of one bit of the payload or of the source port is one that the checksum must catch.
        at = len(built) - 1 if self.payload else 14 + 20 + 4 * ((built[14] & 15) - 5) + 1
        return built[:at] + bytes([built[at] ^ 0x10]) + built[at + 1 :]

    def arrived(self) -> Datagram:
        """With the fields that :meth:`frame` really carries: a corrupt one differs in a bit."""
        if self.checksum != "corrupt":
            return self
        if self.payload:
            return replace(self, payload=self.payload[:-1] + bytes([self.payload[-1] ^ 0x10]))
        return replace(self, source_port=self.source_port ^ 0x10)


def raw_address(address: str) -> int:
    """An address as it stands in memory, read as a native word."""
    return int.from_bytes(IPv4Address(address).packed, "little")


def raw_port(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), "little")


def memory(frame: bytes, *, filler: int = 0) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """A frame as a ring slot would hold it, network header at ``NETWORK``, and nothing behind its last word.

    With the JIT off, a read beyond the array raises IndexError.
    """
    size = (ETHERNET + len(frame) + 3) & ~3
    data = np.full(max(size, NETWORK), filler, np.uint8)
    data[ETHERNET : ETHERNET + len(frame)] = np.frombuffer(frame, np.uint8)
    return data.view(np.uint32), data


@dataclass(frozen=True)
class Parsed:
    """What ``parse`` made of a frame."""

    outcome: int
    row: NDArray[np.uint32]
    words: NDArray[np.uint32]
    data: NDArray[np.uint8]

    def payload(self) -> bytes:
        start = int(self.row[schema.FRAME_PAYLOAD]) * 4
        return self.data[start : start + int(self.row[schema.FRAME_LENGTH])].tobytes()


def read(
    frame: bytes,
    *,
    length: int | None = None,
    tagged: bool = False,
    flags: int = 0,
    gso_type: int = 0,
    gso_size: int = 0,
    filler: int = 0,
) -> Parsed:
    """Run ``parse`` over the captured bytes of a frame, ``length`` bytes long on the wire."""
    words, data = memory(frame, filler=filler)
    row = np.zeros(schema.FRAME_COLUMNS, np.uint32)
    outcome = parse(
        words,
        data,
        NETWORK,
        len(frame),
        len(frame) if length is None else length,
        tagged,
        flags,
        gso_type,
        gso_size,
        row,
    )
    return Parsed(int(outcome), row, words, data)


def reason(outcome: int) -> str:
    """A parse outcome's name."""
    return "ok" if outcome == schema.OK else schema.REASONS[outcome]


addresses = st.integers(1, 0xDFFFFFFF).map(lambda number: str(IPv4Address(number)))
groups = st.integers(0xE0000000, 0xEFFFFFFF).map(lambda number: str(IPv4Address(number)))
ports = st.integers(1, 0xFFFF)
payloads = st.binary(max_size=200) | st.binary(min_size=1, max_size=8).flatmap(
    lambda unit: st.integers(1, 8_972).map(lambda size: (unit * (size // len(unit) + 1))[:size])
)
options = st.sampled_from(
    [
        (),
        (),
        (IPOption_NOP(),),
        (IPOption_Router_Alert(),),
        (IPOption_NOP(), IPOption_Router_Alert()),
        (IPOption_Timestamp(timestamp=0),),
        tuple(IPOption_NOP() for _ in range(40)),
    ]
)
datagrams = st.builds(
    Datagram,
    source=addresses,
    group=groups,
    source_port=ports,
    port=ports,
    ttl=st.integers(0, 255),
    tos=st.integers(0, 255),
    dont_fragment=st.booleans(),
    payload=payloads,
    options=options,
    checksum=st.sampled_from(["full", "full", "absent", "corrupt"]),
)


def damaged(datagram: Datagram, damage: Iterable[tuple[int, int]], *, mend: bool) -> bytes:
    """A datagram's frame with bytes overwritten (place, value); ``mend``: the IP checksum holds again."""
    frame = bytearray(datagram.frame())
    for at, value in damage:
        if at < len(frame):
            frame[at] = value
    header = (frame[14] & 15) * 4
    if mend and header >= 20 and len(frame) >= 14 + header:
        frame[24:26] = bytes(2)
        frame[24:26] = np.uint16(scapy_checksum(bytes(frame[14 : 14 + header]))).byteswap().tobytes()
    return bytes(frame)
