"""The zero-loss search against subjects whose capacity is known."""

from __future__ import annotations

import random

import pytest

from lab.analysis.search import Observation, find_rates, find_zero_loss
from lab.results import DRAIN_ALLOWED_NS, DRAIN_ALLOWED_SHARE, keeps_up
from lab.scenario.profiles import PROFILES, Profile

GOAL = Profile(trial_ms=400, search_width=0.05, search_trials=2, search_trials_max=24)
CEILING = 500_000.0
CLIMB = 5
"""Trials of a climb to the ceiling."""


def goal(**changes: float) -> Profile:
    return GOAL.model_copy(update=changes)


FINE = goal(search_width=0.002, search_trials_max=40)


class Subject:
    """Loses what is offered above ``capacity``; beside it the generator reaches ``generator`` at most."""

    def __init__(
        self, capacity: float, generator: float = 1e9, outputs: int = 1, stalls: float = 0.0
    ) -> None:
        self.capacity, self.generator, self.outputs = capacity, generator, outputs
        self.buffer = 0
        """Datagrams beyond its capacity that it keeps for later."""
        self.trials = 0
        self._stalls = stalls
        self._random = random.Random(1)

    def measure(self, seconds: float, dps: float) -> Observation:
        self.trials += 1
        asked = round(dps * seconds)
        offered = min(asked, round(self.generator * seconds))
        late = max(0, offered - round(self.capacity * seconds))
        lost = max(0, late - self.buffer)
        kept_up = keeps_up(round((late - lost) / max(1, self.capacity) * 1e9), round(seconds * 1e9))
        if self._random.random() < self._stalls:
            lost += 100
        delivered = max(0, offered - lost) * self.outputs
        return Observation(asked, offered, offered * self.outputs, delivered, kept_up)


@pytest.mark.parametrize("capacity", [7_000, 40_000, 123_456, 300_000, 480_000])
@pytest.mark.parametrize("outputs", [1, 8])
def test_the_bounds_enclose_the_capacity(capacity: int, outputs: int) -> None:
    found = find_zero_loss(Subject(capacity, outputs=outputs).measure, CEILING, GOAL)
    assert found.lower_dps is not None
    assert found.upper_dps is not None
    # A trial has whole datagrams, so rates within a datagram per trial are the same to the subject.
    assert found.lower_dps <= capacity + 2 / GOAL.trial_s
    assert found.upper_dps >= capacity - 2 / GOAL.trial_s
    assert found.lower_dps >= found.upper_dps * (1 - GOAL.search_width)
    assert found.bound_by == "forwarder"


@pytest.mark.parametrize("buffer", [10_000, 100_000, 10_000_000])
def test_a_buffer_that_a_trial_does_not_fill_is_no_capacity(buffer: int) -> None:
    subject = Subject(capacity=123_456)
    subject.buffer = buffer
    found = find_zero_loss(subject.measure, CEILING, GOAL)
    assert found.lower_dps is not None
    allowed = 1 + DRAIN_ALLOWED_SHARE + DRAIN_ALLOWED_NS / 1e9 / GOAL.trial_s
    assert found.lower_dps <= subject.capacity * allowed * 1.001
    assert found.bound_by == "forwarder"


def test_a_subject_without_loss_at_the_ceiling_is_bound_by_the_generator() -> None:
    subject = Subject(capacity=2 * CEILING)
    found = find_zero_loss(subject.measure, CEILING, GOAL)
    assert (found.lower_dps, found.upper_dps, found.bound_by) == (CEILING, None, "generator")
    assert subject.trials == CLIMB + 1


def test_a_generator_that_offers_less_is_never_loss() -> None:
    found = find_zero_loss(Subject(capacity=400_000, generator=250_000).measure, CEILING, GOAL)
    assert found.bound_by == "generator"
    assert found.upper_dps is None
    assert found.lower_dps == pytest.approx(250_000, rel=0.1)
    assert found.warnings[0].startswith("limited by the generator (2")


def test_a_generator_that_was_held_up_once_is_not_taken_for_a_slow_one() -> None:
    subject = Subject(capacity=2 * CEILING)

    def measure(seconds: float, dps: float) -> Observation:
        seen = subject.measure(seconds, dps)
        if subject.trials > 1:
            return seen
        return Observation(seen.asked, 3, 3, 3)

    found = find_zero_loss(measure, CEILING, GOAL)
    assert found.lower_dps == pytest.approx(CEILING)
    assert found.bound_by == "generator"


def test_a_slow_generator_does_not_hide_a_slower_subject() -> None:
    found = find_zero_loss(Subject(capacity=100_000, generator=250_000).measure, CEILING, GOAL)
    assert found.bound_by == "forwarder"
    assert found.lower_dps == pytest.approx(100_000, rel=GOAL.search_width)


def test_loss_at_every_rate_is_no_zero_loss_rate() -> None:
    found = find_zero_loss(Subject(capacity=0).measure, CEILING, GOAL)
    assert found.lower_dps is None
    assert "lowest rate" in found.warnings[0]


@pytest.mark.parametrize("within", [(90_000, 110_000), (200_000, 400_000), (20_000, 50_000)])
def test_a_narrowed_search_finds_the_same_where_the_range_was_wrong_too(within: tuple[float, float]) -> None:
    found = find_zero_loss(Subject(capacity=100_000).measure, CEILING, GOAL, within)
    assert found.lower_dps == pytest.approx(100_000, rel=2 * GOAL.search_width)


def test_a_stall_now_and_then_does_not_decide() -> None:
    found = find_zero_loss(Subject(capacity=200_000, stalls=0.1).measure, CEILING, GOAL)
    assert found.lower_dps == pytest.approx(200_000, rel=0.15)


@pytest.mark.parametrize("within", [None, (1_000, 2_000), (400_000, 450_000)])
@pytest.mark.parametrize("seed", range(8))
def test_a_search_ends_whatever_subject_and_generator_do(
    seed: int, within: tuple[float, float] | None
) -> None:
    chance = random.Random(seed)
    trials = 0

    def measure(seconds: float, dps: float) -> Observation:
        nonlocal trials
        trials += 1
        asked = round(seconds * dps)
        offered = chance.choice([asked, asked // 2])
        return Observation(asked, offered, offered, offered - chance.randrange(2))

    find_zero_loss(measure, CEILING, goal(search_width=0.001, search_trials=9, search_trials_max=20), within)
    assert trials <= 20 + (CLIMB if within is None else 0)


def test_a_search_without_trials_for_an_answer_says_so_and_knows_what_its_climb_held() -> None:
    found = find_zero_loss(Subject(capacity=100_000).measure, CEILING, goal(search_trials_max=1))
    assert (found.lower_dps, found.upper_dps) == (64_000, 256_000)
    assert "not settled after 1 trials" in found.warnings[0]


PDR = 0.005


@pytest.mark.parametrize("capacity", [7_000, 40_000, 123_456, 300_000])
def test_one_search_finds_the_rate_without_loss_and_the_one_with_little(capacity: int) -> None:
    """Beyond its capacity this subject loses the excess: half a percent at ``capacity / (1 - 0.005)``."""
    subject = Subject(capacity)
    ndr, pdr = find_rates(
        subject.measure, CEILING, goal(search_width=0.002, search_trials_max=40), (0.0, PDR)
    )
    together = subject.trials
    assert ndr.lower_dps is not None
    assert pdr.lower_dps is not None
    assert ndr.upper_dps is not None
    assert pdr.upper_dps is not None
    assert ndr.lower_dps <= capacity + 2 / 0.4 <= ndr.upper_dps + 4 / 0.4
    assert pdr.lower_dps <= capacity / (1 - PDR) + 2 / 0.4 <= pdr.upper_dps + 4 / 0.4
    assert pdr.lower_dps > ndr.lower_dps
    apart = 0
    for loss_ratio in (0.0, PDR):
        alone = Subject(capacity)
        find_rates(alone.measure, CEILING, FINE, (loss_ratio,))
        apart += alone.trials
    assert together <= apart


@pytest.mark.parametrize("within", [(1_000.0, 2_000.0), (350_000.0, 400_000.0)])
def test_goals_that_both_go_on_beyond_the_range_share_the_trials(within: tuple[float, float]) -> None:
    subject = Subject(capacity=123_456)
    few = goal(search_trials_max=6)
    every = find_rates(subject.measure, CEILING, few, (0.0, 0.001), within)
    assert subject.trials <= 2 * few.search_trials_max
    assert all(found.lower_dps and 61_000 < found.lower_dps < 124_000 for found in every)


def test_what_piles_up_counts_towards_the_loss_that_a_goal_allows() -> None:
    """This subject loses nothing: it is 10 % late at 1.1 times its capacity, and so on."""

    def measure(seconds: float, dps: float) -> Observation:
        offered = round(dps * seconds)
        late = max(0, offered - round(100_000 * seconds))
        return Observation(offered, offered, offered, offered, kept_up=not late, late=late)

    _, pdr = find_rates(measure, CEILING, GOAL, (0.0, PDR))
    assert pdr.lower_dps == pytest.approx(100_000, rel=GOAL.search_width + PDR)


def test_a_conservative_search_decides_by_one_long_trial_that_shorter_ones_led_to() -> None:
    """It loses one datagram in every long trial above 90,000/s, and short ones do not show it."""
    lengths: list[float] = []

    def measure(seconds: float, dps: float) -> Observation:
        lengths.append(seconds)
        offered = round(dps * seconds)
        lost = max(0, offered - round(100_000 * seconds)) + (dps > 90_000 and seconds > 30)
        return Observation(offered, offered, offered, offered - lost)

    (found,) = find_rates(measure, CEILING, PROFILES["conservative"], (0.0,))
    assert found.lower_dps is not None
    assert 90_000 * (1 - 0.005) <= found.lower_dps <= 90_000
    assert lengths[0] == 1.0
    assert set(lengths) >= {1.0, 60.0}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("ceiling", [150_000.0, 150_997.0, 157_976.0])
def test_a_search_whose_ceiling_is_lower_than_was_likely_ends(ceiling: float) -> None:
    """For some of these a range of exactly one width keeps MLRsearch busy for ever."""
    likely = (0.99 * ceiling, 3 * ceiling)
    found = find_zero_loss(Subject(capacity=1e9).measure, ceiling, goal(search_width=0.1), likely)
    assert (found.bound_by, found.lower_dps) == ("generator", ceiling)
