"""The functional probes: packets as scapy makes them, and what a correct forwarder does with each.

A probe either becomes copies, described field by field and compared with what scapy dissects, or it is
counted under one reason. A forwarded probe's payload begins with the probe's name, so its copies are found.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum as internet_checksum

from lab.load.jobs import Frame
from lab.peers.mcrd import EGRESS_REASONS
from lab.results import Check
from lab.traffic.send.frames import group_mac

SENDER_MAC = "02:00:0a:0a:00:01"
SOURCE = "10.10.0.1"
GIVEN_SOURCE = "10.99.0.1"
TTL = 16


def _rule(rule_id: str, group: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "rule_id": rule_id,
        "input_interface": "in0",
        "input_group": group,
        "input_port": 5001,
        "outputs": list(outputs),
    }


RULES: dict[str, Any] = {
    "rules": [
        _rule("rewrite", "239.1.1.1", {"group": "239.2.2.2", "port": 5002, "interface": "out0"}),
        _rule(
            "ttl-and-source",
            "239.1.1.2",
            {"group": "239.2.2.3", "port": 5003, "interface": "out0", "ttl": 5, "source": "preserve"},
        ),
        _rule(
            "two-outputs",
            "239.1.1.3",
            {"group": "239.2.2.4", "port": 5004, "interface": "out0"},
            {"group": "239.2.2.5", "port": 5005, "interface": "out1", "source": GIVEN_SOURCE},
        ),
    ]
}


@dataclass(frozen=True)
class Copy:
    """A datagram that must come out; what is not named here is as it went in."""

    interface: Literal["r0", "r1"] = "r0"
    group: str = "239.2.2.2"
    port: int = 5002
    source: str = "10.20.0.1"
    ttl: int = TTL - 1
    checksum: Literal["right", "wrong"] = "right"
    """UDP: wrong is a payload damaged upstream, which must stay detectable."""


@dataclass(frozen=True)
class Probe:
    """One frame, and the copies it becomes, or the reason under which it is counted."""

    name: str
    frame: bytes
    copies: tuple[Copy, ...] = ()
    reason: str | None = None


def probes() -> list[Probe]:
    return [*_forwarded(), *_counted()]


def _forwarded() -> Iterator[Probe]:
    def named(name: str, size: int = 64, **fields: Any) -> Packet:
        return datagram((name.encode() + b".").ljust(size, b"."), **fields)

    def probe(name: str, *copies: Copy, **fields: Any) -> Probe:
        return Probe(name, bytes(named(name, **fields)), copies or (Copy(),))

    yield probe("group, port, source and TTL rewritten")
    yield probe("DSCP and ECN kept", tos=0xB9)
    yield probe("source port kept", sport=61000)
    yield probe("don't fragment kept", flags="DF")
    yield probe("odd length", size=33)
    yield probe("1,472 bytes", size=1472)
    yield probe("small", size=18)
    yield probe(
        "TTL set, source preserved",
        Copy(group="239.2.2.3", port=5003, ttl=5, source=SOURCE),
        group="239.1.1.2",
    )
    yield probe(
        "two outputs",
        Copy(group="239.2.2.4", port=5004),
        Copy("r1", "239.2.2.5", 5005, source=GIVEN_SOURCE),
        group="239.1.1.3",
    )
    name = "no UDP checksum, filled in"
    bare = named(name)
    bare[UDP].chksum = 0
    yield Probe(name, bytes(bare), (Copy(),))
    name = "damaged payload"
    damaged = bytearray(bytes(named(name)))
    damaged[-1] ^= 0xFF
    yield Probe(name, bytes(damaged), (Copy(checksum="wrong"),))


def _counted() -> Iterator[Probe]:
    payload = b"x" * 64
    ip = IP(src=SOURCE, dst="239.1.1.1", ttl=TTL)
    udp = UDP(sport=4000, dport=5001) / Raw(payload)
    ether = Ether(src=SENDER_MAC, dst=group_mac("239.1.1.1"))

    yield Probe("group without a rule", bytes(datagram(payload, group="239.1.1.9")), reason="no_rule")
    yield Probe("port without a rule", bytes(datagram(payload, port=5009)), reason="no_rule")
    yield Probe("TTL 1", bytes(datagram(payload, ttl=1)), reason="ttl_expired")
    yield Probe("first fragment", bytes(datagram(payload, flags="MF")), reason="fragment")
    yield Probe("later fragment", bytes(datagram(payload, frag=8)), reason="fragment")
    yield Probe("VLAN-tagged", bytes(ether / Dot1Q(vlan=7) / ip / udp), reason="vlan_tagged")
    header = bytearray(bytes(datagram(payload)))
    header[24] ^= 0xFF  # the IP header's checksum
    yield Probe("IP header checksum wrong", bytes(header), reason="bad_checksum")
    yield Probe("IP length beyond the frame", bytes(datagram(payload, len=1200)), reason="malformed")
    longer = datagram(payload)
    longer[UDP].len = 1200
    yield Probe("UDP length beyond the datagram", bytes(longer), reason="malformed")
    yield Probe("TCP to a group", bytes(ether / ip / TCP() / Raw(payload)), reason="not_udp")
    unicast = IP(src=SOURCE, dst="10.10.0.2", ttl=TTL)
    # To another station's address: the kernel would answer one of its own with ICMP, after an ARP exchange.
    elsewhere = Ether(src=SENDER_MAC, dst="02:00:00:00:00:99")
    yield Probe("unicast destination", bytes(elsewhere / unicast / udp), reason="not_multicast")
    asking = ARP(op=2, hwsrc=SENDER_MAC, psrc=SOURCE, pdst="10.10.0.2")
    yield Probe("ARP", bytes(Ether(src=SENDER_MAC, dst="ff:ff:ff:ff:ff:ff") / asking), reason="not_ipv4")


def datagram(
    payload: bytes, *, group: str = "239.1.1.1", port: int = 5001, sport: int = 4000, **ip: Any
) -> Packet:
    """A multicast datagram from the generator; ``ip`` overrides fields of the IP header."""
    header = IP(**{"src": SOURCE, "dst": group, "ttl": TTL, **ip})
    return Ether(src=SENDER_MAC, dst=group_mac(group)) / header / UDP(sport=sport, dport=port) / Raw(payload)


def describe(probe: Probe, copy: Copy) -> dict[str, object]:
    """The fields that ``copy`` of ``probe`` must have: as it went in, but for what the copy says."""
    return _fields(Ether(probe.frame)) | {
        "interface": copy.interface,
        "Ethernet destination": group_mac(copy.group),
        "source": copy.source,
        "group": copy.group,
        "port": copy.port,
        "TTL": copy.ttl,
        "IP checksum": "right",
        "UDP checksum": copy.checksum,
    }


def observe(interface: str, frame: bytes, checksum_ready: bool) -> dict[str, object]:
    """The same fields of a captured frame; without ``checksum_ready`` its UDP sum was left to the device."""
    seen = Ether(frame)
    return _fields(seen) | {
        "interface": interface,
        "IP checksum": "right" if internet_checksum(bytes(seen[IP])[: seen[IP].ihl * 4]) == 0 else "wrong",
        "UDP checksum": _udp_checksum(seen) if checksum_ready else "right",
    }


def _fields(packet: Packet) -> dict[str, object]:
    return {
        "Ethernet destination": packet.dst,
        "source": packet[IP].src,
        "group": packet[IP].dst,
        "source port": packet[UDP].sport,
        "port": packet[UDP].dport,
        "TTL": packet[IP].ttl,
        "TOS": packet[IP].tos,
        "flags": str(packet[IP].flags),
        "payload": _payload(packet).hex(),
    }


def is_copy_of(probe: Probe, frame: bytes) -> bool:
    """Whether a captured frame carries the payload that begins with the probe's name."""
    seen = Ether(frame)
    return UDP in seen and _payload(seen).startswith(probe.name.encode() + b".")


def _payload(packet: Packet) -> bytes:
    """The UDP payload by the UDP length: what follows it in the frame is padding."""
    datagram_bytes = bytes(packet[UDP])
    return datagram_bytes[8 : packet[UDP].len]


def _udp_checksum(packet: Packet) -> str:
    if packet[UDP].chksum == 0:
        return "absent"
    again = Ether(bytes(packet))
    del again[UDP].chksum
    right = Ether(bytes(again))[UDP].chksum
    return "right" if right == packet[UDP].chksum else "wrong"


def checks(
    scenario: str, sent: Sequence[Probe], frames: Sequence[Frame], counted: Mapping[str, int]
) -> list[Check]:
    """One check for each packet, and one for the totals."""
    compared = {probe.name: _compared(probe, sent, frames, counted) for probe in sent}
    compared["every probe counted once"] = _sums(sent, counted)
    return [
        Check(scenario=scenario, case=name, passed=expected == observed, expected=expected, observed=observed)
        for name, (expected, observed) in compared.items()
    ]


def _compared(
    probe: Probe, sent: Sequence[Probe], frames: Sequence[Frame], counted: Mapping[str, int]
) -> tuple[str, str]:
    """What was wanted and what came, in words; equal where it is the same."""
    if probe.reason is not None:
        same = sum(other.reason == probe.reason for other in sent)
        return f"{probe.reason} = {same}", f"{probe.reason} = {counted.get(probe.reason, 0)}"
    seen = [
        observe(frame.interface, bytes.fromhex(frame.data), frame.checksum_ready)
        for frame in frames
        if is_copy_of(probe, bytes.fromhex(frame.data))
    ]
    return _differences(probe, seen)


def _differences(probe: Probe, seen: list[dict[str, object]]) -> tuple[str, str]:
    """As :func:`_compared`; only the fields that differ when the number is right."""
    wanted = sorted((describe(probe, copy) for copy in probe.copies), key=str)
    seen = sorted(seen, key=str)
    plural = "copy" if len(wanted) == 1 else "copies"
    if len(wanted) != len(seen):
        return f"{len(wanted)} {plural}", f"{len(seen)} captured"
    different = [
        (f"{name} {want[name]}", f"{name} {got[name]}")
        for want, got in zip(wanted, seen, strict=True)
        for name in want
        if want[name] != got[name]
    ]
    if not different:
        text = f"{len(wanted)} {plural}, {len(wanted[0])} fields each as specified"
        return text, text
    return "; ".join(want for want, _ in different), "; ".join(got for _, got in different)


def _sums(sent: Sequence[Probe], counted: Mapping[str, int]) -> tuple[str, str]:
    """Every probe is counted once; one that matched but must not leave (its TTL is 1) counts as matched."""
    wanted = {
        "received": len(sent),
        "matched": sum(bool(probe.copies) or probe.reason in EGRESS_REASONS for probe in sent),
        "sent": sum(len(probe.copies) for probe in sent),
    }
    return (
        ", ".join(f"{name} {count}" for name, count in wanted.items()),
        ", ".join(f"{name} {counted.get(name, 0)}" for name in wanted),
    )
