"""The generator alone, straight into the receivers: its ceiling bounds searches and sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.results import NONE, Setting
from lab.scenario.tables import Case
from lab.steps.step import Selection, Step

if TYPE_CHECKING:
    from lab.steps.context import Context

PACED_SHARE = 0.97
"""Share of the unpaced rate to try: a paced generator reads the clock for each datagram."""
LARGEST_STEP = 0.8
"""Smallest ratio of one paced rate to the one before: one stall of a shared machine says little."""
ATTEMPTS = 8


@dataclass(frozen=True)
class CalibrateStep(Step):
    """Unpaced once; then the highest paced rate that the generator holds."""

    case: Case

    @classmethod
    def for_case(cls, selection: Selection, case: Case) -> Iterator[CalibrateStep]:
        swept = any(table.ceiling_shares for *_, table in selection.tables("sweep", case))
        if swept or (selection.subjects(case) and selection.scenario.measured_in(case)):
            yield cls(selection.scenario, selection.profile, case)

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/{self.case.name}/calibrate"

    @property
    def setting(self) -> Setting:
        return self.scenario.generator_setting(self.case)

    @property
    def once(self) -> Setting:
        return self.setting

    @property
    def trials(self) -> int:
        return 3

    def perform(self, context: Context) -> None:
        series = context.series(self, self.case, NONE, self.setting, "calibration")
        flat_out = series.run(None, self.trial_s).offered_dps
        dps = flat_out * PACED_SHARE
        outcome = "at most"
        for _attempt in range(ATTEMPTS):
            trial = series.run(dps, self.trial_s)
            if trial.validity != "invalid":
                outcome = "held"
                break
            dps = max(dps * LARGEST_STEP, min(dps, trial.offered_dps) * PACED_SHARE)
        ceiling = context.ceiling(self.setting)
        context.reporter.outcome(f"generator: {ceiling:,.0f} dps {outcome}, {flat_out:,.0f} flat out")
