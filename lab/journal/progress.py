"""Progress of a run on stderr: a live display on a terminal, elsewhere a line for each step, or nothing."""

import os
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from lab.journal.eta import Eta, ExpectedStep, duration
from lab.results import Trial

REFRESHES_PER_S = 2
"""Few, as drawing takes CPU time from what is measured."""


class Reporter:
    """What the run tells whoever shows it. This one shows nothing, for ``--json`` and ``--quiet``."""

    def __init__(self) -> None:
        self._eta = Eta(())
        self._name = ""
        self._outcomes: list[str] = []

    def begin(self, steps: Sequence[ExpectedStep]) -> None:
        """The run begins; these steps are left."""
        self._eta = Eta(steps)

    def step(self, name: str) -> None:
        """The next step begins."""
        self._name, self._outcomes = name, []

    def trial(self, trial: Trial) -> None:
        """A trial has ended."""

    def outcome(self, text: str) -> None:
        """Add one line to the result of the step."""
        self._outcomes.append(text)

    def done(self, seconds: float) -> None:
        """The step has ended after ``seconds``."""
        self._eta.done(seconds)

    def end(self) -> None:
        """The run has ended."""


class Plain(Reporter):
    """Writes one line for each step that is done, without control codes, for logs."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def begin(self, steps: Sequence[ExpectedStep]) -> None:
        super().begin(steps)
        self._write(f"{len(steps)} steps, about {duration(self._eta.left_s())}")

    def outcome(self, text: str) -> None:
        super().outcome(" ".join(text.split()))

    def done(self, seconds: float) -> None:
        super().done(seconds)
        done, steps = len(self._eta.taken_s), len(self._eta.steps)
        left = f"; about {duration(self._eta.left_s())} left" if done < steps else ""
        outcomes = f": {'; '.join(self._outcomes)}" if self._outcomes else ""
        self._write(f"[{done}/{steps}] {self._name}{outcomes} ({duration(seconds)}{left})")

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class Live(Reporter):
    """Shows finished steps, and below them a bar, the time left, the current step and its last trial."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._began = time.monotonic()
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

    def begin(self, steps: Sequence[ExpectedStep]) -> None:
        super().begin(steps)
        self._began = time.monotonic()
        self._task = self._progress.add_task("", total=len(steps))
        self._progress.start()

    def step(self, name: str) -> None:
        super().step(name)
        self._began = time.monotonic()
        self._show(name)

    def trial(self, trial: Trial) -> None:
        self._show(f"{self._name}: {trial_line(trial)}")

    def done(self, seconds: float) -> None:
        super().done(seconds)
        self._began = time.monotonic()
        console = self._progress.console
        console.print(f"{self._name} ({duration(seconds)})", markup=False, highlight=False)
        for text in self._outcomes:
            console.print(f"    {text}", markup=False, highlight=False)
        self._show("")

    def end(self) -> None:
        self._show("")
        self._progress.stop()

    def left_s(self) -> float:
        return self._eta.left_s(time.monotonic() - self._began)

    def _show(self, text: str) -> None:
        if self._task is not None:
            done = len(self._eta.taken_s)
            self._progress.update(self._task, description=text, completed=done)


class _Left(ProgressColumn):
    """The time left, estimated anew at every refresh."""

    def __init__(self, live: Live) -> None:
        super().__init__(Column(no_wrap=True))
        self._live = live

    def render(self, task: Task) -> Text:
        return Text("" if task.finished else f"about {duration(self._live.left_s())} left")


def reporter_for(stream: TextIO | None = None, *, silent: bool = False) -> Reporter:
    """The reporter that suits ``stream`` (stderr if not given)."""
    stream = stream or sys.stderr
    if silent:
        return Reporter()
    # rich would take FORCE_COLOR for a terminal, which CI sets although its output is a file.
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return Live(Console(file=stream))
    return Plain(stream)


def trial_line(trial: Trial) -> str:
    """A summary of one trial."""
    lost = trial.expected - trial.delivered
    loss = "no loss" if lost == 0 else f"{lost:,} of {trial.expected:,} copies lost"
    validity = "" if trial.validity == "valid" else f" ({trial.validity})"
    return f"{trial.offered_dps:,.0f} dps offered, {loss}{validity}"
