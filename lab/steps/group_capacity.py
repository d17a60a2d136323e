"""Group capacity, measured: more and more groups, a rule each, all of them offered datagrams.

The step at which one trial of several loses nothing has held: a machine that is shared stalls now and then,
which is no limit of a subject's table.
"""

from __future__ import annotations

from typing import Literal

from lab.peers.base import PeerError
from lab.results import Capacity, CapacityStep, Trial
from lab.scenario import steps as matrix
from lab.steps.context import Context, Series

ATTEMPTS = 3
SHORT = "the generator offered too little"


def measure(step: matrix.Capacity, context: Context) -> None:
    """Go up until a number of groups does not hold, and record every step."""
    tried: list[CapacityStep] = []
    bound_by: Literal["limit", "loss", "refused", "generator"] = "limit"
    for groups in step.table.groups:
        tried.append(_try(step, context, groups))
        if not tried[-1].held:
            why = tried[-1].why
            bound_by = "generator" if why == SHORT else "refused" if why else "loss"
            break
    best = max((each.groups for each in tried if each.held), default=step.table.groups[0])
    record = Capacity(
        scenario=step.scenario.name,
        case=step.case.name,
        subject=step.subject,
        setting=step.setting_of(best),
        offered_dps=step.table.dps,
        steps=tried,
        bound_by=bound_by,
    )
    context.archive.write(record)
    last = tried[-1]
    words = "the limit stated" if last.held else f"not {last.groups:,}: {last.why or 'loss'}"
    held = "no number of groups" if record.groups is None else f"{record.groups:,} groups"
    context.reporter.outcome(f"{held}; {words}")


def _try(step: matrix.Capacity, context: Context, groups: int) -> CapacityStep:
    table = step.table
    seconds = max(step.profile.trial_ms / 1000, groups * table.per_group / table.dps)
    try:
        series = Series(context, step, step.case, step.subject, step.setting_of(groups), "fixed")
        for _attempt in range(ATTEMPTS):
            trial = series.run(table.dps, seconds)
            if _whole(trial):
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
        held=_whole(trial),
        why=SHORT if trial.delivered >= trial.expected and not _whole(trial) else "",
        trial_ids=list(series.trial_ids),
    )


def _whole(trial: Trial) -> bool:
    """Whether every group got something, and all that was offered. (Less than was asked for will do.)"""
    return trial.delivered >= trial.expected and trial.streams is not None and trial.streams.silent == 0
