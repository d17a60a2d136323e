"""Accounts that stay true whatever happens to their writer: the journal beside a worker's counters.

A batch is *claimed* (counters, cursor, copies owed) before its first send, and a submission is *announced*
(sent, entries) before the kernel sees it. Whoever looks after a sudden death finds how many copies were owed
and, from the submission ring's head, which sends the kernel had taken
(:func:`forwarder.engines.packet.memory.settle`). A sequence number, odd during a change, lets readers take a
consistent copy without stopping the writer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from forwarder.abi.jit import njit
from forwarder.abi.native import store_release
from forwarder.engines.packet import schema as layout


@njit
def begin_update(journal: Any) -> None:
    """Open a change of counters: readers retry until :func:`end_update`."""
    store_release(journal, layout.JOURNAL_SEQUENCE, journal[layout.JOURNAL_SEQUENCE] | np.uint64(1))


@njit
def end_update(journal: Any) -> None:
    store_release(
        journal, layout.JOURNAL_SEQUENCE, (journal[layout.JOURNAL_SEQUENCE] | np.uint64(1)) + np.uint64(1)
    )


@njit
def unsent(shared: Any, reason: int, rule: int, copies: int, payload: int) -> None:
    """Account for copies that are not even tried."""
    begin_update(shared.journal)
    shared.counters[reason] += np.uint64(copies)
    shared.rule_unsent[rule, 0] += np.uint64(copies)
    shared.rule_unsent[rule, 1] += np.uint64(payload)
    shared.journal[layout.JOURNAL_PENDING] -= np.uint64(copies)
    end_update(shared.journal)
