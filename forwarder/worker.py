"""A worker process: one CPU, one packet engine, told what to do over its channel.

Forked from the supervisor, which has everything imported and compiled. It is handed open sockets, gives up
every privilege before it touches a packet, and lives no longer than its supervisor.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from dataclasses import dataclass

from forwarder import channel, process
from forwarder.channel import Kind, Message
from forwarder.packet.engine import Link, PacketEngine
from forwarder.packet.sockets import Ring


@dataclass(frozen=True)
class WorkerStart:
    """What a worker is born with."""

    name: bytes
    cpu: int
    channel: socket.socket
    engine: PacketEngine
    descriptors: frozenset[int]
    """What it needs open, besides the standard ones."""


def main(start: WorkerStart, supervisor: int) -> None:
    """Run the worker; the caller leaves the process when this returns."""
    gc.disable()
    process.set_name(start.name)
    process.reset_signals()
    process.close_all_but(start.descriptors)
    with contextlib.suppress(OSError):
        # A CPU that was taken away: run where there is room.
        os.sched_setaffinity(0, {start.cpu})
    process.drop_privileges()
    process.die_with_parent(supervisor)
    start.engine.enable()
    Worker(start.channel, start.engine).serve()


class Worker:
    """Turns messages into changes of the engine, and runs it in between."""

    def __init__(self, sock: socket.socket, engine: PacketEngine) -> None:
        self._channel = sock
        self._engine = engine
        self._sockets: dict[int, socket.socket] = {}

    def serve(self) -> None:
        """Forward until told to stop, or until the supervisor is gone."""
        self._channel.setblocking(False)
        channel.send(self._channel, Kind.READY, 0)
        while True:
            self._engine.run()
            try:
                message = channel.receive(self._channel)
            except BlockingIOError:
                continue
            if message is None:
                return
            try:
                self._apply(message)
                result = 0
            except OSError as error:
                result = error.errno or 1
            self._channel.setblocking(True)
            channel.send(self._channel, Kind.DONE, message.sequence, argument=result)
            self._channel.setblocking(False)
            if message.kind is Kind.STOP:
                self._engine.close()
                return

    def _apply(self, message: Message) -> None:
        engine = self._engine
        if message.kind is Kind.ADD_RULES:
            heads, outputs = channel.unpack_rules(message.body, message.count)
            first = 0
            for key, slot, count in heads.tolist():
                engine.table.add(key, slot, outputs[first : first + count])
                first += count
        elif message.kind is Kind.REMOVE_RULES:
            for key in channel.unpack_keys(message.body).tolist():
                engine.table.remove(key)
        elif message.kind is Kind.SET_LINKS:
            for slot, ifindex, mtu, source, mac in channel.LINK.iter_unpack(message.body):
                engine.set_link(slot, Link(ifindex, source, mtu, mac))
        elif message.kind is Kind.ADD_SOCKET:
            row, frames, frame_bytes, interface = channel.SOCKET.unpack(message.body)
            sock = socket.socket(fileno=message.descriptors[0])
            engine.add_socket(row, sock, Ring(frames, frame_bytes), interface)
            self._sockets[row] = sock
        elif message.kind is Kind.REMOVE_SOCKET:
            engine.remove_socket(message.argument)
            self._sockets.pop(message.argument).close()
        elif message.kind is Kind.STOP:
            self._drain()

    def _drain(self) -> None:
        """Forward what the rings still hold."""
        self._engine.drain()
