"""Which worker's ring gets what is received on which CPU, of two workers planned for CPUs 0 and 2.

Run inside a namespace of its own; writes, for each CPU that it may send from, the frames of either worker.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

from forwarder.engines.packet.engine import SharedMemory
from forwarder.net import packet_sockets
from forwarder.net.links import InterfaceState
from forwarder.plan.host import Cpu, Host
from forwarder.plan.planner import plan
from forwarder.plan.strategy import PRESETS
from forwarder.workers import receive_sockets
from forwarder.workers.handle import WorkerHandle
from kernel_support.steering_probe import DEADLINE_S, make_pair

FRAMES = 10


def main() -> None:
    index = make_pair()
    strategy = PRESETS["fanout"]
    planned = plan(Host((Cpu(0, 0), Cpu(2, 0)), ()), ["probe1"], [], strategy)
    memory = SharedMemory(len(planned.workers))
    handles = [
        WorkerHandle(
            worker,
            memory.block(worker.worker_id),
            busy_poll_ns=0,
            realtime_priority=0,
            on_ready=_ignore,
            on_death=_ignore,
        )
        for worker in planned.workers
    ]
    state = InterfaceState(index, "probe1", up=True, mtu=1500, mac=bytes(6), ipv4=None)
    receive_sockets.open_receivers(state, "probe1", handles, strategy.hashing)
    receive_sockets.listen(handles, strategy.hashing)
    json.dump([[cpu, *received_on(cpu, handles)] for cpu in senders()], sys.stdout)
    for handle in handles:
        receive_sockets.close(receive_sockets.places_of(handle))


def _ignore(*_: object) -> None:
    """No process is started."""


def senders() -> list[int]:
    return sorted(os.sched_getaffinity(0) & {0, 1, 2})


def received_on(cpu: int, handles: list[WorkerHandle]) -> list[int]:
    """Frames that each worker's ring took, of those sent from, and so received on, one CPU."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("probe0", 0))
        for _ in range(FRAMES):
            sender.send(bytes(60))
    os.sched_setaffinity(0, everywhere)
    came = [0] * len(handles)
    deadline = time.monotonic() + DEADLINE_S
    while sum(came) < FRAMES:
        assert time.monotonic() < deadline, f"received {came}"
        for place, handle in enumerate(handles):
            came[place] += sum(
                packet_sockets.arrivals(receiver.sock)[0] for receiver in handle.receivers.values()
            )
    return came


if __name__ == "__main__":
    main()
