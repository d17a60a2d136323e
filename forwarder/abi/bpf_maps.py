"""eBPF maps by descriptor: made, filled and read through bpf(2) (``linux/bpf.h``).

Keys and values are bytes as the programs lay them out. In a map with a value for each CPU, values are rounded
up to eight bytes and stand one behind the other, one for each possible CPU.
"""

import ctypes
import errno
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forwarder.abi import bpf

BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY = 1, 2, 5, 6
BPF_MAP_TYPE_LRU_PERCPU_HASH, BPF_MAP_TYPE_HASH_OF_MAPS, BPF_MAP_TYPE_DEVMAP = 10, 13, 14
BPF_ANY, BPF_NOEXIST, BPF_EXIST = 0, 1, 2

_LOOKUP, _DELETE, _NEXT_KEY, _INFO = 1, 3, 4, 15
_LOOKUP_BATCH, _UPDATE_BATCH = 24, 26
_PER_CPU: Final = (BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_LRU_PERCPU_HASH)
_HOLDS_MAPS: Final = 12, BPF_MAP_TYPE_HASH_OF_MAPS

_ELEMENT: Final = struct.Struct("=IxxxxQQQ")
"""map_fd, key, value or next_key, flags"""
_BATCH: Final = struct.Struct("=QQQQIIQQ")
"""in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags"""
_MAP_INFO: Final = struct.Struct("=IIIIII16s")
"""The beginning of ``struct bpf_map_info``: type, id, key_size, value_size, max_entries, map_flags, name."""
_ATTRIBUTE: Final = struct.Struct("=IIQ")
"""bpf_fd, info_len, info"""


@cache
def possible_cpus() -> int:
    """How many values a map for each CPU holds of one key."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


class Map:
    """A map; ``fd`` stays the caller's."""

    def __init__(self, fd: int) -> None:
        info = ctypes.create_string_buffer(_MAP_INFO.size)
        bpf.call(_INFO, _ATTRIBUTE.pack(fd, len(info), ctypes.addressof(info)))
        self.fd = fd
        self.kind, self.id, self.key_bytes, self.value_bytes, self.entries, _, name = _MAP_INFO.unpack(info)
        self.name: str = name.rstrip(b"\0").decode()
        self.cpus = possible_cpus() if self.kind in _PER_CPU else 1
        """Values of one key."""
        if self.kind in _PER_CPU:
            self.value_bytes = -(-self.value_bytes // 8) * 8
        self._whole = self.value_bytes * self.cpus

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Set a key's value, or values of all CPUs; in a map of maps the value is a descriptor.

        Raises OSError: the map is full (E2BIG), the key is there already or is not (BPF_NOEXIST, BPF_EXIST).
        """
        assert (len(key), len(value)) == (self.key_bytes, self._whole), f"{self.name}: {key!r}, {value!r}"
        self._element(bpf.BPF_MAP_UPDATE_ELEM, key, ctypes.create_string_buffer(value, len(value)), flags)

    def update_many(self, keys: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        """Set many keys of an array or a hash; an error leaves those before it set."""
        keys, values = np.ascontiguousarray(keys), np.ascontiguousarray(values)
        assert (keys.nbytes, values.nbytes) == (self.key_bytes * len(keys), self._whole * len(keys))
        if len(keys):
            self._batch(_UPDATE_BATCH, len(keys), keys.ctypes.data, values.ctypes.data)

    def lookup(self, key: bytes) -> bytes | None:
        """A key's value, or values of all CPUs; in a map of maps the inner map's number."""
        value = ctypes.create_string_buffer(self._whole)
        return value.raw if self._found(_LOOKUP, key, value) else None

    def per_cpu(self, key: bytes, entry: npt.DTypeLike) -> npt.NDArray[Any]:
        """A key's values, one ``entry`` for each CPU. Raises KeyError: there is none."""
        value = self.lookup(key)
        if value is None:
            raise KeyError(key)
        return _entries(np.frombuffer(value, np.uint8), (self.cpus,), entry, self.value_bytes)

    def read_array(self, entry: npt.DTypeLike, count: int | None = None) -> npt.NDArray[Any]:
        """The first ``count`` entries of an array, or all: a row for each, a column for each CPU."""
        count = self.entries if count is None else count
        values, keys = np.zeros(count * self._whole, np.uint8), np.zeros(count, np.uint32)
        if count:
            self._batch(_LOOKUP_BATCH, count, keys.ctypes.data, values.ctypes.data)
        return _entries(values, (count, self.cpus), entry, self.value_bytes)

    def delete(self, key: bytes) -> bool:
        """Take a key out; False when there is none."""
        return self._found(_DELETE, key, None)

    def __iter__(self) -> Iterator[bytes]:
        """All keys, while nobody else changes the map."""
        last: bytes | None = None
        following = ctypes.create_string_buffer(self.key_bytes)
        while self._found(_NEXT_KEY, last, following):
            last = following.raw
            yield last

    def _found(self, command: int, key: bytes | None, value: Any) -> bool:
        try:
            self._element(command, key, value)
        except FileNotFoundError:
            return False
        return True

    def _element(self, command: int, key: bytes | None, value: Any, flags: int = 0) -> None:
        held = ctypes.create_string_buffer(key, len(key)) if key is not None else None
        addresses = (0 if each is None else ctypes.addressof(each) for each in (held, value))
        try:
            bpf.call(command, _ELEMENT.pack(self.fd, *addresses, flags))
        except OSError as error:
            raise OSError(error.errno, f"map {self.name}: {error.strerror}") from None

    def _batch(self, command: int, count: int, keys: int, values: int) -> None:
        place = ctypes.create_string_buffer(max(8, self.key_bytes))
        attributes = _BATCH.pack(0, ctypes.addressof(place), keys, values, count, self.fd, 0, 0)
        try:
            bpf.call(command, attributes)
        except OSError as error:
            # The end of the map, which was asked for whole.
            if not (command == _LOOKUP_BATCH and error.errno == errno.ENOENT):
                raise OSError(error.errno, f"map {self.name}: {error.strerror}") from None


def _entries(
    raw: npt.NDArray[np.uint8], shape: Sequence[int], entry: npt.DTypeLike, value_bytes: int
) -> npt.NDArray[Any]:
    """Values as one dtype, whatever stands behind each up to the next multiple of eight bytes."""
    dtype = np.dtype(entry)
    rows = raw.reshape(*shape, value_bytes)[..., : dtype.itemsize]
    return np.ascontiguousarray(rows).view(dtype)[..., 0] if dtype.itemsize else rows
