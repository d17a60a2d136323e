"""Tables of a scenario for loads that are given, not searched. Pure.

``[[sweep]]`` and ``[[soak]]`` are steady; a ``[[course]]`` changes over time, and during a ``[[change]]`` the
forwarder does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lab.load.jobs import Phase as Rate
from lab.results import ChangeKind
from lab.scenario.rfc3918_tables import Chosen, Dps
from lab.scenario.tables import Model

Share = Annotated[float, Field(gt=0, le=1)]

STEP_S = 0.05
"""A ramp is made of steps of this length."""
LONGEST_COURSE_S = 100
"""A lab's sender is waited for somewhat longer."""


class SweepTable(Chosen):
    """``[[sweep]]``: a trial at each of these rates: loss and latency against offered load."""

    ceiling_shares: Annotated[list[Share], Field(default_factory=list)]
    """Rates as shares of the generator's ceiling, which is measured first."""
    dps: Annotated[list[Dps], Field(default_factory=list)]

    @model_validator(mode="after")
    def _some(self) -> SweepTable:
        if not (self.ceiling_shares or self.dps):
            raise ValueError("ceiling_shares or dps must be given")
        return self


class SoakTable(Chosen):
    """``[[soak]]``: one rate for a long time, in trials one after another, and what grows meanwhile."""

    dps: Dps | None = None
    zero_loss_share: Share | None = None
    """Rate as a share of the zero-loss rate that the case's search found."""
    seconds: Annotated[int, Field(ge=2, le=7 * 86_400)]
    """Total duration; a profile's ``soak_s`` may shorten it."""
    trial_s: Annotated[int, Field(ge=1, le=600)] = 10
    """Duration of one trial: how often counters are read and figures recorded."""

    @model_validator(mode="after")
    def _one_rate(self) -> SoakTable:
        if (self.dps is None) == (self.zero_loss_share is None):
            raise ValueError("dps or zero_loss_share must be given, and not both")
        if self.seconds < 2 * self.trial_s:
            raise ValueError(f"seconds {self.seconds}: at least two trials, {2 * self.trial_s}, are allowed")
        return self

    def trials(self, most_s: int | None = None) -> int:
        """How many there are, at least two; ``most_s``: the profile's bound on the whole."""
        seconds = self.seconds if most_s is None else min(self.seconds, most_s)
        return max(2, seconds // self.trial_s)


class PipelinesTable(Chosen):
    """``[[pipelines]]``: as many self-contained benches at the same time as there are CPUs, against one.

    Generator, subject and receivers of each are on one CPU; 2, 4, 8 … of them are tried, and all.
    """


class Phase(Model):
    """A part of a course: one rate, or an even change from one to another."""

    dps: Annotated[int, Field(ge=0, le=10_000_000)]
    """Over all inputs."""
    to_dps: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    seconds: Annotated[float, Field(gt=0, le=LONGEST_COURSE_S)]

    @property
    def rates(self) -> Sequence[Rate]:
        """What a sender is asked for."""
        if self.to_dps is None:
            return [Rate(dps=self.dps, seconds=self.seconds)]
        steps = max(1, round(self.seconds / STEP_S))
        rise = (self.to_dps - self.dps) / steps
        return [
            Rate(dps=round(self.dps + rise * (step + 0.5)), seconds=self.seconds / steps)
            for step in range(steps)
        ]


class CourseTable(Chosen):
    """``[[course]]``: a load that changes over time, and what an elastic forwarder makes of it.

    The first input's group is the *hot* one where the case has a skew. Everything that is expected is
    judged of one run of the phases.
    """

    phases: Annotated[list[Phase], Field(min_length=1)]
    repeat: Annotated[int, Field(ge=1, le=1000)] = 1
    """The phases, one after another, so often."""
    scaled_within_s: Annotated[float, Field(gt=0)] | None = None
    """From when the hot group is offered more than its workers are meant for until it has enough of them."""
    most_workers: Annotated[int, Field(ge=1)] | None = None
    """Largest size of the hot group."""
    last_workers: Annotated[int, Field(ge=1)] | None = None
    """Size of the hot group at the end."""
    other_workers: Annotated[int, Field(ge=1)] | None = None
    """Largest size of every other group."""
    changes_at_most: Annotated[int, Field(ge=0)] | None = None
    """Most changes of the hot group's size."""
    lost: Literal[0] | None = None

    @model_validator(mode="after")
    def _bounded(self) -> CourseTable:
        if self.seconds > LONGEST_COURSE_S:
            raise ValueError(f"phases × repeat, {self.seconds:g} s: at most {LONGEST_COURSE_S} s are allowed")
        if not any(rate.datagrams for rate in self.rates):
            raise ValueError("phases: at least one that sends something")
        return self

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases) * self.repeat

    @property
    def rates(self) -> Sequence[Rate]:
        """What a sender is asked for, from beginning to end."""
        return [rate for phase in self.phases for rate in phase.rates] * self.repeat


class ChangeTable(Chosen):
    """``[[change]]``: the forwarder is changed in the middle of a trial, once in each."""

    kinds: Annotated[list[ChangeKind], Field(min_length=1)]
    dps: Dps
    trials: Annotated[int, Field(ge=1, le=1000)] = 5
    """Trials of each kind of change."""
    trial_s: Annotated[float, Field(ge=0.5, le=60)] = 1.0
    after_ms: Annotated[int, Field(ge=50, le=10_000)] = 300
    """From the beginning of a trial to the change."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Size that an elastic group grows to and shrinks from; its size during other kinds of change."""
    to: str | None = None
    """The strategy that ``apply`` puts in force, with as many workers in each group."""
    blocked_target_ms: Annotated[float, Field(ge=0)] | None = None
    """No trial may lose more than what is offered in so long, of the part of the load that is concerned."""
    blocked_aim_ms: Annotated[float, Field(ge=0)] | None = None
    """The same, hoped for: it never fails a run."""

    @model_validator(mode="after")
    def _in_time(self) -> ChangeTable:
        if self.after_ms >= self.trial_s * 1000:
            raise ValueError(f"after_ms {self.after_ms}: less than the trial's {self.trial_s:g} s is allowed")
        if self.workers < 2 and set(self.kinds) & {"grow", "shrink"}:
            raise ValueError(f"workers {self.workers}: at least 2 is allowed with grow or shrink")
        if (self.to is not None) != ("apply" in self.kinds):
            raise ValueError(f"to {self.to}: a strategy is allowed with apply, and needed there")
        return self
