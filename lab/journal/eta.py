"""How long a run still takes: from what its steps took before, or should take, and what they take now. Pure.

Seconds throughout. A step that an earlier run on this machine has done is expected to take as long again,
any other one what the plan says. Both are corrected, each by what it has been off in this run so far: the
more has been seen, the more it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

PRIOR_S = 15.0
"""What was planned or known counts like a step of this length that went as expected."""
OVERDUE = 0.2
"""A step that takes longer than expected may take this share of what it has taken once more."""


@dataclass(frozen=True)
class Expected:
    """A step before it is done."""

    step_id: str
    planned_s: float
    known_s: float | None = None
    """What it took in earlier runs; ``None``: there is none to go by."""

    @property
    def seconds(self) -> float:
        return self.planned_s if self.known_s is None else self.known_s


@dataclass
class Estimate:
    """What is left of ``steps``, which are done in this order."""

    steps: Sequence[Expected]
    taken_s: list[float] = field(default_factory=list)
    """By the steps that are done."""

    def done(self, seconds: float) -> None:
        """The next step has taken ``seconds``. Raises IndexError when there was none left."""
        if len(self.taken_s) == len(self.steps):
            raise IndexError(f"all {len(self.steps)} steps are done")
        self.taken_s.append(seconds)

    def left_s(self, since_s: float = 0.0) -> float:
        """Seconds until the end, the step under way having begun ``since_s`` ago; 0 when all is done."""
        waiting = self.steps[len(self.taken_s) :]
        if not waiting:
            return 0.0
        expected, *others = (step.seconds * self.correction(step) for step in waiting)
        return sum(others) + max(expected - since_s, since_s * OVERDUE)

    def correction(self, step: Expected) -> float:
        """What the expectation of a step is multiplied by: 1 is as expected."""
        alike = [
            (took, done.seconds)
            for took, done in zip(self.taken_s, self.steps, strict=False)
            if (done.known_s is None) == (step.known_s is None)
        ]
        took, due = sum(took for took, _ in alike), sum(due for _, due in alike)
        return (PRIOR_S + took) / (PRIOR_S + due)


def duration(seconds: float) -> str:
    """Seconds for people: "45 s", "6 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
