"""The zero-loss rate of a subject, by MLRsearch (draft-ietf-bmwg-mlrsearch). Pure but for the measuring.

How the library's terms are used, read from the installed release (MLRsearch 1.2.1):

* A trial counts as lossy, too, when what it offered piled up in a buffer that had not run over yet.
* One goal, loss ratio 0. A rate holds when at most half of ``trials`` trials at it (``exceed_ratio``) lost
  anything: one stall of a shared machine must not decide.
* ``max_load`` is the generator's ceiling measured in the same run, so a subject that loses nothing there
  is bound by the generator, and the search says so rather than extrapolating.
* A trial that offered less than was asked is *invalid*, never loss. The search begins by finding what the
  generator can hold beside this subject, which may be less than its ceiling: a subject that does its work in
  the sender's system call slows it. A later trial that falls short is repeated; a rate that stays out of
  reach counts as such (the library sees what was not offered as unsent): the generator is bound, not the
  subject.
* The library ends when its bounds are close enough, which noise can put off for long, or by raising
  RuntimeError after a time. Here a search ends after ``trials_max`` trials at the latest, repeated and
  widened ones included, with the bounds
  that these support and a warning.
* A narrowed search that finds loss at its lowest rate goes on below it, and one that finds none at its
  highest goes on above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from MLRsearch import AbstractMeasurer, Config, MeasurementResult, MultipleLossRatioSearch, SearchGoal

SHORTFALL_LIMIT = 0.02
"""An offered rate this much below the asked one makes a trial invalid."""

_FOREVER_S = 1e6
_REPEATS = 2
_REACHES = 5
_REACH_MARGIN = 0.96
"""What a generator reached once it may miss by a little the next time: ask for less than that."""
_REACH_STEP = 0.4
"""At most so far down at once: where the generator was merely held up, it offered next to nothing."""

_LOWEST_SHARE = 0.01
"""The search starts at this share of the ceiling; a subject that loses there has no zero-loss rate here."""


@dataclass(frozen=True)
class Goal:
    """What ends a search: ``trials`` of ``trial_s`` seconds decide a rate; bounds ``width`` apart suffice."""

    trial_s: float
    width: float
    trials: int
    trials_max: int
    loss_ratio: float = 0.0


@dataclass(frozen=True)
class Observation:
    """One trial as the search sees it: datagrams asked for and offered, copies due and delivered.

    ``kept_up``: nothing piled up. A rate that fills a buffer is lost sooner or later: in a longer trial.
    """

    asked: int
    offered: int
    expected: int
    delivered: int
    kept_up: bool = True

    @property
    def held(self) -> bool:
        """The subject forwarded all that it was offered, as fast as that came."""
        return self.delivered >= self.expected and self.kept_up

    @property
    def short(self) -> bool:
        return self.offered < self.asked * (1 - SHORTFALL_LIMIT)


Measure = Callable[[float, float], Observation]
"""``measure(seconds, datagrams_per_second)``."""


@dataclass(frozen=True)
class Found:
    """The bounds: ``lower_dps`` lost nothing; ``upper_dps`` did. ``None``: there is no such rate."""

    lower_dps: float | None
    upper_dps: float | None
    bound_by: Literal["generator", "forwarder", "unknown"]
    warnings: tuple[str, ...] = ()


def find_zero_loss(
    measure: Measure,
    ceiling_dps: float,
    goal: Goal,
    within: tuple[float, float] | None = None,
) -> Found:
    """Search up to ``ceiling_dps``; ``within`` narrows it to rates that an earlier search makes likely."""
    low, high = within or (ceiling_dps * _LOWEST_SHARE, ceiling_dps)
    high = min(high, ceiling_dps)
    record = _Measurer(measure, goal.trials_max)
    high = record.reach(goal.trial_s, high)
    low = min(low, high * 0.9)
    search_goal = SearchGoal(
        loss_ratio=goal.loss_ratio,
        exceed_ratio=0.5,
        relative_width=goal.width,
        initial_trial_duration=goal.trial_s,
        final_trial_duration=goal.trial_s,
        duration_sum=goal.trial_s * goal.trials,
        preceding_targets=1,
        expansion_coefficient=4,
        fail_fast=False,
    )
    config = Config(
        goals=[search_goal],
        min_load=low,
        max_load=high,
        search_duration_max=_FOREVER_S,
        warmup_duration=0.0,
    )
    warnings: list[str] = []
    try:
        result = MultipleLossRatioSearch(config).search(record, debug=lambda _text: None)[search_goal]
        lower = float(result.relevant_lower_bound) if result.relevant_lower_bound else None
        upper = float(result.relevant_upper_bound) if result.relevant_upper_bound else None
    except _EnoughError:
        lower, upper = record.bounds()
        warnings.append(f"the search had not settled after {goal.trials_max} trials")
    rest = replace(goal, trials_max=record.trials_left)
    if lower is None and within is not None and rest.trials_max:
        below = find_zero_loss(measure, low, rest)
        return replace(below, upper_dps=below.upper_dps or low, bound_by="forwarder")
    unbound = upper is None and record.asked_first == high < ceiling_dps
    if unbound and within is not None and rest.trials_max:
        above = find_zero_loss(measure, ceiling_dps, rest, (high, ceiling_dps))
        return replace(above, lower_dps=max(above.lower_dps or 0.0, lower or 0.0) or None)
    return _conclude(record, lower, upper, low, high, warnings)


def _conclude(
    record: _Measurer,
    lower: float | None,
    upper: float | None,
    low: float,
    high: float,
    warnings: list[str],
) -> Found:
    if upper is not None and record.out_of_reach(upper):
        warnings.append(f"beside this subject the generator cannot offer {upper:,.0f} dps")
        return Found(lower, None, "generator", tuple(warnings))
    if upper is None:
        if high < record.asked_first:
            warnings.append(f"beside this subject the generator holds {high:,.0f} dps")
        return Found(lower, None, "generator", tuple(warnings))
    if lower is None:
        warnings.append(f"loss already at {low:,.0f} dps, the lowest rate tried")
    return Found(lower, upper, "forwarder", tuple(warnings))


class _EnoughError(Exception):
    """The trials are used up."""


@dataclass
class _Measurer(AbstractMeasurer):  # type: ignore[misc]
    """The library's seam: repeats invalid trials and remembers what it saw."""

    measure_once: Measure
    trials_left: int
    seen: list[tuple[float, Observation]] = field(default_factory=list)
    asked_first: float = 0.0
    _probed: tuple[float, Observation] | None = None
    """The trial that :meth:`reach` ended with: the library's first one, at the highest load, is the same."""

    def reach(self, seconds: float, dps: float) -> float:
        """The highest rate up to ``dps`` that the generator holds, as far as a few trials tell."""
        self.asked_first = dps
        for _attempt in range(_REACHES):
            if not self.trials_left:
                break
            observation = self._try(seconds, dps)
            if not observation.short:
                self._probed = (dps, observation)
                break
            dps *= max(_REACH_STEP, observation.offered / observation.asked * _REACH_MARGIN)
        return dps

    def measure(self, intended_duration: float, intended_load: float) -> MeasurementResult:
        observation = self._observe(intended_duration, intended_load)
        self.seen.append((intended_load, observation))
        asked = observation.asked if observation.short else observation.offered
        # Loss is counted in copies and the load in datagrams: scale, but never round a loss to none.
        lost_copies = observation.expected - observation.delivered
        lost = 0
        if lost_copies > 0 and observation.expected:
            lost = max(1, round(lost_copies * observation.offered / observation.expected))
        elif not observation.held:
            lost = 1
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
        return self.measure_once(seconds, dps)

    def out_of_reach(self, load: float) -> bool:
        """Whether every trial at ``load`` lost nothing, but offered too little."""
        trials = [seen for at, seen in self.seen if at == load]
        return bool(trials) and all(trial.short and trial.held for trial in trials)

    def bounds(self) -> tuple[float | None, float | None]:
        """The best rate at which at least half of the trials lost nothing, and the lowest other one above."""
        outcomes: dict[float, list[bool]] = {}
        for at, trial in self.seen:
            outcomes.setdefault(at, []).append(not trial.short and trial.held)
        good = [at for at, fine in outcomes.items() if 2 * sum(fine) >= len(fine)]
        lower = max(good, default=None)
        bad = [at for at in outcomes if at not in good and (lower is None or at > lower)]
        return lower, min(bad, default=None)
