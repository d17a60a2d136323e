"""The arrays that the compiled kernels share: their columns, their sizes, and the messages to a worker.

Addresses, ports and checksums are kept in network byte order as they stand in memory ("raw"): matching and
one's complement arithmetic need no byte swaps (RFC 1071 section 2 B).

Compiled functions take a worker's arrays as one :class:`Worker`. Every array is made once by
:mod:`forwarder.engines.packet.engine`; nothing is allocated per packet.
"""

from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np

from forwarder.plan.resources import TX_RING

NONE: Final = 0xFFFFFFFF
"""No row, no rule."""

# -- a parsed frame: uint32[FRAME_COLUMNS] --
FRAME_SOURCE: Final = 0
FRAME_GROUP: Final = 1
FRAME_PORTS: Final = 2
"""Source port in the low half, destination port in the high half, as they stand in memory."""
FRAME_TTL_TOS_DF: Final = 3
"""ttl | tos << 8 | df << 16."""
FRAME_CHECKSUM: Final = 4
"""The UDP checksum field, raw."""
FRAME_PAYLOAD: Final = 5
"""Index of the payload's first 32-bit word."""
FRAME_LENGTH: Final = 6
"""Payload bytes; of all segments, when the frame carries several."""
FRAME_SEGMENT: Final = 7
"""Payload bytes of one segment of a GSO frame, else 0."""
FRAME_TRUST: Final = 8
"""What is known about the payload's checksum: one of TRUST_*."""
FRAME_RULE: Final = 9
FRAME_NEXT: Final = 10
"""Next frame of the same burst, or NONE."""
FRAME_COLUMNS: Final = 11

TRUST_UNVERIFIED: Final = 0
"""A full checksum that nobody has checked yet."""
TRUST_VERIFIED: Final = 1
TRUST_PARTIAL: Final = 2
"""The kernel is to fill it in: a local sender left that to the device, so the payload never left the machine;
or the sender computed none, and FILL_CHECKSUMS is set."""
TRUST_ABSENT: Final = 3
"""The sender computed none (RFC 768: zero), and so it stays."""
TRUST_CORRUPT: Final = 4

# -- a burst, datagrams that leave as one frame: int64[BURST_COLUMNS] --
BURST_FIRST: Final = 0
"""First frame's row; the others follow by FRAME_NEXT."""
BURST_LAST: Final = 1
BURST_SEGMENTS: Final = 2
BURST_BYTES: Final = 3
"""Payload bytes of all segments."""
BURST_OPEN: Final = 4
"""1 while another datagram may join."""
BURST_START: Final = 5
"""Offset of its payload in the arena, once it is there."""
BURST_IDENTIFICATION: Final = 6
"""IPv4 identification of its first datagram, once assigned; the others count on from it."""
BURST_COLUMNS: Final = 7

# -- the burst that a flow uses now: int64[FLOW_COLUMNS] --
FLOW_BURST: Final = 0
FLOW_STAMP: Final = 1
FLOW_COLUMNS: Final = 2

# -- a receive socket: int64[SOCKET_COLUMNS] --
SOCKET_FD: Final = 0
SOCKET_ADDRESS: Final = 1
"""Address of its ring's mapping; 0 for an unused row."""
SOCKET_FRAMES: Final = 2
SOCKET_FRAME_BYTES: Final = 3
SOCKET_INTERFACE: Final = 4
"""Input interface slot, the first part of a rule's key."""
SOCKET_READY: Final = 5
"""1: its ring may hold frames; 0: its poll is armed."""
SOCKET_LEVEL: Final = 6
"""Address of its ring's level; 0: nothing drops early."""
SOCKET_COLUMNS: Final = 7

# -- a ring's level, shared with the program that drops early (``early.bpf.c``): uint64[LEVEL_COLUMNS] --
LEVEL_PASSED: Final = 0
"""Frames that the program let through to the ring."""
LEVEL_ABOVE: Final = 1
"""Datagrams that found the ring nearly full; all but the first of each LEVEL_LET_THROUGH are dropped."""
LEVEL_LIMIT: Final = 2
"""Frames in the ring from which on datagrams are dropped."""
LEVEL_RELEASED: Final = 8
"""Written by the worker: how many of the frames that passed have left the ring."""
LEVEL_COLUMNS: Final = 16
LEVEL_LET_THROUGH: Final = 256

# -- a receive socket's cursor, in shared memory for its successor: uint64[CURSOR_COLUMNS] --
CURSOR_CLAIMED: Final = 0
"""Frames taken from the ring since it was made; the slot is this modulo the ring's frames."""
CURSOR_RELEASED: Final = 1
"""Frames given back to the kernel."""
CURSOR_COLUMNS: Final = 2

# -- an output of a rule: uint32[OUTPUT_COLUMNS] --
OUTPUT_GROUP: Final = 0
OUTPUT_SOURCE: Final = 1
"""A raw address, SOURCE_INTERFACE or SOURCE_PRESERVE."""
OUTPUT_PORT_TTL: Final = 2
"""Raw destination port | ttl << 16; a ttl of 0 means the received one less one."""
OUTPUT_INTERFACE: Final = 3
"""Row of the link table."""
OUTPUT_COLUMNS: Final = 4
SOURCE_INTERFACE: Final = 0
SOURCE_PRESERVE: Final = 0xFFFFFFFF

# -- a link, how an output interface is reached: uint32[LINK_COLUMNS] --
LINK_INDEX: Final = 0
"""The kernel's interface index; 0 while the interface is absent or has no IPv4 address."""
LINK_SOURCE: Final = 1
"""Its IPv4 address, raw."""
LINK_MTU: Final = 2
LINK_MAC_LOW: Final = 3
"""First four bytes of its Ethernet address, raw."""
LINK_MAC_HIGH: Final = 4
LINK_COLUMNS: Final = 5

# -- what a submission entry carries, in shared memory for settling: uint64[ENTRY_COLUMNS] --
ENTRY_COPIES: Final = 0
"""Datagrams, each one copy of a forwarded one; 0: a poll or a cancellation."""
ENTRY_RULE: Final = 1
"""The rule's slot; NONE where it carries copies of several."""
ENTRY_BYTES: Final = 2
"""Payload bytes."""
ENTRY_FRAMES: Final = 3
ENTRY_COLUMNS: Final = 4

# -- struct msghdr: uint64[MSGHDR_COLUMNS] --
MSGHDR_NAME, MSGHDR_NAME_BYTES, MSGHDR_VECTORS, MSGHDR_VECTOR_COUNT = range(4)
MSGHDR_CONTROL, MSGHDR_CONTROL_BYTES, MSGHDR_FLAGS = range(4, 7)
MSGHDR_COLUMNS: Final = 7
MSGHDR_BYTES: Final = MSGHDR_COLUMNS * 8

# -- counters: uint64[COUNTERS] --
INGRESS_REASONS: Final = (
    "no_rule",
    "not_ipv4",
    "not_udp",
    "not_multicast",
    "malformed",
    "bad_checksum",
    "fragment",
    "vlan_tagged",
    "truncated",
)
EGRESS_REASONS: Final = ("ttl_expired", "too_big", "output_absent", "transmit_refused", "interrupted")
REASONS: Final = INGRESS_REASONS + EGRESS_REASONS

(
    NO_RULE,
    NOT_IPV4,
    NOT_UDP,
    NOT_MULTICAST,
    MALFORMED,
    BAD_CHECKSUM,
    FRAGMENT,
    VLAN_TAGGED,
    TRUNCATED,
    TTL_EXPIRED,
    TOO_BIG,
    OUTPUT_ABSENT,
    TRANSMIT_REFUSED,
    INTERRUPTED,
) = range(len(REASONS))

OK: Final = -1
"""Outcome of parsing: no reason to drop."""

FLOWS: Final = (
    "received",
    "received_bytes",
    "matched",
    "matched_bytes",
    "sent",
    "sent_bytes",
    "frames_received",
    "frames_sent",
    "enters",
    "wakeups",
)
(
    RECEIVED,
    RECEIVED_BYTES,
    MATCHED,
    MATCHED_BYTES,
    SENT,
    SENT_BYTES,
    FRAMES_RECEIVED,
    FRAMES_SENT,
    ENTERS,
    WAKEUPS,
) = range(len(REASONS), len(REASONS) + len(FLOWS))
COUNTERS: Final = len(REASONS) + len(FLOWS)

# -- journal: uint64[JOURNAL], what a successor or the supervisor needs after a sudden death --
JOURNAL_SEQUENCE: Final = 0
"""Odd while the counters are being changed (a sequence lock with one writer)."""
JOURNAL_PENDING: Final = 1
"""Copies that a claimed batch still owes: matched, neither sent nor dropped yet."""
JOURNAL_FLUSH: Final = 2
"""1 while submission entries JOURNAL_FLUSH_HEAD.. are with the kernel."""
JOURNAL_FLUSH_HEAD: Final = 3
JOURNAL_FLUSH_TAIL: Final = 4
JOURNAL: Final = 8

# -- scalars that live across calls: int64[SCALARS] --
(
    RING_FD,
    TRANSMIT_FD,
    CONTROL_FD,
    QUEUED_HEAD,  # first submission entry not yet handed to the kernel
    QUEUED_TAIL,
    ARENA_USED,
    IDENTIFICATION,
    STAMP,
    CONTROL_READY,
    CONTROL_ARMED,
    BUSY_POLL_NS,
    OPTION_VALUE,
    OPTION_LENGTH,
    ROWS_USED,  # rows of the socket table up to the last that was used
    SHORTER_LAST,  # payload bytes of the longest datagram that fits every output interface
    TX_RING_FD,  # -1: there is no transmit ring
    TX_RING_ADDRESS,  # 0: it is not mapped
    TX_RING_NEXT,  # the slot that the kernel will look at next
    MOST_TOGETHER,  # datagrams that may leave as one frame
    FILL_CHECKSUMS,  # 1: copies of datagrams without a UDP checksum get one
) = range(20)
SCALARS: Final = 20

# -- sizes --
BATCH: Final = 256
"""Frames taken from one ring before the next socket has its turn."""
FLOW_BUCKETS: Final = 512
MAX_SEGMENTS: Final = 64
"""Datagrams that one UDP GSO frame may carry (``UDP_MAX_SEGMENTS``; 128 since Linux 6.9)."""
MAX_PAYLOAD: Final = 65_535 - 28
"""What fits the 16-bit IPv4 total length."""
ENTRIES: Final = 256
"""Submission entries, and so frames that leave with one system call."""
COMPLETIONS: Final = 1024
ARENA_BYTES: Final = 256 * 1024
"""Room for the payloads of one submission; at least one largest GSO frame."""
TX_SLOTS: Final = TX_RING.frames
TX_SLOT_BYTES: Final = TX_RING.frame_bytes
OVERSIZE_BYTES: Final = 72 + 10 + 14 + 65_536 + 64
SOCKETS: Final = 256
"""Receive sockets, and so input interfaces, of one worker."""
LINKS: Final = 256
"""Output interfaces of one worker."""
RULES: Final = 131_072
"""Rules of one worker."""

# -- messages between supervisor and worker: a header of four 32-bit words, then packed arrays --
# Every message to a worker is answered by its sequence number once it is in force.
MESSAGE_BYTES: Final = 128 * 1024
"""Size of the longest message."""
HEADER_KIND: Final = 0
HEADER_SEQUENCE: Final = 1
HEADER_COUNT: Final = 2
HEADER_ARGUMENT: Final = 3
HEADER_WORDS: Final = 4


class Kind(IntEnum):
    ADD_RULES = 1
    """``uint64[count]`` keys, ``uint32[count]`` slots, ``uint32[count]`` output numbers, outputs' rows."""
    REMOVE_RULES = 2
    """``uint64[count]`` keys."""
    SET_LINKS = 3
    """Rows of a slot and a link table's row each."""
    ADD_SOCKET = 4
    """Row, frames, frame bytes, interface slot, ``uint64`` address of a level; with a descriptor."""
    REMOVE_SOCKET = 5
    """The argument is the row."""
    STOP = 6
    """Forward what the rings hold, and end."""
    DONE = 7
    """The worker's reply; the argument is 0 or an errno."""
    READY = 8
    """The worker's first message."""


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
    sizes: Any
    """int64[3]: see :mod:`forwarder.engines.packet.rule_table`"""


def _record(**arrays: tuple[str, tuple[int, ...]]) -> Any:
    """The type of a record of arrays, each starting on a cache line."""
    formats, offsets, end = [], [], 0
    for element, shape in arrays.values():
        formats.append(np.dtype(f"{shape}{element}"))
        offsets.append(end)
        end = (end + formats[-1].itemsize + 63) & ~63
    layout: Any = {"names": list(arrays), "formats": formats, "offsets": offsets, "itemsize": end}
    return np.dtype(layout, align=True)


STATE: Final = _record(sockets=("i8", (SOCKETS, SOCKET_COLUMNS)), scalars=("i8", (SCALARS,)))
"""A worker's receive sockets (rows from ROWS_USED on are unused) and scalars."""
FORWARDING: Final = _record(
    frames=("u4", (BATCH, FRAME_COLUMNS)),
    bursts=("i8", (BATCH, BURST_COLUMNS)),
    flows=("i8", (FLOW_BUCKETS, FLOW_COLUMNS)),
    oversize=("u1", (OVERSIZE_BYTES,)),  # a frame too large for its ring slot
    totals=("i8", (COUNTERS,)),  # added to the shared counters when the batch is claimed, then zeroed
)
"""The batch that is being forwarded."""
TRANSMIT: Final = _record(
    headers=("u1", (ENTRIES, 64)),
    messages=("u8", (ENTRIES, MSGHDR_COLUMNS)),
    vectors=("u8", (ENTRIES, 4)),  # two struct iovec each, header and payload
    links=("u4", (LINKS, LINK_COLUMNS)),
    names=("u4", (LINKS, 8)),  # each link's sockaddr_ll
    arena=("u1", (ARENA_BYTES,)),  # payloads
    slot_bursts=("i8", (TX_SLOTS,)),  # rows of the bursts that are ready in the transmit ring
)
"""Messages that are being sent, and how output interfaces are reached."""
INBOX: Final = _record(
    words=("u4", (MESSAGE_BYTES // 4,)),  # one message
    ancillary=("u4", (8,)),  # a struct cmsghdr and one descriptor
    vector=("u8", (2,)),  # struct iovec
    header=("u8", (MSGHDR_COLUMNS,)),
    reply=("u4", (HEADER_WORDS,)),
)
"""The buffers of the worker's channel."""
URING: Final = np.dtype(
    [(name, "i8") for name in ("sq_head", "sq_tail", "cq_head", "cq_tail", "sqes", "cqes")]
)
"""Addresses of the parts of the io_uring: see :class:`forwarder.abi.uring_setup.Uring`."""
SHARED: Final = _record(
    counters=("u8", (COUNTERS,)),
    journal=("u8", (JOURNAL,)),
    entries=("u8", (ENTRIES, ENTRY_COLUMNS)),
    cursors=("u8", (SOCKETS, CURSOR_COLUMNS)),
    rule_matched=("u8", (RULES, 2)),  # datagrams, payload bytes
    rule_unsent=("u8", (RULES, 2)),  # copies that did not leave, their payload bytes
    rule_first=("u8", (RULES,)),  # when a rule's first datagram was claimed, monotonic ns
)
"""Counters in memory shared with the supervisor; they outlive the process."""


class Worker(NamedTuple):
    """Everything that the compiled code of one worker works on.

    Its arrays are fields of records: to a compiled function a record is one pointer, while every array in a
    tuple costs each call seven words and a reference count. The rule table is apart, since it is replaced
    when it grows.
    """

    state: Any
    """STATE"""
    batch: Any
    """FORWARDING"""
    transmit: Any
    """TRANSMIT"""
    uring: Any
    """URING"""
    inbox: Any
    """INBOX"""
    shared: Any
    """SHARED"""
