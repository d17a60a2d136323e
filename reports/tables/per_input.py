"""Tables of each input's loss, for trials in which inputs fared differently: one flooded, the others not."""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.results import InputSample, Trial
from reports import labels, quantity, verdicts
from reports.dataset import Dataset, grouped
from reports.labels import unique
from reports.model import Cell, Column, Table
from reports.tables.build import CASE, Columns, number, row_name, tables

LISTED = 6
"""With more inputs than this, those that fared alike share a row."""
FLOODED = 2.0
"""An input with this many times the datagrams of the least loaded one is flooded, in an uneven load."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of one trial that share a row."""

    record: Trial
    samples: Sequence[InputSample]
    flooded: bool

    @property
    def name(self) -> Cell:
        names = [s.interface for s in self.samples]
        name = names[0] if len(names) == 1 else f"{len(names)} inputs"
        listed = f"{', '.join(names[:LISTED])} …" if len(names) > LISTED else ", ".join(names)
        return Cell(f"{name}, flooded" if self.flooded else name, listed if len(names) > 1 else "")

    @property
    def offered(self) -> Cell:
        offered = [s.offered * quantity.NS_PER_S / self.record.duration_ns for s in self.samples]
        ends = unique(map(quantity.rate, (min(offered), max(offered))))
        return Cell(" to ".join(ends), "each" if len(self.samples) > 1 else "")

    @property
    def loss(self) -> str:
        losses = [lost(s) for s in self.samples]
        return " to ".join(unique(map(quantity.percent, (min(losses), max(losses)))))


def per_input(data: Dataset) -> list[Table]:
    """One trial a case, subject and steering: the one in which the inputs differed most."""

    def trial(inputs: Inputs) -> Cell:
        t = inputs.record
        offered = f"{t.purpose}, {quantity.rate(t.offered_dps)} datagrams/s in all"
        return Cell(labels.subject_with_receive(t), offered, verdicts.trial_doubts(t))

    columns: Columns[Inputs] = [
        (CASE, lambda i: row_name(data, i.record)),
        (Column("Trial"), trial),
        (Column("Input"), lambda i: i.name),
        (number("Offered", "datagrams/s"), lambda i: i.offered),
        (number("Copies due", "copies"), lambda i: sum(s.expected for s in i.samples)),
        (number("Loss", "of copies due"), lambda i: i.loss),
        (number("Beyond the first", "copies"), lambda i: sum(s.duplicated for s in i.samples)),
    ]
    rows = [inputs for trial in differing(data) for inputs in _rows(trial)]
    return tables("inputs", "Inputs that fared differently in one trial", columns, rows)


def differing(data: Dataset) -> list[Trial]:
    """For each case and setting with uneven load or loss, the trial with the widest spread of loss.

    Trials at a fixed rate come first: a search overloads on purpose.
    """
    uneven = (
        t
        for t in data.trials
        if t.subject != "none" and t.validity != "invalid" and len(t.inputs) > 1
        if t.setting.skew > 1 or _spread(t) > 0
    )
    groups = grouped(uneven, lambda t: (t.scenario, t.case, t.subject, t.setting))
    return [max(group, key=lambda t: (t.purpose != "search", _spread(t))) for group in groups.values()]


def lost(sample: InputSample) -> float:
    """Share of the copies due that did not arrive."""
    return 1 - sample.delivered / sample.expected if sample.expected else 0.0


def _spread(trial: Trial) -> float:
    losses = [lost(sample) for sample in trial.inputs]
    return max(losses) - min(losses)


def _rows(trial: Trial) -> list[Inputs]:
    least = min(sample.offered for sample in trial.inputs)
    flooded = [s for s in trial.inputs if trial.setting.skew > 1 and s.offered >= FLOODED * least]
    groups = [[s] for s in trial.inputs]
    if len(trial.inputs) > LISTED:
        others = [s for s in trial.inputs if s not in flooded]
        parts = ([s for s in others if lost(s) > 0], [s for s in others if lost(s) <= 0])
        groups = [[s] for s in flooded] + [part for part in parts if part]
    return [Inputs(trial, group, group[0] in flooded) for group in groups]
