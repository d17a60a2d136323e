"""A figure over many runs: computed by ``mcastlab trend``, drawn by the reports."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, order=True)
class SeriesKey:
    """What a series is about. Only figures with equal keys are comparable."""

    machine: str
    kind: Literal["ratio", "absolute"]
    scenario: str
    case: str
    subject: str
    metric: str
    setting: str
    """A digest of the setting, the profile and, for an absolute figure, the packages."""
    unit: str
    higher_is_better: bool


@dataclass(frozen=True)
class Point:
    """One run's ``value``, in the unit of the series. The run began ``at`` (UTC, ISO 8601)."""

    at: str
    run_id: str
    commit: str | None
    value: float


@dataclass(frozen=True)
class ChangePoint:
    """From the point with this ``index`` on, values are ``factor`` times those before."""

    index: int
    factor: float


@dataclass(frozen=True)
class Series:
    """Points in order of time, and where their level changes."""

    key: SeriesKey
    points: tuple[Point, ...]
    changes: tuple[ChangePoint, ...]
    refused: str | None
    """Why changes were not looked for; ``None`` if they were."""

    def describe(self, change: ChangePoint) -> str:
        """Such as "× 0.830, worse, from RUN on (2026-01-02, commit …)"."""
        better = (change.factor > 1) == self.key.higher_is_better
        first = self.points[change.index]
        commit = f", commit {first.commit[:12]}" if first.commit else ""
        verdict = "better" if better else "worse"
        return f"× {change.factor:.3f}, {verdict}, from {first.run_id} on ({first.at[:10]}{commit})"
