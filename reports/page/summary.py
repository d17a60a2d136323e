"""The summary that opens the page; every sentence is made from records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lab.results import Comparison, Trial
from reports import labels, quantity, verdicts
from reports.dataset import Dataset
from reports.labels import unique
from reports.model import Point, Tone
from reports.quantity import capitalized, listed, plural
from reports.tables import strategies
from reports.tables.footprints import in_size_order

UNGROUPED = "ungrouped"
"""The steering without a fanout group: every worker forwards every datagram."""


def summary(data: Dataset) -> tuple[Point, ...]:
    failed = any(not check.passed for check in data.checks)
    return (
        outcome(data),
        *left_out_points(data),
        *(check_points(data) if failed else ()),
        *target_points(data),
        *strategy_points(data),
        *comparison_points(data),
        *inconclusive_points(data),
        *rate_points(data),
        *footprint_points(data),
        *(() if failed else check_points(data)),
        *ledger_points(data.trials),
        *oversubscription_points(data),
        *doubt_points(data),
    )


def outcome(data: Dataset) -> Point:
    if data.run is None and data.empty:
        return Point("No results.", "The results file holds no record: nothing was measured.", "bad")
    which = f"The {data.run.profile} run" if data.run else "A run without its opening record"
    if data.ended is None:
        text = (
            f"{which} has no closing record: it was cut short or is still running. This shows what there is."
        )
        return Point("Incomplete.", text, "bad")
    if data.ended.outcome == "interrupted":
        return Point("Interrupted.", f"{which} was stopped; this page shows what was finished.", "bad")
    if data.ended.outcome == "failed":
        failures = tuple(data.ended.failures) or ("no reason was recorded",)
        return Point("Failed.", f"{which} ended with failures:", "bad", items=failures)
    if data.empty:
        return Point("Empty.", f"{which} ended, but measured nothing.", "bad")
    return Point("Passed.", f"{which} ran to its end.", "good")


def left_out_points(data: Dataset) -> list[Point]:
    """Parts of the results file that are not on the page."""
    if not data.left_out:
        return []
    return [Point("Left out.", "The results file held more than could be used:", "bad", items=data.left_out)]


def comparison_points(data: Dataset) -> list[Point]:
    """One point a metric, pair of subjects and egress; one line a case."""
    groups: dict[tuple[str, str, str, str], list[Comparison]] = {}
    for c in data.comparisons:
        groups.setdefault((c.metric, c.a, c.b, c.setting.egress), []).append(c)
    points = []
    for (metric, a, b, _), group in groups.items():
        tally = listed([f"{v} in {n}" for v, n in Counter(map(verdicts.verdict, group)).items()])
        tally = f" {tally} of {len(group)} cases." if len(group) > 1 and a != b else ""
        other = f" against {labels.subject(b)}" if a != b else ", one case against another"
        better = "more is better" if group[0].higher_is_better else "less is better"
        text = f"{labels.subject(a)}{other}, {labels.egress(group[0].setting)}, {better}:{tally}"
        items = tuple(
            f"{labels.label(data, c)}: {verdicts.measured(c)}, {_outcome(c)}{bounded(c.bound_by)}"
            for c in group
        )
        if len(group) > verdicts.NAMED and a != b:
            items = (spread(data, group),)
        tones = {verdicts.outcome_tone(c) for c in group}
        tone: Tone = "bad" if "bad" in tones else "good" if tones == {"good"} else "plain"
        doubts = verdicts.merged([(labels.label(data, c), verdicts.distinct(c.warnings)) for c in group])
        points.append(Point(f"{capitalized(metric)}.", text, tone, doubts, items, "peer"))
    return points


def _outcome(c: Comparison) -> str:
    """The verdict; for two cases of one subject the target, as one may well be the slower."""
    target = verdicts.target(c)
    if target is None or c.a != c.b:
        return verdicts.concluded(c)
    return f"{verdicts.target_text(c)} promised: {target.outcome}"


def strategy_points(data: Dataset) -> list[Point]:
    """For each load the strategy with the highest rate, and the one with the least memory."""
    items = []
    for group in strategies.groups(data):
        rates = [e.found for e in group.entries if e.found and e.found.lower_dps is not None]
        parts = []
        if rates:
            best = verdicts.zero_loss_rate(max(rates, key=lambda z: z.lower_dps or 0))
            cases = listed([z.case for z in rates if verdicts.zero_loss_rate(z) == best])
            limited = sum(z.upper_dps is None for z in rates)  # these might go further
            why = f" (limited by the generator in {limited} of {len(rates)})" if limited else ""
            parts.append(f"highest rate without loss with {cases}, {best} datagrams/s{why}")
        held = [(verdicts.measured_bytes(e.footprint), e.case) for e in group.entries if e.footprint]
        if held:
            size, case = min(held)
            parts.append(f"least memory with {case}, {quantity.megabytes(size)} MB measured without rings")
        astray = [e.case for e in group.entries if e.wrong_worker]
        if astray:
            parts.append(f"datagrams at a wrong worker with {listed(astray)}")
        if parts:
            number = plural(len(group.entries), "case")
            items.append(f"{group.scenario}, {number}, {group.load_text}: {'; '.join(parts)}")
    return [Point("Strategies.", "On the same load:", items=tuple(items), see="strategies")] if items else []


def inconclusive_points(data: Dataset) -> list[Point]:
    """Comparisons that gave no ratio."""
    reasons = tuple(data.ended.inconclusive) if data.ended else ()
    if not reasons:
        return []
    text = f"{plural(len(reasons), 'comparison')} without a result; a resumed run tries again:"
    return [Point("Inconclusive.", text, "plain", items=reasons)]


def spread(data: Dataset, group: Sequence[Comparison]) -> str:
    """The ends of many ratios, and what bounded them."""
    least, most = min(group, key=lambda c: c.ratio), max(group, key=lambda c: c.ratio)
    limits = [verdicts.bound(name) for name in unique(c.bound_by for c in group) if name != "unknown"]
    by = f"; bounded by {listed(limits)}" if limits else ""
    low, high = labels.label(data, least), labels.label(data, most)
    return f"from {verdicts.measured(least)} in {low} to {verdicts.measured(most)} in {high}{by}"


def target_points(data: Dataset) -> list[Point]:
    found = verdicts.targets(data)
    if not found:
        return []
    met = sum(each.target.met for each in found)
    rest = tuple(
        f"{each.what}: {each.target.outcome}: {each.measured} against {each.wanted}"
        for each in sorted(found, key=lambda each: each.target.met)
        if not (each.target.met and each.target.sure)
    )
    text = f"{met} of {plural(len(found), 'target')} met."
    if rest:
        text += " Missed, or only probably met:"
    return [Point("Targets.", text, "good" if met == len(found) else "bad", items=rest, see="targets")]


def rate_points(data: Dataset) -> list[Point]:
    """The highest zero-loss rate of each subject."""
    zero_losses = data.zero_losses
    if not zero_losses:
        return []
    items, doubts = [], []
    for name in unique(z.subject for z in zero_losses):
        found = [z for z in zero_losses if z.subject == name and z.lower_dps is not None]
        if not found:
            items.append(f"{labels.subject(name)}: no rate met the goal in any case")
            continue
        best = max(found, key=lambda z: z.lower_dps or 0)
        least = "at least " if best.upper_dps is None else ""
        outputs = best.setting.outputs
        copies = f", {quantity.rate((best.lower_dps or 0) * outputs)} copies/s" if outputs > 1 else ""
        items.append(
            f"{labels.subject_with_rps(best)}: {least}{quantity.rate(best.lower_dps)} datagrams/s{copies} "
            f"({labels.label(data, best)}){bounded(best.bound_by)}"
        )
        doubts += [
            f"{labels.subject_with_rps(best)}: {warning}" for warning in verdicts.distinct(best.warnings)
        ]
    lead, text = "Highest rate without loss.", "By subject, over all cases:"
    return [Point(lead, text, "plain", tuple(doubts), tuple(items), "throughput")]


def bounded(name: str) -> str:
    return "; what bounded it is not known" if name == "unknown" else f"; bounded by {verdicts.bound(name)}"


def footprint_points(data: Dataset) -> list[Point]:
    """Every footprint, or the smallest and the largest of many."""
    footprints = in_size_order(data)
    if not footprints:
        return []
    shown = footprints if len(footprints) <= verdicts.NAMED else [footprints[0], footprints[-1]]
    items = []
    for f in shown:
        documented = "not" if f.documented_bytes is None else f"{quantity.megabytes(f.documented_bytes)} MB"
        items.append(
            f"{labels.label(data, f)}: ready in {quantity.seconds(f.ready_ns)} s, "
            f"{quantity.megabytes(f.memory.private_bytes_per_worker)} MB private each; "
            f"in all {quantity.megabytes(verdicts.measured_bytes(f))} MB measured without rings, "
            f"{quantity.megabytes(f.modelled_bytes)} MB modelled, {documented} documented"
        )
    least, most = footprints[0].workers, footprints[-1].workers
    text = "Workers really started:"
    if shown is not footprints:
        text = f"Workers really started, {least:,} to {most:,} at a time; the fewest and the most:"
    doubts = verdicts.merged([(labels.label(data, f), verdicts.footprint_doubts(f)) for f in footprints])
    return [Point("Footprint.", text, "plain", doubts, tuple(items), "memory")]


def check_points(data: Dataset) -> list[Point]:
    if not data.checks:
        return []
    failed = tuple(
        f"{c.scenario}, {c.case}: expected {c.expected}; observed {c.observed}"
        for c in data.checks
        if not c.passed
    )
    scenarios = unique(c.scenario for c in data.checks)
    among = f" in {plural(len(scenarios), 'scenario')}" if len(scenarios) > 1 else ""
    text = f"{len(data.checks) - len(failed)} of {plural(len(data.checks), 'check')}{among} passed."
    if failed:
        text += " Failed:"
    return [Point("Checks.", text, "bad" if failed else "good", items=failed, see="checks")]


def oversubscription_points(data: Dataset) -> list[Point]:
    """One point for all: it affects every figure of these cases."""
    items = verdicts.oversubscribed(data)
    if not items:
        return []
    text = "More workers than CPUs: rates, latency and start times are those of workers that share CPUs."
    return [Point("Oversubscribed.", text, items=items)]


def ledger_points(trials: tuple[Trial, ...]) -> list[Point]:
    if not trials:
        return []
    unbalanced = [t for t in trials if not t.ledger.balanced]
    offered = quantity.count(sum(t.offered for t in trials))
    if unbalanced:
        text = f"{len(unbalanced)} of {plural(len(trials), 'trial')} not balanced:"
        items = tuple(
            f"{t.scenario}, {t.case}, {labels.subject_with_rps(t)}, trial {t.trial_id}: "
            f"{t.ledger.ingress.unattributed:+,} datagrams, {t.ledger.egress.unattributed:+,} copies"
            for t in unbalanced
        )
        return [Point("Ledger.", text, "bad", items=items, see="ledger")]
    every = f"All {len(trials)} trials balance" if len(trials) > 1 else "The one trial balances"
    text = f"{every} to the datagram: {offered} datagrams offered, each delivered or counted as a drop."
    wrong = {
        name: sum(getattr(t.streams, name) for t in trials if t.streams is not None)
        for name in ("duplicated", "reordered", "corrupted")
    }
    meant = sum(t.streams.duplicated for t in trials if t.streams and t.setting.steering == UNGROUPED)
    seen = [f"{quantity.count(number)} {name}" for name, number in wrong.items() if number]
    if any(t.streams is not None for t in trials):
        text += f" Receivers saw {listed(seen) if seen else 'none duplicated, reordered or corrupted'}."
    if meant:
        text += f" Of the duplicated, {quantity.count(meant)} are due to workers that share no fanout group."
    unmeant = wrong["duplicated"] - meant or wrong["reordered"] or wrong["corrupted"]
    return [Point("Ledger.", text, "bad" if unmeant else "plain" if meant else "good", see="ledger")]


def doubt_points(data: Dataset) -> list[Point]:
    found = [plural(number, noun) for noun, number in verdicts.doubtful_records(data).items() if number]
    return [Point("Doubts.", f"{listed(found)}: each is marked ⚠ beside its figure.")] if found else []
