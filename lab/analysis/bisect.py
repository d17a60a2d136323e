"""Which commit changed a figure: the next one to compare, and when pairs are enough to judge it. Pure.

A history has a good commit, and after it those that may have changed the figure, the last of which is bad.

1. The bad commit is compared with the good one, pair by pair until the interval of their ratio is narrow
   beside the difference, or the pairs are used up. Without a difference there is nothing to find.
2. The commit in the middle of what remains is compared with the good one, and is on one side or the other:
   Wald's sequential probability ratio test of "as good" against "changed as much". Pairs are added until its
   evidence is beyond :data:`ERROR`, however often one looks (Ville's inequality).

Each pair's log ratio is clipped to what lies between the two hypotheses, so that a stall of the machine
cannot decide alone; this makes errors rarer still. The noise is that of all pairs so far, at the upper end of
what they allow (:data:`SPREAD_CONFIDENCE`). What neither allows for, an imprecise first ratio, is why
:data:`ERROR` is small.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.analysis.compare import FEW_PAIRS, Ratio
from lab.results import Judgement

ERROR = 0.003
"""How often a commit is put on the wrong side, were change and noise known: 2.4 % for eight of them. In
simulations, which estimate both, the wrong commit is named in less than one of fifty bisections."""
SPREAD_CONFIDENCE = 0.7
LEAST_SPREAD = 1 / 3
"""The least spread of values, as a share of the change: pairs that agree by chance must not decide."""
NARROW = 1 / 4
"""Half-width of the first interval as a share of the difference, both as logarithms, that ends it."""
PAIRS_MORE = 2
"""Pairs between two looks: an even number, so that the sides go on taking turns."""


def comparisons_max(commits: int) -> int:
    """The most comparisons that bisecting ``commits`` commits takes: 8 for 64.

    One shows that there is a change, and one is to spare for a commit that stays undecided.
    """
    return 1 if commits == 1 else 2 + math.ceil(math.log2(commits))


@dataclass(frozen=True)
class Remaining:
    """What is left of a history: the change is after ``good`` and at ``bad`` or before.

    Positions count from 1; the good commit is 0.
    """

    good: int
    bad: int
    untested: tuple[int, ...]
    """Positions between the two that may still be compared,"""
    undecided: tuple[int, ...]
    """and those that were compared, to no conclusion."""


def remaining(commits: int, judged: Mapping[int, Judgement]) -> Remaining:
    """What the judgements so far leave of ``commits`` positions, of which the last is bad."""
    good = max((at for at, judgement in judged.items() if judgement == "good"), default=0)
    bad = min((at for at, judgement in judged.items() if judgement == "bad" and at > good), default=commits)
    between = range(good + 1, bad)
    undecided = tuple(at for at in between if judged.get(at) == "undecided")
    return Remaining(good, bad, tuple(at for at in between if at not in judged), undecided)


def next_position(left: Remaining) -> int | None:
    """The position to compare next; ``None`` when none is left.

    The one nearest to the middle of what remains; beside one that stayed undecided, to the middle of the
    widest stretch without such, as its neighbours are likely to stay undecided, too.
    """
    ends = [left.good, *left.undecided, left.bad]
    stretches = sorted(pairwise(ends), key=lambda stretch: stretch[0] - stretch[1])
    for low, high in stretches:
        if within := [at for at in left.untested if low < at < high]:
            return min(within, key=lambda at: abs(2 * at - low - high))
    return None


def shows_change(ratio: Ratio) -> bool:
    """Whether the first comparison has pairs enough: its interval is narrow beside the difference."""
    half_width = math.log(ratio.high / ratio.low) / 2
    return ratio.pairs >= FEW_PAIRS and half_width <= NARROW * abs(math.log(ratio.value))


def spread(comparisons: Iterable[Sequence[float]]) -> float:
    """The standard deviation of log ratios about the mean of their comparison, at the upper end of what they
    allow. Raises ValueError without two pairs in a comparison."""
    squares, freedom = 0.0, 0
    for logs in comparisons:
        mean = sum(logs) / len(logs)
        squares += sum((value - mean) ** 2 for value in logs)
        freedom += len(logs) - 1
    if not freedom:
        raise ValueError("no comparison of two pairs")
    import scipy  # where it is used, as in lab.analysis.compare

    return math.sqrt(squares / float(scipy.stats.chi2.ppf(1 - SPREAD_CONFIDENCE, freedom)))


def judge(logs: Sequence[float], changed_by: float, noise: float) -> Judgement:
    """The side of a commit with these log ratios to the good one.

    Args:
        changed_by: the log ratio of the bad commit; not 0.
        noise: standard deviation of one log ratio, from :func:`spread`.
    """
    size = abs(changed_by)
    noise = max(noise, LEAST_SPREAD * size)
    towards = (min(max(value * math.copysign(1, changed_by), 0.0), size) for value in logs)
    evidence = sum(size / noise**2 * (value - size / 2) for value in towards)
    if abs(evidence) < math.log(1 / ERROR):
        return "undecided"
    return "bad" if evidence > 0 else "good"
