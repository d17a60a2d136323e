"""A process that forks has one thread."""

from __future__ import annotations

import os
import subprocess
import sys


def test_the_supervisor_has_one_thread_when_everything_is_imported() -> None:
    limits = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in limits}
    code = "import forwarder.daemon, os; print(len(os.listdir('/proc/self/task')))"
    told = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(told.stdout) == 1
