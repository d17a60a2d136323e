"""Compiles for this machine in a process of its own: ``python -m forwarder.workers.compilation``.

The compiler leaves some 200 MB of heap behind, which the supervisor would keep for as long as it lives.
"""

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from forwarder.abi import jit
from forwarder.abi.libc import die_with
from forwarder.workers.entry_point import warm_up


async def compile_apart() -> None:
    """Compile the code of workers into the cache on disk, unless it has been compiled before.

    If this is cancelled or fails, whoever needs the code compiles it.
    """
    complete = jit.complete_marker()
    if jit.JIT_DISABLED or not _can_be_written(complete.parent) or complete.exists():
        return
    loop = asyncio.get_running_loop()
    command = [sys.executable, "-P", "-m", "forwarder.workers.compilation", str(os.getpid())]
    quiet = subprocess.DEVNULL
    try:
        # In a process group of its own: a terminal's signals are for the supervisor, which then ends it.
        started = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, process_group=0)
    except OSError:
        return
    with started as process:
        try:
            ended, pidfd = asyncio.Event(), os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            return
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            process.kill()  # does nothing if it has ended


def _can_be_written(directory: Path) -> bool:
    """Whether there can be a cache; otherwise code would be compiled here at every start."""
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
    return os.access(directory, os.W_OK | os.X_OK)


def main() -> None:
    die_with(int(sys.argv[1]))
    warm_up()
    jit.complete_marker().touch()


if __name__ == "__main__":
    main()
