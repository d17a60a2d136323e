"""What the figures mean, in words: verdicts, targets and doubts.

A verdict follows the interval, not the estimate: a ratio whose interval holds 1 shows no difference, whatever
its middle says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.results import Comparison, Footprint, Trial, ZeroLoss
from reports import labels, quantity
from reports.dataset import Dataset
from reports.labels import in_order
from reports.model import Tone
from reports.quantity import listed, plural

NAMED = 4
"""In the summary, more cases than this are told by their range, and more doubts by their number."""

AGREES = 0.05
"""Memory measured within this of a documented or modelled figure agrees with it."""

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


def at_least(found: ZeroLoss) -> str:
    """The zero-loss rate; ``≥`` where nothing was lost up to the generator's end."""
    return f"{'≥ ' if found.upper_dps is None else ''}{quantity.rate(found.lower_dps)}"


def bound(name: str) -> str:
    return BOUNDS.get(name, name)


# --------------------------------------------------------------------------------- verdicts and targets


def verdict(comparison: Comparison) -> Verdict:
    """What the run concluded of ``a`` against ``b``, or its interval says where it did not conclude.

    So few pairs as have no interval that can be trusted say nothing.
    """
    if comparison.pairs < DECIDING_PAIRS:
        return "undecided"
    if comparison.verdict is not None:
        return comparison.verdict
    if comparison.low <= 1 <= comparison.high:
        return "no difference"
    return "better" if (comparison.low > 1) == comparison.higher_is_better else "worse"


def visible(comparison: Comparison) -> str:
    """The smallest difference that could have been seen, ``3.2 %``; empty where that is not known."""
    return "" if comparison.detectable is None else quantity.percent(comparison.detectable)


def concluded(comparison: Comparison) -> str:
    """The verdict; of no difference, how large one might still be."""
    found, seen = verdict(comparison), visible(comparison)
    return f"{found} (of {seen} or more)" if found == "no difference" and seen else found


def verdict_tone(comparison: Comparison) -> Tone:
    """To be slower is not bad where a promise allows for it, and keeps it."""
    tones: dict[Verdict, Tone] = {"better": "good", "worse": "bad"}
    tone = tones.get(verdict(comparison), "plain")
    return "plain" if tone == "bad" and (aim := target(comparison)) is not None and aim.met else tone


def outcome_tone(comparison: Comparison) -> Tone:
    """Of a comparison as a whole: its promise decides; without one, its verdict."""
    aim = target(comparison)
    if aim is None:
        return verdict_tone(comparison)
    return "bad" if not aim.met else "good" if aim.sure else "plain"


@dataclass(frozen=True, slots=True)
class Target:
    """A promised ratio and what became of it. ``sure``: the whole interval says so."""

    met: bool
    sure: bool

    @property
    def words(self) -> str:
        answer = "met" if self.met else "not met"
        return answer if self.sure else f"{answer} by the estimate, undecided over the interval"


def target(comparison: Comparison) -> Target | None:
    if comparison.target is None:
        return None
    sign = 1 if comparison.higher_is_better else -1
    low, middle, high = sorted(
        sign * (value - comparison.target) for value in (comparison.low, comparison.ratio, comparison.high)
    )
    return Target(met=middle >= 0, sure=comparison.pairs > 1 and (low >= 0 or high < 0))


def promise(comparison: Comparison) -> str:
    """``at least 1.40×`` or ``at most 2.00×``."""
    if comparison.target is None:
        return quantity.NONE
    return f"{'at least' if comparison.higher_is_better else 'at most'} {quantity.ratio(comparison.target)} ×"


def measured(comparison: Comparison) -> str:
    """Ratio, interval and number of pairs."""
    if comparison.pairs < 2:
        return f"{quantity.ratio(comparison.ratio)} × (one pair, no interval)"
    return (
        f"{quantity.ratio(comparison.ratio)} × ({comparison.confidence:.0%} interval "
        f"{quantity.interval(comparison.low, comparison.high)}, {plural(comparison.pairs, 'pair')})"
    )


@dataclass(frozen=True, slots=True)
class Aim:
    """One promise beside what was measured."""

    what: str
    promised: str
    measured: str
    target: Target
    bound_by: str
    doubts: tuple[str, ...]
    trials: tuple[str, ...] = ()
    """Ids of the trials it was measured in; a footprint has none."""


def aims(data: Dataset) -> list[Aim]:
    """Every promise of the run, ratios first."""
    found = [
        Aim(
            f"{c.metric}, {labels.label(data, c)}",
            promise(c),
            measured(c),
            t,
            c.bound_by,
            own(c.warnings),
            tuple(c.trial_ids),
        )
        for c in data.comparisons
        if (t := target(c)) is not None
    ]
    for f in data.footprints:
        for p in promises(f):
            what, kept = f"{labels.label(data, f)}: {p.what}", Target(met=p.met, sure=True)
            doubts = footprint_doubts(f) if p.what == PRIVATE else own(f.warnings)
            found.append(Aim(what, f"at most {p.limit}", p.measured, kept, "", doubts))
    return found


READY, STOPPED, PRIVATE, IDLE = (
    "time to ready",
    "time to stop",
    "private memory of each",
    "idle processor time",
)
"""What a footprint may be promised."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What a footprint is held to: ``measured`` is at most ``limit``, or it is not; both with their unit."""

    what: str
    limit: str
    measured: str
    met: bool


def promises(f: Footprint) -> list[Promise]:
    """The targets that this footprint has and that something was measured for."""
    idle = idle_share(f)
    private = f.memory.private_bytes_per_worker
    figures: tuple[tuple[str, float | None, float | None, Callable[[float], str]], ...] = (
        (READY, f.ready_target_ns, f.ready_ns, lambda ns: f"{quantity.seconds(ns)} s"),
        (STOPPED, f.stop_target_ns, f.stopped_ns, lambda ns: f"{quantity.seconds(ns)} s"),
        (
            PRIVATE,
            f.private_target_bytes,
            private,
            lambda size: f"{quantity.megabytes(size)} MB",
        ),
        (IDLE, f.idle_target, idle, lambda share: f"{quantity.percent(share)} of a CPU"),
    )
    return [
        Promise(what, said(limit), said(seen), seen <= limit)
        for what, limit, seen, said in figures
        if limit is not None and seen is not None
    ]


def idle_share(f: Footprint) -> float | None:
    """CPUs that supervisor and workers keep busy without traffic: 0.01 is 1 % of one."""
    return f.idle_cpu_ns / f.idle_ns if f.idle_cpu_ns is not None and f.idle_ns else None


# ------------------------------------------------------------------------------------------------ doubts


def own(warnings: Iterable[str]) -> tuple[str, ...]:
    """The warnings of one record, without what :func:`oversubscribed` says once for all of them.

    Those that differ in nothing but their numbers are told once.
    """
    kinds: dict[str, list[str]] = {}
    for warning in in_order(warnings):
        if not _is_oversubscription(warning):
            kinds.setdefault(kind(warning), []).append(warning)
    return tuple(_told(texts) for texts in kinds.values())


def kind(doubt: str) -> str:
    """A doubt without its numbers."""
    return re.sub(r"[\d.,]*\d", "0", doubt)


def _told(alike: Sequence[str]) -> str:
    return alike[0] if len(alike) == 1 else f"{alike[0]} ({len(alike)} such)"


def _is_oversubscription(warning: str) -> bool:
    return "oversubscribed" in warning.lower()


def oversubscribed(data: Dataset) -> tuple[str, ...]:
    """Where workers outnumbered the CPUs: each warning once, with the cases that it stands at."""
    cases: dict[str, list[str]] = {}
    records: list[Trial | ZeroLoss | Comparison | Footprint] = [*data.footprints, *data.zero_losses]
    for record in (*records, *data.comparisons, *data.trials):
        for warning in filter(_is_oversubscription, record.warnings):
            cases.setdefault(warning, []).append(labels.label(data, record))
    found = []
    for warning, each in cases.items():
        names = in_order(each)
        where = listed(names) if len(names) <= NAMED else plural(len(names), "case")
        found.append(f"{where}: {warning}")
    return tuple(found)


def trial_doubts(trial: Trial) -> tuple[str, ...]:
    """Why a trial's figures deserve less trust; empty when they deserve it whole."""
    doubts = [*own(trial.warnings)]
    if not doubts and not trial.ledger.balanced:
        doubts = ["the ledger does not close"]
    if trial.validity != "valid":
        reason = f": {doubts[0]}" if doubts else ""
        doubts[:1] = [f"trial marked {trial.validity}{reason}"]
    return tuple(in_order(doubts))


def alike(trials: Sequence[Trial]) -> tuple[str, ...]:
    """The doubts of trials that differ in nothing but their numbers: the first one's, and how many."""
    doubts = trial_doubts(trials[0])
    return doubts if len(trials) == 1 else tuple(f"{doubt} ({len(trials):,} such)" for doubt in doubts)


def footprint_doubts(footprint: Footprint) -> tuple[str, ...]:
    doubts = [*own(footprint.warnings)]
    if footprint.memory.workers != footprint.workers:
        doubts.append(f"memory read from {footprint.memory.workers} of {footprint.workers} workers")
    return tuple(in_order(doubts))


def measured_bytes(footprint: Footprint) -> int:
    """Private memory of all workers and of the template they were forked from; rings not included."""
    return footprint.memory.private_bytes_per_worker * footprint.workers + footprint.memory.template_bytes


def shared(doubts: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """Doubts of many figures, told once each: ``(name, its doubts)`` in, sentences out.

    Names are left out where all share a doubt, and counted where they are many. Doubts that differ in nothing
    but their numbers are one.
    """
    kinds: dict[str, list[tuple[int, str, str]]] = {}
    for place, (name, each) in enumerate(doubts):
        for doubt in each:
            kinds.setdefault(kind(doubt), []).append((place, name, doubt))
    said = []
    for found in kinds.values():
        doubt = _told(in_order(doubt for _, _, doubt in found))
        number = len({place for place, _, _ in found})
        names = in_order(name for _, name, _ in found)
        if len(doubts) > 1 and number == len(doubts):
            said.append(f"all: {doubt}")
        elif len(names) > NAMED:
            said.append(f"{number} of {len(doubts)}: {doubt}")
        else:
            said.append(f"{listed(names)}: {doubt}")
    return tuple(said)


def discrepancies(footprint: Footprint) -> tuple[str, ...]:
    """The run's own, and by how much the measurement leaves the document and the model."""
    total = measured_bytes(footprint)
    found = list(footprint.discrepancies)
    for name, size in (("documented", footprint.documented_bytes), ("modelled", footprint.modelled_bytes)):
        if size and abs(total - size) > AGREES * size:
            found.append(
                f"{quantity.megabytes(total)} MB measured is {quantity.ratio(total / size)} × the "
                f"{quantity.megabytes(size)} MB {name}"
            )
    return tuple(found)


def group_doubts(trials: Sequence[Trial]) -> tuple[str, ...]:
    """The doubts of one figure made from several trials."""
    doubtful = [t for t in trials if trial_doubts(t)]
    if len(trials) == 1 or not doubtful:
        return tuple(doubt for t in doubtful for doubt in trial_doubts(t))
    first = trial_doubts(doubtful[0])[0]
    more = "" if len(doubtful) == 1 else "; the first"
    verb = "carries" if len(doubtful) == 1 else "carry"
    return (f"{len(doubtful)} of {len(trials)} trials {verb} a doubt{more}: {first}",)


def doubtful(data: Dataset) -> str:
    """How many records of each kind carry a doubt; empty when none does."""
    found = (
        (sum(bool(trial_doubts(t)) for t in data.trials), "trial"),
        (sum(bool(own(z.warnings)) for z in data.zero_losses), "zero-loss rate"),
        (sum(bool(own(c.warnings)) for c in data.comparisons), "comparison"),
        (sum(bool(footprint_doubts(f)) for f in data.footprints), "footprint"),
    )
    return listed([plural(number, noun) for number, noun in found if number])
