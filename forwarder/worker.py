"""A worker process: one CPU, one packet engine, told what to do over its channel.

Forked from the supervisor, which has everything imported and compiled. It is handed open sockets, gives up
every privilege before it touches a packet, and lives no longer than its supervisor.
"""

from __future__ import annotations

import gc
import os
import socket
from dataclasses import dataclass

from forwarder import channel, process
from forwarder.channel import Kind, Message
from forwarder.packet.engine import PacketEngine
from forwarder.packet.sockets import Ring


@dataclass(frozen=True)
class WorkerStart:
    """What a worker is born with."""

    entry: process.Entry
    channel: socket.socket
    engine: PacketEngine


def main(start: WorkerStart) -> None:
    """Run the worker; the caller leaves the process when this returns."""
    gc.disable()
    start.entry()
    start.engine.enable()
    Worker(start.channel, start.engine).serve()


class Worker:
    """Turns messages into changes of the engine, and runs it in between."""

    def __init__(self, sock: socket.socket, engine: PacketEngine) -> None:
        self._channel = sock
        self._engine = engine
        self._descriptors: dict[int, int] = {}
        """Receive sockets, by their rows."""

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
            if message.kind == Kind.STOP:
                self._engine.close()
                return

    def _apply(self, message: Message) -> None:
        engine = self._engine
        if message.kind == Kind.ADD_RULES:
            engine.table.add_many(*channel.unpack_rules(message.body, message.how_many))
        elif message.kind == Kind.REMOVE_RULES:
            for key in channel.unpack_keys(message.body).tolist():
                engine.table.remove(key)
        elif message.kind == Kind.SET_LINKS:
            engine.set_links(channel.unpack_links(message.body))
        elif message.kind == Kind.ADD_SOCKET:
            row, frames, frame_bytes, interface = channel.SOCKET.unpack(message.body)
            [descriptor] = message.descriptors
            engine.add_socket(row, descriptor, Ring(frames, frame_bytes), interface)
            self._descriptors[row] = descriptor
        elif message.kind == Kind.REMOVE_SOCKET:
            engine.remove_socket(message.argument)
            os.close(self._descriptors.pop(message.argument))
        elif message.kind == Kind.STOP:
            self._drain()

    def _drain(self) -> None:
        """Forward what the rings still hold."""
        self._engine.drain()
