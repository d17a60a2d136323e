"""Tables of strategies on the same load, one row a strategy.

Cases of one scenario make a group if they forwarded the same load with different strategies, or with other
values on a strategy's axes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.results import Footprint, Setting, Trial, ZeroLoss
from reports import labels, quantity, verdicts
from reports.dataset import Dataset, grouped
from reports.labels import AXES, LOAD, unique
from reports.model import Cell, Column, Table
from reports.tables import build
from reports.tables.build import Columns, cell, number
from reports.tables.trials import HALF, received_by_worker

WRONG_WORKER = "wrong worker"
LEAST_BUSY_NS = 100_000_000
"""Ten ticks of processor time: with fewer, a figure per copy is a guess."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One strategy case: its trials, received for in the way that suited it best."""

    case: str
    setting: Setting
    found: ZeroLoss | None
    footprint: Footprint | None
    trials: tuple[Trial, ...]
    """Invalid ones only where there are no others."""

    @property
    def strategy(self) -> str:
        """The strategy in words, where the case is not named after it."""
        text = labels.strategy_text(self.setting)
        return "" if text == self.case else text

    @property
    def name(self) -> str:
        return f"{self.case} ({self.strategy})" if self.strategy else self.case

    @property
    def measured(self) -> bool:
        return bool(self.found or self.latency or self.cpu or self.shares)

    @property
    def half_dps(self) -> float | None:
        return self.found.lower_dps * HALF if self.found and self.found.lower_dps else None

    def _nearest(self, has: Callable[[Trial], bool], best: str = "") -> Trial | None:
        """The trial that ``has`` the figure nearest to half the rate, of purpose ``best`` if there is one."""
        wanted = [t for t in self.trials if has(t)]
        wanted = [t for t in wanted if t.purpose == best] or wanted
        rate = self.half_dps
        if rate is None:
            return max(wanted, key=lambda t: t.offered_dps, default=None)
        return min(wanted, key=lambda t: abs(t.offered_dps - rate), default=None)

    @property
    def latency(self) -> Trial | None:
        return self._nearest(lambda t: t.latency is not None, "latency")

    @property
    def cpu(self) -> Trial | None:
        def has(t: Trial, least_ns: int, net: bool) -> bool:
            if t.cpu is None or not t.cpu.copies or t.cpu.busy_ns < least_ns:
                return False
            return t.cpu.baseline_ns is not None or not net

        return (
            self._nearest(lambda t: has(t, LEAST_BUSY_NS, net=True))
            or self._nearest(lambda t: has(t, LEAST_BUSY_NS, net=False), "latency")
            or self._nearest(lambda t: has(t, 0, net=False))
        )

    @property
    def shared(self) -> Trial | None:
        return self._nearest(lambda t: sum(w.received for w in t.workers) > 0, "latency")

    @property
    def shares(self) -> tuple[float, ...]:
        """Each worker's part of the datagrams, in order of CPU: 1 is an even share, 0 none at all."""
        received = [] if self.shared is None else received_by_worker(self.shared)
        return tuple(number * len(received) / sum(received) for number in received)

    @property
    def overloads(self) -> list[Trial]:
        """Those at multiples of the zero-loss rate, also where the generator reached less than was asked."""
        return [t for t in self.trials if (t.load_share or 0) > 1]

    @property
    def workers(self) -> int | None:
        counts = [len(t.workers) for t in self.trials if t.workers]
        return max(counts) if counts else None if self.footprint is None else self.footprint.workers

    @property
    def trial_ids(self) -> tuple[str, ...]:
        searched = self.found.trial_ids if self.found else []
        read = [t.trial_id for t in (self.latency, self.cpu, self.shared, *self.overloads) if t is not None]
        return tuple(unique([*searched, *read]))

    @property
    def wrong_worker(self) -> int:
        """Datagrams that reached a worker without their rule, over all trials."""
        drops = [drop for t in self.trials for drop in t.ledger.ingress.drops]
        return sum(drop.count for drop in drops if WRONG_WORKER in drop.reason.replace("_", " "))


@dataclass(frozen=True, slots=True)
class Group:
    """Strategies of one scenario on one load."""

    scenario: str
    load: Setting
    number: int
    """Place among the groups of the scenario, from 1."""
    entries: tuple[Entry, ...]

    @property
    def strategies(self) -> int:
        return len({entry.setting.strategy for entry in self.entries})

    @property
    def inputs(self) -> int:
        """The inputs of most cases; a strategy for one interface has its load on one."""
        return Counter(entry.setting.inputs for entry in self.entries).most_common(1)[0][0]

    @property
    def load_text(self) -> str:
        return f"{quantity.plural(self.inputs, 'input')}, {labels.load_text(self.load)}"

    @property
    def receive_differs(self) -> bool:
        return len({entry.setting.receive for entry in self.entries}) > 1

    @property
    def name(self) -> str:
        """Unique on the page."""
        return self.scenario if self.number == 1 else f"{self.scenario}-{self.number}"


def groups(data: Dataset) -> list[Group]:
    """Each load that two strategies or variants of one had; the load of most strategies first."""
    records: list[Trial | ZeroLoss] = [*data.zero_losses, *data.trials]
    loads = grouped(
        (r for r in records if r.setting.strategy is not None),
        lambda r: (r.scenario, tuple(getattr(r.setting, name) for name in LOAD)),
    )
    found: list[Group] = []
    for (scenario, _), members in loads.items():
        cases = grouped(members, lambda r: r.case).values()
        entries = tuple(_entry(data, case) for case in cases)
        variants = {tuple(getattr(r.setting, name) for name in AXES) for r in members}
        if len(variants) > 1 and sum(entry.measured for entry in entries) > 1:
            number = 1 + sum(group.scenario == scenario for group in found)
            found.append(Group(scenario, members[0].setting, number, entries))
    return sorted(found, key=lambda group: -group.strategies)


def _entry(data: Dataset, records: Sequence[Trial | ZeroLoss]) -> Entry:
    """The entry of one case's records."""
    scenario, case = records[0].scenario, records[0].case
    searches = [r for r in records if isinstance(r, ZeroLoss)]
    trials = [r for r in records if isinstance(r, Trial)]
    found = max(searches, key=lambda z: z.lower_dps or 0, default=None)
    if found is not None:
        trials = [t for t in trials if t.setting.receive == found.setting.receive]
    footprints = [f for f in data.footprints if (f.scenario, f.case) == (scenario, case)]
    return Entry(
        case=case,
        setting=(found or records[0]).setting,
        found=found,
        footprint=footprints[-1] if footprints else None,
        trials=tuple([t for t in trials if t.validity != "invalid" or (t.load_share or 0) > 1] or trials),
    )


def table(group: Group) -> Table:
    """One row a strategy; columns without any figure are left out."""
    columns: Columns[Entry] = [
        (Column("Strategy"), lambda entry: _name(group, entry)),
        (number("Workers"), _workers),
        (number("Documented", "MB"), _memory("documented_bytes")),
        (number("Modelled", "MB"), _memory("modelled_bytes")),
        (number("Measured", "MB, no rings"), _measured_memory),
        (number("Zero-loss rate", "datagrams/s"), lambda entry: _rate(entry, group.receive_differs)),
        (number("Goodput", "of that rate, overloaded"), _goodput),
        (number("p50 / p99", "µs"), lambda entry: _latency(entry.latency)),
        (number("CPU", "µs a copy"), _cpu),
        (Column("Worker shares", "1 is even"), _shares),
        (number("Wrong worker", "datagrams"), _wrong_worker),
    ]
    empty = Cell(quantity.NONE)
    columns = [each for each in columns if any(cell(each[1](entry)) != empty for entry in group.entries)]
    caption = f"{group.scenario}: {group.load_text}"
    return build.table(f"strategies-{group.name}", caption, columns, group.entries, _notes)[0]


def _name(group: Group, entry: Entry) -> Cell:
    differs = entry.setting.inputs != group.inputs
    inputs = quantity.plural(entry.setting.inputs, "input") if differs else ""
    return Cell(entry.case, ", ".join(filter(None, (entry.strategy, inputs))))


def _notes(entry: Entry) -> tuple[str, ...]:
    copies = sum(t.streams.duplicated for t in entry.trials if t.streams is not None)
    return (f"{copies:,} copies beyond the first arrived in its trials.",) if copies else ()


def _workers(entry: Entry) -> Cell:
    number, footprint = entry.workers, entry.footprint
    differs = footprint is not None and footprint.workers != number
    detail = f"memory: of {footprint.workers:,}" if footprint is not None and differs else ""
    return Cell(quantity.count(number), detail)


def _memory(name: str) -> Callable[[Entry], str]:
    return lambda entry: quantity.megabytes(getattr(entry.footprint, name, None))


def _measured_memory(entry: Entry) -> Cell | None:
    if entry.footprint is None:
        return None
    rings = f"rings {quantity.megabytes(entry.footprint.memory.ring_bytes_total)}"
    doubts = verdicts.footprint_doubts(entry.footprint)
    return Cell(quantity.megabytes(verdicts.measured_bytes(entry.footprint)), rings, doubts)


def _rate(entry: Entry, show_receive: bool) -> Cell | None:
    found = entry.found
    if found is None:
        return None
    receive = labels.RECEIVE[found.setting.receive] if show_receive else ""
    text = verdicts.rate_or_none_found(found)
    return Cell(text, f"{verdicts.bound(found.bound_by)}{receive}", verdicts.distinct(found.warnings))


def _goodput(entry: Entry) -> Cell | None:
    """What was delivered of multiples of the zero-loss rate, and of which."""
    if not entry.overloads or entry.found is None or not entry.found.lower_dps:
        return None
    rate = entry.found.lower_dps
    shares = " / ".join(f"{t.goodput(rate):.2f}" for t in entry.overloads)
    return Cell(shares, f"at {' / '.join(f'{t.offered_dps / rate:.1f}' for t in entry.overloads)} ×")


def _latency(trial: Trial | None) -> Cell | None:
    if trial is None or trial.latency is None:
        return None
    text = f"{quantity.microseconds(trial.latency.p50)} / {quantity.microseconds(trial.latency.p99)}"
    return Cell(text, f"at {quantity.rate(trial.offered_dps)}/s", verdicts.trial_doubts(trial))


def _cpu(entry: Entry) -> Cell | None:
    trial = entry.cpu
    if trial is None or trial.cpu is None or trial.cpu.ns_per_copy is None:
        return None
    included = "" if trial.cpu.baseline_ns is not None else "with generator"
    detail = "\n".join(filter(None, (included, _elsewhere(entry, trial))))
    return Cell(f"{trial.cpu.ns_per_copy / quantity.NS_PER_US:.2f}", detail)


def _shares(entry: Entry) -> Cell | None:
    if entry.shared is None:
        return None
    detail = "\n".join(filter(None, (idle_workers(entry.shares), _elsewhere(entry, entry.shared))))
    return Cell(shares_text(entry.shares), detail)


def _wrong_worker(entry: Entry) -> Cell:
    return Cell(quantity.count(entry.wrong_worker), tone="bad" if entry.wrong_worker else "plain")


def _elsewhere(entry: Entry, trial: Trial) -> str:
    """The rate of the trial, where it is not the one with the latency."""
    return "" if trial is entry.latency else f"at {quantity.rate(trial.offered_dps)}/s"


def shares_text(shares: Sequence[float]) -> str:
    """``0.9 to 1.1``; the whole load of one worker is 1."""
    return "all by one" if len(shares) == 1 else f"{min(shares):.2f} to {max(shares):.2f}"


def idle_workers(shares: Sequence[float]) -> str:
    idle = shares.count(0)
    return f"{idle:,} of {len(shares):,} without any" if idle else ""
