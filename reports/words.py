"""What the figures mean, in words: verdicts, targets, doubts, and the summary that opens the page.

Every sentence is made from records; none is written beforehand. A verdict follows the interval, not the
estimate: a ratio whose interval holds 1 shows no difference, whatever its middle says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from lab.results import Comparison, Footprint, Setting, Trial, ZeroLoss
from reports import quantity
from reports.dataset import Dataset
from reports.model import Point, Tone
from reports.quantity import listed, plural

NAMED = 4
"""In the summary, more cases than this are told by their range, and more doubts by their number."""

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


def doubtful_records(data: Dataset) -> int:
    return (
        sum(bool(trial_doubts(t)) for t in data.trials)
        + sum(bool(z.warnings) for z in data.zero_losses)
        + sum(bool(c.warnings) for c in data.comparisons)
        + sum(bool(footprint_doubts(f)) for f in data.footprints)
    )


# ----------------------------------------------------------------------------------------------- summary


def summary(data: Dataset) -> tuple[Point, ...]:
    """The page's first lines: outcome, comparisons, targets, rates, footprint, checks, ledger, doubts."""
    points = [outcome(data)]
    points += target_points(data.comparisons)
    points += comparison_points(data.comparisons)
    points += rate_points(data.zero_losses)
    points += footprint_points(data.footprints)
    points += check_points(data)
    points += ledger_points(data.trials)
    number = doubtful_records(data)
    if number:
        doubt = plural(number, "record carries a doubt", "records carry a doubt")
        points.append(Point("Doubts.", f"{doubt}; each is marked ⚠ where its figure stands."))
    return tuple(points)


def outcome(data: Dataset) -> Point:
    if data.run is None and data.empty:
        return Point("No results.", "The results file holds no record: nothing was measured.", "bad")
    which = f"The {data.run.profile} run" if data.run else "A run without its opening record"
    if data.ended is None:
        text = f"{which} was cut short and left no closing record; this page shows what it had measured."
        return Point("Incomplete.", text, "bad")
    if data.ended.outcome == "interrupted":
        return Point("Interrupted.", f"{which} was stopped; this page shows what it had measured.", "bad")
    if data.ended.outcome == "failed":
        failures = tuple(data.ended.failures) or ("no reason was recorded",)
        return Point("Failed.", f"{which} ended with failures:", "bad", items=failures)
    if data.empty:
        return Point("Empty.", f"{which} ended, but measured nothing.", "bad")
    return Point("Passed.", f"{which} ran to its end.", "good")


def comparison_points(comparisons: tuple[Comparison, ...]) -> list[Point]:
    """One statement a metric, pair of subjects and egress; one line a case."""
    groups = in_order((c.metric, c.a, c.b, c.setting.egress) for c in comparisons)
    points = []
    for metric, a, b, side in groups:
        group = [c for c in comparisons if (c.metric, c.a, c.b, c.setting.egress) == (metric, a, b, side)]
        verdicts = [verdict(c) for c in group]
        tally = listed([f"{v} in {verdicts.count(v)}" for v in in_order(verdicts)])
        tally = f" {tally} of {len(group)} cases." if len(group) > 1 else ""
        against = (
            f"{subject(a)} against {subject(b)}" if a != b else f"{subject(a)}, one case against another"
        )
        better = "more is better" if group[0].higher_is_better else "less is better"
        text = f"{against}, {egress(group[0].setting)}, {better}:{tally}"
        items = tuple(f"{c.case}: {measured(c)}, {verdict(c)}{bounded(c.bound_by)}" for c in group)
        if len(group) > NAMED:
            items = (spread(group),)
        tone: Tone = "bad" if "worse" in verdicts else "good" if set(verdicts) == {"better"} else "plain"
        lead = f"{metric[:1].upper()}{metric[1:]}."
        points.append(Point(lead, text, tone, shared([(c.case, c.warnings) for c in group]), items))
    return points


def spread(group: Sequence[Comparison]) -> str:
    """The ends of many ratios, and what bounded them."""
    least, most = min(group, key=lambda c: c.ratio), max(group, key=lambda c: c.ratio)
    limits = [bound(name) for name in in_order(c.bound_by for c in group) if name != "unknown"]
    by = f"; bounded by {listed(limits)}" if limits else ""
    return f"from {measured(least)} in {least.case} to {measured(most)} in {most.case}{by}"


def target_points(comparisons: tuple[Comparison, ...]) -> list[Point]:
    aimed = [(c, t) for c in comparisons if (t := target(c)) is not None]
    if not aimed:
        return []
    met = sum(t.met for _, t in aimed)
    rest = tuple(
        f"{c.metric}, {row_label(c)}: {promise(c)} promised, {quantity.ratio(c.ratio)} × measured: {t.words}"
        for c, t in aimed
        if not (t.met and t.sure)
    )
    text = f"{met} of {plural(len(aimed), 'promised ratio')} met."
    if rest:
        text += " Not met, or not beyond doubt:"
    return [Point("Targets.", text, "good" if met == len(aimed) else "bad", items=rest)]


def rate_points(zero_losses: tuple[ZeroLoss, ...]) -> list[Point]:
    """The highest zero-loss rate of each subject."""
    if not zero_losses:
        return []
    items, doubts = [], []
    for name in in_order(z.subject for z in zero_losses):
        found = [z for z in zero_losses if z.subject == name and z.lower_dps is not None]
        if not found:
            items.append(f"{subject(name)}: no rate met the goal in any case")
            continue
        best = max(found, key=lambda z: z.lower_dps or 0)
        least = "at least " if best.upper_dps is None else ""
        outputs = best.setting.outputs
        copies = f", {quantity.rate((best.lower_dps or 0) * outputs)} copies/s" if outputs > 1 else ""
        items.append(
            f"{steered(best)}: {least}{quantity.rate(best.lower_dps)} datagrams/s{copies} "
            f"({row_label(best)}){bounded(best.bound_by)}"
        )
        doubts += [f"{steered(best)}: {warning}" for warning in best.warnings]
    return [
        Point(
            "Highest rate without loss.", "By subject, over all cases:", "plain", tuple(doubts), tuple(items)
        )
    ]


def bounded(name: str) -> str:
    """The end of a sentence: what set the limit."""
    return "; what bounded it is not known" if name == "unknown" else f"; bounded by {bound(name)}"


def footprint_points(footprints: tuple[Footprint, ...]) -> list[Point]:
    if not footprints:
        return []
    items = []
    for f in footprints:
        documented = "not" if f.documented_bytes is None else f"{quantity.megabytes(f.documented_bytes)} MB"
        items.append(
            f"{f.case}: ready in {quantity.seconds(f.ready_ns)} s, "
            f"{quantity.megabytes(f.memory.private_bytes_per_worker)} MB private each; "
            f"in all {quantity.megabytes(measured_bytes(f))} MB measured without rings, "
            f"{quantity.megabytes(f.modelled_bytes)} MB modelled, {documented} documented"
        )
    doubts = shared([(f.case, footprint_doubts(f)) for f in footprints])
    return [Point("Footprint.", "Workers really started:", "plain", doubts, tuple(items))]


def check_points(data: Dataset) -> list[Point]:
    if not data.checks:
        return []
    failed = tuple(
        f"{c.case}: expected {c.expected}; observed {c.observed}" for c in data.checks if not c.passed
    )
    text = f"{len(data.checks) - len(failed)} of {plural(len(data.checks), 'check')} passed."
    if failed:
        text += " Failed:"
    return [Point("Function.", text, "bad" if failed else "good", items=failed)]


def ledger_points(trials: tuple[Trial, ...]) -> list[Point]:
    if not trials:
        return []
    open_ = [t for t in trials if not t.ledger.balanced]
    offered = quantity.count(sum(t.offered for t in trials))
    if open_:
        do = "does" if len(open_) == 1 else "do"
        text = f"{len(open_)} of {plural(len(trials), 'trial')} {do} not balance:"
        items = tuple(
            f"{t.scenario}, {t.case}, {steered(t)}, trial {t.trial_id}: "
            f"{t.ledger.ingress.unattributed:+,} datagrams, {t.ledger.egress.unattributed:+,} copies"
            for t in open_
        )
        return [Point("Ledger.", text, "bad", items=items)]
    every = f"All {len(trials)} trials balance" if len(trials) > 1 else "The one trial balances"
    text = f"{every} to the datagram: {offered} datagrams offered, each delivered or counted as a drop."
    wrong = {
        name: sum(getattr(t.streams, name) for t in trials if t.streams is not None)
        for name in ("duplicated", "reordered", "corrupted")
    }
    seen = [f"{quantity.count(number)} {name}" for name, number in wrong.items() if number]
    if any(t.streams is not None for t in trials):
        text += f" Receivers saw {listed(seen) if seen else 'none duplicated, reordered or corrupted'}."
    return [Point("Ledger.", text, "bad" if seen else "good")]
