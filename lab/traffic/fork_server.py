"""Start senders and receivers as forks of one process that has loaded both.

Their imports take a second of processor time each, and memory that forks share. The lab sends namespace,
program and CPUs with three descriptors for stdin, stdout and stderr, and gets the pid and a descriptor that
stands for the process (pidfd_open(2)).
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cache

from lab.load.jobs import TrafficError

PROGRAM = "lab.traffic.fork_program"
MESSAGE_BYTES = 1 << 16
START_S = 60.0
"""Timeout for an answer; the first one waits for the imports."""


class Forked:
    """A forked process and the lab's ends of its standard streams, unbuffered."""

    def __init__(self, pid: int, pidfd: int, streams: Sequence[int]) -> None:
        self.pid = pid
        self._pidfd = pidfd
        stdin, stdout, stderr = streams
        self.stdin = os.fdopen(stdin, "wb", buffering=0)
        self.stdout = os.fdopen(stdout, "rb", buffering=0)
        self.stderr = os.fdopen(stderr, "rb", buffering=0)

    def close(self) -> None:
        """Kill the process, and return when it is gone."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        select.select([self._pidfd], [], [])
        os.close(self._pidfd)
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()


class ForkServer:
    """The process that forks; it ends with this one, and so do its forks."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(START_S)
        self._lock = threading.Lock()
        number = theirs.fileno()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(number)],
                pass_fds=(number,),
                process_group=0,  # a terminal's Ctrl-C ends the lab, and the lab ends it
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self.close)

    def fork(self, namespace: str, program: str, cpus: Sequence[int]) -> Forked:
        """A fork in ``namespace``, on ``cpus``, that runs ``program`` of :mod:`lab.traffic.fork_program`.

        It says on its stderr why it could not begin. Raises TrafficError when there is no server any more.
        """
        request = {"namespace": namespace, "program": program, "cpus": list(cpus)}
        with ExitStack() as failed, ExitStack() as theirs:
            ours, given = [], []
            for reads in (False, True, True):
                reader, writer = os.pipe()
                own, other = (reader, writer) if reads else (writer, reader)
                failed.callback(os.close, own)
                theirs.callback(os.close, other)
                ours.append(own)
                given.append(other)
            answer, descriptors = self._ask(json.dumps(request).encode(), given)
            failed.pop_all()
        return Forked(int(answer), descriptors[0], ours)

    def close(self) -> None:
        """End the process and its forks."""
        self._socket.close()
        self._process.wait()

    def _ask(self, request: bytes, descriptors: Sequence[int]) -> tuple[bytes, list[int]]:
        answer, received = b"", list[int]()
        with suppress(OSError), self._lock:
            socket.send_fds(self._socket, [request], descriptors)
            answer, received, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 1)
        if not answer:
            fork_server.cache_clear()
            raise TrafficError(f"the process that forks senders and receivers: status {self._process.poll()}")
        return answer, received


@cache
def fork_server() -> ForkServer:
    """The server of this process."""
    return ForkServer()
