"""What a generator asks of an interface in its own namespace."""

from __future__ import annotations

from pathlib import Path

from lab.load.jobs import TrafficError


def mac_of(interface: str) -> list[int]:
    """Its Ethernet address, six octets. Raises TrafficError."""
    try:
        text = Path(f"/sys/class/net/{interface}/address").read_text()
    except OSError as error:
        raise TrafficError(f"interface {interface}: {error.strerror}") from error
    return [int(octet, 16) for octet in text.strip().split(":")]
