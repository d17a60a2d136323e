"""The words of the messages between supervisor and worker, for both ends: packed arrays behind a header.

A header is four 32-bit words. Every message that a worker gets is answered by its sequence number once it is
in force.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

MESSAGE_BYTES: Final = 128 * 1024
"""Of the longest message."""

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
    """Row, frames, frame bytes, interface slot; with the socket's descriptor."""
    REMOVE_SOCKET = 5
    """The argument is the row."""
    STOP = 6
    """Forward what the rings hold, and end."""
    DONE = 7
    """The worker's answer; the argument is 0 or an errno."""
    READY = 8
    """The worker's first word."""
