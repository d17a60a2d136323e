"""Outputs of rules, as the kernels read them and as scapy expects their datagrams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether, getmacbyip
from scapy.packet import Raw

from forwarder.engines.packet import schema
from forwarder.engines.packet.rewrite import (
    HEADER_BYTES,
    copy_payload,
    outgoing_ttl,
    write_header,
)
from packet_support.frames import Datagram, addresses, groups, ports, raw_address, raw_port


@dataclass(frozen=True)
class Output:
    """An output and its interface."""

    group: str = "239.2.2.2"
    port: int = 5002
    ttl: int = 0
    """0: the received one less one."""
    source: str = "interface"
    """``interface``, ``preserve`` or an address."""
    link: int = 0
    link_source: str = "10.2.0.1"
    link_mac: str = "02:00:00:00:01:00"

    def row(self) -> NDArray[np.uint32]:
        if self.source == "interface":
            source = schema.SOURCE_INTERFACE
        elif self.source == "preserve":
            source = schema.SOURCE_PRESERVE
        else:
            source = raw_address(self.source)
        return np.array(
            [raw_address(self.group), source, raw_port(self.port) | self.ttl << 16, self.link], np.uint32
        )

    def link_row(self, mtu: int = 65_535) -> NDArray[np.uint32]:
        mac = bytes.fromhex(self.link_mac.replace(":", ""))
        return np.array(
            [
                1,
                raw_address(self.link_source),
                mtu,
                int.from_bytes(mac[:4], "little"),
                int.from_bytes(mac[4:], "little"),
            ],
            np.uint32,
        )

    def source_of(self, datagram: Datagram) -> str:
        return {"interface": self.link_source, "preserve": datagram.source}.get(self.source, self.source)

    def ttl_of(self, datagram: Datagram) -> int:
        return self.ttl or max(datagram.ttl - 1, 0)

    def forwarded(self, datagram: Datagram, identification: int) -> bytes:
        """The frame that scapy builds for a sound datagram's copy."""
        packet = (
            Ether(dst=getmacbyip(self.group), src=self.link_mac)
            / IP(
                src=self.source_of(datagram),
                dst=self.group,
                ttl=self.ttl_of(datagram),
                tos=datagram.tos,
                flags="DF" if datagram.dont_fragment else 0,
                id=identification,
            )
            / UDP(
                sport=datagram.source_port,
                dport=self.port,
                **({"chksum": 0} if datagram.checksum == "absent" else {}),
            )
            / Raw(datagram.payload)
        )
        return bytes(packet)


def message(
    output: Output,
    frames: NDArray[np.uint32],
    words: NDArray[np.uint32],
    data: NDArray[np.uint8],
    *,
    first: int = 0,
    length: int,
    segment: int = 0,
    identification: int = 0,
) -> bytes:
    """What the engine writes to the transmit socket for a burst that starts at row ``first``."""
    header = np.full(64, 0xEE, np.uint8)
    arena = np.full(((length + 3) & ~3) + 8, 0xEE, np.uint8)
    ttl = outgoing_ttl(frames[first], output.row())
    write_header(header, frames[first], output.row(), output.link_row(), ttl, length, segment, identification)
    copied = copy_payload(words, data, frames, first, arena.view(np.uint32), arena, 4)
    assert copied == length
    assert (arena[:4] == 0xEE).all(), "wrote before its place"
    assert (arena[4 + length :] == 0xEE).all(), "wrote behind its place"
    assert (header[HEADER_BYTES:] == 0xEE).all()
    return header[:HEADER_BYTES].tobytes() + arena[4 : 4 + length].tobytes()


def in_one_memory(parts: Sequence[tuple[NDArray[np.uint32], NDArray[np.uint8]]]) -> tuple[Any, Any]:
    """Parsed frames moved to one memory, as in a ring: ``uint32[n, FRAME_COLUMNS]`` and the bytes."""
    rows = np.zeros((len(parts), schema.FRAME_COLUMNS), np.uint32)
    start = 0
    for position, (row, data) in enumerate(parts):
        rows[position] = row
        rows[position, schema.FRAME_PAYLOAD] += start // 4
        rows[position, schema.FRAME_NEXT] = schema.NONE
        start += len(data)
    return rows, np.concatenate([data for _, data in parts]) if parts else np.zeros(0, np.uint8)


macs = (
    st.binary(min_size=6, max_size=6)
    .map(lambda mac: bytes([mac[0] & 0xFE]) + mac[1:])
    .map(lambda mac: ":".join(f"{byte:02x}" for byte in mac))
)
outputs = st.builds(
    Output,
    group=groups,
    port=ports,
    ttl=st.just(0) | st.integers(1, 255),
    source=st.sampled_from(["interface", "preserve"]) | addresses,
    link_source=addresses,
    link_mac=macs,
)
