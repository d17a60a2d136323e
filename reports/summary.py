"""The summary that opens the page: outcome, targets, comparisons, rates, footprint, checks, ledger, doubts.

Every sentence is made from records; none is written beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.results import Comparison, Footprint, Trial, ZeroLoss
from reports import quantity, words
from reports.dataset import Dataset
from reports.model import Point, Tone
from reports.quantity import listed, plural
from reports.words import in_order


def summary(data: Dataset) -> tuple[Point, ...]:
    points = [outcome(data)]
    points += target_points(data)
    points += comparison_points(data.comparisons)
    points += inconclusive_points(data)
    points += rate_points(data.zero_losses)
    points += footprint_points(data.footprints)
    points += check_points(data)
    points += ledger_points(data.trials)
    if doubtful := words.doubtful(data):
        points.append(Point("Doubts.", f"{doubtful}: each is marked ⚠ where its figure stands."))
    return tuple(points)


def outcome(data: Dataset) -> Point:
    if data.run is None and data.empty:
        return Point("No results.", "The results file holds no record: nothing was measured.", "bad")
    which = f"The {data.run.profile} run" if data.run else "A run without its opening record"
    if data.ended is None:
        text = f"{which} has no closing record: it was cut short, or still goes on. This shows what there is."
        return Point("Incomplete.", text, "bad")
    if data.ended.outcome == "interrupted":
        return Point("Interrupted.", f"{which} was stopped; this page shows what was finished.", "bad")
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
        verdicts = [words.verdict(c) for c in group]
        tally = listed([f"{v} in {verdicts.count(v)}" for v in in_order(verdicts)])
        tally = f" {tally} of {len(group)} cases." if len(group) > 1 else ""
        other = f" against {words.subject(b)}" if a != b else ", one case against another"
        better = "more is better" if group[0].higher_is_better else "less is better"
        text = f"{words.subject(a)}{other}, {words.egress(group[0].setting)}, {better}:{tally}"
        items = tuple(
            f"{c.case}: {words.measured(c)}, {words.verdict(c)}{bounded(c.bound_by)}" for c in group
        )
        if len(group) > words.NAMED:
            items = (spread(group),)
        tone: Tone = "bad" if "worse" in verdicts else "good" if set(verdicts) == {"better"} else "plain"
        lead = f"{metric[:1].upper()}{metric[1:]}."
        points.append(Point(lead, text, tone, words.shared([(c.case, c.warnings) for c in group]), items))
    return points


def inconclusive_points(data: Dataset) -> list[Point]:
    """Comparisons that the run tried and got no ratio from."""
    reasons = tuple(data.ended.inconclusive) if data.ended else ()
    if not reasons:
        return []
    text = f"{plural(len(reasons), 'comparison')} came to nothing; a resumed run tries again:"
    return [Point("Inconclusive.", text, "plain", items=reasons)]


def spread(group: Sequence[Comparison]) -> str:
    """The ends of many ratios, and what bounded them."""
    least, most = min(group, key=lambda c: c.ratio), max(group, key=lambda c: c.ratio)
    limits = [words.bound(name) for name in in_order(c.bound_by for c in group) if name != "unknown"]
    by = f"; bounded by {listed(limits)}" if limits else ""
    return f"from {words.measured(least)} in {least.case} to {words.measured(most)} in {most.case}{by}"


def target_points(data: Dataset) -> list[Point]:
    found = words.aims(data)
    if not found:
        return []
    met = sum(aim.target.met for aim in found)
    rest = tuple(
        f"{aim.what}: {aim.promised} promised, {aim.measured} measured: {aim.target.words}"
        for aim in found
        if not (aim.target.met and aim.target.sure)
    )
    text = f"{met} of {plural(len(found), 'target')} met."
    if rest:
        text += " Not met, or not beyond doubt:"
    return [Point("Targets.", text, "good" if met == len(found) else "bad", items=rest)]


def rate_points(zero_losses: tuple[ZeroLoss, ...]) -> list[Point]:
    """The highest zero-loss rate of each subject."""
    if not zero_losses:
        return []
    items, doubts = [], []
    for name in in_order(z.subject for z in zero_losses):
        found = [z for z in zero_losses if z.subject == name and z.lower_dps is not None]
        if not found:
            items.append(f"{words.subject(name)}: no rate met the goal in any case")
            continue
        best = max(found, key=lambda z: z.lower_dps or 0)
        least = "at least " if best.upper_dps is None else ""
        outputs = best.setting.outputs
        copies = f", {quantity.rate((best.lower_dps or 0) * outputs)} copies/s" if outputs > 1 else ""
        items.append(
            f"{words.steered(best)}: {least}{quantity.rate(best.lower_dps)} datagrams/s{copies} "
            f"({words.row_label(best)}){bounded(best.bound_by)}"
        )
        doubts += [f"{words.steered(best)}: {warning}" for warning in best.warnings]
    return [
        Point(
            "Highest rate without loss.", "By subject, over all cases:", "plain", tuple(doubts), tuple(items)
        )
    ]


def bounded(name: str) -> str:
    """The end of a sentence: what set the limit."""
    return "; what bounded it is not known" if name == "unknown" else f"; bounded by {words.bound(name)}"


def footprint_points(footprints: tuple[Footprint, ...]) -> list[Point]:
    if not footprints:
        return []
    items = []
    for f in footprints:
        documented = "not" if f.documented_bytes is None else f"{quantity.megabytes(f.documented_bytes)} MB"
        items.append(
            f"{f.case}: ready in {quantity.seconds(f.ready_ns)} s, "
            f"{quantity.megabytes(f.memory.private_bytes_per_worker)} MB private each; "
            f"in all {quantity.megabytes(words.measured_bytes(f))} MB measured without rings, "
            f"{quantity.megabytes(f.modelled_bytes)} MB modelled, {documented} documented"
        )
    doubts = words.shared([(f.case, words.footprint_doubts(f)) for f in footprints])
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
            f"{t.scenario}, {t.case}, {words.steered(t)}, trial {t.trial_id}: "
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
