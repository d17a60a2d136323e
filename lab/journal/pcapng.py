"""Write captured frames as pcapng (draft-ietf-opsawg-pcapng), with comments.

The comment of the section says what the frames are, that of an interface how many there were, and that of a
frame what a reader of its bytes must know.
"""

import struct
from collections.abc import Iterable
from typing import Any

from scapy.utils import RawPcapNgWriter

from lab.journal.evidence import CapturedFrame

ETHERNET = 1
SECTION, INTERFACE = b"\x0a\x0d\x0d\x0a", struct.pack("<I", 1)
"""Types of blocks."""
COMMENT, NAME, RESOLUTION = 1, 2, 9
"""Codes of options."""
NANOSECONDS = b"\x09"
INBOUND, OUTBOUND = 1, 2
UNFINISHED_CHECKSUM = "the UDP checksum is left to the device"


class Writer(RawPcapNgWriter):  # type: ignore[misc]
    """scapy's, with comments and nanoseconds."""

    def __init__(self, path: str, about: str, interfaces: Iterable[tuple[str, str]]) -> None:
        super().__init__(path)
        self.header_present = True
        self.linktype = ETHERNET
        self.tsresol = 1  # frames are given in the unit that the file has
        body = self.endian_magic + struct.pack("<HHq", 1, 0, -1)
        self.f.write(self.build_block(SECTION, body, self._options((COMMENT, about.encode()))))
        self.interfaces2id = {}
        for number, (name, text) in enumerate(interfaces):
            self.interfaces2id[name.encode()] = number
            options = (NAME, name.encode()), (COMMENT, text.encode()), (RESOLUTION, NANOSECONDS)
            body = struct.pack("<HHI", ETHERNET, 0, 0)
            self.f.write(self.build_block(INTERFACE, body, self._options(*options)))

    def add(self, frames: Iterable[CapturedFrame]) -> None:
        for frame in frames:
            self._write_packet(
                frame.data,
                ETHERNET,
                sec=frame.time_ns,
                ifname=frame.interface.encode(),
                direction=OUTBOUND if frame.outgoing else INBOUND,
                comments=None if frame.checksum_ready else [UNFINISHED_CHECKSUM],
            )

    def _options(self, *options: tuple[int, bytes]) -> Any:
        text = (struct.pack("<HH", code, len(value)) + self._add_padding(value) for code, value in options)
        return b"".join(text) + struct.pack("<HH", 0, 0)
