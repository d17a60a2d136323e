"""IGMP membership reports as they cross a link: who asks for which group, and who leaves it. Pure.

Version 3 (RFC 3376, section 4.2), whose records say how a group's filter changed, and versions 1 and 2.
By hand: scapy's parser does not skip a record's auxiliary data, moved in scapy 2.8 and imports sockets.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Literal

Word = Literal["join", "leave"]

_ETHERNET = 14
_IGMP = 2
_REPORT_V1, _REPORT_V2, _LEAVE, _REPORT_V3 = 0x12, 0x16, 0x17, 0x22
_TO_INCLUDE, _TO_EXCLUDE = 3, 4


def membership(frame: bytes) -> Iterator[tuple[Word, IPv4Address]]:
    """What an Ethernet frame asks for; nothing for one that is no report, or is cut short.

    A change to "exclude nothing" is a join, one to "include nothing" a leave; what only confirms a state, as
    an answer to a query does, is neither.
    """
    if len(frame) < _ETHERNET + 20 or frame[12:14] != b"\x08\x00" or frame[_ETHERNET + 9] != _IGMP:
        return
    message = frame[_ETHERNET + (frame[_ETHERNET] & 15) * 4 :]
    if len(message) < 8:
        return
    if message[0] in (_REPORT_V1, _REPORT_V2):
        yield "join", IPv4Address(message[4:8])
    elif message[0] == _LEAVE:
        yield "leave", IPv4Address(message[4:8])
    elif message[0] == _REPORT_V3:
        at = 8
        for _ in range(int.from_bytes(message[6:8], "big")):
            record = message[at : at + 8]
            if len(record) < 8:
                return
            sources = int.from_bytes(record[2:4], "big")
            if record[0] == _TO_EXCLUDE and not sources:
                yield "join", IPv4Address(record[4:8])
            elif record[0] == _TO_INCLUDE and not sources:
                yield "leave", IPv4Address(record[4:8])
            at += 8 + 4 * sources + 4 * record[1]
