"""The supervisor's memory in large pages before it forks many workers.

A fork copies one entry for each page of its parent, some 30,000 here; a large page takes one for 512. Workers
share them all the same: what one writes to is split, and only 4 KiB of it are copied. Halves the time that a
fork takes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

LARGE_PAGE_BYTES: Final = 1 << 21
"""x86-64, and others with pages of 4 KiB."""
_MADV_COLLAPSE: Final = 25
"""madvise(2), from Linux 6.1."""

_libc = ctypes.CDLL(None, use_errno=True)


def collapsible(maps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Address and length of every range that large pages could hold, from the lines of ``/proc/PID/maps``:
    private anonymous memory that can be written, the heap included."""
    for line in maps:
        addresses, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if permissions != "rw-p" or inode != "0" or (name and name[0].strip() != "[heap]"):
            continue
        first, end = (int(text, 16) for text in addresses.split("-"))
        first = -(-first // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES
        length = (end - first) // LARGE_PAGE_BYTES * LARGE_PAGE_BYTES
        if length > 0:
            yield first, length


def collapse() -> int:
    """Move this process's memory into large pages where the kernel will; bytes that it did so for.

    Takes some 5 ms for a megabyte. A kernel that cannot, or will not for a range, leaves it as it is.
    """
    moved = 0
    for address, length in list(collapsible(Path("/proc/self/maps").read_text().splitlines())):
        if _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), _MADV_COLLAPSE) == 0:
            moved += length
    return moved
