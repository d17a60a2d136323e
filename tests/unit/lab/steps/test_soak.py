"""What a soak says of growth: descriptors and threads always, memory once processes have settled."""

from __future__ import annotations

import pytest

from lab.results import Setting, Soak, SoakSample
from lab.steps.kinds.soak import describe

MINUTE_NS = 60_000_000_000
KIB = 1024


def soak(minutes: int, *samples: tuple[int, int, int], pids: tuple[int, ...] = (1, 2)) -> Soak:
    """Of these samples (KiB, descriptors, threads) after the first trial, half of them and the last."""
    first, middle, last = (
        SoakSample(pids=list(pids), private_bytes=size * KIB, descriptors=count, threads=threads)
        for size, count, threads in samples
    )
    return Soak(
        scenario="soak",
        case="64 B",
        subject="mcrd",
        setting=Setting(payload_bytes=64, flows=1),
        asked_dps=1000,
        trial_ids=["a", "b"],
        duration_ns=minutes * MINUTE_NS,
        offered=1000,
        expected=1000,
        delivered=1000,
        first=first,
        middle=middle,
        last=last,
    )


@pytest.mark.parametrize(
    ("minutes", "last", "grew"),
    [
        (60, (9000 + 128, 20, 3), False),  # 64 KiB for each of two processes
        (60, (9000 + 129, 20, 3), True),
        (10, (9000 + 129, 20, 3), True),
        (9, (9000 + 129, 20, 3), False),
        (9, (9000, 21, 3), True),
        (9, (9000, 20, 4), True),
        (60, (8000, 19, 2), False),
    ],
)
def test_growth_is_what_the_second_half_added(minutes: int, last: tuple[int, int, int], grew: bool) -> None:
    assert soak(minutes, (5000, 20, 3), (9000, 20, 3), last).grew is grew


def test_other_processes_cannot_be_compared() -> None:
    record = soak(60, (5000, 20, 3), (9000, 20, 3), (9000, 20, 3))
    assert record.last is not None
    other = record.model_copy(update={"last": record.last.model_copy(update={"pids": [1, 3]})})
    assert (other.grown_bytes, other.grown_descriptors, other.grew) == (None, None, None)
    assert "grew" not in describe(other)


def test_a_short_soak_does_not_pretend_to_have_judged_memory() -> None:
    samples = (5000, 20, 3), (9000, 20, 3), (9900, 20, 3)
    assert describe(soak(1, *samples)).endswith("no descriptor or thread more, too short for memory")
    assert describe(soak(60, *samples)).endswith("it grew")
    assert describe(soak(60, *samples[:2], samples[1])).endswith("nothing grew")
