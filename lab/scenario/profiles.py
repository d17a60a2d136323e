"""Profiles: how long and how often. Pure."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from forwarder.problems import Problem, ProblemsError
from lab.scenario.tables import Model

ProfileName = Literal["quick", "full", "conservative"]


class Profile(Model):
    """How long and how often. ``[profile.NAME]`` of a scenario overrides the keys that it gives."""

    trial_ms: Annotated[int, Field(ge=50, le=600_000)] = 200
    search_width: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Relative distance of the two bounds at which a search ends."""
    search_trials: Annotated[int, Field(ge=1, le=100)] = 2
    """Trials of ``trial_ms`` that decide about one rate (together: MLRsearch's duration sum)."""
    search_exceed: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """The share of them that may lose more than the goal allows (exceed ratio)."""
    search_initial_ms: Annotated[int, Field(ge=50, le=600_000)] | None = None
    """Length of the trials with which a search begins (initial trial duration); ``trial_ms`` if left out."""
    search_trials_max: Annotated[int, Field(ge=2, le=1000)] = 10
    """Trials after which a search ends, settled or not."""
    pairs: Annotated[int, Field(ge=1, le=200)] = 2
    repetitions: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Repetitions of each change whose delay is measured."""
    soak_s: Annotated[int, Field(ge=2)] | None = None
    """Longest duration of a soak."""
    cases: list[str] | None = None
    """Cases to run; all when left out. Footprints always run."""

    @property
    def trial_s(self) -> float:
        return self.trial_ms / 1000

    @property
    def first_s(self) -> float:
        """Seconds of a search's first trial."""
        return min(self.trial_ms, self.search_initial_ms or self.trial_ms) / 1000


PROFILES: Mapping[ProfileName, Profile] = {
    "quick": Profile(soak_s=60),
    "full": Profile(
        trial_ms=2000, search_width=0.02, search_trials=4, search_trials_max=48, pairs=8, repetitions=200
    ),
    "conservative": Profile(
        trial_ms=60_000,
        search_width=0.005,
        search_trials=1,
        search_exceed=0.0,
        search_initial_ms=1000,
        search_trials_max=60,
        pairs=8,
    ),
}
"""``conservative`` is the goal of draft-ietf-bmwg-mlrsearch that complies with RFC 2544: trials of 60 s, of
which none may be bad. It takes hours."""


def profile_named(name: str) -> ProfileName:
    """The profile that ``--profile`` names. Raises ProblemsError."""
    for known in PROFILES:
        if name == known:
            return known
    raise ProblemsError([Problem("--profile", repr(name), " or ".join(PROFILES))])
