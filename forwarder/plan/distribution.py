"""How evenly a group's rules lie on its workers, and how many a resize would move. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.plan.placement import imbalance, moved
from forwarder.plan.strategy import RulePlacement, Strategy


@dataclass(frozen=True)
class Distribution:
    """Of one worker group."""

    group: int
    workers: int
    rules: int
    """Of the group: each once, however many workers hold it."""
    least: int
    most: int
    """Rules held by a worker."""
    imbalance: float
    """The most over the mean: 1 is even."""
    moved_by_one_more: int
    moved_by_one_less: int | None
    """Rules that another worker would own if the group had so many; none where every worker holds them all.
    ``None`` where there is no worker to spare."""


def distribution(
    group: int, held: Sequence[int], keys: Sequence[tuple[int, int]], strategy: Strategy
) -> Distribution:
    """Of a group whose workers hold ``held`` rules each, out of those with the destinations ``keys``."""
    workers = len(held)
    hashed = strategy.placement is RulePlacement.HASH
    more = moved(keys, workers, workers + 1, strategy.hashing) if hashed else 0
    less = moved(keys, workers, workers - 1, strategy.hashing) if hashed and workers > 1 else 0
    return Distribution(
        group=group,
        workers=workers,
        rules=len(keys),
        least=min(held),
        most=max(held),
        imbalance=imbalance(held),
        moved_by_one_more=more,
        moved_by_one_less=less if workers > 1 else None,
    )
