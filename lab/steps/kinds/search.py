"""The zero-loss rate of one subject, and what is measured at shares of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.results import Receive, Setting, ZeroLoss
from lab.scenario.tables import Case, Measure
from lab.steps.step import HALF, LOADED_TRIALS, LONG, Selection, Step, search_trials

if TYPE_CHECKING:
    from lab.analysis.search import Found
    from lab.steps.context import Context, Series

LOADS = (0.1, HALF, 0.9)
"""Shares of the zero-loss rate at which latency is measured."""
OVERLOADS = (2.0, 4.0)
"""Multiples of the zero-loss rate at which goodput is measured."""
PDR_TRIALS = 4
"""Additional trials for a second goal."""
COMPILED_S = 40.0
"""First start of another commit's forwarder, whose packet path has to be compiled."""


@dataclass(frozen=True)
class SearchStep(Step):
    """What ``measure`` lists, for one subject, received for in one way."""

    case: Case
    subject: str
    receive: Receive

    records: ClassVar = (ZeroLoss,)

    @classmethod
    def for_case(cls, selection: Selection, case: Case) -> Iterator[SearchStep]:
        scenario = selection.scenario
        for subject in selection.subjects(case) if scenario.measured_in(case) else ():
            for receive in scenario.receive_of(subject):
                yield cls(scenario, selection.profile, case, subject, receive)

    @property
    def measure(self) -> Sequence[Measure]:
        return self.scenario.measured_in(self.case)

    @property
    def loads(self) -> Sequence[float]:
        """Shares of the zero-loss rate, each with one long trial."""
        return LOADS if "latency" in self.measure else (HALF,) if "half-rate" in self.measure else ()

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/{self.case.name}/{self.subject}/{self.receive}/search"

    @property
    def setting(self) -> Setting:
        return self.scenario.result_setting(self.case, self.subject, self.receive)

    @property
    def trials(self) -> int:
        each = {
            "zero-loss": search_trials(self.profile),
            "pdr": PDR_TRIALS,
            "flat-out": 1,
            "overload": len(OVERLOADS),
        }
        return sum(each.get(what, 0) for what in self.measure) + LOADED_TRIALS * len(self.loads)

    @property
    def seconds(self) -> float:
        return super().seconds + (COMPILED_S if self.setting.commit else 0.0)

    def perform(self, context: Context) -> None:
        series = context.series(self, self.case, self.subject, self.setting, "search")
        outcomes = []
        if "zero-loss" in self.measure:
            ratios = (0.0, self.scenario.pdr_loss_ratio) if "pdr" in self.measure else (0.0,)
            every = self._search(context, series, ratios)
            outcomes += [_describe(found, ratio) for ratio, found in zip(ratios, every, strict=True)]
            if (zero_loss_dps := every[0].lower_dps) is not None:
                outcomes += [self._loaded(context, series, zero_loss_dps, share) for share in self.loads]
                if "overload" in self.measure:
                    outcomes.append(self._overloaded(series, zero_loss_dps))
        if "flat-out" in self.measure:
            series.purpose = "fixed"
            trial = series.run(None, self.trial_s)
            outcomes.append(f"{trial.delivered_dps:,.0f} copies/s at {trial.offered_dps:,.0f} dps offered")
        context.reporter.outcome("; ".join([*outcomes, *series.fates]))

    def _search(self, context: Context, series: Series, loss_ratios: tuple[float, ...]) -> tuple[Found, ...]:
        from lab.analysis.search import find_rates

        ceiling = context.ceiling(self.scenario.generator_setting(self.case))
        every = find_rates(series.observe, ceiling, self.profile, loss_ratios)
        for loss_ratio, found in zip(loss_ratios, every, strict=True):
            context.archive.write(
                ZeroLoss(
                    scenario=self.scenario.name,
                    case=self.case.name,
                    subject=self.subject,
                    setting=self.setting,
                    goal_loss_ratio=loss_ratio,
                    lower_dps=found.lower_dps,
                    upper_dps=found.upper_dps,
                    generator_ceiling_dps=ceiling,
                    bound_by=found.bound_by,
                    trial_ids=list(series.trial_ids),
                    warnings=[*found.warnings, *series.fates],
                )
            )
        return every

    def _loaded(self, context: Context, series: Series, zero_loss_dps: float, share: float) -> str:
        """Latency, CPU per copy and workers' shares at ``share`` of the zero-loss rate."""
        dps, seconds = zero_loss_dps * share, self.trial_s * LONG
        baseline = context.baseline(self, self.case, dps, self.trial_s)
        series.purpose = "latency"
        trial = series.run(dps, seconds, baseline, share)
        p99_us = trial.latency.p99 / 1000 if trial.latency else 0
        return f"p99 {p99_us:,.0f} µs at {dps:,.0f} dps"

    def _overloaded(self, series: Series, zero_loss_dps: float) -> str:
        """What is delivered of multiples of the zero-loss rate, as far as the generator reaches them."""
        series.purpose = "fixed"
        trials = [series.run(zero_loss_dps * share, self.trial_s, load_share=share) for share in OVERLOADS]
        pairs = [(trial.goodput(zero_loss_dps), trial.offered_dps / zero_loss_dps) for trial in trials]
        return "goodput " + ", ".join(f"{good:.2f} at {offered:.1f} ×" for good, offered in pairs)


def _describe(found: Found, loss_ratio: float) -> str:
    what = f"at most {loss_ratio:.2%} of copies lost" if loss_ratio else "zero loss"
    if found.lower_dps is None:
        return f"{what} at no rate"
    limit = ", the generator was the limit" if found.bound_by == "generator" else ""
    return f"{what} up to {found.lower_dps:,.0f} dps{limit}"
