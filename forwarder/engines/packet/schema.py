"""Column names of the arrays that the compiled kernels share.

Addresses, ports and checksums are kept in network byte order as they stand in memory ("raw"): matching and
one's complement arithmetic need no byte swaps (RFC 1071 section 2 B).
"""

from __future__ import annotations

from typing import Final

# -- one parsed frame: uint32[FRAME_COLUMNS] --
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
"""One of TRUST_*: what is known about the payload's checksum."""
FRAME_RULE: Final = 9
FRAME_NEXT: Final = 10
"""Next frame of the same burst, or NONE."""
FRAME_COLUMNS: Final = 11

NONE: Final = 0xFFFFFFFF

TRUST_UNVERIFIED: Final = 0
"""A full checksum that nobody has checked yet."""
TRUST_VERIFIED: Final = 1
TRUST_PARTIAL: Final = 2
"""From a local sender: the field holds the pseudo-header's sum only, the payload never left the machine."""
TRUST_ABSENT: Final = 3
"""The sender computed none (RFC 768: zero)."""
TRUST_CORRUPT: Final = 4

# -- outcome of parsing --
OK: Final = -1

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

SOCKETS: Final = 256
"""Receive sockets that one worker may hold: as many interfaces as one may serve."""
# -- a receive socket: int64[SOCKET_COLUMNS] --
SOCKET_FD: Final = 0
SOCKET_ADDRESS: Final = 1
"""Where its ring is mapped; 0 for an unused row."""
SOCKET_FRAMES: Final = 2
SOCKET_FRAME_BYTES: Final = 3
SOCKET_INTERFACE: Final = 4
"""Input interface slot, the first part of a rule's key."""
SOCKET_READY: Final = 5
"""1: its ring may hold frames; 0: its poll is armed."""
SOCKET_COLUMNS: Final = 6

# -- what a submission entry carries, in shared memory for whoever closes accounts: uint64[ENTRY_COLUMNS] --
ENTRY_COPIES: Final = 0
"""Datagrams, each one copy of a forwarded one; 0: a poll or a cancellation."""
ENTRY_RULE: Final = 1
"""The rule's slot; NONE where it carries copies of several."""
ENTRY_BYTES: Final = 2
"""Payload."""
ENTRY_FRAMES: Final = 3
"""Frames that leave."""
ENTRY_COLUMNS: Final = 4

# -- its cursor, in shared memory so that a successor goes on where it stopped: uint64[CURSOR_COLUMNS] --
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
"""Row of the transmit interface table."""
OUTPUT_COLUMNS: Final = 4
SOURCE_INTERFACE: Final = 0
SOURCE_PRESERVE: Final = 0xFFFFFFFF

# -- a transmit interface: uint32[LINK_COLUMNS] --
LINK_INDEX: Final = 0
"""Kernel's interface index; 0 while the interface is absent or has no IPv4 address."""
LINK_SOURCE: Final = 1
"""Its IPv4 address, raw."""
LINK_MTU: Final = 2
LINK_MAC_LOW: Final = 3
"""First four bytes of its Ethernet address, raw."""
LINK_MAC_HIGH: Final = 4
LINK_COLUMNS: Final = 5
