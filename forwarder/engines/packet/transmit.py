"""The io_uring: submission entries are queued, handed over and accounted for; completions are taken in.

A send is a ``sendmsg`` on a packet socket, its address naming the interface. Successes post no completion
(CQE_SKIP_SUCCESS): a send counts as sent when it is submitted, and is taken back when it failed.
"""

from typing import Any, Final

import numpy as np

from forwarder.abi import io_uring, syscalls
from forwarder.abi.jit import njit
from forwarder.abi.native import load_acquire, longs_at, store_release, syscall, words_at
from forwarder.engines.packet import schema
from forwarder.engines.packet.accounting import begin_update, drop, end_update, take_back

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
_SENDMSG = np.uint64(io_uring.IORING_OP_SENDMSG | (io_uring.IOSQE_CQE_SKIP_SUCCESS << 8))
_POLL_ADD = np.uint64(io_uring.IORING_OP_POLL_ADD)
_ASYNC_CANCEL = np.uint64(io_uring.IORING_OP_ASYNC_CANCEL)
_SEND_FLAGS = np.uint64(1 | (_MSG_DONTWAIT << 32))
"""Fourth word of a ``sendmsg`` entry: one message, and the call's flags."""
_NAME_BYTES: Final = 32
_POLL_FLAGS = np.uint64(_POLLIN << 32)


@njit
def queued(worker: Any) -> int:
    """How many submission entries wait for the next flush."""
    return worker.state.scalars[schema.QUEUED_TAIL] - worker.state.scalars[schema.QUEUED_HEAD]


@njit
def next_entry(worker: Any) -> int:
    """Index of the submission entry that is queued next."""
    return worker.state.scalars[schema.QUEUED_TAIL] & (schema.ENTRIES - 1)


@njit
def _queue(worker: Any, head: int, address: int, flags: int, user: int) -> None:
    """Queue a submission entry: its words 0, 2, 3 and 4, the others zero (``struct io_uring_sqe``).

    Args:
        head: operation, entry flags and descriptor.
        flags: length and the operation's flags.
        user: returned with the completion.
    """
    entry = longs_at(worker.uring.sqes + next_entry(worker) * io_uring.SQE_WORDS * 8, io_uring.SQE_WORDS)
    entry[0] = head
    entry[1] = 0
    entry[2] = address
    entry[3] = flags
    entry[4] = user
    entry[5] = 0
    entry[6] = 0
    entry[7] = 0
    worker.state.scalars[schema.QUEUED_TAIL] += 1


@njit
def queue_send(
    worker: Any,
    fd: int,
    vectors: int,
    link: int,
    rule: int,
    copies: int,
    payload: int,
    frames: int,
    user: int,
) -> None:
    """Queue a ``sendmsg`` of the message in the next entry's place, out of an interface.

    Args:
        vectors: how many parts the message has.
        link: the interface's row.
        rule, copies, payload, frames: what it carries, see ``schema.ENTRY_COLUMNS``.
        user: the entry's index, or KIND_IGNORED for a send whose failure is seen otherwise.
    """
    transmit = worker.transmit
    index = next_entry(worker)
    worker.shared.entries[index, schema.ENTRY_COPIES] = copies
    worker.shared.entries[index, schema.ENTRY_RULE] = rule
    worker.shared.entries[index, schema.ENTRY_BYTES] = payload
    worker.shared.entries[index, schema.ENTRY_FRAMES] = frames
    transmit.messages[index, schema.MSGHDR_NAME] = transmit.names.ctypes.data + link * _NAME_BYTES
    transmit.messages[index, schema.MSGHDR_VECTOR_COUNT] = vectors
    address = transmit.messages.ctypes.data + index * schema.MSGHDR_BYTES
    _queue(worker, _SENDMSG | (np.uint64(fd) << np.uint64(32)), address, _SEND_FLAGS, user)


@njit
def _clear_error(worker: Any, fd: int) -> None:
    """Take a socket's pending error (SO_ERROR) and forget it."""
    scalars = worker.state.scalars
    scalars[schema.OPTION_LENGTH] = 4
    value = scalars.ctypes.data + schema.OPTION_VALUE * 8
    length = scalars.ctypes.data + schema.OPTION_LENGTH * 8
    syscall(syscalls.GETSOCKOPT, fd, _SOL_SOCKET, _SO_ERROR, value, length)


@njit
def _reap(worker: Any) -> None:
    """Take in completions: sends that failed, sockets and the control channel that became ready."""
    sockets = worker.state.sockets
    cq_head = words_at(worker.uring.cq_head, 1)
    head = np.int64(cq_head[0])
    tail = np.int64(load_acquire(words_at(worker.uring.cq_tail, 1), 0))
    mask = schema.COMPLETIONS - 1
    while head != tail:
        completion = longs_at(worker.uring.cqes + (head & mask) * io_uring.CQE_WORDS * 8, io_uring.CQE_WORDS)
        user = completion[0]
        low = np.int64(user & np.uint64(0xFFFFFFFF))
        if user >= KIND_IGNORED:
            pass
        elif user >= KIND_CONTROL:
            worker.state.scalars[schema.CONTROL_READY] = 1
            worker.state.scalars[schema.CONTROL_ARMED] = 0
        elif user >= KIND_SOCKET:
            sockets[low, schema.SOCKET_READY] = 1
            outcome = np.int64(completion[1] & np.uint64(0xFFFFFFFF))
            if outcome & _POLLERR and outcome < _FIRST_ERRNO:
                # The interface went down. Until somebody asks for the error, every poll fires at once.
                _clear_error(worker, sockets[low, schema.SOCKET_FD])
        else:
            refused = worker.shared.entries[low]
            copies, payload = refused[schema.ENTRY_COPIES], refused[schema.ENTRY_BYTES]
            take_back(worker.shared, copies, payload, refused[schema.ENTRY_FRAMES])
            rule = np.int64(refused[schema.ENTRY_RULE])
            drop(worker.shared, schema.TRANSMIT_REFUSED, rule, copies, payload)
        head = (head + 1) & 0xFFFFFFFF
    store_release(cq_head, 0, head)


@njit
def flush(worker: Any, sleep: bool = False) -> None:
    """Hand the queued entries to the kernel, sleep until a completion if asked to, and reap."""
    scalars = worker.state.scalars
    counters, journal = worker.shared.counters, worker.shared.journal
    head = scalars[schema.QUEUED_HEAD]
    tail = scalars[schema.QUEUED_TAIL]
    copies = payload = frames = np.uint64(0)
    for index in range(head, tail):
        entry = worker.shared.entries[index & (schema.ENTRIES - 1)]
        if entry[schema.ENTRY_COPIES]:
            copies += entry[schema.ENTRY_COPIES]
            payload += entry[schema.ENTRY_BYTES]
            frames += entry[schema.ENTRY_FRAMES]
    begin_update(journal)
    counters[schema.SENT] += copies
    counters[schema.SENT_BYTES] += payload
    counters[schema.FRAMES_SENT] += frames
    counters[schema.ENTERS] += np.uint64(1)
    journal[schema.JOURNAL_PENDING] -= copies
    journal[schema.JOURNAL_FLUSH_HEAD] = np.uint64(head)
    journal[schema.JOURNAL_FLUSH_TAIL] = np.uint64(tail)
    store_release(journal, schema.JOURNAL_FLUSH, 1)
    end_update(journal)
    store_release(words_at(worker.uring.sq_tail, 1), 0, tail & 0xFFFFFFFF)
    least = 1 if sleep else 0
    while True:
        left = (tail - np.int64(load_acquire(words_at(worker.uring.sq_head, 1), 0))) & 0xFFFFFFFF
        ring_fd = scalars[schema.RING_FD]
        outcome = syscall(io_uring.NR_IO_URING_ENTER, ring_fd, left, least, io_uring.IORING_ENTER_GETEVENTS)
        _reap(worker)
        # The kernel takes fewer when it is short of memory or of room for completions, for a moment.
        if outcome == left or (outcome < 0 and outcome not in (-_EINTR, -_EAGAIN, -_EBUSY)):
            break
        least = 0
    store_release(journal, schema.JOURNAL_FLUSH, 0)
    scalars[schema.QUEUED_HEAD] = tail
    scalars[schema.ARENA_USED] = 0
    if sleep:
        counters[schema.WAKEUPS] += np.uint64(1)


@njit
def flush_and_keep(worker: Any) -> None:
    """Flush while bursts in the arena have not been sent everywhere: it is filled behind them afterwards."""
    used = worker.state.scalars[schema.ARENA_USED]
    flush(worker)
    worker.state.scalars[schema.ARENA_USED] = used


@njit
def arm(worker: Any, fd: int, user: int) -> None:
    """Queue a one-shot poll for input, making room first when the submission ring is full."""
    if queued(worker) == schema.ENTRIES:
        flush(worker)
    worker.shared.entries[next_entry(worker), schema.ENTRY_COPIES] = 0
    _queue(worker, _POLL_ADD | (np.uint64(fd) << np.uint64(32)), 0, _POLL_FLAGS, user)


@njit
def cancel_poll(worker: Any, row: int) -> None:
    """Cancel the poll of a socket that is about to go; what is queued goes to the kernel first."""
    flush(worker)
    worker.shared.entries[next_entry(worker), schema.ENTRY_COPIES] = 0
    _queue(worker, _ASYNC_CANCEL, KIND_SOCKET | np.uint64(row), 0, KIND_IGNORED)
    flush(worker)
