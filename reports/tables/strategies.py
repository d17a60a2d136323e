"""Strategies on the same load, side by side: which cases belong together, and one row for each.

Nothing says beforehand what is compared: cases of one scenario that forwarded the same load with different
strategies, or with other values on a strategy's axes, make a group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.results import Footprint, Setting, Trial, ZeroLoss
from reports import labels, quantity, verdicts
from reports.dataset import Dataset
from reports.labels import AXES, LOAD, unique
from reports.model import Cell, Column, Row, Table

WRONG_WORKER = "wrong worker"
HALF = 0.5
"""Latency, processor time and shares are read at half the zero-loss rate: loaded, not overloaded."""

LEAST_BUSY_NS = 100_000_000
"""Processor time comes in ticks of 10 ms: of less than ten of them a figure per copy is a guess."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One strategy case: its trials with the receive packet steering that suited it best."""

    case: str
    setting: Setting
    found: ZeroLoss | None
    footprint: Footprint | None
    trials: tuple[Trial, ...]
    """With this steering, alone with what was measured to the end: no invalid ones while there are others."""

    @property
    def name(self) -> str:
        """The case, and its strategy where the case is not named after it."""
        told = labels.strategy_text(self.setting)
        return self.case if told == self.case else f"{self.case} ({told})"

    @property
    def tells(self) -> bool:
        """Whether there is anything to set beside another strategy's."""
        return bool(self.found or self.latency or self.cpu or self.shares)

    @property
    def half_dps(self) -> float | None:
        return self.found.lower_dps * HALF if self.found and self.found.lower_dps else None

    def nearest(self, has: Callable[[Trial], bool], best: str = "") -> Trial | None:
        """The trial that ``has`` the figure: of purpose ``best`` if any is, then next to half the rate."""
        wanted = [t for t in self.trials if has(t)]
        wanted = [t for t in wanted if t.purpose == best] or wanted
        rate = self.half_dps
        if rate is None:
            return max(wanted, key=lambda t: t.offered_dps, default=None)
        return min(wanted, key=lambda t: abs(t.offered_dps - rate), default=None)

    @property
    def latency(self) -> Trial | None:
        return self.nearest(lambda t: t.latency is not None, "latency")

    @property
    def cpu(self) -> Trial | None:
        def has(t: Trial, least_ns: int, net: bool) -> bool:
            if t.cpu is None or not t.cpu.copies or t.cpu.busy_ns < least_ns:
                return False
            return t.cpu.baseline_ns is not None or not net

        return (
            self.nearest(lambda t: has(t, LEAST_BUSY_NS, net=True))
            or self.nearest(lambda t: has(t, LEAST_BUSY_NS, net=False), "latency")
            or self.nearest(lambda t: has(t, 0, net=False))
        )

    @property
    def shared(self) -> Trial | None:
        return self.nearest(lambda t: sum(w.received for w in t.workers) > 0, "latency")

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the datagrams that workers received, in order of CPU; 1 is an even share, 0 none at all."""
        trial = self.shared
        if trial is None:
            return ()
        received = [w.received for w in sorted(trial.workers, key=lambda w: (w.cpu, w.worker_id))]
        return tuple(number * len(received) / sum(received) for number in received)

    @property
    def workers(self) -> int | None:
        counts = [len(t.workers) for t in self.trials if t.workers]
        return max(counts) if counts else None if self.footprint is None else self.footprint.workers

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the trials that the entry's figures come from."""
        searched = self.found.trial_ids if self.found else []
        read = [t.trial_id for t in (self.latency, self.cpu, self.shared) if t is not None]
        return tuple(unique([*searched, *read]))

    @property
    def astray(self) -> int:
        """Datagrams that reached a worker without their rule, over all trials."""
        return sum(
            drop.count
            for t in self.trials
            for drop in t.ledger.ingress.drops
            if WRONG_WORKER in drop.reason.replace("_", " ")
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Strategies of one scenario on one load."""

    scenario: str
    load: Setting
    number: int
    """Of the scenario's groups, from 1."""
    entries: tuple[Entry, ...]

    @property
    def strategies(self) -> int:
        return len({entry.setting.strategy for entry in self.entries})

    @property
    def inputs(self) -> int:
        """Those of most cases; a strategy for one interface has its load on one."""
        return Counter(entry.setting.inputs for entry in self.entries).most_common(1)[0][0]

    @property
    def given(self) -> str:
        """What all of them were given."""
        return f"{quantity.plural(self.inputs, 'input')}, {labels.load_text(self.load)}"

    @property
    def tells_rps(self) -> bool:
        """Whether receive packet steering differs among the cases."""
        return len({entry.setting.rps for entry in self.entries}) > 1

    @property
    def name(self) -> str:
        """Unique on the page."""
        return self.scenario if self.number == 1 else f"{self.scenario}-{self.number}"


def groups(data: Dataset) -> list[Group]:
    """Every load that at least two strategies, or two variants of one, were given; most strategies first."""
    members: dict[tuple[str, tuple[object, ...]], list[Trial | ZeroLoss]] = {}
    every: list[Trial | ZeroLoss] = [*data.zero_losses, *data.trials]
    for record in every:
        if record.setting.strategy is not None:
            key = (record.scenario, tuple(getattr(record.setting, name) for name in LOAD))
            members.setdefault(key, []).append(record)
    found: list[Group] = []
    for (scenario, _), records in members.items():
        variants = {tuple(getattr(r.setting, name) for name in AXES) for r in records}
        if len(variants) < 2:
            continue
        number = 1 + sum(group.scenario == scenario for group in found)
        cases = unique(r.case for r in records)
        entries = tuple(_entry(data, scenario, [r for r in records if r.case == case]) for case in cases)
        if sum(entry.tells for entry in entries) < 2:
            continue
        found.append(Group(scenario, records[0].setting, number, entries))
    return sorted(found, key=lambda group: -group.strategies)


def _entry(data: Dataset, scenario: str, records: Sequence[Trial | ZeroLoss]) -> Entry:
    searches = [r for r in records if isinstance(r, ZeroLoss)]
    trials = [r for r in records if isinstance(r, Trial)]
    found = max(searches, key=lambda z: z.lower_dps or 0, default=None)
    if found is not None:
        trials = [t for t in trials if t.setting.rps == found.setting.rps]
    case = records[0].case
    footprints = [f for f in data.footprints if (f.scenario, f.case) == (scenario, case)]
    return Entry(
        case=case,
        setting=(found or records[0]).setting,
        found=found,
        footprint=footprints[-1] if footprints else None,
        trials=tuple([t for t in trials if t.validity != "invalid"] or trials),
    )


# ------------------------------------------------------------------------------------------------ tables


COLUMNS = (
    Column("Strategy"),
    Column("Workers", numeric=True),
    Column("Documented", "MB", numeric=True),
    Column("Modelled", "MB", numeric=True),
    Column("Measured", "MB, no rings", numeric=True),
    Column("Zero-loss rate", "datagrams/s", numeric=True),
    Column("p50 / p99", "µs", numeric=True),
    Column("CPU", "µs a copy", numeric=True),
    Column("Worker shares", "1 is even"),
    Column("Wrong worker", "datagrams", numeric=True),
)


def table(group: Group) -> Table:
    """One row a strategy; columns in which no strategy has anything are left out."""
    rows = [_row(group, entry) for entry in group.entries]
    kept = [
        place for place in range(len(COLUMNS)) if any(row.cells[place] != Cell(quantity.NONE) for row in rows)
    ]
    return Table(
        f"strategies-{group.name}",
        f"{group.scenario}: {group.given}",
        tuple(COLUMNS[place] for place in kept),
        tuple(Row(tuple(row.cells[place] for place in kept), row.notes, row.trials) for row in rows),
    )


def _row(group: Group, entry: Entry) -> Row:
    copies = sum(t.streams.duplicated for t in entry.trials if t.streams is not None)
    notes = (f"{copies:,} copies beyond the first arrived in its trials.",) if copies else ()
    differs = entry.setting.inputs != group.inputs
    inputs = quantity.plural(entry.setting.inputs, "input") if differs else ""
    told = labels.strategy_text(entry.setting)
    detail = ", ".join(filter(None, ("" if told == entry.case else told, inputs)))
    return Row(
        (
            Cell(entry.case, detail),
            _workers(entry),
            *_memory(entry.footprint),
            _rate(entry, group.tells_rps),
            _latency(entry.latency),
            _cpu(entry),
            _shares(entry),
            Cell(quantity.count(entry.astray), tone="bad" if entry.astray else "plain"),
        ),
        notes,
        entry.sources,
    )


def _workers(entry: Entry) -> Cell:
    number, footprint = entry.workers, entry.footprint
    differs = footprint is not None and footprint.workers != number
    detail = f"memory: of {footprint.workers:,}" if footprint is not None and differs else ""
    return Cell(quantity.count(number), detail)


def _memory(footprint: Footprint | None) -> tuple[Cell, Cell, Cell]:
    if footprint is None:
        return Cell(quantity.NONE), Cell(quantity.NONE), Cell(quantity.NONE)
    rings = f"rings {quantity.megabytes(footprint.memory.ring_bytes_total)}"
    measured = quantity.megabytes(verdicts.measured_bytes(footprint))
    return (
        Cell(quantity.megabytes(footprint.documented_bytes)),
        Cell(quantity.megabytes(footprint.modelled_bytes)),
        Cell(measured, rings, verdicts.footprint_doubts(footprint)),
    )


def _rate(entry: Entry, tell_rps: bool) -> Cell:
    found = entry.found
    if found is None:
        return Cell(quantity.NONE)
    rps = ", RPS on" if tell_rps and found.setting.rps else ""
    text = "none found" if found.lower_dps is None else verdicts.zero_loss_rate(found)
    return Cell(text, f"{verdicts.bound(found.bound_by)}{rps}", verdicts.distinct(found.warnings))


def _latency(trial: Trial | None) -> Cell:
    if trial is None or trial.latency is None:
        return Cell(quantity.NONE)
    seen = trial.latency
    text = f"{quantity.microseconds(seen.p50)} / {quantity.microseconds(seen.p99)}"
    return Cell(text, f"at {quantity.rate(trial.offered_dps)}/s", verdicts.trial_doubts(trial))


def _cpu(entry: Entry) -> Cell:
    trial = entry.cpu
    if trial is None or trial.cpu is None or trial.cpu.ns_per_copy is None:
        return Cell(quantity.NONE)
    included = "" if trial.cpu.baseline_ns is not None else "with generator"
    detail = "\n".join(filter(None, (included, _elsewhere(entry, trial))))
    return Cell(f"{trial.cpu.ns_per_copy / quantity.NS_PER_US:.2f}", detail)


def _shares(entry: Entry) -> Cell:
    trial = entry.shared
    if trial is None:
        return Cell(quantity.NONE)
    detail = "\n".join(filter(None, (idle_workers(entry.shares), _elsewhere(entry, trial))))
    return Cell(shares_words(entry.shares), detail)


def _elsewhere(entry: Entry, trial: Trial) -> str:
    """The rate of another trial than the one that the latency is from."""
    return "" if trial is entry.latency else f"at {quantity.rate(trial.offered_dps)}/s"


def shares_words(shares: Sequence[float]) -> str:
    """``0.9 to 1.1``; the whole load of one worker is 1."""
    return "all by one" if len(shares) == 1 else f"{min(shares):.2f} to {max(shares):.2f}"


def idle_workers(shares: Sequence[float]) -> str:
    idle = shares.count(0)
    return f"{idle:,} of {len(shares):,} without any" if idle else ""
