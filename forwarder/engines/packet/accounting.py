"""Accounts that stay true whatever happens to their writer: a worker's counters and the journal beside them.

A batch is *claimed* (counters, cursor, copies owed) before its first send, and a submission is *announced*
(sent, entries) before the kernel sees it. Whoever looks after a sudden death finds how many copies were owed
and, from the submission ring's head, which sends the kernel had taken (:func:`settle`). A sequence number,
odd during a change, lets readers take a consistent copy without stopping the writer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forwarder.abi.jit import njit
from forwarder.abi.native import store_release
from forwarder.engines.packet import schema


@dataclass(frozen=True)
class Block:
    """One worker's part of the shared memory."""

    shared: Any
    """A record: see :data:`schema.SHARED`."""
    counters: NDArray[np.uint64] = field(init=False)
    journal: NDArray[np.uint64] = field(init=False)
    entries: NDArray[np.uint64] = field(init=False)
    cursors: NDArray[np.uint64] = field(init=False)
    rule_matched: NDArray[np.uint64] = field(init=False)
    rule_unsent: NDArray[np.uint64] = field(init=False)
    rule_first: NDArray[np.uint64] = field(init=False)

    def __post_init__(self) -> None:
        for name in schema.SHARED.names:
            object.__setattr__(self, name, self.shared[name])

    def forget_rules(self, slots: Sequence[int]) -> None:
        """Clear the rows of rules that no worker counts in any more, for other rules."""
        self.rule_matched[slots] = 0
        self.rule_unsent[slots] = 0
        self.rule_first[slots] = 0


class Snapshot(NamedTuple):
    """A consistent copy of a worker's counters."""

    counters: NDArray[np.uint64]
    pending: int


# -- the worker writes --


@njit
def begin_update(journal: Any) -> None:
    """Open a change of counters: readers retry until :func:`end_update`."""
    store_release(journal, schema.JOURNAL_SEQUENCE, journal[schema.JOURNAL_SEQUENCE] | np.uint64(1))


@njit
def end_update(journal: Any) -> None:
    store_release(
        journal, schema.JOURNAL_SEQUENCE, (journal[schema.JOURNAL_SEQUENCE] | np.uint64(1)) + np.uint64(1)
    )


@njit
def drop(shared: Any, reason: int, rule: int, copies: int, payload: int) -> None:
    """Count copies that are owed as dropped."""
    begin_update(shared.journal)
    shared.counters[reason] += np.uint64(copies)
    shared.rule_unsent[rule, 0] += np.uint64(copies)
    shared.rule_unsent[rule, 1] += np.uint64(payload)
    shared.journal[schema.JOURNAL_PENDING] -= np.uint64(copies)
    end_update(shared.journal)


def _owe_again(counters: Any, journal: Any, copies: int, payload: int, frames: int) -> None:
    """Copies that were counted as sent were not: they are owed, as before."""
    counters[schema.SENT] -= np.uint64(copies)
    counters[schema.SENT_BYTES] -= np.uint64(payload)
    counters[schema.FRAMES_SENT] -= np.uint64(frames)
    journal[schema.JOURNAL_PENDING] += np.uint64(copies)


_compiled_owe_again = njit(_owe_again)


@njit
def take_back(shared: Any, copies: int, payload: int, frames: int) -> None:
    """Owe copies again that were counted as sent, and were not."""
    begin_update(shared.journal)
    _compiled_owe_again(shared.counters, shared.journal, copies, payload, frames)
    end_update(shared.journal)


# -- the supervisor reads, and settles --


def read(block: Block, attempts: int = 1000) -> Snapshot:
    """A snapshot between two changes; the last attempt's when the writer died in the middle of one."""
    for _ in range(attempts):
        before = int(block.journal[schema.JOURNAL_SEQUENCE])
        counters = block.counters.copy()
        pending = int(block.journal[schema.JOURNAL_PENDING])
        if before % 2 == 0 and int(block.journal[schema.JOURNAL_SEQUENCE]) == before:
            break
    return Snapshot(counters, pending)


def settle(block: Block, submission_head: int) -> int:
    """Close a dead worker's accounts: copies that it still owed are *interrupted*; how many those were.

    Those that stood in its submission ring are taken off their rule's sent copies too, if they were of one
    rule. Copies of a claimed batch that had not come so far are not: which rule they belong to is unknown
    once the worker is dead. A rule's sent copies may be too many by one batch for every process that was
    killed; the worker's own counters are exact.

    ``submission_head`` is that of the dead worker's ring: the kernel had taken every entry before it.
    """
    journal, counters = block.journal, block.counters
    if journal[schema.JOURNAL_FLUSH]:
        tail = int(journal[schema.JOURNAL_FLUSH_TAIL])
        left = (tail - submission_head) & 0xFFFFFFFF
        for entry in range(tail - left, tail):
            copies, rule, payload, frames = block.entries[entry & (schema.ENTRIES - 1)].tolist()
            if copies:
                _owe_again(counters, journal, copies, payload, frames)
                if rule != schema.NONE:
                    block.rule_unsent[rule] += np.array((copies, payload), np.uint64)
    lost = journal[schema.JOURNAL_PENDING]
    counters[schema.INTERRUPTED] += lost
    journal[schema.JOURNAL_PENDING] = 0
    journal[schema.JOURNAL_FLUSH] = 0
    if journal[schema.JOURNAL_SEQUENCE] % 2:
        journal[schema.JOURNAL_SEQUENCE] += np.uint64(1)
    return int(lost)
