"""What a run shows while it works: a live bar on a terminal, plain lines elsewhere, nothing with --json."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lab.results import Trial


class Reporter(Protocol):
    """Told by the runner what happens."""

    def begin(self, steps: int, seconds: float) -> None:
        """A run of ``steps`` steps starts that is expected to take ``seconds``."""

    def step(self, name: str) -> None: ...

    def trial(self, trial: Trial) -> None: ...

    def outcome(self, text: str) -> None:
        """A step's result, in one line."""

    def end(self) -> None: ...


class Silent:
    """For ``--json``: results go to stdout, and nothing else does."""

    def begin(self, steps: int, seconds: float) -> None: ...

    def step(self, name: str) -> None: ...

    def trial(self, trial: Trial) -> None: ...

    def outcome(self, text: str) -> None: ...

    def end(self) -> None: ...


class Plain:
    """One line for each step and its result: for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = self._done = 0

    def begin(self, steps: int, seconds: float) -> None:
        self._steps = steps
        self._console.print(f"{steps} steps, about {duration(seconds)}")

    def step(self, name: str) -> None:
        self._done += 1
        self._console.print(f"[{self._done}/{self._steps}] {name}", markup=False, highlight=False)

    def trial(self, trial: Trial) -> None: ...

    def outcome(self, text: str) -> None:
        self._console.print(f"    {text}", markup=False, highlight=False)

    def end(self) -> None: ...


class Live:
    """A bar that moves with the steps, and beside it the last trial."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
        )
        self._task: TaskID | None = None
        self._name = ""
        self._begun = 0

    def begin(self, steps: int, seconds: float) -> None:
        self._task = self._progress.add_task(f"about {duration(seconds)}", total=steps)
        self._progress.start()

    def step(self, name: str) -> None:
        self._name = name
        self._show(name, completed=self._begun)
        self._begun += 1

    def trial(self, trial: Trial) -> None:
        self._show(f"{self._name}: {trial_line(trial)}")

    def outcome(self, text: str) -> None:
        self._progress.console.print(f"{self._name}\n    {text}", markup=False, highlight=False)

    def end(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, description="", completed=self._begun)
        self._progress.stop()

    def _show(self, text: str, completed: int | None = None) -> None:
        if self._task is not None:
            self._progress.update(self._task, description=text, completed=completed)


def choose(json_output: bool) -> Reporter:
    """The reporter that suits where the output goes; progress is on stderr."""
    console = Console(stderr=True)
    if json_output:
        return Silent()
    return Live(console) if console.is_terminal else Plain(console)


def trial_line(trial: Trial) -> str:
    """One trial in a few words."""
    lost = trial.expected - trial.delivered
    loss = "no loss" if lost == 0 else f"{lost:,} of {trial.expected:,} copies lost"
    validity = "" if trial.validity == "valid" else f" ({trial.validity})"
    return f"{trial.offered_dps:,.0f} dps offered, {loss}{validity}"


def duration(seconds: float) -> str:
    """Seconds for people: "45 s", "6 min"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
