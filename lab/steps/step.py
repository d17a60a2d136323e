"""What every step of a run has in common: what it is about, how long it takes, how it is performed.

Each kind of step is one module of :mod:`lab.steps.kinds` with a subclass of :class:`Step`, and one line in
:data:`lab.steps.plan.KINDS`. Planning imports these modules, so they import what touches the kernel, and what
is slow to load, only where a step is performed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from lab.results import AnyRecord, Receive, Setting, Trial
from lab.scenario.model import Scenario
from lab.scenario.profiles import Profile
from lab.scenario.rfc3918_tables import Chosen
from lab.scenario.tables import Case

if TYPE_CHECKING:
    from lab.steps.context import Context

TRIAL_OVERHEAD_S = 0.15
"""Arming the receivers, draining the queues and reading every counter, for each trial."""
BENCH_START_S = 1.5
"""Starting namespaces, forwarder, sender and receiver: an average, as some steps find a bench running."""
LONG = 3
"""How much longer trials of latency and CPU are: CPU time comes in ticks, a p99 needs many datagrams."""
LOADED_TRIALS = 4
"""What one load adds, in trials: two long ones, with and without the subject."""
HALF = 0.5
"""The share of the zero-loss rate at which CPU and latency are compared: loaded, not overloaded."""

SEARCH_TRIALS, NARROWED_TRIALS = 8, 7
"""Trials of a full search, and of one within known bounds, at :data:`ESTIMATED_WIDTH`: averages."""
ESTIMATED_WIDTH = 0.05
TRIALS_PER_HALVING = 2
"""Additional trials for half the width."""


class StepError(RuntimeError):
    """A step that could not be concluded; the message says what was missing."""


@dataclass(frozen=True)
class Selection:
    """What is planned of one scenario: its cases in a profile, without subjects that cannot run here."""

    scenario: Scenario
    profile: Profile
    absent: Collection[str] = ()

    @property
    def cases(self) -> list[Case]:
        wanted = self.profile.cases
        return [case for case in self.scenario.case if wanted is None or case.name in wanted]

    def subjects(self, case: Case) -> list[str]:
        return [subject for subject in self.scenario.subjects_in(case) if subject not in self.absent]

    def tables(self, key: str, case: Case) -> Iterator[tuple[int, str, Any]]:
        """Tables ``[[key]]`` that apply to a case: number from 1, subject, table."""
        present = self.subjects(case)
        for number, table in enumerate(self.scenario.chosen_tables().get(key, ()), start=1):
            if table.cases is None or case.name in table.cases:
                for subject in table.subjects or present:
                    if subject in present:
                        yield number, subject, table


@dataclass(frozen=True)
class Step(ABC):
    """Something that a run finishes or not: pure data until it is performed."""

    scenario: Scenario
    profile: Profile

    records: ClassVar[tuple[type[AnyRecord], ...]] = ()
    """The records that it writes, besides trials and checks."""

    @classmethod
    def for_scenario(cls, _selection: Selection, /) -> Iterable[Step]:
        """Steps of this kind that a scenario needs once, before its cases."""
        return ()

    @classmethod
    def for_case(cls, _selection: Selection, _case: Case, /) -> Iterable[Step]:
        """Steps of this kind in one case."""
        return ()

    @property
    @abstractmethod
    def step_id(self) -> str:
        """Unique in a run; finished steps are known by it when a run is resumed."""

    @property
    def once(self) -> Hashable | None:
        """A run keeps only the first of several steps with the same value."""
        return None

    @property
    def trials(self) -> int:
        """Estimated number of trials."""
        return 0

    @property
    def seconds(self) -> float:
        """Estimated duration."""
        return self.trials * (self.trial_s + TRIAL_OVERHEAD_S) + BENCH_START_S

    @property
    def trial_s(self) -> float:
        return self.profile.trial_s

    @abstractmethod
    def perform(self, context: Context) -> None:
        """Measure: records go to the archive, one line to the reporter, failures to the context.

        Raises:
            StepError: nothing can be concluded.
            PeerError, TrafficError, NetnsError: the subject or the bench failed.
        """


Table = TypeVar("Table", bound=Chosen)


@dataclass(frozen=True)
class TableStep(Step, Generic[Table]):
    """What one table of a scenario asks of one subject in one case."""

    case: Case
    subject: str
    number: int
    """Position of the table among those of its kind, from 1."""
    table: Table

    key: ClassVar[str]
    """The name of the table in a scenario file, and of the step."""

    @classmethod
    def for_case(cls, selection: Selection, case: Case) -> Iterator[Self]:
        for number, subject, table in selection.tables(cls.key, case):
            yield cls(selection.scenario, selection.profile, case, subject, number, table)

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/{self.case.name}/{self.subject}/{self.key}-{self.number}"

    @property
    def receive(self) -> Receive:
        return self.scenario.receive_of(self.subject)[0]

    @property
    def setting(self) -> Setting:
        return self.scenario.result_setting(self.case, self.subject, self.receive)


def search_trials(profile: Profile, at_estimated_width: int = SEARCH_TRIALS) -> int:
    """Estimated trials of one search, to the width of the profile."""
    halvings = math.log2(ESTIMATED_WIDTH / profile.search_width)
    return max(2, round(at_estimated_width + TRIALS_PER_HALVING * halvings))


def too_little(trial: Trial, asked: float, least: float) -> str | None:
    """Why a trial is unusable if less than the share ``least`` of the ``asked`` datagrams was offered."""
    if trial.offered >= asked * least:
        return None
    return f"offered {trial.offered:,} of {asked:,.0f} datagrams asked for"
