"""What became of each input's datagrams, where inputs fared differently: one flooded, the others not."""

from __future__ import annotations

from collections.abc import Sequence

from lab.results import InputSample, Trial
from reports import labels, quantity
from reports import verdicts as words
from reports.collapse import split
from reports.dataset import Dataset
from reports.labels import in_order
from reports.model import Cell, Column, Row, Table
from reports.tables.trials import row_name

LISTED = 6
"""Of more inputs than this, those that fared alike share a row."""

FLOODED = 2.0
"""Of a load meant to be uneven, an input with this many times the datagrams of the least is flooded."""


def inputs(data: Dataset) -> list[Table]:
    """One trial a case, subject and steering: the one in which the inputs differed most."""
    columns = (
        Column("Case"),
        Column("Trial"),
        Column("Input"),
        Column("Offered", "datagrams/s", numeric=True),
        Column("Copies due", "copies", numeric=True),
        Column("Loss", "of copies due", numeric=True),
        Column("Beyond the first", "copies", numeric=True),
    )
    rows = [
        (trial.scenario, Row((row_name(data, trial), _trial(trial), *cells), trials=(trial.trial_id,)))
        for trial in differing(data)
        for cells in _cells(trial)
    ]
    return split("inputs", "Inputs that fared differently in one trial", columns, rows)


def differing(data: Dataset) -> list[Trial]:
    """Of each case and setting the trial with the widest spread of loss, if any; all of uneven loads.

    Trials at a fixed rate come first: a search overloads on purpose.
    """
    groups: dict[str, list[Trial]] = {}
    for t in data.trials:
        if t.subject == "none" or t.validity == "invalid" or len(t.inputs) < 2:
            continue
        if t.setting.skew > 1 or _spread(t) > 0:
            key = f"{t.scenario}\0{t.case}\0{t.subject}\0{t.setting.model_dump_json()}"
            groups.setdefault(key, []).append(t)
    return [max(group, key=lambda t: (t.purpose != "search", _spread(t))) for group in groups.values()]


def lost(sample: InputSample) -> float:
    """Share of the copies due that did not come."""
    return 1 - sample.delivered / sample.expected if sample.expected else 0.0


def _spread(trial: Trial) -> float:
    losses = [lost(sample) for sample in trial.inputs]
    return max(losses) - min(losses)


def _trial(trial: Trial) -> Cell:
    offered = f"{trial.purpose}, {quantity.rate(trial.offered_dps)} datagrams/s in all"
    return Cell(labels.steered(trial), offered, words.trial_doubts(trial))


def _cells(trial: Trial) -> list[tuple[Cell, ...]]:
    least = min(sample.offered for sample in trial.inputs)
    flooded = [s for s in trial.inputs if trial.setting.skew > 1 and s.offered >= FLOODED * least]
    groups = [[s] for s in trial.inputs]
    if len(trial.inputs) > LISTED:
        others = [s for s in trial.inputs if s not in flooded]
        parts = ([s for s in others if lost(s) > 0], [s for s in others if lost(s) <= 0])
        groups = [[s] for s in flooded] + [list(part) for part in parts if part]
    return [_input_cells(trial, group, group[0] in flooded) for group in groups]


def _input_cells(trial: Trial, group: Sequence[InputSample], flooded: bool) -> tuple[Cell, ...]:
    name = group[0].interface if len(group) == 1 else f"{len(group)} inputs"
    names = [s.interface for s in group]
    which = f"{', '.join(names[:LISTED])} …" if len(names) > LISTED else ", ".join(names)
    seconds = trial.duration_ns / quantity.NS_PER_S
    offered = [s.offered / seconds for s in group]
    rates = in_order(map(quantity.rate, (min(offered), max(offered))))
    losses = in_order(quantity.percent(loss) for loss in (min(map(lost, group)), max(map(lost, group))))
    return (
        Cell(f"{name}, flooded" if flooded else name, which if len(group) > 1 else ""),
        Cell(" to ".join(rates), "each" if len(group) > 1 else ""),
        Cell(quantity.count(sum(s.expected for s in group))),
        Cell(" to ".join(losses)),
        Cell(quantity.count(sum(s.duplicated for s in group))),
    )
