"""A process that forks has one thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from forwarder.workers.process import logged_when_slow


def test_the_supervisor_has_one_thread_when_everything_is_imported() -> None:
    limits = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in limits}
    code = "import forwarder.cli.daemon, os; print(len(os.listdir('/proc/self/task')))"
    told = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(told.stdout) == 1


def test_what_takes_long_is_told_and_what_does_not_is_not_and_no_thread_is_left() -> None:
    said, before = list[str](), threading.active_count()
    with logged_when_slow(said.append, "compiling", after_s=30):
        pass
    assert (said, threading.active_count()) == ([], before)
    with logged_when_slow(said.append, "compiling", after_s=0.01):
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (said, threading.active_count()) == (["compiling"], before)
