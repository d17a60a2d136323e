"""The io_uring: submission entries are queued, handed over and accounted for; completions are taken in.

A send is a ``sendmsg`` on a packet socket, its address naming the interface. Successes post no completion
(CQE_SKIP_SUCCESS): a send counts as sent when it is submitted, and is taken back when it failed.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from forwarder.abi import syscalls
from forwarder.abi.io_uring import (
    IORING_ENTER_GETEVENTS,
    IORING_OP_ASYNC_CANCEL,
    IORING_OP_POLL_ADD,
    NR_IO_URING_ENTER,
)
from forwarder.abi.jit import njit
from forwarder.abi.mapping import map_shared
from forwarder.abi.native import load_acquire, store_release, syscall
from forwarder.engines.packet import schema as layout
from forwarder.engines.packet import state
from forwarder.engines.packet.accounting import begin_update, end_update
from forwarder.engines.packet.coalesce import MAX_PAYLOAD

_MSG_DONTWAIT: Final = 0x40
_POLLIN: Final = 1
_POLLERR: Final = 8
_FIRST_ERRNO: Final = 1 << 31
_SOL_SOCKET: Final = 1
_SO_ERROR: Final = 4
_EINTR, _EAGAIN, _EBUSY = 4, 11, 16

KIND_SOCKET = np.uint64(1 << 32)
KIND_CONTROL = np.uint64(2 << 32)
KIND_IGNORED = np.uint64(3 << 32)
"""The upper half of a completion's user data, when it is not a send's; the lower is a row or nothing."""
MESSAGE_FLAGS = np.uint64(1 | (_MSG_DONTWAIT << 32))
"""Of a ``sendmsg`` entry, its fourth word."""


@njit
def set_links(links: Any, names: Any, scalars: Any, changes: Any) -> None:
    """Take in how output interfaces are reached now.

    Args:
        links: ``uint32[LINKS, LINK_COLUMNS]``.
        names: ``uint32[LINKS, 8]``: each link's ``sockaddr_ll``, whose second word is the interface index.
        changes: ``uint32[n, 1 + LINK_COLUMNS]``: slot and row.
    """
    for change in changes:
        slot = change[0]
        for column in range(layout.LINK_COLUMNS):
            links[slot, column] = change[1 + column]
        names[slot, 1] = change[1 + layout.LINK_INDEX]
    least = np.int64(MAX_PAYLOAD)
    for link in links:
        if link[layout.LINK_INDEX]:
            least = min(least, np.int64(link[layout.LINK_MTU]) - 28)
    scalars[state.SHORTER_LAST] = least


@njit
def attach_tx_ring(scalars: Any) -> None:
    """Map the transmit ring, if there is one; if that fails it is as if there were none."""
    if scalars[state.TX_RING_FD] < 0 or scalars[state.TX_RING_ADDRESS]:
        return
    length = state.TX_SLOTS * state.TX_SLOT_BYTES
    address = map_shared(scalars[state.TX_RING_FD], length)
    scalars[state.TX_RING_ADDRESS] = max(address, 0)


@njit
def queued(scalars: Any) -> int:
    return scalars[state.QUEUED_TAIL] - scalars[state.QUEUED_HEAD]


@njit
def queue(
    transmit: Any, uring: Any, scalars: Any, copies: int, head: int, address: int, length: int, user: int
) -> None:
    """Queue a submission entry: its words 0, 2, 3 and 4, the others zero (``struct io_uring_sqe``).

    Args:
        copies: datagrams that it carries.
        head: operation, flags and descriptor.
        length: length and the operation's flags.
        user: returns with the completion.
    """
    tail = scalars[state.QUEUED_TAIL]
    index = tail & (state.ENTRIES - 1)
    transmit.entries[index, layout.ENTRY_COPIES] = copies
    entry = uring.sqes[index]
    entry[0] = head
    entry[1] = 0
    entry[2] = address
    entry[3] = length
    entry[4] = user
    entry[5] = 0
    entry[6] = 0
    entry[7] = 0
    scalars[state.QUEUED_TAIL] = tail + 1


@njit
def clear_error(fd: int, scalars: Any) -> None:
    """Take a socket's pending error (SO_ERROR) and forget it."""
    scalars[state.OPTION_LENGTH] = 4
    syscall(
        syscalls.GETSOCKOPT,
        fd,
        _SOL_SOCKET,
        _SO_ERROR,
        scalars.ctypes.data + state.OPTION_VALUE * 8,
        scalars.ctypes.data + state.OPTION_LENGTH * 8,
        0,
    )


@njit
def reap(uring: Any, transmit: Any, shared: Any, scalars: Any, sockets: Any) -> None:
    """Take in completions: sends that failed, sockets and the control channel that became ready."""
    head = np.int64(uring.cq_head[0])
    tail = np.int64(load_acquire(uring.cq_tail, 0))
    mask = state.COMPLETIONS - 1
    while head != tail:
        user = np.uint64(uring.cqes[head & mask, 0])
        low = np.int64(user & np.uint64(0xFFFFFFFF))
        if user >= KIND_IGNORED:
            pass
        elif user >= KIND_CONTROL:
            scalars[state.CONTROL_READY] = 1
            scalars[state.CONTROL_ARMED] = 0
        elif user >= KIND_SOCKET:
            sockets[low, layout.SOCKET_READY] = 1
            outcome = np.int64(uring.cqes[head & mask, 1] & np.uint64(0xFFFFFFFF))
            if outcome & _POLLERR and outcome < _FIRST_ERRNO:
                # The interface went down. Until somebody asks for the error, every poll fires at once.
                clear_error(sockets[low, layout.SOCKET_FD], scalars)
        else:
            refused = transmit.entries[low]
            copies = refused[layout.ENTRY_COPIES]
            payload = refused[layout.ENTRY_BYTES]
            rule = np.int64(refused[layout.ENTRY_RULE])
            begin_update(shared.journal)
            shared.counters[layout.SENT] -= copies
            shared.counters[layout.SENT_BYTES] -= payload
            shared.counters[layout.FRAMES_SENT] -= refused[layout.ENTRY_FRAMES]
            shared.counters[layout.TRANSMIT_REFUSED] += copies
            shared.rule_unsent[rule, 0] += copies
            shared.rule_unsent[rule, 1] += payload
            end_update(shared.journal)
        head = (head + 1) & 0xFFFFFFFF
    store_release(uring.cq_head, 0, head)


@njit
def flush(uring: Any, transmit: Any, shared: Any, scalars: Any, sockets: Any, wait: bool) -> None:
    """Hand the queued entries to the kernel, sleep if asked to, and take in the completions."""
    head = scalars[state.QUEUED_HEAD]
    tail = scalars[state.QUEUED_TAIL]
    mask = state.ENTRIES - 1
    counters = shared.counters
    journal = shared.journal
    copies = np.uint64(0)
    payload = np.uint64(0)
    sends = np.uint64(0)
    for entry in range(head, tail):
        queued_entry = transmit.entries[entry & mask]
        if queued_entry[layout.ENTRY_COPIES]:
            copies += queued_entry[layout.ENTRY_COPIES]
            payload += queued_entry[layout.ENTRY_BYTES]
            sends += queued_entry[layout.ENTRY_FRAMES]
    begin_update(journal)
    counters[layout.SENT] += copies
    counters[layout.SENT_BYTES] += payload
    counters[layout.FRAMES_SENT] += sends
    counters[layout.ENTERS] += np.uint64(1)
    journal[layout.JOURNAL_PENDING] -= copies
    journal[layout.JOURNAL_FLUSH_HEAD] = np.uint64(head)
    journal[layout.JOURNAL_FLUSH_TAIL] = np.uint64(tail)
    store_release(journal, layout.JOURNAL_FLUSH, 1)
    end_update(journal)
    store_release(uring.sq_tail, 0, tail & 0xFFFFFFFF)
    least = 1 if wait else 0
    while True:
        left = (tail - np.int64(load_acquire(uring.sq_head, 0))) & 0xFFFFFFFF
        outcome = syscall(
            NR_IO_URING_ENTER, scalars[state.RING_FD], left, least, IORING_ENTER_GETEVENTS, 0, 0
        )
        reap(uring, transmit, shared, scalars, sockets)
        # The kernel takes fewer when it is short of memory or of room for completions, for a moment.
        if outcome == left or (outcome < 0 and outcome not in (-_EINTR, -_EAGAIN, -_EBUSY)):
            break
        least = 0
    store_release(journal, layout.JOURNAL_FLUSH, 0)
    scalars[state.QUEUED_HEAD] = tail
    scalars[state.ARENA_USED] = 0
    if wait:
        counters[layout.WAKEUPS] += np.uint64(1)


@njit
def arm(transmit: Any, uring: Any, shared: Any, scalars: Any, sockets: Any, fd: int, user: int) -> None:
    """Queue a one-shot poll for input, making room first when the submission ring is full."""
    if queued(scalars) == state.ENTRIES:
        flush(uring, transmit, shared, scalars, sockets, False)
    head = np.uint64(IORING_OP_POLL_ADD) | (np.uint64(fd) << np.uint64(32))
    queue(transmit, uring, scalars, 0, head, 0, np.uint64(_POLLIN << 32), user)


@njit
def cancel_poll(transmit: Any, uring: Any, shared: Any, scalars: Any, sockets: Any, row: int) -> None:
    """Take back the poll of a socket that is about to go; what is queued goes to the kernel first."""
    flush(uring, transmit, shared, scalars, sockets, False)
    head, polled = np.uint64(IORING_OP_ASYNC_CANCEL), KIND_SOCKET | np.uint64(row)
    queue(transmit, uring, scalars, 0, head, polled, 0, KIND_IGNORED)
    flush(uring, transmit, shared, scalars, sockets, False)
