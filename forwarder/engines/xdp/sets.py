"""Sets of output interfaces: the devmaps that rules with several outputs broadcast to.

A set depends on the interfaces only, so all rules with the same ones share it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from forwarder.abi import bpf
from forwarder.abi.bpf_maps import BPF_MAP_TYPE_DEVMAP, Map
from forwarder.engines.xdp import layout
from forwarder.engines.xdp.suitability import UnsuitedError


def word(number: int) -> bytes:
    return number.to_bytes(4, "little")


@dataclass
class Numbers:
    """Small numbers, each given out once at a time."""

    most: int
    what: str
    _used: int = 0
    _free: list[int] = field(default_factory=list)

    def take(self) -> int:
        if self._free:
            return self._free.pop()
        self.check(1)
        self._used += 1
        return self._used - 1

    def check(self, more: int) -> None:
        """Raises UnsuitedError if there is no room for ``more``."""
        if self._used - len(self._free) + more > self.most:
            raise UnsuitedError(f"the XDP engine has room for {self.most:,} {self.what}")

    def give(self, number: int) -> None:
        self._free.append(number)


@dataclass
class _Set:
    key: int
    users: int = 1


class OutputSets:
    """The sets that rules use, in a map of maps; ``most``: how many it has room for."""

    def __init__(self, many: Map, most: int) -> None:
        self._many = many
        self._numbers = Numbers(most, "sets of outputs")
        self._sets: dict[tuple[int, ...], _Set] = {}

    def key(self, links: tuple[int, ...]) -> int:
        """The key of a rule's set, by the rows of its output interfaces."""
        return self._sets[_members(links)].key

    def use(self, links: tuple[int, ...], destination_of: Callable[[int], bytes | None]) -> None:
        """Have the set of a rule with several outputs; ``destination_of`` a row is its entry of a devmap."""
        members = _members(links)
        if one := self._sets.get(members):
            one.users += 1
            return
        key = self._numbers.take()
        try:
            self._make(key, members, destination_of)
        except OSError:
            self._numbers.give(key)
            raise
        self._sets[members] = _Set(key)

    def leave(self, links: tuple[int, ...]) -> None:
        """Give the set of a rule back that no datagram is on its way by any more."""
        members = _members(links)
        if one := self._sets.get(members):
            one.users -= 1
            if not one.users:
                del self._sets[members]
                self._many.delete(word(one.key))
                self._numbers.give(one.key)

    def point(self, row: int, destination: bytes | None) -> None:
        """Put an interface into the sets that it is in, or take it out."""
        for members, one in self._sets.items():
            if row in members and (number := self._many.lookup(word(one.key))):
                fd = bpf.map_by_id(int.from_bytes(number, "little"))
                try:
                    put(Map(fd), members.index(row), destination)
                finally:
                    os.close(fd)

    def _make(
        self, key: int, members: tuple[int, ...], destination_of: Callable[[int], bytes | None]
    ) -> None:
        size = layout.DEVICE.itemsize
        fd = bpf.create_map(BPF_MAP_TYPE_DEVMAP, 4, size, len(members), name="mcrd_outputs")
        try:
            for place, row in enumerate(members):
                if destination := destination_of(row):
                    put(Map(fd), place, destination)
            self._many.update(word(key), word(fd))
        finally:
            os.close(fd)


def put(devices: Map, place: int, destination: bytes | None) -> None:
    """Fill a place of a devmap or empty it; the kernel has emptied that of a device which is gone."""
    if destination is None:
        devices.delete(word(place))
    else:
        devices.update(word(place), destination)


def _members(links: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(links))
