"""Rates without loss (NDR) and with little (PDR), by MLRsearch (draft-ietf-bmwg-mlrsearch).

Pure but for the measuring.

How the library's terms are used, read from the installed release (MLRsearch 1.2.1):

* A trial counts as lossy, too, when what it offered piled up in a buffer that had not run over yet: what the
  subject was late with is as good as lost.
* Each loss ratio is a goal of one search: a trial says something about every one of them. With the quick and
  the full profile a rate holds when at most half of the trials at it (exceed ratio) lost more: one stall of a
  shared machine must not decide. The conservative profile is the draft's goal that complies with
  RFC 2544: one trial of 60 s, none of which may be bad, after shorter ones that lead to it.
* ``max_load`` is the generator's ceiling measured in the same run, so a subject that loses nothing there
  is bound by the generator, and the search says so rather than extrapolating.
* A trial that offered less than was asked is *invalid*, never loss. The search begins by finding what the
  generator can hold beside this subject, which may be less than its ceiling: a subject that does its work in
  the sender's system call slows it. A later trial that falls short is repeated; a rate that stays out of
  reach counts as such (the library sees what was not offered as unsent): the generator is bound, not the
  subject.
* The library ends when its bounds are close enough, which noise can put off for long, or by raising
  RuntimeError after a time. Here a search ends after ``search_trials_max`` trials at the latest, repeated
  and widened ones included, with the bounds that these support and a warning.
* A search begins with a climb in steps of four, which brackets the rate. A search that finds loss at its
  lowest rate goes on below it, and one that finds none at its highest goes on above.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, SupportsFloat

from MLRsearch import AbstractMeasurer, Config, MeasurementResult, MultipleLossRatioSearch, SearchGoal

from lab.scenario.profiles import Profile

SHORTFALL_LIMIT = 0.02
"""An offered rate this much below the asked one makes a trial invalid."""

_FOREVER_S = 1e6
_REPEATS = 2
_REACHES = 5
_REACH_MARGIN = 0.96
"""What a generator reached once it may miss by a little the next time: ask for less than that."""
_REACH_STEP = 0.4
"""At most so far down at once: where the generator was merely held up, it offered next to nothing."""

_LOWEST_SHARE = 0.002
"""The search starts at this share of the ceiling; a subject that loses there has no zero-loss rate here."""
_CLIMB = 4
"""Each rate of a climb over the one before."""


@dataclass(frozen=True)
class Observation:
    """One trial as the search sees it: datagrams asked for and offered, copies due and delivered.

    ``kept_up``: nothing piled up. A rate that fills a buffer is lost sooner or later: in a longer trial.
    ``late``: copies that piled up, of those delivered.
    """

    asked: int
    offered: int
    expected: int
    delivered: int
    kept_up: bool = True
    late: int = 0

    @property
    def missed(self) -> int:
        """Copies that a longer trial would have lost: 0 only where the subject kept up with all of them."""
        missed = self.expected - self.delivered + (0 if self.kept_up else self.late)
        return max(missed, 0 if self.kept_up else 1)

    def held(self, loss_ratio: float) -> bool:
        """The subject forwarded what it was offered, but for this share, as fast as that came."""
        return self.missed <= loss_ratio * self.expected

    @property
    def short(self) -> bool:
        return self.offered < self.asked * (1 - SHORTFALL_LIMIT)


Measure = Callable[[float, float], Observation]
"""``measure(seconds, datagrams_per_second)``."""


@dataclass(frozen=True)
class Found:
    """The bounds: ``lower_dps`` met the goal; ``upper_dps`` did not. ``None``: there is no such rate."""

    lower_dps: float | None
    upper_dps: float | None
    bound_by: Literal["generator", "forwarder", "unknown"]
    warnings: tuple[str, ...] = ()


Bounds = tuple[float | None, float | None]
Seen = tuple[float, float, Observation]
"""Rate, seconds, and what was seen."""


def find_rates(
    measure: Measure,
    ceiling_dps: float,
    profile: Profile,
    loss_ratios: Sequence[float],
    within: tuple[float, float] | None = None,
) -> tuple[Found, ...]:
    """One search up to ``ceiling_dps`` for all ``loss_ratios`` (0.005 is 0.5 % of copies), in their order.

    ``within``: rates that an earlier search makes likely; without it, those that a climb finds.
    """
    seen: list[Seen] = []
    low, high = within or _climb(measure, ceiling_dps, profile, loss_ratios, seen)
    search = _Search(measure, profile, loss_ratios, low, min(high, ceiling_dps), ceiling_dps, seen)
    found: list[Found] = []
    for loss_ratio, bounds in zip(loss_ratios, search.bounds(), strict=True):
        share = search.trials_left // (len(loss_ratios) - len(found))
        found.append(search.beyond(loss_ratio, bounds, share))
    return tuple(found)


def find_zero_loss(
    measure: Measure, ceiling_dps: float, profile: Profile, within: tuple[float, float] | None = None
) -> Found:
    """Search for the rate without loss; otherwise like :func:`find_rates`."""
    return find_rates(measure, ceiling_dps, profile, (0.0,), within)[0]


def _climb(
    measure: Measure, ceiling_dps: float, profile: Profile, loss_ratios: Sequence[float], seen: list[Seen]
) -> tuple[float, float]:
    """The last rate of a climb that held, and the first that did not, the ceiling at most.

    From below: a subject far beyond what it can do says little about what it can, and a generator may reach
    fifty times as much. What is seen is added to ``seen``.
    """
    low = rate = ceiling_dps * _LOWEST_SHARE
    while rate < ceiling_dps:
        observation = measure(profile.first_s, rate)
        seen.append((rate, profile.first_s, observation))
        if not observation.held(max(loss_ratios)):
            break
        if observation.held(min(loss_ratios)):
            low = rate
        rate *= _CLIMB
    return low, min(rate, ceiling_dps)


class _EnoughError(Exception):
    """The trials are used up."""


class _Search(AbstractMeasurer):  # type: ignore[misc]
    """One search for several loss ratios: repeats invalid trials and remembers what it saw."""

    def __init__(
        self,
        measure: Measure,
        profile: Profile,
        loss_ratios: Sequence[float],
        low: float,
        high: float,
        ceiling: float,
        seen: list[Seen],
    ) -> None:
        self._ceiling = ceiling
        self._measure_once = measure
        self._profile = profile
        self._loss_ratios = loss_ratios
        self.trials_left = self._most = profile.search_trials_max * len(loss_ratios)
        self._seen = seen
        self._probed: tuple[float, Observation] | None = None
        """The trial that :meth:`_reach` ended with: the library begins with the same."""
        self._warnings: list[str] = []
        self.asked_first = high
        self.high = self._reach(high)
        # One and a half widths below. MLRsearch never ends where a range is a multiple of the goal's width
        # but for rounding: it looks for steps of just below a width (LoadRounding._find_ints, 1.2.1).
        self.low = min(low, self.high * (1 - 1.5 * profile.search_width))

    def bounds(self) -> list[Bounds]:
        """Search between :attr:`low` and :attr:`high`: the bounds for each loss ratio."""
        profile = self._profile
        goals = [
            SearchGoal(
                loss_ratio=loss_ratio,
                exceed_ratio=profile.search_exceed,
                relative_width=profile.search_width,
                initial_trial_duration=profile.first_s,
                final_trial_duration=profile.trial_s,
                duration_sum=profile.trial_s * profile.search_trials,
                preceding_targets=1 if profile.first_s == profile.trial_s else 2,
                expansion_coefficient=4,
                fail_fast=False,
            )
            for loss_ratio in self._loss_ratios
        ]
        config = Config(
            goals=goals,
            min_load=self.low,
            max_load=self.high,
            search_duration_max=_FOREVER_S,
            warmup_duration=0.0,
        )
        try:
            results = MultipleLossRatioSearch(config).search(self, debug=lambda _text: None)
        except _EnoughError:
            self._warnings.append(f"the search had not settled after {self._most} trials")
            return [self._bounds_so_far(loss_ratio) for loss_ratio in self._loss_ratios]
        found = [results[search_goal] for search_goal in goals]
        return [(_load(r.relevant_lower_bound), _load(r.relevant_upper_bound)) for r in found]

    def beyond(self, loss_ratio: float, bounds: Bounds, trials: int) -> Found:
        """What was found, after a search below or above where this one ended at its range, of ``trials``."""
        lower, upper = bounds
        rest = self._profile.model_copy(update={"search_trials_max": trials})
        lowest = self._ceiling * _LOWEST_SHARE
        if trials and lower is None and self.low > lowest:
            (below,) = find_rates(self._try, self.low, rest, (loss_ratio,), (lowest, self.low))
            return replace(below, upper_dps=below.upper_dps or self.low, bound_by="forwarder")
        if trials and upper is None and self.asked_first == self.high < self._ceiling:
            further = (self.high, self._ceiling)
            (above,) = find_rates(self._try, self._ceiling, rest, (loss_ratio,), further)
            return replace(above, lower_dps=max(above.lower_dps or 0.0, lower or 0.0) or None)
        return self._conclude(loss_ratio, bounds)

    def _conclude(self, loss_ratio: float, bounds: Bounds) -> Found:
        """What the bounds for a loss ratio mean, and what bound the rate."""
        lower, upper = bounds
        said = list(self._warnings)
        limited = "limited by the generator ({}{:,.0f} datagrams/s with this forwarder running)"
        if upper is None and self.asked_first == self.high < self._ceiling:
            return Found(lower, None, "unknown", (*said, f"nothing above {self.high:,.0f} dps was tried"))
        if upper is None or self._out_of_reach(upper, loss_ratio):
            if upper is not None:
                said.append(limited.format("below ", upper))
            elif self.high < self.asked_first:
                said.append(limited.format("", self.high))
            return Found(lower, None, "generator", tuple(said))
        if lower is None:
            said.append(f"loss already at {self.low:,.0f} dps, the lowest rate tried")
        return Found(lower, upper, "forwarder", tuple(said))

    def _reach(self, dps: float) -> float:
        """The highest rate up to ``dps`` that the generator holds, as far as a few trials tell."""
        for attempt in range(_REACHES):
            if not self.trials_left:
                break
            observation = self._try(self._profile.first_s, dps)
            if not observation.short:
                self._probed = (dps, observation)
                break
            if not attempt:
                continue  # it may have been held up
            dps *= max(_REACH_STEP, observation.offered / observation.asked * _REACH_MARGIN)
        return dps

    def measure(self, intended_duration: float, intended_load: float) -> MeasurementResult:
        observation = self._observe(intended_duration, intended_load)
        self._seen.append((intended_load, intended_duration, observation))
        asked = observation.asked if observation.short else observation.offered
        # Loss is counted in copies and the load in datagrams: scale, but never round a loss to none.
        lost = 0
        if observation.missed > 0 and observation.expected:
            lost = max(1, round(observation.missed * observation.offered / observation.expected))
        return MeasurementResult(
            intended_duration=intended_duration,
            intended_load=intended_load,
            offered_count=observation.offered,
            loss_count=lost,
            intended_count=asked,
        )

    def _observe(self, seconds: float, dps: float) -> Observation:
        probed, self._probed = self._probed, None
        if probed is not None and math.isclose(probed[0], dps):
            return probed[1]
        for _attempt in range(_REPEATS):
            observation = self._try(seconds, dps)
            if not observation.short:
                return observation
        return self._try(seconds, dps)

    def _try(self, seconds: float, dps: float) -> Observation:
        if not self.trials_left:
            raise _EnoughError
        self.trials_left -= 1
        return self._measure_once(seconds, dps)

    def _out_of_reach(self, load: float, loss_ratio: float) -> bool:
        """Whether every trial at ``load`` held, but offered too little."""
        trials = [seen for at, _, seen in self._seen if at == load]
        return bool(trials) and all(trial.short and trial.held(loss_ratio) for trial in trials)

    def _bounds_so_far(self, loss_ratio: float) -> Bounds:
        """The best rate at which enough trials held, and the lowest other one above."""
        outcomes: dict[float, list[bool]] = {}
        for at, seconds, trial in self._seen:
            if seconds < self._profile.trial_s:
                continue  # led to the final ones, and says nothing of as long a time
            outcomes.setdefault(at, []).append(not trial.short and trial.held(loss_ratio))
        most = self._profile.search_exceed
        good = [at for at, fine in outcomes.items() if fine.count(False) <= most * len(fine)]
        lower = max(good, default=None)
        bad = [at for at in outcomes if at not in good and (lower is None or at > lower)]
        return lower, min(bad, default=None)


def _load(bound: SupportsFloat | None) -> float | None:
    return float(bound) if bound else None
