"""Group capacity (RFC 3918): more and more groups, a rule each, all of them offered datagrams.

A number of groups holds when one of several trials loses nothing: a shared machine stalls now and then, which
is no limit of a subject's table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from lab.results import Capacity, CapacityStep, Setting, Trial
from lab.scenario.rfc3918_tables import CapacityTable
from lab.steps.step import BENCH_START_S, TableStep

if TYPE_CHECKING:
    from lab.steps.context import Context

ATTEMPTS = 3
RULES_PER_S = 5_000
"""Rules that a bench takes while it is built: subject, sender and receivers get as many."""
SHORT = "the generator offered too little"


@dataclass(frozen=True)
class GroupCapacityStep(TableStep[CapacityTable]):
    """Goes up until a number of groups does not hold, and records every number tried."""

    key = "capacity"
    records: ClassVar = (Capacity,)

    @property
    def trials(self) -> int:
        return len(self.table.groups)

    @property
    def seconds(self) -> float:
        sending = sum(groups * self.table.per_group / self.table.dps for groups in self.table.groups)
        building = sum(BENCH_START_S + groups / RULES_PER_S for groups in self.table.groups)
        return building + max(sending, self.trials * self.trial_s)

    def setting_of(self, groups: int) -> Setting:
        return self.setting.model_copy(update={"rules": groups, "flows": groups})

    def perform(self, context: Context) -> None:
        tried: list[CapacityStep] = []
        bound_by: Literal["limit", "loss", "refused", "generator"] = "limit"
        for groups in self.table.groups:
            tried.append(self._try(context, groups))
            if not tried[-1].held:
                why = tried[-1].why
                bound_by = "generator" if why == SHORT else "refused" if why else "loss"
                break
        best = max((each.groups for each in tried if each.held), default=self.table.groups[0])
        record = Capacity(
            scenario=self.scenario.name,
            case=self.case.name,
            subject=self.subject,
            setting=self.setting_of(best),
            offered_dps=self.table.dps,
            steps=tried,
            bound_by=bound_by,
        )
        context.archive.write(record)
        last = tried[-1]
        limit = "the limit stated" if last.held else f"not {last.groups:,}: {last.why or 'loss'}"
        held = "no number of groups" if record.groups is None else f"{record.groups:,} groups"
        context.reporter.outcome(f"{held}; {limit}")

    def _try(self, context: Context, groups: int) -> CapacityStep:
        from lab.peers.base import PeerError

        table = self.table
        seconds = max(self.trial_s, groups * table.per_group / table.dps)
        try:
            series = context.series(self, self.case, self.subject, self.setting_of(groups), "fixed")
            for _attempt in range(ATTEMPTS):
                trial = series.run(table.dps, seconds)
                if _held(trial):
                    break
        except PeerError as error:
            context.benches.close()
            return CapacityStep(groups=groups, held=False, why=str(error))
        return CapacityStep(
            groups=groups,
            offered=trial.offered,
            expected=trial.expected,
            delivered=trial.delivered,
            silent=trial.streams.silent or 0 if trial.streams else 0,
            held=_held(trial),
            why=SHORT if trial.delivered >= trial.expected and not _held(trial) else "",
            trial_ids=list(series.trial_ids),
        )


def _held(trial: Trial) -> bool:
    """Whether every group got datagrams, and all that were offered, even if fewer than were asked for."""
    return trial.delivered >= trial.expected and trial.streams is not None and trial.streams.silent == 0
