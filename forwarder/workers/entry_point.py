"""A worker process: one CPU, one packet engine, told what to do over its channel.

Forked from the supervisor, which has everything imported and compiled. It is handed open sockets, gives up
every privilege before it touches a packet, and lives no longer than its supervisor.
"""

from __future__ import annotations

import gc
import mmap
import os
import socket
from dataclasses import dataclass

from forwarder.engines.packet.engine import PacketEngine
from forwarder.engines.packet.memory import SharedMemory
from forwarder.engines.packet.messages import Kind
from forwarder.engines.packet.table import pack_key
from forwarder.workers import encoding as channel
from forwarder.workers.process import Entry, compile_entry


@dataclass(frozen=True)
class WorkerStart:
    """What a worker is born with."""

    entry: Entry
    channel: socket.socket
    engine: PacketEngine
    realtime_priority: int
    """0: an ordinary process."""


def main(start: WorkerStart) -> None:
    """Run the worker; the caller leaves the process when this returns."""
    gc.disable()
    if start.realtime_priority:
        make_realtime(start.realtime_priority)
    start.entry()
    start.engine.serve()


def make_realtime(priority: int) -> None:
    """Put this process before every ordinary one; among equals of a CPU it takes turns (sched(7)).

    Raises:
        OSError: CAP_SYS_NICE is missing, or the control group has no real-time run time.
    """
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))


def warm_up() -> None:
    """Compile everything that a worker runs, so that forked workers share the code.

    Needs no privilege and moves no packet: an engine lives a short life on messages that wait for it.
    """
    compile_entry()
    memory = SharedMemory(1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    transmitter, wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ring = os.memfd_create("warm-up", os.MFD_CLOEXEC)
    with ours, theirs, transmitter, wire:
        os.ftruncate(ring, mmap.PAGESIZE)
        engine = PacketEngine(memory.block(0), transmitter, theirs.fileno())
        rule = channel.WorkerRule(int(pack_key(0, 1, 1)), 0, ((0, 0, 0, 0),))
        channel.send(ours, Kind.ADD_RULES, 1, count=1, body=channel.pack_rules([rule]))
        channel.send(ours, Kind.REMOVE_RULES, 2, count=1, body=channel.pack_keys([rule.key]))
        channel.send(ours, Kind.SET_LINKS, 3, body=channel.pack_link(0, 0, 0, bytes(4), bytes(6)))
        body = channel.pack_socket(0, 1, mmap.PAGESIZE, 0)
        channel.send(ours, Kind.ADD_SOCKET, 4, body=body, descriptors=(ring,))
        channel.send(ours, Kind.REMOVE_SOCKET, 5)
        channel.send(ours, Kind.STOP, 6)
        engine.serve()
        engine.close()
    os.close(ring)
    memory.close()
