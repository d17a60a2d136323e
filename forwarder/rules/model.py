"""What a forwarding rule is, and what each of its fields may be."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from forwarder.problems import ProblemsError

Node = tuple[str, int, int]
"""(interface, group as an integer, port)"""

_INTERFACE_NAME = "an interface name: 1 to 15 bytes, without '/', ':' or white space"
_GROUP = "an IPv4 multicast address, 224.0.0.0 to 239.255.255.255"
_PORT = "an integer from 1 to 65535"
ALLOWED = {
    "rules": "a list of rules",
    "rule_id": "1 to 128 printable characters, or left out (interface:group:port)",
    "input_interface": _INTERFACE_NAME,
    "input_group": _GROUP,
    "input_port": _PORT,
    "outputs": "a list of 1 to 4096 outputs",
    "group": _GROUP,
    "port": _PORT,
    "interface": _INTERFACE_NAME,
    "ttl": "an integer from 1 to 255, or left out (the datagram's own, less one)",
    "source": "a unicast IPv4 address, 'preserve', or left out (the output interface's address)",
}


class RulesError(ProblemsError):
    """Rules that cannot be used."""


def interface_name(value: object) -> str:
    """``value`` if the kernel would take it as a device's name (``dev_valid_name``); else ValueError."""
    if not isinstance(value, str) or not _is_interface_name(value):
        raise ValueError(_INTERFACE_NAME)
    return value


@lru_cache(maxsize=4096)  # thousands of rules name a few interfaces
def _is_interface_name(name: str) -> bool:
    return (
        1 <= len(name.encode("utf-8", "surrogatepass")) <= 15
        and name not in (".", "..")
        and not any(c in "/:\0" or c.isspace() for c in name)
    )


_OCTETS = {str(number): number for number in range(256)}


def _address(value: object) -> IPv4Address:
    """An address from text, and from text only: ``IPv4Address`` would take integers and bytes, too.

    Octets are looked up, which is an eighth of the time that ``IPv4Address`` takes to read text; it was
    a third of the time to read 10,000 rules.
    """
    if isinstance(value, IPv4Address):
        return value
    if not isinstance(value, str):
        raise ValueError("an IPv4 address as text")
    try:
        a, b, c, d = map(_OCTETS.__getitem__, value.split("."))
    except (KeyError, ValueError):
        raise ValueError("an IPv4 address") from None
    return IPv4Address(a << 24 | b << 16 | c << 8 | d)


def _multicast(value: object) -> IPv4Address:
    address = _address(value)
    if int(address) >> 28 != 0b1110:
        raise ValueError(_GROUP)
    return address


def _source(value: object) -> object:
    if value is None or value == "preserve":
        return value
    address = _address(value)
    if not 0 < int(address) < 0xE000_0000:  # 224.0.0.0 and above: multicast, reserved, broadcast
        raise ValueError("a unicast IPv4 address")
    return address


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("printable characters")
    return value


MOST_OUTPUTS: Final = 4096
"""Limit for one rule, whose outputs are sent to a worker in one message."""


def _some(outputs: tuple[Output, ...]) -> tuple[Output, ...]:
    """Checked here, not by ``min_length``, which also complains when the only output has a bad field."""
    if not 1 <= len(outputs) <= MOST_OUTPUTS:
        raise ValueError("1 to 4096 outputs")
    return outputs


InterfaceName = Annotated[str, BeforeValidator(interface_name)]
Group = Annotated[IPv4Address, BeforeValidator(_multicast)]
RuleId = Annotated[str, Field(strict=True, min_length=1, max_length=128), AfterValidator(_printable)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


class Output(BaseModel, frozen=True, extra="forbid"):
    """Where copies of a matching datagram go; by default the forwarder sets ``ttl`` and ``source``."""

    group: Group
    port: Port
    interface: InterfaceName
    ttl: Annotated[int, Field(strict=True, ge=1, le=255)] | None = None
    source: Annotated[IPv4Address | Literal["preserve"] | None, BeforeValidator(_source)] = None

    @property
    def node(self) -> Node:
        return (self.interface, int(self.group), self.port)


class ForwardingRule(BaseModel, frozen=True, extra="forbid"):
    """Datagrams to ``input_group:input_port`` that arrive on ``input_interface`` go to every output."""

    # The id comes last because it is derived from the fields before it when left out.
    input_interface: InterfaceName
    input_group: Group
    input_port: Port
    outputs: Annotated[tuple[Output, ...], AfterValidator(_some)]
    rule_id: RuleId = Field(
        default_factory=lambda fields: "{input_interface}:{input_group}:{input_port}".format_map(fields)
    )

    @property
    def node(self) -> Node:
        return (self.input_interface, int(self.input_group), self.input_port)
