"""One trial that must show something exactly: the ``[[expect]]`` tables of a scenario."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.ledger import expectation
from lab.results import Check, Setting
from lab.scenario.tables import Case, Expect
from lab.steps.step import Selection, Step, StepError

if TYPE_CHECKING:
    from lab.steps.context import Context

ATTEMPTS = 6


@dataclass(frozen=True)
class ExpectStep(Step):
    """One trial, repeated only when the machine was held up otherwise, and a check for each key."""

    case: Case
    expect: Expect
    number: int
    """Among the scenario's expectations, from 1."""

    @classmethod
    def for_case(cls, selection: Selection, case: Case) -> Iterator[ExpectStep]:
        for number, expect in enumerate(selection.scenario.expect, start=1):
            if expect.case == case.name and expect.subject not in selection.absent:
                yield cls(selection.scenario, selection.profile, case, expect, number)

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/{self.case.name}/{self.expect.subject}/expect-{self.number}"

    @property
    def setting(self) -> Setting:
        tried = self.scenario.receive_of(self.expect.subject)
        receive = tried[0] if self.expect.receive is None else self.expect.receive
        return self.scenario.result_setting(self.case, self.expect.subject, receive)

    @property
    def trials(self) -> int:
        return 1

    def perform(self, context: Context) -> None:
        series = context.series(self, self.case, self.expect.subject, self.setting, "fixed")
        for _attempt in range(ATTEMPTS):
            trial = series.run(self.expect.dps, self.trial_s)
            if (why := expectation.unfit(trial)) is None:
                break
        else:
            raise StepError(f"{ATTEMPTS} trials that nothing can be concluded from, the last: {why}")
        checks = expectation.checks(self.expect, trial)
        if not _all_passed(checks):
            frames = trial.frames or series.frames(
                trial, lambda again: not _all_passed(expectation.checks(self.expect, again))
            )
            checks = [c if c.passed or c.aim else c.model_copy(update={"frames": frames}) for c in checks]
        for check in checks:
            context.check(check)
        context.reporter.outcome(
            "; ".join(
                check.expected if check.passed else f"{check.expected} FAILED: {check.observed}"
                for check in checks
                if not check.aim  # told on a line of its own
            )
        )


def _all_passed(checks: list[Check]) -> bool:
    """But for aims, of which no frames are kept."""
    return all(check.passed or check.aim for check in checks)
