"""Memory that workers share with the supervisor: counters, journals, cursors, per-rule counters.

One sparse memfd holds a block per worker. The worker alone writes its block, the supervisor only reads
while the worker lives; the block outlives the process, so counters survive and a successor finds where to
go on. Pages that nobody touched cost nothing.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forwarder.engines.packet import schema as layout
from forwarder.engines.packet import state

RULES: Final = 131_072
"""Rules that one worker may hold."""

_PAGE: Final = mmap.PAGESIZE
_SECTIONS: Final = (
    ("counters", layout.COUNTERS),
    ("journal", layout.JOURNAL),
    ("entries", state.ENTRIES * layout.ENTRY_COLUMNS),
    ("cursors", layout.SOCKETS * layout.CURSOR_COLUMNS),
    ("rule_matched", RULES * 2),
    ("rule_unsent", RULES * 2),
    ("rule_first", RULES),
)
_WORDS: Final = sum(count for _, count in _SECTIONS)
BLOCK_BYTES: Final = (_WORDS * 8 + _PAGE - 1) // _PAGE * _PAGE


@dataclass(frozen=True)
class Block:
    """One worker's part, as arrays of ``uint64``."""

    counters: NDArray[np.uint64]
    journal: NDArray[np.uint64]
    entries: NDArray[np.uint64]
    cursors: NDArray[np.uint64]
    rule_matched: NDArray[np.uint64]
    rule_unsent: NDArray[np.uint64]
    rule_first: NDArray[np.uint64]

    @property
    def shared(self) -> state.Shared:
        return state.Shared(
            self.counters,
            self.journal,
            self.cursors,
            self.rule_matched,
            self.rule_unsent,
            self.rule_first,
        )

    def forget_rules(self, slots: Sequence[int]) -> None:
        """Clear the rows of rules that no worker counts in any more, for other rules."""
        self.rule_matched[slots] = 0
        self.rule_unsent[slots] = 0
        self.rule_first[slots] = 0


class Snapshot(NamedTuple):
    """A consistent copy of a worker's counters."""

    counters: NDArray[np.uint64]
    pending: int


class SharedMemory:
    """The memfd, and its mappings: as few as can be, since every fork copies the list of them."""

    def __init__(self, workers: int) -> None:
        self.fd = os.memfd_create("mcrd-counters", os.MFD_CLOEXEC)
        self._workers = 0
        self._mapped: list[tuple[int, mmap.mmap]] = []
        """The first worker of each mapping, and the mapping."""
        self.reserve(workers)

    def reserve(self, workers: int) -> None:
        """Make room for at least this many workers; existing blocks stay where they are."""
        if workers > self._workers:
            os.ftruncate(self.fd, workers * BLOCK_BYTES)
            first, more = self._workers, workers - self._workers
            mapped = mmap.mmap(self.fd, more * BLOCK_BYTES, offset=first * BLOCK_BYTES)
            self._mapped.append((first, mapped))
            self._workers = workers

    def block(self, worker: int) -> Block:
        """One worker's block."""
        first, mapped = next(entry for entry in reversed(self._mapped) if entry[0] <= worker)
        words = np.frombuffer(mapped, np.uint64, _WORDS, (worker - first) * BLOCK_BYTES)
        parts: dict[str, NDArray[np.uint64]] = {}
        start = 0
        for name, count in _SECTIONS:
            parts[name] = words[start : start + count]
            start += count
        parts["cursors"] = parts["cursors"].reshape(-1, layout.CURSOR_COLUMNS)
        parts["entries"] = parts["entries"].reshape(-1, layout.ENTRY_COLUMNS)
        for name in ("rule_matched", "rule_unsent"):
            parts[name] = parts[name].reshape(-1, 2)
        return Block(**parts)

    def close(self) -> None:
        os.close(self.fd)


def read(block: Block, attempts: int = 1000) -> Snapshot:
    """A snapshot between two changes; the last attempt's when the writer died in the middle of one."""
    for _ in range(attempts):
        before = int(block.journal[layout.JOURNAL_SEQUENCE])
        counters = block.counters.copy()
        pending = int(block.journal[layout.JOURNAL_PENDING])
        if before % 2 == 0 and int(block.journal[layout.JOURNAL_SEQUENCE]) == before:
            break
    return Snapshot(counters, pending)


def settle(block: Block, submission_head: int) -> int:
    """Close a dead worker's accounts: copies that it still owed are *interrupted*.

    Those that stood in its submission ring are taken off their rule's sent copies too, if they were of one.
    Copies of a claimed batch that had not come so far are not: whose they are died with the worker. A rule's
    sent copies may be too many by one batch for every process that was killed; the worker's own counters are
    exact.

    Args:
        submission_head: of the dead worker's submission ring: the kernel had taken every entry before it.

    Returns:
        Copies whose fate was settled as interrupted.
    """
    journal, counters = block.journal, block.counters
    lost = int(journal[layout.JOURNAL_PENDING])
    if journal[layout.JOURNAL_FLUSH]:
        tail = int(journal[layout.JOURNAL_FLUSH_TAIL])
        left = (tail - submission_head) & 0xFFFFFFFF
        for entry in range(tail - left, tail):
            copies, rule, payload, frames = block.entries[entry & (state.ENTRIES - 1)].tolist()
            if copies:
                counters[layout.SENT] -= np.uint64(copies)
                counters[layout.SENT_BYTES] -= np.uint64(payload)
                counters[layout.FRAMES_SENT] -= np.uint64(frames)
                if rule != layout.NONE:
                    block.rule_unsent[rule] += np.array((copies, payload), np.uint64)
                lost += copies
    counters[layout.INTERRUPTED] += np.uint64(lost)
    journal[layout.JOURNAL_PENDING] = 0
    journal[layout.JOURNAL_FLUSH] = 0
    if journal[layout.JOURNAL_SEQUENCE] % 2:
        journal[layout.JOURNAL_SEQUENCE] += np.uint64(1)
    return lost
