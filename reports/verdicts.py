"""What the figures mean: verdicts, targets and doubts.

A verdict follows the interval, not the estimate: a ratio whose interval includes 1 shows no difference.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from lab.results import Check, Comparison, Footprint, Trial, ZeroLoss
from reports import labels, quantity
from reports.dataset import Dataset, grouped
from reports.labels import unique
from reports.model import Tone
from reports.quantity import listed, plural

NAMED = 4
"""The summary gives more cases than this as a range, and more doubts as a number."""
AGREES = 0.05
"""Largest relative difference at which measured memory agrees with a documented or modelled figure."""
DECIDING_PAIRS = 6
"""With fewer, the bootstrap interval excludes 1 too often for equal subjects: see `lab.analysis.compare`."""

Verdict = Literal["better", "worse", "no difference", "undecided"]

BOUNDS = {
    "generator": "the generator",
    "forwarder": "the forwarder",
    "receiver": "the receivers",
    "asked": "the rate asked for",
    "unknown": "not known",
}


def zero_loss_rate(found: ZeroLoss) -> str:
    """``358,400``, or ``≥ 358,400`` where the generator was the limit."""
    return f"{'≥ ' if found.upper_dps is None else ''}{quantity.rate(found.lower_dps)}"


def rate_or_none_found(found: ZeroLoss) -> str:
    return "none found" if found.lower_dps is None else zero_loss_rate(found)


def bound(name: str) -> str:
    return BOUNDS.get(name, name)


def verdict(comparison: Comparison) -> Verdict:
    """The run's verdict on ``a`` against ``b``, or what its interval says; undecided with too few pairs."""
    if comparison.pairs < DECIDING_PAIRS:
        return "undecided"
    if comparison.verdict is not None:
        return comparison.verdict
    if comparison.low <= 1 <= comparison.high:
        return "no difference"
    return "better" if (comparison.low > 1) == comparison.higher_is_better else "worse"


def smallest_visible(comparison: Comparison) -> str:
    """The smallest difference that would have been seen, ``3.2 %``; empty where it is not known."""
    return "" if comparison.detectable is None else quantity.percent(comparison.detectable)


def concluded(comparison: Comparison) -> str:
    """The verdict; for no difference, how large one might still be."""
    found, smallest = verdict(comparison), smallest_visible(comparison)
    return f"{found} (of {smallest} or more)" if found == "no difference" and smallest else found


def verdict_tone(comparison: Comparison) -> Tone:
    """The verdict's colour; being slower is not bad where a target allows for it and is met."""
    found, goal = verdict(comparison), target(comparison)
    if found == "worse":
        return "plain" if goal is not None and goal.met else "bad"
    return "good" if found == "better" else "plain"


def outcome_tone(comparison: Comparison) -> Tone:
    """The colour of a whole comparison: its target decides, or its verdict where it has none."""
    goal = target(comparison)
    if goal is None:
        return verdict_tone(comparison)
    return "bad" if not goal.met else "good" if goal.sure else "plain"


@dataclass(frozen=True, slots=True)
class Target:
    """Whether a target was met. ``sure``: the whole interval says so, not only the estimate."""

    met: bool
    sure: bool

    @property
    def outcome(self) -> str:
        return f"{'' if self.sure else 'probably '}{'met' if self.met else 'missed'}"


def target(comparison: Comparison) -> Target | None:
    if comparison.target is None:
        return None
    sign = 1 if comparison.higher_is_better else -1
    figures = (comparison.low, comparison.ratio, comparison.high)
    low, middle, high = sorted(sign * (value - comparison.target) for value in figures)
    return Target(met=middle >= 0, sure=comparison.pairs > 1 and (low >= 0 or high < 0))


def target_text(comparison: Comparison) -> str:
    """``at least 1.40×`` or ``at most 2.00×``."""
    if comparison.target is None:
        return quantity.NONE
    return f"{'at least' if comparison.higher_is_better else 'at most'} {quantity.ratio(comparison.target)} ×"


def measured(comparison: Comparison) -> str:
    """``1.42 × (95 % interval 1.35 to 1.51, 8 pairs)``."""
    interval = quantity.interval(comparison.low, comparison.high)
    how = f"{quantity.percent(comparison.confidence)} interval {interval}, {plural(comparison.pairs, 'pair')}"
    known = how if comparison.pairs > 1 else "one pair, no interval"
    return f"{quantity.ratio(comparison.ratio)} × ({known})"


@dataclass(frozen=True, slots=True)
class MeasuredTarget:
    """One target of the run and the measurement that decides it."""

    what: str
    wanted: str
    measured: str
    target: Target
    doubts: tuple[str, ...]
    bound_by: str = ""
    trial_ids: tuple[str, ...] = ()
    """Empty for a footprint."""


def targets(data: Dataset) -> list[MeasuredTarget]:
    """Every target of the run, those of comparisons first."""
    found = []
    for c in data.comparisons:
        if (goal := target(c)) is not None:
            what, doubts = f"{c.figure}, {labels.label(data, c)}", distinct(c.warnings)
            figures = (what, target_text(c), measured(c), goal, doubts)
            found.append(MeasuredTarget(*figures, c.bound_by, tuple(c.trial_ids)))
    for f in data.footprints:
        for each in footprint_targets(f):
            what, limit = f"{labels.label(data, f)}: {each.what}", f"at most {each.limit}"
            doubts = footprint_doubts(f) if each.what == PRIVATE else distinct(f.warnings)
            found.append(MeasuredTarget(what, limit, each.measured, Target(each.met, True), doubts))
    return found


def checks(data: Dataset, aims: bool = False) -> list[Check]:
    """What must be so, or with ``aims`` what is only hoped for."""
    return [check for check in data.checks if check.aim == aims]


READY, STOPPED = "time to ready", "time to stop"
PRIVATE, IDLE = "private memory of each", "idle processor time"


@dataclass(frozen=True, slots=True)
class FootprintTarget:
    """Met where ``measured`` is at most ``limit``; both are texts with their unit."""

    what: str
    limit: str
    measured: str
    met: bool


def footprint_targets(f: Footprint) -> list[FootprintTarget]:
    """The footprint's targets for which something was measured."""

    def seconds(ns: float) -> str:
        return f"{quantity.seconds(ns)} s"

    private = f.memory.private_bytes_per_worker
    figures: tuple[tuple[str, float | None, float | None, Callable[[float], str]], ...] = (
        (READY, f.ready_target_ns, f.ready_ns, seconds),
        (STOPPED, f.stop_target_ns, f.stopped_ns, seconds),
        (PRIVATE, f.private_target_bytes, private, lambda size: f"{quantity.megabytes(size)} MB"),
        (IDLE, f.idle_target, idle_share(f), lambda share: f"{quantity.percent(share)} of a CPU"),
    )
    return [
        FootprintTarget(what, text(limit), text(seen), seen <= limit)
        for what, limit, seen, text in figures
        if limit is not None and seen is not None
    ]


def idle_share(f: Footprint) -> float | None:
    """Processor time of supervisor and workers without traffic, in CPUs."""
    return f.idle_cpu_ns / f.idle_ns if f.idle_cpu_ns is not None and f.idle_ns else None


def distinct(warnings: Iterable[str]) -> tuple[str, ...]:
    """A record's warnings, similar ones as one; without what :func:`oversubscribed` says for all records."""
    own = (warning for warning in unique(warnings) if not _is_oversubscription(warning))
    return tuple(map(_with_count, grouped(own, without_numbers).values()))


def without_numbers(doubt: str) -> str:
    """Similar doubts, which differ in their numbers only, are equal without them."""
    return re.sub(r"[\d.,]*\d", "0", doubt)


def _with_count(similar: Sequence[str]) -> str:
    return similar[0] if len(similar) == 1 else f"{similar[0]} ({len(similar)} such)"


def _is_oversubscription(warning: str) -> bool:
    return "oversubscribed" in warning.lower()


def oversubscribed(data: Dataset) -> tuple[str, ...]:
    """Each warning of more workers than CPUs once, with its cases."""
    records: list[Trial | ZeroLoss | Comparison | Footprint] = [*data.footprints, *data.zero_losses]
    records += [*data.comparisons, *data.trials]
    said = ((w, labels.label(data, r)) for r in records for w in filter(_is_oversubscription, r.warnings))
    found = []
    for warning, each in grouped(said, itemgetter(0)).items():
        names = unique(name for _, name in each)
        where = listed(names) if len(names) <= NAMED else plural(len(names), "case")
        found.append(f"{where}: {warning}")
    return tuple(found)


def trial_doubts(trial: Trial) -> tuple[str, ...]:
    """Why a trial's figures deserve less trust."""
    doubts = [*distinct(trial.warnings)]
    if not doubts and not trial.ledger.balanced:
        doubts = ["the ledger is not balanced"]
    if trial.validity != "valid":
        reason = f": {doubts[0]}" if doubts else ""
        doubts[:1] = [f"trial marked {trial.validity}{reason}"]
    return tuple(unique(doubts))


def counted_doubts(trials: Sequence[Trial]) -> tuple[str, ...]:
    """The doubts of similar trials: the first one's, with the number of trials."""
    doubts = trial_doubts(trials[0])
    return doubts if len(trials) == 1 else tuple(f"{doubt} ({len(trials):,} such)" for doubt in doubts)


def footprint_doubts(footprint: Footprint) -> tuple[str, ...]:
    doubts, read = distinct(footprint.warnings), footprint.memory.workers
    if read == footprint.workers:
        return doubts
    return (*doubts, f"memory read from {read} of {footprint.workers} workers")


def measured_bytes(footprint: Footprint) -> int:
    """Private memory of all workers and of the template they were forked from, without rings."""
    return footprint.memory.private_bytes_per_worker * footprint.workers + footprint.memory.template_bytes


def merged(doubts: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """Each doubt of many figures ``(name, doubts)`` once, similar ones as one, with the names or number."""
    each = ((place, name, doubt) for place, (name, own) in enumerate(doubts) for doubt in own)
    said = []
    for found in grouped(each, lambda one: without_numbers(one[2])).values():
        doubt = _with_count(unique(doubt for _, _, doubt in found))
        number = len({place for place, _, _ in found})
        names = unique(name for _, name, _ in found)
        if len(doubts) > 1 and number == len(doubts):
            said.append(f"all: {doubt}")
        elif len(names) > NAMED:
            said.append(f"{number} of {len(doubts)}: {doubt}")
        else:
            said.append(f"{listed(names)}: {doubt}")
    return tuple(said)


def discrepancies(footprint: Footprint) -> tuple[str, ...]:
    """The run's own discrepancies, and how far the measurement is from the document and the model."""
    total = measured_bytes(footprint)
    found = [*footprint.discrepancies]
    for name, size in (("documented", footprint.documented_bytes), ("modelled", footprint.modelled_bytes)):
        if size and abs(total - size) > AGREES * size:
            ours, theirs = quantity.megabytes(total), quantity.megabytes(size)
            found.append(f"{ours} MB measured is {quantity.ratio(total / size)} × the {theirs} MB {name}")
    return tuple(found)


def group_doubts(trials: Sequence[Trial]) -> tuple[str, ...]:
    """The doubts of one figure made from several trials."""
    doubts = [found for t in trials if (found := trial_doubts(t))]
    if len(trials) == 1 or not doubts:
        return doubts[0] if doubts else ()
    verb, first = ("carries", "") if len(doubts) == 1 else ("carry", "; the first")
    return (f"{len(doubts)} of {len(trials)} trials {verb} a doubt{first}: {doubts[0][0]}",)


def doubtful_records(data: Dataset) -> dict[str, int]:
    """How many records of each kind carry a doubt."""
    return {
        "trial": sum(bool(trial_doubts(t)) for t in data.trials),
        "zero-loss rate": sum(bool(distinct(z.warnings)) for z in data.zero_losses),
        "comparison": sum(bool(distinct(c.warnings)) for c in data.comparisons),
        "footprint": sum(bool(footprint_doubts(f)) for f in data.footprints),
    }
