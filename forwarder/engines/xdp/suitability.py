"""Interfaces and rules that the XDP engine cannot serve, each with its reason as one sentence.

Pure: devices are described by the caller.
"""

import errno
from typing import Protocol

from forwarder.abi.netdev import XDP_REDIRECT, XDP_TRANSMIT


class Device(Protocol):
    """An interface as the kernel has it now."""

    @property
    def ifindex(self) -> int: ...
    @property
    def mtu(self) -> int: ...
    @property
    def mac(self) -> bytes: ...
    @property
    def ipv4(self) -> bytes | None: ...


class UnsuitedError(Exception):
    """A rule or an interface that the packet engine is to serve instead; the message is the sentence."""


def of_input(name: str, features: int) -> str | None:
    """Why an interface cannot be an input, by what its driver can do."""
    if not features & XDP_REDIRECT:
        return f"input interface {name}: its driver has no native XDP that redirects"
    return None


def of_output(name: str, features: int) -> str | None:
    """Why an interface cannot be an output; a veth end takes frames only while its peer uses NAPI."""
    if not features & XDP_TRANSMIT:
        return f"output interface {name} takes no redirected frames (of veth: switch on GRO at its peer)"
    return None


def of_attachment(name: str, mtu: int, error: OSError) -> str:
    """Why the kernel did not attach the program to an input."""
    reasons = {
        errno.EBUSY: "another XDP program is attached to it",
        errno.EEXIST: "another XDP program is attached to it",
        errno.EOPNOTSUPP: "its driver has no native XDP",
        errno.ERANGE: f"its MTU, or its peer's, is too large for XDP ({mtu:,} bytes here)",
        errno.EINVAL: f"its driver takes no XDP program with these settings (MTU {mtu:,} bytes)",
        errno.EPERM: "CAP_NET_ADMIN and CAP_BPF are needed to attach an XDP program",
    }
    return f"input interface {name}: {reasons.get(error.errno or 0, error.strerror)}"
