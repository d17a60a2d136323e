"""Counters in shared memory: seen by others while they change, and settled when their writer has died."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packet_support import examples
from packet_support.bench import Bench
from packet_support.frames import Datagram
from packet_support.outputs import Output
from process_support import state_of

from forwarder.abi.uring_setup import submission_head
from forwarder.engines.packet import schema
from forwarder.engines.packet.accounting import Block, begin_update, end_update, read, settle
from forwarder.engines.packet.engine import BLOCK_BYTES, SharedMemory
from forwarder.engines.packet.rewrite import HEADER_BYTES

_LONG = 30.0
"""Seconds after which a test that waits for another process gives up."""

RULE = 3
FRAMES = 2
"""In an entry: bursts that leave through the transmit ring together."""


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    made = SharedMemory(2)
    yield made
    made.close()


@pytest.fixture
def block(memory: SharedMemory) -> Block:
    return memory.block(0)


def until(condition: object, what: str) -> None:
    """Wait for another process; it runs meanwhile."""
    end = time.monotonic() + _LONG
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, f"waited in vain for {what}"
        os.sched_yield()


def test_blocks_of_workers_are_apart_and_every_mapping_of_one_shows_the_same(memory: SharedMemory) -> None:
    first, second, again = memory.block(0), memory.block(1), memory.block(0)
    for part in ("counters", "journal", "entries", "cursors", "rule_matched", "rule_unsent", "rule_first"):
        getattr(first, part)[...] = 7
        assert (getattr(again, part) == 7).all()
        assert not getattr(second, part).any()


def test_making_room_for_more_workers_keeps_what_is_there(memory: SharedMemory) -> None:
    before = memory.block(1)
    before.counters[:] = 5
    memory.reserve(40)
    memory.reserve(3)
    assert (memory.block(1).counters == 5).all()
    before.counters[0] = 6
    assert memory.block(1).counters[0] == 6
    assert not memory.block(39).counters.any()


def test_room_that_nobody_uses_costs_no_memory(memory: SharedMemory) -> None:
    memory.reserve(1_000)
    memory.block(999).counters[0] = 1
    assert os.fstat(memory.fd).st_size == 1_000 * BLOCK_BYTES
    assert os.fstat(memory.fd).st_blocks * 512 <= 64 * 1024


def test_a_reader_never_sees_half_a_change_by_another_process(block: Block) -> None:
    """The writer moves all counters by one at a time; a torn copy would show two values."""
    child = os.fork()
    if child == 0:
        try:
            _change_for_ever(block)
        finally:
            os._exit(1)
    try:
        until(lambda: block.counters[-1] > 0, "the writer")
        torn = 0
        for _ in range(300):
            snapshot = read(block, attempts=1_000_000)
            torn += len({*snapshot.counters.tolist(), snapshot.pending}) != 1
        assert torn == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _change_for_ever(block: Block) -> None:
    while True:
        begin_update(block.journal)
        for index in range(schema.COUNTERS):
            block.counters[index] += np.uint64(1)
        block.journal[schema.JOURNAL_PENDING] += np.uint64(1)
        end_update(block.journal)


def test_reading_ends_though_the_writer_died_in_the_middle_of_a_change(block: Block) -> None:
    begin_update(block.journal)
    block.counters[schema.SENT] = 9
    snapshot = read(block, attempts=10)
    assert snapshot.counters[schema.SENT] == 9
    snapshot.counters[schema.SENT] = 1
    assert block.counters[schema.SENT] == 9, "a snapshot is a copy"


def test_nothing_is_settled_when_nothing_was_owed(block: Block) -> None:
    block.counters[schema.SENT] = 10
    assert settle(block, 0) == 0
    assert block.counters[schema.SENT] == 10
    assert block.counters[schema.INTERRUPTED] == 0


def test_copies_of_a_claimed_batch_that_were_never_announced_are_interrupted(block: Block) -> None:
    block.counters[schema.SENT] = 10
    block.journal[schema.JOURNAL_PENDING] = 4
    assert settle(block, 0) == 4
    assert block.counters[schema.SENT] == 10
    assert block.counters[schema.INTERRUPTED] == 4


@pytest.mark.parametrize(
    ("taken", "interrupted"), [(0, 60), (1, 50), (3, 30), (6, 0)], ids=lambda value: f"{value}"
)
def test_announced_sends_that_the_kernel_had_not_taken_are_interrupted(
    block: Block, taken: int, interrupted: int
) -> None:
    """Six entries of ten copies each, around the end of the ring and of 32 bits."""
    head = (1 << 32) - 3
    for entry in range(head, head + 6):
        block.entries[entry % schema.ENTRIES] = (10, RULE, 640, FRAMES)
    block.counters[schema.SENT] = 100 + 60
    block.counters[schema.SENT_BYTES] = 160 * 64
    block.counters[schema.FRAMES_SENT] = 16 * FRAMES
    block.journal[schema.JOURNAL_FLUSH] = 1
    block.journal[schema.JOURNAL_FLUSH_HEAD] = head
    block.journal[schema.JOURNAL_FLUSH_TAIL] = head + 6
    assert settle(block, (head + taken) & 0xFFFFFFFF) == interrupted
    assert block.counters[schema.SENT] == 160 - interrupted
    assert block.counters[schema.SENT_BYTES] == (160 - interrupted) * 64
    assert block.counters[schema.FRAMES_SENT] == FRAMES * (16 - interrupted // 10)
    assert block.counters[schema.INTERRUPTED] == interrupted
    assert block.rule_unsent[RULE].tolist() == [interrupted, interrupted * 64]
    assert block.rule_unsent.sum() == interrupted * 65, "another rule's copies were not touched"


@examples(200)
@given(
    st.lists(st.integers(0, 64), min_size=1, max_size=schema.ENTRIES),
    st.integers(0, 1 << 40),
    st.integers(0, schema.ENTRIES),
    st.integers(0, 1_000),
    st.booleans(),
    st.booleans(),
)
def test_settling_moves_copies_and_loses_none_and_does_so_once(
    copies: list[int], head: int, taken: int, pending: int, flushing: bool, changing: bool
) -> None:
    memory = SharedMemory(1)
    block = memory.block(0)
    taken = min(taken, len(copies))
    for position, count in enumerate(copies):
        block.entries[(head + position) % schema.ENTRIES] = (count, RULE, 0, 1)
    block.counters[schema.SENT] = sum(copies)
    block.counters[schema.FRAMES_SENT] = len(copies) - copies.count(0)
    block.journal[schema.JOURNAL_PENDING] = pending
    block.journal[schema.JOURNAL_FLUSH] = flushing
    block.journal[schema.JOURNAL_FLUSH_TAIL] = head + len(copies)
    if changing:
        begin_update(block.journal)
    lost = settle(block, (head + taken) & 0xFFFFFFFF)
    assert lost == pending + (sum(copies[taken:]) if flushing else 0)
    assert block.counters[schema.SENT] + block.counters[schema.INTERRUPTED] == sum(copies) + pending
    assert block.rule_unsent[RULE, 0] == lost - pending, "whose the pending ones are died with the worker"
    assert settle(block, head & 0xFFFFFFFF) == 0
    assert read(block).pending == 0
    assert block.journal[schema.JOURNAL_SEQUENCE] % 2 == 0, "readers do not wait for a change to end"
    memory.close()


def test_a_worker_killed_in_its_sleep_owes_nothing_and_what_it_sent_stays_sent() -> None:
    """A real engine in a process of its own; its submission ring is read after its death."""
    bench = Bench(ringless=True)
    engine, block = bench.engine, bench.block
    child = os.fork()
    if child == 0:
        try:
            output = Output()
            bench.add_ring()
            bench.connect(output)
            bench.add_rule(Datagram().group, Datagram().port, [output])
            for size in range(1, 11):  # ever longer: they cannot be put together
                bench.ring.receive(Datagram(payload=bytes(size)).frame())
            bench.wake()
            engine.serve()
        finally:
            os._exit(1)
    try:
        # Its last submission is the one that it sleeps in: everything queued is taken, nothing more to do.
        until(
            lambda: (
                block.counters[schema.SENT] == 10
                and block.journal[schema.JOURNAL_FLUSH] == 1
                and submission_head(engine.uring_fd, engine.head_offset)
                == block.journal[schema.JOURNAL_FLUSH_TAIL]
                and state_of(child) == "S"
            ),
            "ten sends, and sleep",
        )
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert block.journal[schema.JOURNAL_FLUSH] == 1, "it slept inside its submission"
    assert settle(block, submission_head(engine.uring_fd, engine.head_offset)) == 0
    assert block.counters[schema.SENT] == 10
    assert [len(message) - HEADER_BYTES for message in bench.sent()] == list(range(1, 11))
    bench.close()
