"""Network interfaces by name, whether they exist or not. Pure.

A name means the interface that has it now. If none has it any more, it still means the interface that had it
last, as long as that one exists: a rename does not stop traffic.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class InterfaceState:
    ifindex: int
    name: str
    up: bool
    mtu: int
    mac: bytes
    ipv4: bytes | None
    """Its first IPv4 address, four bytes; None without one."""


@dataclass
class LinkView:
    """The interface that each name means."""

    _by_index: Mapping[int, InterfaceState] = field(default_factory=dict)
    _meant: dict[str, int] = field(default_factory=dict)

    def update(self, states: Iterable[InterfaceState]) -> None:
        """Take a new list of the kernel's interfaces."""
        self._by_index = {state.ifindex: state for state in states}
        for state in self._by_index.values():
            self._meant[state.name] = state.ifindex
        self._meant = {name: index for name, index in self._meant.items() if index in self._by_index}

    def __contains__(self, name: object) -> bool:
        return name in self._meant

    def find(self, name: str) -> InterfaceState | None:
        index = self._meant.get(name)
        return None if index is None else self._by_index[index]


def trouble(use: Literal["input", "output"], name: str, state: InterfaceState | None) -> str | None:
    """Why nothing can be received from an interface, or sent out of it, or None."""
    if state is None:
        return f"{use} interface {name} does not exist"
    if not state.up:
        return f"{use} interface {name} is down"
    if use == "output" and state.ipv4 is None:
        return f"output interface {name} has no IPv4 address"
    return None
