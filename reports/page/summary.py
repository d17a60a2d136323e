"""The summary that opens the page; every sentence is made from records."""

from collections import Counter
from collections.abc import Iterator, Sequence

from lab.results import Comparison, Trial
from reports import labels, quantity, verdicts
from reports.dataset import Dataset, grouped
from reports.labels import unique
from reports.model import Point, Tone
from reports.quantity import capitalized, listed, plural
from reports.tables import strategies
from reports.tables.footprints import in_size_order

UNGROUPED = "ungrouped"
"""The steering without a fanout group: every worker forwards every datagram."""


def summary(data: Dataset) -> tuple[Point, ...]:
    parts = [left_out_points, target_points, strategy_points, comparison_points, inconclusive_points]
    parts += [rate_points, footprint_points, ledger_points, oversubscription_points, doubt_points]
    failed = any(not check.passed for check in verdicts.checks(data))
    parts.insert(parts.index(target_points) if failed else parts.index(ledger_points), check_points)
    return (outcome(data), *(point for part in parts for point in part(data)))


def outcome(data: Dataset) -> Point:
    if data.run is None and data.empty:
        return Point("No results.", "The results file holds no record: nothing was measured.", "bad")
    which = f"The {data.run.profile} run" if data.run else "A run without its opening record"
    if data.ended is None:
        text = "has no closing record: it was cut short or is still running. This shows what there is."
        return Point("Incomplete.", f"{which} {text}", "bad")
    if data.ended.outcome == "interrupted":
        return Point("Interrupted.", f"{which} was stopped; this page shows what was finished.", "bad")
    if data.ended.outcome == "failed":
        failures = tuple(data.ended.failures) or ("no reason was recorded",)
        return Point("Failed.", f"{which} ended with failures:", "bad", items=failures)
    if data.empty:
        return Point("Empty.", f"{which} ended, but measured nothing.", "bad")
    return Point("Passed.", f"{which} ran to its end.", "good")


def left_out_points(data: Dataset) -> Iterator[Point]:
    """Parts of the results file that are not on the page."""
    if data.left_out:
        yield Point("Left out.", "The results file held more than could be used:", "bad", (), data.left_out)


def comparison_points(data: Dataset) -> Iterator[Point]:
    """One point a metric, pair of subjects and egress; one line a case."""
    groups = grouped(data.comparisons, lambda c: (c.figure, c.a, c.b, c.setting.egress))
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
        yield Point(f"{capitalized(metric)}.", text, tone, doubts, items, "peer")


def _outcome(c: Comparison) -> str:
    """The verdict; for two cases of one subject the target, as one may well be the slower."""
    target = verdicts.target(c)
    if target is None or c.a != c.b:
        return verdicts.concluded(c)
    return f"{verdicts.target_text(c)} promised: {target.outcome}"


def strategy_points(data: Dataset) -> Iterator[Point]:
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
        if astray := [e.case for e in group.entries if e.wrong_worker]:
            parts.append(f"datagrams at a wrong worker with {listed(astray)}")
        if parts:
            number = plural(len(group.entries), "case")
            items.append(f"{group.scenario}, {number}, {group.load_text}: {'; '.join(parts)}")
    if items:
        yield Point("Strategies.", "On the same load:", items=tuple(items), see="strategies")


def inconclusive_points(data: Dataset) -> Iterator[Point]:
    """Comparisons that gave no ratio."""
    if data.ended and data.ended.inconclusive:
        reasons = tuple(data.ended.inconclusive)
        text = f"{plural(len(reasons), 'comparison')} without a result; a resumed run tries again:"
        yield Point("Inconclusive.", text, items=reasons)


def spread(data: Dataset, group: Sequence[Comparison]) -> str:
    """The ends of many ratios, and what bounded them."""
    least, most = min(group, key=lambda c: c.ratio), max(group, key=lambda c: c.ratio)
    limits = [verdicts.bound(name) for name in unique(c.bound_by for c in group) if name != "unknown"]
    by = f"; bounded by {listed(limits)}" if limits else ""
    low, high = labels.label(data, least), labels.label(data, most)
    return f"from {verdicts.measured(least)} in {low} to {verdicts.measured(most)} in {high}{by}"


def target_points(data: Dataset) -> Iterator[Point]:
    found = sorted(verdicts.targets(data), key=lambda each: each.target.met)
    if not found:
        return
    met = sum(each.target.met for each in found)
    rest = tuple(
        f"{each.what}: {each.target.outcome}: {each.measured} against {each.wanted}"
        for each in found
        if not (each.target.met and each.target.sure)
    )
    text = f"{met} of {plural(len(found), 'target')} met."
    text += " Missed, or only probably met:" if rest else ""
    yield Point("Targets.", text, "good" if met == len(found) else "bad", items=rest, see="targets")


def rate_points(data: Dataset) -> Iterator[Point]:
    """The highest zero-loss rate of each subject."""
    items: list[str] = []
    doubts: list[str] = []
    for name, searches in grouped(data.zero_losses, lambda z: z.subject).items():
        best = max(searches, key=lambda z: z.lower_dps or -1)
        if best.lower_dps is None:
            items.append(f"{labels.subject(name)}: no rate met the goal in any case")
            continue
        subject, outputs = labels.subject_with_receive(best), best.setting.outputs
        least = "at least " if best.upper_dps is None else ""
        copies = f", {quantity.rate(best.lower_dps * outputs)} copies/s" if outputs > 1 else ""
        items.append(
            f"{subject}: {least}{quantity.rate(best.lower_dps)} datagrams/s{copies} "
            f"({labels.label(data, best)}){bounded(best.bound_by)}"
        )
        doubts += [f"{subject}: {warning}" for warning in verdicts.distinct(best.warnings)]
    if items:
        lead, text = "Highest rate without loss.", "By subject, over all cases:"
        yield Point(lead, text, "plain", tuple(doubts), tuple(items), "throughput")


def bounded(name: str) -> str:
    return "; what bounded it is not known" if name == "unknown" else f"; bounded by {verdicts.bound(name)}"


def footprint_points(data: Dataset) -> Iterator[Point]:
    """Every footprint, or the smallest and the largest of many."""
    footprints = in_size_order(data)
    if not footprints:
        return
    text, shown = "Workers really started:", footprints
    if len(footprints) > verdicts.NAMED:
        shown = [footprints[0], footprints[-1]]
        least, most = (f.workers for f in shown)
        text = f"Workers really started, {least:,} to {most:,} at a time; the fewest and the most:"
    items = []
    for f in shown:
        documented = "not" if f.documented_bytes is None else f"{quantity.megabytes(f.documented_bytes)} MB"
        items.append(
            f"{labels.label(data, f)}: ready in {quantity.seconds(f.ready_ns)} s, "
            f"{quantity.megabytes(f.memory.private_bytes_per_worker)} MB private each; "
            f"in all {quantity.megabytes(verdicts.measured_bytes(f))} MB measured without rings, "
            f"{quantity.megabytes(f.modelled_bytes)} MB modelled, {documented} documented"
        )
    doubts = verdicts.merged([(labels.label(data, f), verdicts.footprint_doubts(f)) for f in footprints])
    yield Point("Footprint.", text, "plain", doubts, tuple(items), "memory")


def check_points(data: Dataset) -> Iterator[Point]:
    """What must be so, and apart from it what is only hoped for."""
    checks, aims = verdicts.checks(data), verdicts.checks(data, aims=True)
    failed, missed = ([c for c in found if not c.passed] for found in (checks, aims))
    if checks:
        scenarios = len({c.scenario for c in checks})
        among = f" in {plural(scenarios, 'scenario')}" if scenarios > 1 else ""
        text = f"{len(checks) - len(failed)} of {plural(len(checks), 'check')}{among} passed."
        text += " Failed:" if failed else ""
        tone: Tone = "bad" if failed else "good"
        yield Point("Checks.", text, tone, items=tuple(c.text for c in failed), see="checks")
    if aims:
        text = f"{len(aims) - len(missed)} of {plural(len(aims), 'aim')} reached; no aim fails a run."
        text += " Not reached:" if missed else ""
        yield Point("Aims.", text, items=tuple(c.text for c in missed), see="targets")


def oversubscription_points(data: Dataset) -> Iterator[Point]:
    """One point for all: it affects every figure of these cases."""
    if items := verdicts.oversubscribed(data):
        text = "More workers than CPUs: rates, latency and start times are those of workers that share CPUs."
        yield Point("Oversubscribed.", text, items=items)


def ledger_points(data: Dataset) -> Iterator[Point]:
    trials = data.trials
    items = tuple(
        f"{t.scenario}, {t.case}, {labels.subject_with_receive(t)}, trial {t.trial_id}: "
        f"{t.ledger.ingress.unattributed:+,} datagrams, {t.ledger.egress.unattributed:+,} copies"
        f"{f'; {t.frames.text}' if t.frames else ''}"
        for t in trials
        if not t.ledger.balanced
    )
    if items:
        text = f"{len(items)} of {plural(len(trials), 'trial')} not balanced:"
        yield Point("Ledger.", text, "bad", items=items, see="ledger")
    elif trials:
        every = f"All {len(trials)} trials balance" if len(trials) > 1 else "The one trial balances"
        offered = quantity.count(sum(t.offered for t in trials))
        text = f"{every} to the datagram: {offered} datagrams offered, each delivered or counted as a drop."
        text_of_streams, tone = _received(trials)
        yield Point("Ledger.", text + text_of_streams, tone, see="ledger")


def _received(trials: Sequence[Trial]) -> tuple[str, Tone]:
    """What receivers saw beside the first copies in order, and the tone of it."""
    streams = [(t.streams, t.setting.steering) for t in trials if t.streams is not None]
    kinds = ("duplicated", "reordered", "corrupted")
    wrong = {name: sum(getattr(seen, name) for seen, _ in streams) for name in kinds}
    meant = sum(seen.duplicated for seen, steering in streams if steering == UNGROUPED)
    counts = [f"{quantity.count(number)} {name}" for name, number in wrong.items() if number]
    text = f" Receivers saw {listed(counts) or 'none duplicated, reordered or corrupted'}." if streams else ""
    if meant:
        text += f" Of the duplicated, {quantity.count(meant)} are due to workers that share no fanout group."
    return text, "bad" if sum(wrong.values()) > meant else "plain" if meant else "good"


def doubt_points(data: Dataset) -> Iterator[Point]:
    if data.run and (bends := data.run.provenance.doubts):
        text = "What bends figures on this machine, whatever was measured:"
        yield Point("Machine.", text, items=tuple(bends), see="provenance")
    found = [plural(number, noun) for noun, number in verdicts.doubtful_records(data).items() if number]
    if found:
        yield Point("Doubts.", f"{listed(found)}: each is marked ⚠ beside its figure.")
