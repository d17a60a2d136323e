"""Limits of the system are named, with what was wanted and how to raise them."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys

import pytest

from forwarder.plan.host import described_host
from forwarder.plan.model import Sizing
from forwarder.plan.planner import plan
from forwarder.plan.strategy import PRESETS
from forwarder.workers.limits import check_memory, explained

PLAN = plan(described_host(4, ["a", "b"]), ["a", "b"], [], PRESETS["pool"], Sizing(workers=4))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EMFILE, ("4 workers with 8 receive sockets", "RLIMIT_NOFILE", "LimitNOFILE", "ulimit -n")),
        (errno.ENFILE, ("fs.file-max",)),
        (errno.EAGAIN, ("4 processes", "RLIMIT_NPROC", "pids.max")),
        (errno.ENOMEM, ("memory.max", "--ring-frames")),
    ],
)
def test_a_limit_is_named_with_how_to_raise_it(number: int, words: tuple[str, ...]) -> None:
    found = explained(OSError(number, "it said"), PLAN, 64)
    assert found.errno == number
    assert all(word in str(found) for word in ("it said", *words))


def test_any_other_error_is_left_as_it_is() -> None:
    error = OSError(errno.ENODEV, "gone")
    assert explained(error, PLAN, 64) is error


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    program = (
        "import resource as r; from forwarder.workers.limits import allow_descriptors as allow\n"
        f"r.setrlimit(r.RLIMIT_NOFILE, (100, {hard})); allow(); print(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str((hard, hard))


def test_rings_that_there_is_no_memory_for_are_refused_before_any_is_made() -> None:
    needed = sum(worker.ring_bytes for worker in PLAN.workers)
    check_memory(PLAN.workers, {"a", "b"}, needed)
    check_memory(PLAN.workers, {"b"}, needed // 2)
    with pytest.raises(OSError, match=r"receive rings for 4 workers, and .* are available") as refused:
        check_memory(PLAN.workers, {"a", "b"}, needed - 1)
    assert refused.value.errno == errno.ENOMEM
    assert explained(refused.value, PLAN, 64) is refused.value, "it says already what to do"
