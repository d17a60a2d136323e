"""One worker's life, compiled: rings in, io_uring out, messages from its supervisor, no Python in between.

One turn takes up to a batch of frames from each ready socket, sorts them into bursts, queues a send for every
burst and output, and hands all of it to the kernel with one ``io_uring_enter``. A socket whose ring was found
empty has a one-shot poll queued behind its sends; arming checks readiness again, so nothing is missed, and a
busy socket costs no wake-up at all. When every socket waits, the same system call sleeps.

The messages are handled in compiled code, too: interpreted, a few of them touch some 0.7 MB of pages,
reference counts above all, that forked workers could share; and the packet loop would wait for the
interpreter.
"""

from typing import Any, Final

import numpy as np

from forwarder.abi import syscalls
from forwarder.abi.io_uring import enable_rings
from forwarder.abi.jit import njit
from forwarder.abi.native import bytes_at, monotonic_ns, record_at, syscall, words_at
from forwarder.engines.packet import schema
from forwarder.engines.packet.emit import send_burst
from forwarder.engines.packet.receive import attach, detach, lower_level, passed, receive_batch, release
from forwarder.engines.packet.rule_table import add_rules, remove_rule
from forwarder.engines.packet.schema import HEADER_WORDS, Kind
from forwarder.engines.packet.transmit import KIND_CONTROL, KIND_SOCKET, arm, cancel_poll, flush
from forwarder.engines.packet.tx_ring import attach_tx_ring, bursts_for_ring, send_bursts

NO_LIMIT: Final = -1
"""Turns of a loop that only the control channel ends."""
_ADD_RULES, _REMOVE_RULES, _SET_LINKS = int(Kind.ADD_RULES), int(Kind.REMOVE_RULES), int(Kind.SET_LINKS)
_ADD_SOCKET, _REMOVE_SOCKET, _STOP = int(Kind.ADD_SOCKET), int(Kind.REMOVE_SOCKET), int(Kind.STOP)
_DONE, _READY = int(Kind.DONE), int(Kind.READY)
_MSG_DONTWAIT: Final = 0x40
_MSG_NOSIGNAL: Final = 0x4000
_MSG_CMSG_CLOEXEC: Final = 0x40000000
_EAGAIN, _EINTR, _EPROTO = 11, 4, 71
_DESCRIPTOR_WORD: Final = 4
"""Index of the descriptor in a control message that holds one: after length (8 bytes), level and type."""
_NO_DESCRIPTOR: Final = 0xFFFFFFFF
_LINK_WORDS: Final = 1 + schema.LINK_COLUMNS


# -- forwarding --


@njit
def run(worker: Any, rules: Any, turns: int) -> int:
    """Forward until the control channel has something to read, sleeping when there is nothing to do.

    With ``turns`` from 1 it takes at most that many turns and never sleeps; returns how many it took.
    """
    sockets, scalars = worker.state.sockets, worker.state.scalars
    clock = np.zeros(2, np.int64)
    busy_poll_ns = scalars[schema.BUSY_POLL_NS]
    now = np.int64(0)
    last_work = np.int64(0)
    turn = 0
    while turn != turns:
        turn += 1
        if not scalars[schema.CONTROL_ARMED] and not scalars[schema.CONTROL_READY]:
            scalars[schema.CONTROL_ARMED] = 1
            arm(worker, scalars[schema.CONTROL_FD], KIND_CONTROL)
        if busy_poll_ns:
            now = monotonic_ns(clock)
        spinning = now - last_work < busy_poll_ns
        for row in range(scalars[schema.ROWS_USED]):
            if sockets[row, schema.SOCKET_ADDRESS] == 0 or sockets[row, schema.SOCKET_READY] == 0:
                continue
            taken, empty = _forward_batch(worker, rules, row)
            if taken:
                last_work = now
            if empty and not spinning:
                sockets[row, schema.SOCKET_READY] = 0
                arm(worker, sockets[row, schema.SOCKET_FD], KIND_SOCKET | np.uint64(row))
        # Asked at the end of a turn: a flush in its middle may have found one ready that had had its turn.
        idle = not scalars[schema.CONTROL_READY] and not _any_ready(worker)
        flush(worker, sleep=turns == NO_LIMIT and idle)
        if scalars[schema.CONTROL_READY]:
            break
    return turn


@njit
def _forward_batch(worker: Any, rules: Any, row: int) -> tuple[int, bool]:
    """Forward up to a batch of frames of one socket; frames taken, and whether the ring is empty."""
    passed_before = passed(worker, row)
    taken, bursts, oversize, empty = receive_batch(worker, rules, row)
    if bursts:
        socket = worker.state.sockets[row]
        ring_bytes = socket[schema.SOCKET_FRAMES] * socket[schema.SOCKET_FRAME_BYTES]
        words = words_at(socket[schema.SOCKET_ADDRESS], ring_bytes >> 2)
        data = bytes_at(socket[schema.SOCKET_ADDRESS], ring_bytes)
        if oversize:
            words = words_at(worker.batch.oversize.ctypes.data, schema.OVERSIZE_BYTES >> 2)
            data = bytes_at(worker.batch.oversize.ctypes.data, schema.OVERSIZE_BYTES)
        index = 0
        while index < bursts:
            count = bursts_for_ring(worker, rules, index, bursts)
            if count:
                send_bursts(worker, rules, words, data, index, count)
                index += count
            else:
                send_burst(worker, rules, words, data, worker.batch.bursts[index])
                index += 1
    if taken:
        release(worker, row)
    lower_level(worker, row, taken, empty, passed_before)
    return taken, empty


@njit
def _any_ready(worker: Any) -> bool:
    sockets = worker.state.sockets
    for row in range(worker.state.scalars[schema.ROWS_USED]):
        if sockets[row, schema.SOCKET_READY] and sockets[row, schema.SOCKET_ADDRESS]:
            return True
    return False


@njit
def _drain(worker: Any, rules: Any) -> None:
    """Forward what the rings hold by now."""
    rows = worker.state.scalars[schema.ROWS_USED]
    claimed = worker.shared.cursors[:rows, schema.CURSOR_CLAIMED]
    while True:
        before = claimed.sum()
        worker.state.sockets[:rows, schema.SOCKET_READY] = 1
        run(worker, rules, 1)
        if claimed.sum() == before:
            return


# -- messages --


@njit
def serve(addresses: Any, rules: Any) -> Any:
    """Forward until told to stop or the supervisor is gone; returns the rule table as it is then.

    ``addresses`` are those of a worker's records, ``int64[6]``: as objects, they would make every worker
    write to 0.2 MB of the interpreter's pages.
    """
    worker = schema.Worker(
        record_at(addresses[0], schema.STATE),
        record_at(addresses[1], schema.FORWARDING),
        record_at(addresses[2], schema.TRANSMIT),
        record_at(addresses[3], schema.URING),
        record_at(addresses[4], schema.INBOX),
        record_at(addresses[5], schema.SHARED),
    )
    scalars, inbox = worker.state.scalars, worker.inbox
    attach_tx_ring(worker)
    enable_rings(scalars[schema.RING_FD])  # changes nothing the second time
    _reply(worker, _READY, 0, 0)
    while True:
        scalars[schema.CONTROL_READY] = 0
        run(worker, rules, NO_LIMIT)
        length = _receive_message(worker)
        if length in (-_EAGAIN, -_EINTR):
            continue
        if length < HEADER_WORDS * 4:
            return rules
        kind = np.int64(inbox.words[schema.HEADER_KIND])
        count = np.int64(inbox.words[schema.HEADER_COUNT])
        argument = np.int64(inbox.words[schema.HEADER_ARGUMENT])
        error = 0
        if kind == _ADD_RULES:
            rules = _add_rules(worker, rules, count, length)
        elif kind == _REMOVE_RULES:
            for key in _keys(worker, count):
                remove_rule(rules, key)
        elif kind == _SET_LINKS:
            _set_links(worker, length)
        elif kind == _ADD_SOCKET:
            error = -_add_socket(worker)
        elif kind == _REMOVE_SOCKET:
            if worker.state.sockets[argument, schema.SOCKET_ADDRESS] != 0:
                # An armed poll keeps the socket open, and in its fanout group, however often it is closed.
                cancel_poll(worker, argument)
                detach(worker.state.sockets[argument])
        elif kind == _STOP:
            _drain(worker, rules)
        else:
            error = _EPROTO
        _reply(worker, _DONE, inbox.words[schema.HEADER_SEQUENCE], error)
        if kind == _STOP:
            return rules


@njit
def _receive_message(worker: Any) -> int:
    """Take the next message in; its length in bytes, 0 when the peer is gone, or a negative errno."""
    inbox = worker.inbox
    inbox.header[schema.MSGHDR_CONTROL_BYTES] = inbox.ancillary.nbytes
    inbox.header[schema.MSGHDR_FLAGS] = 0
    inbox.ancillary[_DESCRIPTOR_WORD] = _NO_DESCRIPTOR
    fd, flags = worker.state.scalars[schema.CONTROL_FD], _MSG_DONTWAIT | _MSG_CMSG_CLOEXEC
    return syscall(syscalls.RECVMSG, fd, inbox.header.ctypes.data, flags)


@njit
def _reply(worker: Any, kind: int, sequence: int, argument: int) -> None:
    """Send a header; the supervisor always reads, so this may wait."""
    reply = worker.inbox.reply
    reply[schema.HEADER_KIND] = kind
    reply[schema.HEADER_SEQUENCE] = sequence
    reply[schema.HEADER_COUNT] = 0
    reply[schema.HEADER_ARGUMENT] = argument
    fd = worker.state.scalars[schema.CONTROL_FD]
    syscall(syscalls.SENDTO, fd, reply.ctypes.data, reply.nbytes, _MSG_NOSIGNAL)


@njit
def _keys(worker: Any, count: int) -> Any:
    return worker.inbox.words[HEADER_WORDS : HEADER_WORDS + 2 * count].view(np.uint64)


@njit
def _add_rules(worker: Any, rules: Any, count: int, length: int) -> Any:
    inbox = worker.inbox
    slots = HEADER_WORDS + 2 * count
    counts = slots + count
    outputs = inbox.words[counts + count : length // 4]
    return add_rules(
        rules,
        _keys(worker, count),
        inbox.words[slots:counts],
        inbox.words[counts : counts + count],
        outputs.reshape(len(outputs) // schema.OUTPUT_COLUMNS, schema.OUTPUT_COLUMNS),
    )


@njit
def _set_links(worker: Any, length: int) -> None:
    """Take in how output interfaces are reached now: SET_LINKS."""
    transmit = worker.transmit
    rows = worker.inbox.words[HEADER_WORDS : length // 4]
    for change in rows.reshape(len(rows) // _LINK_WORDS, _LINK_WORDS):
        slot = change[0]
        transmit.links[slot] = change[1:]
        transmit.names[slot, 1] = change[1 + schema.LINK_INDEX]  # second word of a sockaddr_ll
    longest = np.int64(schema.MAX_PAYLOAD)
    for link in transmit.links:
        if link[schema.LINK_INDEX]:
            longest = min(longest, np.int64(link[schema.LINK_MTU]) - 28)
    worker.state.scalars[schema.SHORTER_LAST] = longest


@njit
def _add_socket(worker: Any) -> int:
    """Serve the socket of ADD_SOCKET; 0 or a negative errno, and then it is closed."""
    words = worker.inbox.words
    row = np.int64(words[HEADER_WORDS])
    frames = np.int64(words[HEADER_WORDS + 1])
    frame_bytes = np.int64(words[HEADER_WORDS + 2])
    interface = np.int64(words[HEADER_WORDS + 3])
    level = np.int64(words[HEADER_WORDS + 4 : HEADER_WORDS + 6].view(np.int64)[0])
    descriptor = np.int64(worker.inbox.ancillary[_DESCRIPTOR_WORD])
    result = attach(worker, row, descriptor, frames, frame_bytes, interface, level)
    if result < 0:
        syscall(syscalls.CLOSE, descriptor)
    return result
