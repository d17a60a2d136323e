"""Tables of targets, comparisons, rates, processor time, latency and worker shares, made from trials."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from lab.results import Check, Comparison, Cpu, Pipelines, Trial, ZeroLoss
from reports import labels, quantity, verdicts
from reports.dataset import Dataset, grouped
from reports.labels import unique
from reports.model import Cell, Column, Table
from reports.tables.build import BOUND_BY, CASE, Columns, named, number, row_name, table, tables, word

HALF = 0.5
"""Share of the zero-loss rate at which processor time is compared."""
SHARES_LISTED = 8
"""With more workers than this a table gives the spread of their shares, not each."""


def targets(data: Dataset) -> list[Table]:
    columns: Columns[verdicts.MeasuredTarget] = [
        (Column("Target"), lambda t: t.what),
        (word("Promised"), lambda t: t.wanted),
        (Column("Measured"), lambda t: Cell(t.measured, doubts=t.doubts)),
        (Column("Outcome"), lambda t: Cell(t.target.outcome, tone="good" if t.target.met else "bad")),
        (BOUND_BY, lambda t: verdicts.bound(t.bound_by) if t.bound_by else None),
    ]
    found = sorted(verdicts.targets(data), key=lambda t: t.target.met)
    aims: Columns[Check] = [
        (Column("Aim"), lambda c: f"{c.scenario}, {c.case}"),
        (word("Hoped for"), lambda c: c.expected),
        (Column("Measured"), lambda c: c.observed),
        (Column("Outcome"), lambda c: "reached" if c.passed else "not reached"),
    ]
    hoped = sorted(verdicts.checks(data, aims=True), key=lambda check: check.passed)
    return [
        *table("targets", "What the project promises, and what was measured", columns, found),
        *table("aims", "What it hopes for: no aim fails a run", aims, hoped),
    ]


def comparisons(data: Dataset) -> list[Table]:
    def metric(c: Comparison) -> Cell:
        direction = "higher is better" if c.higher_is_better else "lower is better"
        return Cell(c.figure, f"{labels.compared(data, c)}\n{direction}")

    def medians(c: Comparison) -> str:
        a, b = (quantity.rate(median(values) if values else None) for values in (c.a_values, c.b_values))
        return f"{a} / {b} {c.unit}".strip()

    def ratio(c: Comparison) -> Cell:
        interval = f"{quantity.interval(c.low, c.high)} at {quantity.percent(c.confidence)}"
        detail = interval if c.pairs > 1 else "no interval"
        return Cell(quantity.ratio(c.ratio), detail, verdicts.distinct(c.warnings))

    columns: Columns[Comparison] = [
        (CASE, lambda c: row_name(data, c)),
        (word("Metric", "a / b"), metric),
        (Column("Medians", "a / b"), medians),
        (number("Ratio", "×, with interval"), ratio),
        (number("Pairs"), lambda c: c.pairs),
        (word("Verdict"), lambda c: Cell(verdicts.verdict(c), _visible(c), tone=verdicts.verdict_tone(c))),
        (Column("Target"), _target),
        (BOUND_BY, lambda c: verdicts.bound(c.bound_by)),
    ]
    return tables("comparisons", "Paired comparisons", columns, data.comparisons)


def pipelines(data: Dataset) -> list[Table]:
    def each(p: Pipelines) -> Cell:
        return Cell(quantity.ratio(p.ratio), quantity.interval(p.low, p.high), verdicts.distinct(p.warnings))

    columns: Columns[Pipelines] = [
        (CASE, lambda p: row_name(data, p)),
        (number("Pipelines", "at the same time"), lambda p: p.pipelines),
        (number("One alone", "copies/s, median"), lambda p: quantity.rate(median(p.alone))),
        (number("Each of them", "copies/s, median"), lambda p: quantity.rate(median(p.together))),
        (number("Each delivers", "of what one alone does"), each),
        (number("Together", "times one alone"), lambda p: f"{p.pipelines * p.ratio:.2f}"),
        (number("Pairs"), lambda p: len(p.alone)),
    ]
    return table("pipelines", "Pipelines at the same time", columns, data.pipelines)


def _visible(c: Comparison) -> str:
    if verdicts.verdict(c) == "undecided":
        return f"needs {verdicts.DECIDING_PAIRS} pairs"
    smallest = verdicts.smallest_visible(c)
    return f"{smallest} could have been seen" if smallest else ""


def _target(c: Comparison) -> Cell:
    target = verdicts.target(c)
    if target is None:
        return Cell("none set")
    return Cell(target.outcome, verdicts.target_text(c), tone="good" if target.met else "bad")


def zero_loss(data: Dataset) -> list[Table]:
    title = "Highest rate without loss, and where loss began"
    columns = _rate_columns(data, "Zero-loss rate", "First rate with loss")
    return tables("zero-loss", title, columns, data.zero_losses)


def partial_drop(data: Dataset) -> list[Table]:
    title = "Highest rate with no more loss than allowed, and where more began"
    columns = _rate_columns(data, "Partial-drop rate", "First rate with more loss")
    return tables("partial-drop", title, columns, data.partial_drops)


def _rate_columns(data: Dataset, found: str, beyond: str) -> Columns[ZeroLoss]:
    def rate(z: ZeroLoss) -> Cell:
        goal = z.goal_loss_ratio
        allowed = f"with {quantity.percent(goal)} loss allowed" if goal else ""
        return Cell(verdicts.rate_or_none_found(z), allowed, verdicts.distinct(z.warnings))

    def first_lost(z: ZeroLoss) -> str:
        return "not reached" if z.upper_dps is None else quantity.rate(z.upper_dps)

    def copies(z: ZeroLoss) -> str | None:
        if z.lower_dps is None:
            return None
        return quantity.rate(z.lower_dps * z.setting.outputs * (1 - z.goal_loss_ratio))

    return [
        *named(data),
        (number(found, "datagrams/s"), rate),
        (number(beyond, "datagrams/s"), first_lost),
        (number("Copies delivered", "copies/s"), copies),
        (number("Generator's ceiling", "datagrams/s"), lambda z: quantity.rate(z.generator_ceiling_dps)),
        (BOUND_BY, lambda z: verdicts.bound(z.bound_by)),
    ]


def fixed_rates(data: Dataset) -> list[Table]:
    """Trials at one rate, and the generator's own ceiling; the steps of searches are in the ledger only."""

    def offered(t: Trial) -> Cell:
        asked = "as fast as it can" if t.asked_dps is None else f"asked {quantity.rate(t.asked_dps)}"
        return Cell(quantity.rate(t.offered_dps), asked)

    def delivered(t: Trial) -> Cell:
        return Cell(quantity.rate(t.delivered_dps), doubts=verdicts.trial_doubts(t))

    columns: Columns[Trial] = [
        *named(data),
        (number("Offered", "datagrams/s"), offered),
        (number("Delivered", "copies/s"), delivered),
        (number("Loss", "of copies due"), lambda t: quantity.percent(t.loss_ratio)),
        (BOUND_BY, lambda t: verdicts.bound(t.bound_by)),
    ]
    # A calibration tries rates until the generator holds one; the rates that it did not hold are no result.
    held = [t for t in data.trials if t.purpose == "fixed" or t.validity != "invalid"]
    shown = [t for t in held if t.purpose in ("fixed", "calibration")]
    return tables("fixed-rates", "Fixed-rate trials and the generator's own ceiling", columns, shown)


def cpu(data: Dataset) -> list[Table]:
    def used(trials: list[Trial]) -> list[Cpu]:
        return [t.cpu for t in trials if t.cpu is not None]

    def net(trials: list[Trial]) -> Cell:
        doubts = [*verdicts.group_doubts(trials)]
        if any(sample.baseline_ns is None for sample in used(trials)):
            doubts.append("generator and receivers included: no baseline was taken")
        per_copy = median((s.ns_per_copy or 0) / quantity.NS_PER_US for s in used(trials))
        return Cell(f"{per_copy:.2f}", doubts=tuple(unique(doubts)))

    def per_copy(name: str) -> Callable[[list[Trial]], str]:
        return lambda trials: f"{median(getattr(s, name) / s.copies / 1000 for s in used(trials)):.2f}"

    unit = "µs per copy, median"
    columns: Columns[list[Trial]] = [
        *named(data),
        (number("Net of the baseline", unit), net),
        (number("Whole machine", unit), per_copy("busy_ns")),
        (number("of that in softirq", unit), per_copy("softirq_ns")),
        (number("Trials"), len),
    ]
    candidates = [t for t in data.trials if t.subject != "none" and t.load_share in (None, HALF)]
    groups = _preferred(
        [t for t in candidates if t.cpu is not None and t.cpu.copies > 0],
        lambda t: t.cpu is not None and t.cpu.baseline_ns is not None,
    )
    return tables("cpu", "Processor time of the whole machine per copy, softirq included", columns, groups)


PERCENTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p99.9": "p999", "max": "max"}
"""Titles of percentiles, and the field of a trial's latency that has each."""


def latency(data: Dataset) -> list[Table]:
    def offered(trials: list[Trial]) -> Cell:
        return Cell(quantity.rate(median(t.offered_dps for t in trials)), load_share(trials[0]))

    def percentile(place: int) -> Callable[[list[Trial]], Cell]:
        return lambda trials: Cell(
            quantity.microseconds(latency_medians(trials)[place]),
            doubts=() if place else verdicts.group_doubts(trials),
        )

    columns: Columns[list[Trial]] = [
        *named(data),
        (number("Offered", "datagrams/s"), offered),
        *((number(title, "µs"), percentile(place)) for place, title in enumerate(PERCENTILES)),
        (number("Trials"), len),
    ]
    return tables("latency", "Latency percentiles, medians over the trials", columns, latency_groups(data))


def load_share(trial: Trial) -> str:
    """``50 % of the zero-loss rate``, the subject's own; empty where the rate was not chosen so."""
    return "" if trial.load_share is None else f"{quantity.percent(trial.load_share)} of the zero-loss rate"


def latency_groups(data: Dataset) -> list[list[Trial]]:
    """Trials made for latency; where a case has none, others at one rate."""
    return _preferred([t for t in data.trials if t.latency is not None], lambda t: t.purpose == "latency")


def latency_medians(trials: Sequence[Trial]) -> list[float]:
    """The median of each of :data:`PERCENTILES` over the trials that have them, in ns."""
    seen = [t.latency for t in trials if t.latency is not None]
    return [median(getattr(each, field) for each in seen) for field in PERCENTILES.values()]


def _preferred(trials: Sequence[Trial], best: Callable[[Trial], bool]) -> list[list[Trial]]:
    """Groups of the trials that are best; where a case has none, of those at one rate."""
    made = _grouped(filter(best, trials))
    covered = {(group[0].scenario, group[0].case) for group in made}
    rest = [t for t in trials if (t.scenario, t.case) not in covered]
    return made + _grouped(t for t in rest if t.purpose in ("fixed", "comparison"))


def _grouped(trials: Iterable[Trial]) -> list[list[Trial]]:
    """Trials of one scenario, case, subject, setting and load share; invalid ones if there are no others."""
    groups = grouped(trials, lambda t: (t.scenario, t.case, t.subject, t.setting, t.load_share))
    return [[t for t in members if t.validity != "invalid"] or members for members in groups.values()]


def worker_shares(data: Dataset) -> list[Table]:
    def shares(trial: Trial) -> Cell:
        received, doubts = received_by_worker(trial), verdicts.trial_doubts(trial)
        if not sum(received):
            return Cell("none received anything", doubts=doubts)
        if idle := received.count(0):
            doubts += (f"{quantity.plural(idle, 'worker')} of {len(received)} received nothing",)
        return Cell(_shares(received), doubts=doubts)

    def busiest(trial: Trial) -> str | None:
        received = received_by_worker(trial)
        return f"{max(received) * len(received) / sum(received):.2f}" if sum(received) else None

    columns: Columns[Trial] = [
        *named(data),
        (number("Workers"), lambda t: len(t.workers)),
        (number("Offered", "datagrams/s"), lambda t: quantity.rate(t.offered_dps)),
        (Column("Share of datagrams received", "by worker, in order of CPU"), shares),
        (number("Busiest", "times an even share"), busiest),
    ]
    groups = _grouped(t for t in data.trials if t.workers)
    chosen = [max(trials, key=lambda t: t.offered) for trials in groups]
    return tables("worker-shares", "How the load was spread over the workers", columns, chosen)


def received_by_worker(trial: Trial) -> list[int]:
    """Datagrams that each worker received, in order of CPU."""
    return [w.received for w in sorted(trial.workers, key=lambda w: (w.cpu, w.worker_id))]


def _shares(received: Sequence[int]) -> str:
    total = sum(received)
    if len(received) <= SHARES_LISTED:
        return " · ".join(f"{number / total:.1%}" for number in received)
    low, middle, high = min(received), median(received), max(received)
    return f"least {low / total:.2%}, median {middle / total:.2%}, most {high / total:.2%}"
