"""The fork server's process: ``python -m lab.traffic.fork_program DESCRIPTOR``; see ``fork_server.py``.

It has one thread, so that its forks begin in a known state. It ends when the lab does, and its forks with it.
"""

import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

from lab.netns import enter
from lab.traffic.fork_server import MESSAGE_BYTES
from lab.traffic.receive import program as receive
from lab.traffic.send import program as send

PROGRAMS: dict[str, Callable[[], int]] = {"send": send.main, "receive": receive.main}


def main(lab: socket.socket) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    gc.collect()
    gc.freeze()  # a collection would copy the pages that forks share
    while True:
        message, descriptors, _, _ = socket.recv_fds(lab, MESSAGE_BYTES, 3)
        if not message:
            return 0
        server = os.getpid()
        if not (pid := os.fork()):
            lab.close()
            os._exit(_become(json.loads(message), descriptors, server))
        for descriptor in descriptors:
            os.close(descriptor)
        pidfd = os.pidfd_open(pid)
        socket.send_fds(lab, [str(pid).encode()], [pidfd])
        os.close(pidfd)


def _become(request: dict[str, Any], descriptors: list[int], server: int) -> int:
    """Run a program where and with what the lab asked for; returns its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    try:
        os.setpgid(0, 0)
        enter.die_with(server)
        enter.enter(request["namespace"])
        os.sched_setaffinity(0, request["cpus"])
        status = PROGRAMS[request["program"]]()
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    raise SystemExit(main(socket.socket(fileno=int(sys.argv[1]))))
