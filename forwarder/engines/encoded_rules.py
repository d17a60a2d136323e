"""Rules as engines hold them: addresses and ports as they stand in a frame. Pure."""

from ipaddress import IPv4Address

from forwarder.engines.packet.schema import SOURCE_INTERFACE, SOURCE_PRESERVE
from forwarder.rules.model import Output


def raw_address(address: IPv4Address) -> int:
    """Four bytes in network order, read as a native word."""
    return int.from_bytes(address.packed, "little")


def raw_port(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), "little")


def output_row(output: Output, link: int) -> tuple[int, int, int, int]:
    """An output as the engines hold it; ``link``: the row of its interface in the table of links."""
    if output.source is None:
        source = SOURCE_INTERFACE
    elif output.source == "preserve":
        source = SOURCE_PRESERVE
    else:
        source = raw_address(IPv4Address(output.source))
    port_ttl = raw_port(output.port) | (output.ttl or 0) << 16
    return raw_address(output.group), source, port_ttl, link
