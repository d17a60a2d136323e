"""Tables of a scenario for loads that are given, not searched: ``[[sweep]]`` and ``[[soak]]``. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from lab.rfc3918 import Chosen, Dps

Share = Annotated[float, Field(gt=0, le=1)]


class SweepTable(Chosen):
    """``[[sweep]]``: a trial at each of these rates: loss and latency against offered load."""

    ceiling_shares: Annotated[list[Share], Field(default_factory=list)]
    """Of the generator's ceiling, which is measured first."""
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
    """Of the zero-loss rate that the case's search found."""
    seconds: Annotated[int, Field(ge=2, le=7 * 86_400)]
    """In all."""
    trial_s: Annotated[int, Field(ge=1, le=600)] = 10
    """Of one trial: counters are read, and loss and latency told apart, so often."""

    @model_validator(mode="after")
    def _one_rate(self) -> SoakTable:
        if (self.dps is None) == (self.zero_loss_share is None):
            raise ValueError("dps or zero_loss_share must be given, and not both")
        if self.seconds < 2 * self.trial_s:
            raise ValueError(f"seconds {self.seconds}: at least two trials, {2 * self.trial_s}, are allowed")
        return self

    @property
    def trials(self) -> int:
        return self.seconds // self.trial_s
