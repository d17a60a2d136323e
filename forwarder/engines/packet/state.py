"""The arrays that the packet loop works on, as named groups.

Named tuples of arrays are what compiled functions take as they are. Every array is made once by
:mod:`forwarder.engines.packet.engine`; nothing is allocated per packet.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from forwarder.plan.resources import TX_RING

BATCH: Final = 256
"""Frames taken from one ring before the next socket has its turn."""
FLOW_PLACES: Final = 512
ENTRIES: Final = 256
"""Submission entries, and so frames that leave with one system call."""
COMPLETIONS: Final = 1024
ARENA_BYTES: Final = 256 * 1024
"""Room for the payloads of one submission; at least one largest GSO frame."""
TX_SLOTS: Final = TX_RING.frames
TX_SLOT_BYTES: Final = TX_RING.frame_bytes
SIDE_BYTES: Final = 72 + 10 + 14 + 65_536 + 64


class Uring(NamedTuple):
    """See :class:`forwarder.abi.io_uring.Uring`."""

    sq_head: Any
    sq_tail: Any
    cq_head: Any
    cq_tail: Any
    sqes: Any
    cqes: Any


class Transmit(NamedTuple):
    headers: Any
    """uint8[ENTRIES, 64]"""
    messages: Any
    """uint64[ENTRIES, 7]: struct msghdr"""
    vectors: Any
    """uint64[ENTRIES, 4]: two struct iovec each, header and payload"""
    entries: Any
    """uint64[ENTRIES, ENTRY_COLUMNS], shared memory: what each submission entry carries"""
    links: Any
    """uint32[LINKS, LINK_COLUMNS]"""
    names: Any
    """uint32[LINKS, 8]: each link's sockaddr_ll"""
    addresses: Any
    """uint64[LINKS]: where that stands"""
    arena: Any
    """uint8[ARENA_BYTES]"""
    arena_words: Any
    """uint32 view of it"""
    in_slots: Any
    """int64[TX_SLOTS]: rows of the bursts that are ready in the transmit ring"""


class Rules(NamedTuple):
    """The rule table: ``keys`` and ``values`` lead to a rule's slot, its span to its outputs."""

    keys: Any
    """uint64[2^k]"""
    values: Any
    """uint32[2^k]: slots"""
    spans: Any
    """uint32[slots, 2]: first output, count"""
    outputs: Any
    """uint32[n, OUTPUT_COLUMNS]"""


class Batch(NamedTuple):
    frames: Any
    """uint32[BATCH, FRAME_COLUMNS]"""
    bursts: Any
    """int64[BATCH, BURST_COLUMNS]"""
    flows: Any
    """int64[FLOW_PLACES, FLOW_COLUMNS]"""
    side: Any
    """uint8[SIDE_BYTES]: a frame too large for its ring slot"""
    side_words: Any


class Inbox(NamedTuple):
    """Where the worker's channel receives: :mod:`forwarder.engines.packet.serve`."""

    words: Any
    """uint32[MESSAGE_BYTES / 4]: one message"""
    longs: Any
    """uint64 view of it"""
    header: Any
    """uint64[7]: struct msghdr, set up by the first call"""
    ancillary: Any
    """uint32[8]: a struct cmsghdr and one descriptor"""
    answer: Any
    """uint32[4]"""


class Shared(NamedTuple):
    """In memory shared with the supervisor; outlives the process."""

    counters: Any
    """uint64[COUNTERS]"""
    journal: Any
    """uint64[JOURNAL]"""
    cursors: Any
    """uint64[sockets, CURSOR_COLUMNS]"""
    rule_matched: Any
    """uint64[rules, 2]: datagrams, payload bytes"""
    rule_unsent: Any
    """uint64[rules, 2]: copies that did not leave, their payload bytes"""
    rule_first: Any
    """uint64[rules]: when a rule's first datagram was claimed, nanoseconds of the monotonic clock"""


# Scalars that live across calls: int64[SCALARS]
RING_FD: Final = 0
TRANSMIT_FD: Final = 1
CONTROL_FD: Final = 2
QUEUED_HEAD: Final = 3
"""First submission entry not yet handed to the kernel."""
QUEUED_TAIL: Final = 4
ARENA_USED: Final = 5
IDENTIFICATION: Final = 6
STAMP: Final = 7
CONTROL_READY: Final = 8
CONTROL_ARMED: Final = 9
BUSY_POLL_NS: Final = 10
OPTION_VALUE: Final = 11
OPTION_LENGTH: Final = 12
SOCKET_ROWS: Final = 13
"""Rows of the socket table up to the last that was used."""
SHORTER_LAST: Final = 14
"""Payload bytes of the longest datagram that fits every output interface: a burst of longer ones has no
shorter last one, which some output might take though the others are too big for it."""
TX_RING_FD: Final = 15
"""Its packet socket, -1: there is none."""
TX_RING_ADDRESS: Final = 16
"""Where it is mapped, 0: it is not."""
TX_RING_NEXT: Final = 17
"""The slot that the kernel will look at next."""
SCALARS: Final = 18
