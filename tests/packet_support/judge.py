"""Whether a frame may be forwarded, as scapy reads it."""

from __future__ import annotations

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot3, Ether
from scapy.utils import checksum as scapy_checksum

from packet_support.linux import ones_sum


def defects(frame: bytes, length: int, *, tagged: bool = False) -> set[str]:
    """Every reason for which scapy's reading of these bytes forbids forwarding; empty: forward.

    Independent of the order in which the parser looks.
    """
    if tagged:
        return {"vlan_tagged"}
    if len(frame) < 14:
        return {"malformed" if length < 14 else "truncated"}
    ether = Ether(frame[:14])
    if isinstance(ether, Dot3) or ether.type not in (0x0800, 0x8100, 0x88A8):
        return {"not_ipv4"}
    if ether.type != 0x0800:
        return {"vlan_tagged"}
    if length < 34:
        return {"malformed"}
    if len(frame) < 34:
        return {"truncated"}
    ip = IP(frame[14:34])
    header = ip.ihl * 4
    if ip.version != 4 or header < 20:
        return {"malformed"}
    found = set()
    if not header <= ip.len <= length - 14:
        found.add("malformed")
    elif ip.len > len(frame) - 14:
        found.add("truncated")
    if scapy_checksum(frame[14 : 14 + header]) != 0:
        found.add("bad_checksum")
    if not 224 <= int(ip.dst.split(".")[0]) <= 239:
        found.add("not_multicast")
    if ip.proto != 17:
        found.add("not_udp")
    elif ip.frag or ip.flags.MF:
        found.add("fragment")
    elif ip.len < header + 8:
        found.add("malformed")
    elif len(frame) >= 14 + header + 8:
        udp = UDP(frame[14 + header : 14 + header + 8])
        if not 8 <= udp.len <= ip.len - header:
            found.add("malformed")
    return found


def checksum_holds(frame: bytes) -> bool:
    """Whether a receiver would take the UDP datagram in a frame without IP options."""
    ip = IP(frame[14:])
    pseudo = frame[26:34] + b"\0\x11" + frame[38:40]
    return ip.chksum is not None and (UDP(frame[34:]).chksum == 0 or ones_sum(pseudo + frame[34:]) == 0xFFFF)
