"""The commit that changed a figure, by comparisons with a good commit (:mod:`lab.analysis.bisect`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from forwarder.problems import ProblemsError
from lab.analysis.bisect import (
    PAIRS_MORE,
    Remaining,
    comparisons_max,
    judge,
    next_position,
    remaining,
    shows_change,
    spread,
)
from lab.analysis.compare import FEW_PAIRS
from lab.results import AnyRecord, Comparison, Judged, Judgement
from lab.scenario.model import Scenario
from lab.scenario.tables import Bisect, Case, Compare
from lab.steps.kinds.compare import CompareStep, Pairs, Side, measure, ratio_of
from lab.steps.kinds.search import COMPILED_S
from lab.steps.step import Selection, Step, StepError

if TYPE_CHECKING:
    from lab.steps.context import Context

OURS = "mcrd"


@dataclass(frozen=True)
class BisectStep(Step):
    """One comparison with the good commit: of the bad one first, then of whichever is next by then.

    A commit that cannot be measured is skipped, and the next one taken.
    """

    bisect: Bisect
    good: Case
    number: int

    records: ClassVar = (Judged,)

    @classmethod
    def for_case(cls, selection: Selection, case: Case) -> Iterator[BisectStep]:
        bisect = selection.scenario.bisect
        if bisect is not None:
            for number in range(1, comparisons_max(len(bisect.commits)) + 1):
                yield cls(selection.scenario, selection.profile, bisect, case, number)

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/comparison-{self.number}"

    @property
    def trials(self) -> int:
        return self._compare_step(self.bisect.commits[-1]).trials

    @property
    def seconds(self) -> float:
        return self._compare_step(self.bisect.commits[-1]).seconds + COMPILED_S

    def perform(self, context: Context) -> None:
        commits = self.bisect.commits
        while True:
            judged = judgements(self.scenario, context.archive.records)
            at = next_position(remaining(len(commits), judged)) if judged else len(commits)
            if at is None:
                context.reporter.outcome("not needed")
                return
            if not judged and self.number > 1:
                raise StepError("the bad commit was not compared with the good one")
            record = self._judged(commits[at - 1], first=not judged, context=context)
            context.archive.write(record)
            left = remaining(len(commits), judgements(self.scenario, context.archive.records))
            context.reporter.outcome(_describe(record, left))
            if record.judgement != "skipped":
                return

    def _judged(self, commit: str, first: bool, context: Context) -> Judged:
        from lab.peers.base import PeerError

        judgement: Judgement = "skipped"
        why = ""
        try:
            judgement = self._first(commit, context) if first else self._side(commit, context)
        except (StepError, PeerError, ProblemsError) as error:
            context.interrupt.check()
            why = " ".join(str(error).split())
            if first:
                raise StepError(f"{commit} could not be compared: {why}") from error
        finally:
            context.benches.close()  # a forwarder that is idle may still take time from the next one
        scenario = self.scenario.name
        return Judged(scenario=scenario, case=commit, commit=commit, judgement=judgement, why=why)

    def _first(self, commit: str, context: Context) -> Judgement:
        """Whether the bad commit is as good as the good one."""

        def more(pairs: Pairs, tried: int) -> int:
            if not tried:
                return FEW_PAIRS
            enough = not pairs or shows_change(ratio_of(pairs))
            return 0 if enough else min(PAIRS_MORE, self.bisect.pairs_max - tried)

        record = measure(self._compare_step(commit), context, more)
        if record.verdict is None:
            raise StepError(f"{record.pairs} pairs of values of {commit}; a verdict takes {FEW_PAIRS}")
        return "good" if record.verdict == "no difference" else "bad"

    def _side(self, commit: str, context: Context) -> Judgement:
        """The side of the change that a commit is on."""
        known = list(comparisons(self.scenario.name, context.archive.records))
        changed_by = math.log(known[0].ratio)
        earlier = [_logs(record) for record in known]

        def judged(logs: list[float]) -> Judgement:
            return judge(logs, changed_by, spread([*earlier, logs]))

        def more(pairs: Pairs, tried: int) -> int:
            if tried and (not pairs or judged([math.log(a / b) for a, b in pairs]) != "undecided"):
                return 0
            return min(PAIRS_MORE, self.bisect.pairs_max - tried)

        return judged(_logs(measure(self._compare_step(commit), context, more)))

    def _compare_step(self, commit: str) -> CompareStep:
        """A commit against the good one, both at the rates of the good one."""
        case, good = self.good.model_copy(update={"name": commit, "commit": commit}), Side(OURS, self.good)
        metric, share = self.bisect.metric, self.bisect.share
        compare = Compare(metric=metric, share=share, a=OURS, b=OURS, a_case=commit, b_case=self.good.name)
        profile = self.profile.model_copy(update={"pairs": FEW_PAIRS})
        return CompareStep(self.scenario, profile, compare, Side(OURS, case), good, reference=good)


def comparisons(scenario: str, records: list[AnyRecord]) -> Iterator[Comparison]:
    """The comparisons of a bisection, in order: the first is that of the bad commit."""
    return (r for r in records if isinstance(r, Comparison) and r.scenario == scenario)


def judgements(scenario: Scenario, records: list[AnyRecord]) -> Mapping[int, Judgement]:
    """By position: see :class:`lab.analysis.bisect.Remaining`."""
    commits = scenario.bisect.commits if scenario.bisect else []
    at = {commit: position for position, commit in enumerate(commits, start=1)}
    found = (r for r in records if isinstance(r, Judged) and r.scenario == scenario.name)
    return {at[record.commit]: record.judgement for record in found}


def _logs(record: Comparison) -> list[float]:
    return [math.log(a / b) for a, b in zip(record.a_values, record.b_values, strict=True)]


def _describe(record: Judged, left: Remaining) -> str:
    why = f": {record.why}" if record.why else ""
    return f"{record.commit} {record.judgement}{why}; {left.bad - left.good} commits remain"
