"""The watching process of ``watch.py``: ``python -m … PARENT DESCRIPTOR GROUP CPU…``."""

import mmap
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from forwarder.abi.jit import njit
from forwarder.abi.libc import die_with
from forwarder.abi.native import monotonic_ns
from lab.measure.watch import COLUMNS, GAP_NS, GAPS, LAST_NS, TAKEN_NS


@njit
def watch(row: Any, turns: int) -> None:
    """Read the clock ``turns`` times, for ever with a negative number; ``row``: int64[COLUMNS]."""
    scratch = np.zeros(2, np.int64)
    last = monotonic_ns(scratch)
    while turns:
        turns -= 1
        now = monotonic_ns(scratch)
        if now - last >= GAP_NS:
            row[TAKEN_NS] += now - last
            row[GAPS] += 1
        row[LAST_NS] = now
        last = now


def main(arguments: list[str]) -> None:
    parent, descriptor = map(int, arguments[:2])
    group, cpus = Path(arguments[2]), [int(cpu) for cpu in arguments[3:]]
    die_with(parent)
    rows = np.frombuffer(mmap.mmap(descriptor, 0), np.int64, len(cpus) * COLUMNS).reshape(-1, COLUMNS)
    (group / "cgroup.procs").write_text(str(os.getpid()))
    watch(np.zeros(COLUMNS, np.int64), 1)  # compiles

    def work(cpu: int, row: Any) -> None:
        os.sched_setaffinity(0, {cpu})
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        watch(row, -1)

    threads = [threading.Thread(target=work, args=each) for each in zip(cpus, rows, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1:])
