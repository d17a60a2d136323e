"""What a watch says of a CPU, against what processes with a known use of it were charged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.measure.processes import processor_ns
from lab.measure.watch import GROUP, Watch, WatchError, watching

pytestmark = pytest.mark.serial

HALF_BUSY = """
import time
print(flush=True)
while True:
    end = time.monotonic() + 0.002
    while time.monotonic() < end:
        pass
    time.sleep(0.002)
"""
CPU = max(os.sched_getaffinity(0))


def own_ns(watch: Watch) -> int:
    """Processor time of the watching process itself."""
    tasks = Path(f"/proc/{watch.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def test_what_a_watch_does_not_get_was_taken_and_a_busy_process_is_in_it() -> None:
    busy = ["taskset", "-c", str(CPU), sys.executable, "-c", HALF_BUSY]
    with watching([CPU]) as watch, subprocess.Popen(busy, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        def reading() -> tuple[int, int, int, int]:
            taken, own = watch.taken_ns()[CPU], own_ns(watch)
            return taken, own, processor_ns([process.pid]), time.monotonic_ns()

        before = reading()
        time.sleep(1)
        after = reading()
        process.kill()
    taken, own, charged, passed = (late - early for late, early in zip(after, before, strict=True))
    assert taken + own == pytest.approx(passed, rel=0.03)
    assert charged > 0.1 * passed
    assert taken > 0.97 * charged


def test_a_watched_cpu_belongs_to_whoever_wants_it_and_the_watch_ends_with_its_block() -> None:
    with (
        watching([CPU]) as watch,
        subprocess.Popen(["taskset", "-c", str(CPU), "sh", "-c", "while :; do :; done"]) as worker,
    ):
        time.sleep(0.2)
        before, own, begun = watch.taken_ns()[CPU], own_ns(watch), time.monotonic_ns()
        time.sleep(0.5)
        passed = time.monotonic_ns() - begun
        assert watch.taken_ns()[CPU] - before > 0.95 * passed
        assert own_ns(watch) - own < 0.05 * passed
        worker.kill()
    assert not Path(f"/proc/{watch.pid}").exists()
    assert not list(Path("/sys/fs/cgroup").rglob(GROUP))


def test_a_cpu_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(WatchError, match="watching CPUs 100000"), watching([100_000]):
        pass


def test_a_paused_watch_uses_nothing_and_goes_on_afterwards() -> None:
    with watching([CPU]) as watch:
        with watch.paused():
            time.sleep(0.05)
            used = own_ns(watch)
            time.sleep(0.2)
            assert own_ns(watch) == used
        deadline = time.monotonic() + 10
        while own_ns(watch) == used:
            assert time.monotonic() < deadline
            time.sleep(0.01)
