"""A worker's whole life, compiled: it forwards, reads what its supervisor tells it, does it, and answers.

Interpreted, a conversation of a few messages touches some 0.7 MB of pages, reference counts above all, that
forked workers could share; and the packet loop would wait for the interpreter.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from forwarder.abi import syscalls
from forwarder.abi.io_uring import enable_rings
from forwarder.abi.jit import njit
from forwarder.abi.native import syscall
from forwarder.engines.packet import schema as layout
from forwarder.engines.packet import state
from forwarder.engines.packet.loop import drain, run
from forwarder.engines.packet.messages import (
    HEADER_ARGUMENT,
    HEADER_COUNT,
    HEADER_KIND,
    HEADER_SEQUENCE,
    HEADER_WORDS,
    Kind,
)
from forwarder.engines.packet.receive import attach, detach
from forwarder.engines.packet.table import add_rules, remove_rule
from forwarder.engines.packet.transmit import attach_tx_ring, cancel_poll, set_links

_ADD_RULES, _REMOVE_RULES, _SET_LINKS = int(Kind.ADD_RULES), int(Kind.REMOVE_RULES), int(Kind.SET_LINKS)
_ADD_SOCKET, _REMOVE_SOCKET, _STOP = int(Kind.ADD_SOCKET), int(Kind.REMOVE_SOCKET), int(Kind.STOP)
_DONE, _READY = int(Kind.DONE), int(Kind.READY)

_MSG_DONTWAIT: Final = 0x40
_MSG_NOSIGNAL: Final = 0x4000
_MSG_CMSG_CLOEXEC: Final = 0x40000000
_EAGAIN, _EINTR, _EPROTO = 11, 4, 71
_DESCRIPTOR_WORD: Final = 4
"""Of a control message that holds one descriptor: length (8 bytes), level, type, descriptor."""
_LINK_WORDS: Final = 1 + layout.LINK_COLUMNS


@njit
def receive(inbox: Any, fd: int) -> int:
    """Take the next message in; its length in bytes, 0 when the peer is gone, or a negative errno."""
    inbox.header[5] = inbox.ancillary.nbytes
    inbox.header[6] = 0
    inbox.ancillary[_DESCRIPTOR_WORD] = 0xFFFFFFFF
    return syscall(syscalls.RECVMSG, fd, inbox.header.ctypes.data, _MSG_DONTWAIT | _MSG_CMSG_CLOEXEC, 0, 0, 0)


@njit
def answer(inbox: Any, fd: int, kind: int, sequence: int, argument: int) -> None:
    """Send a header; the supervisor always reads, so this may wait."""
    inbox.answer[HEADER_KIND] = kind
    inbox.answer[HEADER_SEQUENCE] = sequence
    inbox.answer[HEADER_COUNT] = 0
    inbox.answer[HEADER_ARGUMENT] = argument
    syscall(syscalls.SENDTO, fd, inbox.answer.ctypes.data, inbox.answer.nbytes, _MSG_NOSIGNAL, 0, 0)


@njit
def change_rules(rules: Any, sizes: Any, inbox: Any, kind: int, count: int, length: int) -> Any:
    """The rule table after ADD_RULES or REMOVE_RULES."""
    keys = inbox.longs[HEADER_WORDS // 2 : HEADER_WORDS // 2 + count]
    if kind == _ADD_RULES:
        slots = HEADER_WORDS + 2 * count
        counts = slots + count
        outputs = inbox.words[counts + count : length // 4]
        return add_rules(
            rules,
            sizes,
            keys,
            inbox.words[slots:counts],
            inbox.words[counts : counts + count],
            outputs.reshape(len(outputs) // layout.OUTPUT_COLUMNS, layout.OUTPUT_COLUMNS),
        )
    for key in keys:
        remove_rule(rules, sizes, key)
    return rules


@njit
def serve(
    sockets: Any,
    rules: Any,
    sizes: Any,
    batch: Any,
    transmit: Any,
    uring: Any,
    shared: Any,
    scalars: Any,
    totals: Any,
    inbox: Any,
) -> Any:
    """Forward until told to stop, or until the supervisor is gone.

    Args:
        rules, sizes: of :func:`forwarder.engines.packet.table.new_table`; the others as for
            :func:`forwarder.engines.packet.loop.run`.

    Returns:
        The rule table as it is at the end.
    """
    channel = scalars[state.CONTROL_FD]
    attach_tx_ring(scalars)
    enable_rings(scalars[state.RING_FD])  # changes nothing the second time
    answer(inbox, channel, _READY, 0, 0)
    while True:
        scalars[state.CONTROL_READY] = 0
        run(sockets, rules, batch, transmit, uring, shared, scalars, totals, -1)
        length = receive(inbox, channel)
        if length in (-_EAGAIN, -_EINTR):
            continue
        if length < HEADER_WORDS * 4:
            return rules
        words = inbox.words
        kind = np.int64(words[HEADER_KIND])
        sequence = np.int64(words[HEADER_SEQUENCE])
        count = np.int64(words[HEADER_COUNT])
        argument = np.int64(words[HEADER_ARGUMENT])
        result = 0
        if kind in (_ADD_RULES, _REMOVE_RULES):
            rules = change_rules(rules, sizes, inbox, kind, count, length)
        elif kind == _SET_LINKS:
            changes = words[HEADER_WORDS : length // 4]
            set_links(
                transmit.links,
                transmit.names,
                scalars,
                changes.reshape(len(changes) // _LINK_WORDS, _LINK_WORDS),
            )
        elif kind == _ADD_SOCKET:
            row, frames, frame_bytes, interface = words[HEADER_WORDS : HEADER_WORDS + 4]
            descriptor = np.int64(inbox.ancillary[_DESCRIPTOR_WORD])
            result = attach(
                sockets, shared.cursors, scalars, np.int64(row), descriptor, np.int64(frames),
                np.int64(frame_bytes), np.int64(interface),
            )  # fmt: skip
            if result < 0:
                syscall(syscalls.CLOSE, descriptor, 0, 0, 0, 0, 0)
        elif kind == _REMOVE_SOCKET:
            if sockets[argument, layout.SOCKET_ADDRESS] != 0:
                # An armed poll keeps the socket open, and in its fanout group, however often it is closed.
                cancel_poll(transmit, uring, shared, scalars, sockets, argument)
                detach(sockets, argument)
        elif kind == _STOP:
            drain(sockets, rules, batch, transmit, uring, shared, scalars, totals)
        else:
            result = -_EPROTO
        answer(inbox, channel, _DONE, sequence, -result)
        if kind == _STOP:
            return rules
