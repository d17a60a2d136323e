"""The Internet checksum (RFC 1071) and its incremental update (RFC 1624), over native-order words.

The one's complement sum does not depend on byte order as long as data, field and result use the same one
(RFC 1071 section 2 B), so nothing here swaps bytes.
"""

from typing import Any

import numpy as np

from forwarder.abi.jit import njit

UDP_PROTOCOL_RAW = np.uint64(17 << 8)
"""Protocol 17 in a 16-bit word as it stands in memory: zero byte first."""


@njit
def fold(total: int) -> int:
    """A 64-bit sum of 32- or 16-bit words, folded to 16 bits."""
    total = np.uint64(total)
    total = (total & np.uint64(0xFFFFFFFF)) + (total >> np.uint64(32))
    total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    return np.uint64(total)


@njit
def sum_bytes(words: Any, data: Any, start: int, length: int) -> int:
    """Sum of ``length`` bytes from 32-bit word ``start``; an odd last byte counts as if padded with zero.

    ``words`` is ``uint32[]`` and ``data`` ``uint8[]`` over the same memory.
    """
    total = np.uint64(0)
    whole = length >> 2
    for index in range(start, start + whole):
        total += np.uint64(words[index])
    at = (start + whole) << 2
    rest = length & 3
    if rest & 2:
        total += np.uint64(data[at]) | (np.uint64(data[at + 1]) << np.uint64(8))
        at += 2
    if rest & 1:
        total += np.uint64(data[at])
    return total


@njit
def pseudo_header(source: int, group: int, udp_length: int) -> int:
    """Unfolded sum of the UDP pseudo-header (RFC 768); addresses raw, length in host order."""
    length = np.uint64(udp_length)
    return (
        np.uint64(source)
        + np.uint64(group)
        + UDP_PROTOCOL_RAW
        + (((length & np.uint64(0xFF)) << np.uint64(8)) | (length >> np.uint64(8)))
    )


@njit
def update(checksum: int, removed: int, added: int) -> int:
    """RFC 1624 equation 3: ``HC' = ~(~HC + ~m + m')``; ``removed`` and ``added`` are unfolded sums."""
    total = (np.uint64(checksum) ^ np.uint64(0xFFFF)) + (fold(removed) ^ np.uint64(0xFFFF)) + fold(added)
    return fold(total) ^ np.uint64(0xFFFF)
