"""How long a run still takes, in seconds, from how long its steps took before and take now.

A step that an earlier run on this machine has done is expected to take as long again; any other takes what
the plan says. Each of the two kinds is corrected by how far it has been off in this run: the more has been
seen, the more it counts. rich's TimeRemainingColumn
would not do: it knows one constant rate, and steps differ a hundredfold.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from lab.journal.archive import JOURNAL, RESULTS, Mark
from lab.journal.provenance import machine_of
from lab.results import RunStarted, parse_line

PRIOR_S = 15.0
"""The expectation weighs as much as a step of this length that took as long as expected."""
OVERDUE = 0.2
"""Time left of a step that takes longer than expected, as a share of what it has taken so far."""
MOST_RUNS = 8
"""Earlier runs that are read, newest first: older ones say less, and a directory may hold hundreds."""


@dataclass(frozen=True)
class ExpectedStep:
    """A step that is not done yet."""

    step_id: str
    planned_s: float
    known_s: float | None = None
    """Median of earlier runs; ``None`` without any."""

    @property
    def seconds(self) -> float:
        return self.planned_s if self.known_s is None else self.known_s


@dataclass
class Eta:
    """The time left for ``steps``, which are done in this order."""

    steps: Sequence[ExpectedStep]
    taken_s: list[float] = field(default_factory=list)
    """Durations of the steps that are done."""

    def done(self, seconds: float) -> None:
        """The next step took ``seconds``. Raises IndexError if none was left."""
        if len(self.taken_s) == len(self.steps):
            raise IndexError(f"all {len(self.steps)} steps are done")
        self.taken_s.append(seconds)

    def left_s(self, since_s: float = 0.0) -> float:
        """Seconds until the end, if the current step began ``since_s`` ago; 0 when all steps are done."""
        waiting = self.steps[len(self.taken_s) :]
        if not waiting:
            return 0.0
        expected, *others = (step.seconds * self.correction(step) for step in waiting)
        return sum(others) + max(expected - since_s, since_s * OVERDUE)

    def correction(self, step: ExpectedStep) -> float:
        """The factor for a step's expected time; 1 if steps of its kind took as long as expected."""
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


def past_seconds(directory: Path, started: RunStarted) -> Mapping[str, float]:
    """The median time of each step in earlier runs of the same machine and profile, beside ``directory``.

    Runs that cannot be read are ignored.
    """
    times: dict[str, list[float]] = defaultdict(list)
    own = directory.resolve()
    others = [path for path in own.parent.glob(f"*/{JOURNAL}") if path.parent != own]
    for journal in sorted(others, reverse=True)[:MOST_RUNS]:
        try:
            with journal.with_name(RESULTS).open(encoding="utf-8") as lines:
                first = parse_line(lines.readline())
            marks = journal.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
        if isinstance(first, RunStarted) and _alike(first, started):
            for mark in map(_mark, marks):
                if mark is not None and mark.finished and mark.seconds is not None:
                    times[mark.step].append(mark.seconds)
    return {step: median(values) for step, values in times.items()}


def _alike(one: RunStarted, other: RunStarted) -> bool:
    return (one.profile, machine_of(one.provenance)) == (other.profile, machine_of(other.provenance))


def _mark(line: str) -> Mark | None:
    try:
        return Mark.model_validate_json(line)
    except ValidationError:
        return None
