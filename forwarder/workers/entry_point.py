"""A worker process: one CPU and one packet engine, controlled by requests over its channel.

It is forked from the supervisor, which has everything imported and compiled. It receives open sockets, gives
up every privilege before it touches a packet, and ends with its supervisor.
"""

import gc
import mmap
import os
import socket

from forwarder.engines.packet.engine import PacketEngine, SharedMemory
from forwarder.engines.packet.rule_table import pack_key
from forwarder.engines.packet.schema import Kind
from forwarder.workers import encoding
from forwarder.workers.process import Entry, compile_entry


def main(entry: Entry, engine: PacketEngine, realtime_priority: int) -> None:
    """Run the worker, with priority 0 as an ordinary process; whoever calls this leaves the process then.

    Raises OSError: a privilege could not be dropped, or real-time scheduling is not permitted.
    """
    gc.disable()
    if realtime_priority:  # before every ordinary process, in turn with equals on its CPU (sched(7))
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(realtime_priority))
    entry()
    engine.serve()


def warm_up() -> None:
    """Compile everything that a worker runs, so that forked workers share the code.

    Needs no privilege and moves no packet: an engine handles a few requests that wait for it, and ends.
    """
    compile_entry()
    memory = SharedMemory(1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    transmitter, wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ring = os.memfd_create("warm-up", os.MFD_CLOEXEC)
    with ours, theirs, transmitter, wire:
        os.ftruncate(ring, mmap.PAGESIZE)
        engine = PacketEngine(memory.block(0), transmitter, theirs.fileno())
        rule = encoding.WorkerRule(int(pack_key(0, 1, 1)), 0, ((0, 0, 0, 0),))
        socket_body = encoding.pack_socket(0, 1, mmap.PAGESIZE, 0)
        requests: list[tuple[Kind, int, bytes, list[int]]] = [
            (Kind.ADD_RULES, 1, encoding.pack_rules([rule]), []),
            (Kind.REMOVE_RULES, 1, encoding.pack_keys([rule.key]), []),
            (Kind.SET_LINKS, 0, encoding.pack_link(0, 0, 0, bytes(4), bytes(6)), []),
            (Kind.ADD_SOCKET, 0, socket_body, [ring]),
            (Kind.REMOVE_SOCKET, 0, b"", []),
            (Kind.STOP, 0, b"", []),
        ]
        for number, (kind, count, body, descriptors) in enumerate(requests, 1):
            socket.send_fds(ours, [encoding.HEADER.pack(kind, number, count, 0), body], descriptors)
        engine.serve()
        engine.close()
    os.close(ring)
    memory.close()
