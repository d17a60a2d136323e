"""Bisection of simulated histories: the right commit, in as many comparisons and errors as are stated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.analysis import bisect, compare
from lab.analysis.compare import FEW_PAIRS, paired_ratio, verdict
from lab.results import Judgement

MOST_PAIRS = 16


@pytest.fixture(scope="module", autouse=True)
def _fewer_resamples() -> Iterator[None]:
    """Hundreds of bisections take thousands of bootstraps; coarser ones will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_RESAMPLES", 999)
        yield


@dataclass
class History:
    """Commits whose log ratio to the good one is ``level(position)``, measured with noise."""

    commits: int
    level: Callable[[int], float]
    noise: float
    seed: int
    broken: frozenset[int] = frozenset()
    stall: float = 0.0
    """How often one side of a pair takes half as long again."""
    judged: dict[int, Judgement] = field(default_factory=dict)
    pairs: dict[int, int] = field(default_factory=dict)

    def find(self, pairs_max: int = MOST_PAIRS) -> tuple[int, ...]:
        """The positions that may be the one that changed it; none where there is no difference."""
        rng = np.random.default_rng(self.seed)

        def measured(at: int, count: int) -> list[float]:
            stalls = math.log(1.5) * rng.choice(
                [-1, 0, 1], count, p=[self.stall / 2, 1 - self.stall, self.stall / 2]
            )
            return (self.level(at) + rng.normal(0, self.noise, count) + stalls).tolist()

        logs = measured(self.commits, FEW_PAIRS)
        while not bisect.shows_change(ratio := paired_ratio([math.exp(x) for x in logs], [1.0] * len(logs))):
            if len(logs) >= pairs_max:
                break
            logs += measured(self.commits, min(bisect.PAIRS_MORE, pairs_max - len(logs)))
        self.pairs[self.commits] = len(logs)
        if verdict(ratio, higher_is_better=True) == "no difference":
            return ()
        self.judged[self.commits] = "bad"
        changed_by, earlier = math.log(ratio.value), [logs]
        while (at := bisect.next_position(left := bisect.remaining(self.commits, self.judged))) is not None:
            if at in self.broken:
                self.judged[at] = "skipped"
                continue
            if len(self.pairs) == bisect.comparisons_max(self.commits):
                break
            logs, judged = [], "undecided"
            while judged == "undecided" and len(logs) < pairs_max:
                logs += measured(at, bisect.PAIRS_MORE)
                judged = bisect.judge(logs, changed_by, bisect.spread([*earlier, logs]))
            self.judged[at], self.pairs[at] = judged, len(logs)
            earlier.append(logs)
        left = bisect.remaining(self.commits, self.judged)
        return tuple(range(left.good + 1, left.bad + 1))


def step_at(position: int, size: float) -> Callable[[int], float]:
    return lambda at: size if at >= position else 0.0


histories = st.integers(2, 200).flatmap(lambda commits: st.tuples(st.just(commits), st.integers(1, commits)))
sizes = st.sampled_from([-1.5, -0.7, -0.3, -0.1, 0.1, 0.3, 0.7])


@given(histories, sizes, st.integers(0, 2**32))
def test_a_clear_change_is_found_within_the_comparisons_that_are_stated(
    history: tuple[int, int], size: float, seed: int
) -> None:
    commits, changed = history
    made = History(commits, step_at(changed, size), abs(size) / 50, seed)
    assert made.find() == (changed,)
    assert len(made.pairs) <= min(bisect.comparisons_max(commits), 1 + math.ceil(math.log2(commits)))
    assert max(made.pairs.values()) == FEW_PAIRS, "a clear side takes few pairs"


def test_eight_comparisons_are_enough_for_64_commits() -> None:
    assert bisect.comparisons_max(64) == 8
    assert [bisect.comparisons_max(commits) for commits in (1, 2, 3)] == [1, 3, 4]


@pytest.mark.parametrize(("noise", "stall", "least"), [(0.5, 0.0, 0.85), (1.0, 0.0, 0.0), (0.5, 0.05, 0.05)])
def test_the_wrong_commit_is_named_in_one_of_twenty_at_most(noise: float, stall: float, least: float) -> None:
    """``noise``: of a pair, beside the change. What stays undecided makes a range, not an error.

    ``least``: how often the commit is named alone. More pairs name it more often, not more wrongly.
    """
    rng = np.random.default_rng(5)
    runs, wrong, named = 120, 0, 0
    for seed in range(runs):
        commits = int(rng.integers(2, 201))
        changed = int(rng.integers(1, commits + 1))
        made = History(commits, step_at(changed, -0.1), 0.1 * noise, seed, stall=stall)
        found = made.find(pairs_max=24 if stall else MOST_PAIRS)
        assert len(made.pairs) <= bisect.comparisons_max(commits)
        wrong += bool(found) and changed not in found
        named += found == (changed,)
    assert wrong <= 0.05 * runs
    assert named >= least * runs


@settings(max_examples=50)
@given(histories, st.sets(st.integers(1, 200), max_size=40), st.integers(0, 2**32))
def test_commits_that_cannot_be_measured_are_passed_over(
    history: tuple[int, int], broken: set[int], seed: int
) -> None:
    commits, changed = history
    made = History(commits, step_at(changed, -0.5), 0.01, seed, frozenset(broken - {commits}))
    found = made.find()
    assert changed in found
    assert len(made.pairs) <= bisect.comparisons_max(commits)
    assert not made.pairs.keys() & made.broken
    if len(made.pairs) < bisect.comparisons_max(commits):
        assert set(found[:-1]) <= made.broken, "what remains is what could not be measured, and the next one"


@settings(max_examples=50)
@given(st.integers(2, 200), st.integers(0, 2**32))
def test_nothing_is_found_where_good_and_bad_are_the_same(commits: int, seed: int) -> None:
    """Also where it was slower for a while, and put right."""
    made = History(commits, lambda at: -0.5 if at == commits // 2 else 0.0, 0.0, seed)
    assert made.find() == ()
    assert len(made.pairs) == 1


def test_a_difference_is_seen_where_there_is_none_in_one_of_twenty_at_most() -> None:
    runs = 200
    found = sum(bool(History(10, lambda _: 0.0, 0.05, seed).find()) for seed in range(runs))
    assert found <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)


@settings(max_examples=50)
@given(histories, st.integers(0, 2**32))
def test_of_two_changes_the_one_that_crosses_the_middle_is_in_what_remains(
    history: tuple[int, int], seed: int
) -> None:
    """Commits between two equal changes are on neither side: they stay undecided, or are judged by a hair."""
    commits, second = history
    first = second // 2
    made = History(commits, lambda at: -0.25 * ((at >= first) + (at >= second)), 0.01, seed)
    found = made.find()
    assert {first, second} & set(found) or first < found[0] <= second
    assert len(made.pairs) <= bisect.comparisons_max(commits)


def test_a_single_pair_does_not_decide_however_far_out_it_is() -> None:
    for value in (-9.0, 0.0, 9.0):
        assert bisect.judge([value], -0.1, 1e-9) == "undecided"
    assert bisect.judge([-0.1, -0.1], -0.1, 1e-9) == "bad"
    assert bisect.judge([0.0, 0.0], -0.1, 1e-9) == "good"
    assert bisect.judge([0.0, -0.1], -0.1, 1e-9) == "undecided"


def test_noise_takes_two_pairs_of_one_comparison() -> None:
    assert bisect.spread([[0.1, 0.3], [5.0]]) > 0.14
    with pytest.raises(ValueError, match="two pairs"):
        bisect.spread([[0.1], [0.2]])


def test_the_next_commit_is_in_the_middle_and_leaves_the_undecided_behind() -> None:
    judged: dict[int, Judgement] = {64: "bad"}
    assert bisect.next_position(bisect.remaining(64, judged)) == 32
    judged[32] = "skipped"
    assert bisect.next_position(bisect.remaining(64, judged)) == 31, "a neighbour"
    judged[31] = "undecided"
    assert bisect.next_position(bisect.remaining(64, judged)) in (47, 48), "not another neighbour"
    judged[48] = "good"
    left = bisect.remaining(64, judged)
    assert (left.good, left.bad, left.undecided) == (48, 64, ())
    judged |= dict.fromkeys(range(49, 64), "skipped")
    assert bisect.next_position(bisect.remaining(64, judged)) is None
