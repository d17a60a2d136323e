"""What the figures mean, in words: names, verdicts, targets and doubts.

A verdict follows the interval, not the estimate: a ratio whose interval holds 1 shows no difference, whatever
its middle says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from lab.results import Comparison, Footprint, Setting, Trial, ZeroLoss
from reports import quantity
from reports.dataset import Dataset
from reports.model import Tone
from reports.quantity import listed, plural

NAMED = 4
"""In the summary, more cases than this are told by their range, and more doubts by their number."""

AGREES = 0.05
"""Memory measured within this of a documented or modelled figure agrees with it."""

Record = TypeVar("Record")
Verdict = Literal["better", "worse", "no difference", "undecided"]

SUBJECTS = {"none": "generator alone", "kernel": "kernel routing"}
BOUNDS = {
    "generator": "the generator",
    "forwarder": "the forwarder",
    "receiver": "the receivers",
    "asked": "the rate asked for",
    "unknown": "not known",
}


def subject(name: str) -> str:
    return SUBJECTS.get(name, name)


def steered(record: Trial | ZeroLoss) -> str:
    """The subject, and whether receive packet steering spread its input over the CPUs."""
    return f"{subject(record.subject)}{', RPS on' if record.setting.rps else ''}"


def compared(data: Dataset, comparison: Comparison) -> str:
    """``a / b`` with the steering that each side had in its trials."""
    trials = [t for t in data.trials if t.trial_id in comparison.trial_ids]

    def side(name: str) -> str:
        steerings = {t.setting.rps for t in trials if t.subject == name}
        return f"{subject(name)}{', RPS on' if steerings == {True} else ''}"

    return f"{side(comparison.a)} / {side(comparison.b)}"


def bound(name: str) -> str:
    return BOUNDS.get(name, name)


def egress(setting: Setting) -> str:
    return "wire-like" if setting.egress == "wire-like" else "offloads on"


def row_label(record: Trial | ZeroLoss | Comparison) -> str:
    """The case, and its egress where that is not the usual one and the case does not say so itself."""
    if record.setting.egress == "wire-like" or "offload" in record.case.lower():
        return record.case
    return f"{record.case}, offloads on"


def in_order(items: Iterable[Record]) -> list[Record]:
    """Each item once, where it first appeared: tables follow the run."""
    return list(dict.fromkeys(items))


# --------------------------------------------------------------------------------- verdicts and targets


def verdict(comparison: Comparison) -> Verdict:
    """What the interval says of ``a`` against ``b``; one pair has no interval, so it says nothing."""
    if comparison.pairs < 2:
        return "undecided"
    if comparison.low <= 1 <= comparison.high:
        return "no difference"
    return "better" if (comparison.low > 1) == comparison.higher_is_better else "worse"


def verdict_tone(comparison: Comparison) -> Tone:
    tones: dict[Verdict, Tone] = {"better": "good", "worse": "bad"}
    return tones.get(verdict(comparison), "plain")


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


def aims(data: Dataset) -> list[Aim]:
    """Every promise of the run, ratios first."""
    found = [
        Aim(f"{c.metric}, {row_label(c)}", promise(c), measured(c), t, c.bound_by, tuple(c.warnings))
        for c in data.comparisons
        if (t := target(c)) is not None
    ]
    for f in data.footprints:
        if f.ready_target_ns is not None:
            what, promised = f"{f.case}: time to ready", f"at most {quantity.seconds(f.ready_target_ns)} s"
            kept = Target(met=f.ready_ns <= f.ready_target_ns, sure=True)
            seen = f"{quantity.seconds(f.ready_ns)} s"
            found.append(Aim(what, promised, seen, kept, "", tuple(f.warnings)))
        if f.private_target_bytes is not None:
            private = f.memory.private_bytes_per_worker
            what = f"{f.case}: private memory of each"
            kept = Target(met=private <= f.private_target_bytes, sure=True)
            promised = f"at most {quantity.megabytes(f.private_target_bytes)} MB"
            seen = f"{quantity.megabytes(private)} MB"
            found.append(Aim(what, promised, seen, kept, "", footprint_doubts(f)))
    return found


# ------------------------------------------------------------------------------------------------ doubts


def trial_doubts(trial: Trial) -> tuple[str, ...]:
    """Why a trial's figures deserve less trust; empty when they deserve it whole."""
    doubts = list(trial.warnings)
    if not doubts and not trial.ledger.balanced:
        doubts = ["the ledger does not close"]
    if trial.validity != "valid":
        reason = f": {doubts[0]}" if doubts else ""
        doubts[:1] = [f"trial marked {trial.validity}{reason}"]
    return tuple(in_order(doubts))


def footprint_doubts(footprint: Footprint) -> tuple[str, ...]:
    doubts = list(footprint.warnings)
    if footprint.memory.workers != footprint.workers:
        doubts.append(f"memory read from {footprint.memory.workers} of {footprint.workers} workers")
    return tuple(in_order(doubts))


def measured_bytes(footprint: Footprint) -> int:
    """Private memory of all workers and of the template they were forked from; rings not included."""
    return footprint.memory.private_bytes_per_worker * footprint.workers + footprint.memory.template_bytes


def shared(doubts: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """Doubts of many figures, told once each: ``(name, its doubts)`` in, sentences out.

    Names are left out where all share a doubt, and counted where they are many.
    """
    said = []
    for doubt in in_order(d for _, each in doubts for d in each):
        names = in_order(name for name, each in doubts if doubt in each)
        if len(doubts) > 1 and all(doubt in each for _, each in doubts):
            said.append(f"all: {doubt}")
        elif len(names) > NAMED:
            said.append(f"{len(names)} of {len(doubts)}: {doubt}")
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
        (sum(bool(z.warnings) for z in data.zero_losses), "zero-loss rate"),
        (sum(bool(c.warnings) for c in data.comparisons), "comparison"),
        (sum(bool(footprint_doubts(f)) for f in data.footprints), "footprint"),
    )
    return listed([plural(number, noun) for number, noun in found if number])
