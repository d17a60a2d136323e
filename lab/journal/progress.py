"""What a run shows while it works: a live display on a terminal, a line for each step elsewhere, or nothing.

It goes to stderr. Elsewhere than on a terminal there are no control codes and no line is written twice.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from lab.journal.eta import Estimate, Expected, duration
from lab.results import Trial

REFRESHES_PER_S = 2
"""More would take processor time from what is measured."""


class Reporter(Protocol):
    """Told by the runner what happens."""

    def begin(self, steps: Sequence[Expected]) -> None:
        """A run of these steps starts."""

    def step(self, name: str) -> None:
        """The next one begins."""

    def trial(self, trial: Trial) -> None: ...

    def outcome(self, text: str) -> None:
        """Something that has come out of the step."""

    def done(self, seconds: float) -> None:
        """The step is over, and took so long."""

    def end(self) -> None: ...


class Silent:
    """For ``--json``, where results go to stdout and nothing else does, and for ``--quiet``."""

    def begin(self, steps: Sequence[Expected]) -> None: ...

    def step(self, name: str) -> None: ...

    def trial(self, trial: Trial) -> None: ...

    def outcome(self, text: str) -> None: ...

    def done(self, seconds: float) -> None: ...

    def end(self) -> None: ...


class Plain:
    """One line for each step that is done: for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._estimate = Estimate(())
        self._name = ""
        self._outcomes: list[str] = []

    def begin(self, steps: Sequence[Expected]) -> None:
        self._estimate = Estimate(steps)
        self._write(f"{len(steps)} steps, about {duration(self._estimate.left_s())}")

    def step(self, name: str) -> None:
        self._name, self._outcomes = name, []

    def trial(self, trial: Trial) -> None: ...

    def outcome(self, text: str) -> None:
        self._outcomes.append(" ".join(text.split()))

    def done(self, seconds: float) -> None:
        self._estimate.done(seconds)
        done, steps = len(self._estimate.taken_s), len(self._estimate.steps)
        left = f"; about {duration(self._estimate.left_s())} left" if done < steps else ""
        words = f": {'; '.join(self._outcomes)}" if self._outcomes else ""
        self._write(f"[{done}/{steps}] {self._name}{words} ({duration(seconds)}{left})")

    def end(self) -> None: ...

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class Live:
    """What is done scrolls by; below it a bar, the time left, the step under way and its last trial."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._estimate = Estimate(())
        self._began = clock()
        self._name = ""
        self._outcomes: list[str] = []
        self._progress = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _Left(self),
            TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
            ),
            console=console,
            refresh_per_second=REFRESHES_PER_S,
            expand=True,
        )
        self._task: TaskID | None = None

    def begin(self, steps: Sequence[Expected]) -> None:
        self._estimate = Estimate(steps)
        self._began = self._clock()
        self._task = self._progress.add_task("", total=len(steps))
        self._progress.start()

    def step(self, name: str) -> None:
        self._name, self._outcomes, self._began = name, [], self._clock()
        self._show(name)

    def trial(self, trial: Trial) -> None:
        self._show(f"{self._name}: {trial_line(trial)}")

    def outcome(self, text: str) -> None:
        self._outcomes.append(text)

    def done(self, seconds: float) -> None:
        self._estimate.done(seconds)
        self._began = self._clock()
        console = self._progress.console
        console.print(f"{self._name} ({duration(seconds)})", markup=False, highlight=False)
        for text in self._outcomes:
            console.print(f"    {text}", markup=False, highlight=False)
        self._show("")

    def end(self) -> None:
        self._show("")
        self._progress.stop()

    def left_s(self) -> float:
        return self._estimate.left_s(self._clock() - self._began)

    def _show(self, text: str) -> None:
        if self._task is not None:
            done = len(self._estimate.taken_s)
            self._progress.update(self._task, description=text, completed=done)


class _Left(ProgressColumn):
    """The time that is left, as it is estimated at every refresh."""

    def __init__(self, live: Live) -> None:
        super().__init__(Column(no_wrap=True))
        self._live = live

    def render(self, task: Task) -> Text:
        return Text("" if task.finished else f"about {duration(self._live.left_s())} left")


def choose(silent: bool, stream: TextIO | None = None) -> Reporter:
    """The reporter that suits where the output goes (stderr if not given)."""
    stream = stream or sys.stderr
    if silent:
        return Silent()
    # Not what rich takes for a terminal: FORCE_COLOR is set in CI, where the output is a file.
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return Live(Console(file=stream))
    return Plain(stream)


def trial_line(trial: Trial) -> str:
    """One trial in a few words."""
    lost = trial.expected - trial.delivered
    loss = "no loss" if lost == 0 else f"{lost:,} of {trial.expected:,} copies lost"
    validity = "" if trial.validity == "valid" else f" ({trial.validity})"
    return f"{trial.offered_dps:,.0f} dps offered, {loss}{validity}"
