"""Profiles: how long and how often. ``[profile.NAME]`` of a scenario overrides single keys. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from lab.scenario_tables import Model

ProfileName = Literal["quick", "full"]


class Profile(Model):
    """How long and how often. A scenario's ``[profile.*]`` overrides single keys."""

    trial_ms: Annotated[int, Field(ge=50, le=600_000)]
    search_width: Annotated[float, Field(gt=0, lt=1)]
    """Relative distance of the two bounds at which a search ends."""
    search_trials: Annotated[int, Field(ge=1, le=100)]
    """Trials that decide about one rate: it holds when at least half of them lost nothing."""
    search_trials_max: Annotated[int, Field(ge=2, le=1000)]
    """Trials after which a search ends, settled or not."""
    pairs: Annotated[int, Field(ge=1, le=200)]
    cases: list[str] | None = None
    """Cases to run; all when left out. Footprints always run."""
    demand_targets: bool = False
    """A comparison that misses its target fails the run."""


PROFILES: Mapping[ProfileName, Profile] = {
    "quick": Profile(trial_ms=300, search_width=0.05, search_trials=2, search_trials_max=14, pairs=2),
    "full": Profile(trial_ms=2000, search_width=0.02, search_trials=4, search_trials_max=48, pairs=8),
}


class ProfileOverride(Model):
    trial_ms: Annotated[int, Field(ge=50, le=600_000)] | None = None
    search_width: Annotated[float, Field(gt=0, lt=1)] | None = None
    search_trials: Annotated[int, Field(ge=1, le=100)] | None = None
    search_trials_max: Annotated[int, Field(ge=2, le=1000)] | None = None
    pairs: Annotated[int, Field(ge=1, le=200)] | None = None
    cases: list[str] | None = None
    demand_targets: bool | None = None
