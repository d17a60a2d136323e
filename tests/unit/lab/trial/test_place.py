"""Where sender and workers run."""

from __future__ import annotations

import os

import pytest

from lab.trial.plan import place


@pytest.mark.parametrize(
    ("cpus", "workers", "apart", "sender", "others"),
    [
        ({0}, 1, False, 0, (0,)),
        ({0}, 1, True, 0, (0,)),
        ({0, 1}, 1, False, 0, (1,)),
        ({0, 1}, 2, False, 0, (0, 1)),
        ({0, 1}, 2, True, 0, (1,)),
        ({2, 3, 5, 7}, 2, False, 2, (3, 5)),
        ({2, 3, 5, 7}, 8, True, 2, (3, 5, 7)),
        ({2, 3, 5, 7}, 4, False, 2, (2, 3, 5, 7)),
    ],
)
def test_the_sender_shares_its_cpu_only_where_it_must(
    monkeypatch: pytest.MonkeyPatch,
    cpus: set[int],
    workers: int,
    apart: bool,
    sender: int,
    others: tuple[int, ...],
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cpus)
    assert place(workers, apart=apart) == (sender, others)
