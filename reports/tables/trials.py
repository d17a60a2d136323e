"""Records to tables: pure, one function a table, each row's doubts in the cell that they are about.

A function returns ``None`` when a run (an interrupted one, say) has nothing for its table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from lab.results import Check, Comparison, Footprint, Trial, ZeroLoss
from reports import labels, quantity
from reports import verdicts as words
from reports.collapse import split
from reports.dataset import Dataset
from reports.labels import in_order
from reports.model import Cell, Column, Row, Table, Tone

HALF = 0.5
"""Of the zero-loss rate: where processor time is compared."""
SHARES_LISTED = 8
"""With more workers than this a table gives the spread of their shares, not each."""


def optional(name: str, caption: str, columns: Sequence[Column], rows: Sequence[Row]) -> Table | None:
    return Table(name, caption, tuple(columns), tuple(rows)) if rows else None


def plain(*texts: str) -> tuple[Cell, ...]:
    return tuple(Cell(text) for text in texts)


def ids(trials: Sequence[Trial]) -> tuple[str, ...]:
    return tuple(t.trial_id for t in trials)


def row_name(data: Dataset, record: Trial | ZeroLoss | Comparison | Footprint | Check) -> Cell:
    """What a row is about: the case; under it the scenario, and the egress where traffic flowed."""
    if isinstance(record, Footprint | Check):
        return Cell(record.case, record.scenario)
    return Cell(labels.case_name(data, record), f"{record.scenario}, {labels.egress(record.setting)}")


# ------------------------------------------------------------------------------ promises, and the peer


def targets(data: Dataset) -> Table | None:
    columns = (
        Column("Target"),
        Column("Promised", word=True),
        Column("Measured"),
        Column("Outcome"),
        Column("Bounded by", word=True),
    )
    rows = [
        Row(
            (
                *plain(aim.what, aim.promised),
                Cell(aim.measured, doubts=aim.doubts),
                Cell(aim.target.words, tone="good" if aim.target.met else "bad"),
                Cell(words.bound(aim.bound_by) if aim.bound_by else quantity.NONE),
            ),
            trials=aim.trials,
        )
        for aim in sorted(words.aims(data), key=lambda aim: aim.target.met)
    ]
    return optional("targets", "What the project promises, and what became of it", columns, rows)


def comparisons(data: Dataset) -> list[Table]:
    columns = (
        Column("Case"),
        Column("Metric", "a / b", word=True),
        Column("Medians", "a / b"),
        Column("Ratio", "×, with interval", numeric=True),
        Column("Pairs", numeric=True),
        Column("Verdict", word=True),
        Column("Target"),
        Column("Bounded by", word=True),
    )
    rows = [
        (c.scenario, Row(_comparison_cells(data, c), trials=tuple(c.trial_ids))) for c in data.comparisons
    ]
    return split("comparisons", "Paired comparisons", columns, rows)


def _comparison_cells(data: Dataset, c: Comparison) -> tuple[Cell, ...]:
    aim = words.target(c)
    tone: Tone = "plain" if aim is None else "good" if aim.met else "bad"
    direction = "higher is better" if c.higher_is_better else "lower is better"
    return (
        row_name(data, c),
        Cell(c.metric, f"{labels.compared(data, c)}\n{direction}"),
        Cell(f"{_median(c.a_values)} / {_median(c.b_values)} {c.unit}".strip()),
        Cell(quantity.ratio(c.ratio), _interval(c), words.own(c.warnings)),
        Cell(quantity.count(c.pairs)),
        Cell(words.verdict(c), _visible(c), tone=words.verdict_tone(c)),
        Cell("none set") if aim is None else Cell(aim.words, words.promise(c), tone=tone),
        Cell(words.bound(c.bound_by)),
    )


def _interval(c: Comparison) -> str:
    return f"{quantity.interval(c.low, c.high)} at {c.confidence:.0%}" if c.pairs > 1 else "no interval"


def _visible(c: Comparison) -> str:
    if words.verdict(c) == "undecided":
        return f"{words.DECIDING_PAIRS} pairs are the least"
    return f"{words.visible(c)} could have been seen" if words.visible(c) else ""


def _median(values: Sequence[float]) -> str:
    return quantity.rate(median(values)) if values else quantity.NONE


# -------------------------------------------------------------------------------------------- throughput


def zero_loss(data: Dataset) -> list[Table]:
    title = "Highest rate without loss, and where loss began"
    return split("zero-loss", title, _rate_columns("Zero-loss rate"), _rate_rows(data, data.zero_losses))


def partial_drop(data: Dataset) -> list[Table]:
    title = "Highest rate with no more loss than allowed, and where more began"
    columns = _rate_columns("Partial-drop rate")
    return split("partial-drop", title, columns, _rate_rows(data, data.partial_drops))


def _rate_columns(found: str) -> tuple[Column, ...]:
    return (
        Column("Case"),
        Column("Subject", word=True),
        Column(found, "datagrams/s", numeric=True),
        Column(
            "First rate with more loss" if "Partial" in found else "First rate with loss",
            "datagrams/s",
            numeric=True,
        ),
        Column("Copies delivered", "copies/s", numeric=True),
        Column("Generator's ceiling", "datagrams/s", numeric=True),
        Column("Bounded by", word=True),
    )


def _rate_rows(data: Dataset, found: Sequence[ZeroLoss]) -> list[tuple[str, Row]]:
    return [
        (
            z.scenario,
            Row(
                (
                    row_name(data, z),
                    Cell(labels.steered(z)),
                    Cell(
                        "none found" if z.lower_dps is None else words.at_least(z),
                        f"with {quantity.percent(z.goal_loss_ratio)} loss allowed"
                        if z.goal_loss_ratio
                        else "",
                        words.own(z.warnings),
                    ),
                    Cell("not reached" if z.upper_dps is None else quantity.rate(z.upper_dps)),
                    Cell(
                        quantity.rate(
                            None
                            if z.lower_dps is None
                            else z.lower_dps * z.setting.outputs * (1 - z.goal_loss_ratio)
                        )
                    ),
                    Cell(quantity.rate(z.generator_ceiling_dps)),
                    Cell(words.bound(z.bound_by)),
                ),
                trials=tuple(z.trial_ids),
            ),
        )
        for z in found
    ]


def fixed_rates(data: Dataset) -> list[Table]:
    """Trials at one rate, and the generator's own ceiling; search steps are in the ledger only."""
    columns = (
        Column("Case"),
        Column("Subject", word=True),
        Column("Offered", "datagrams/s", numeric=True),
        Column("Delivered", "copies/s", numeric=True),
        Column("Loss", "of copies due", numeric=True),
        Column("Bounded by", word=True),
    )
    rows = []
    for t in data.trials:
        # A calibration tries rates until the generator holds one: those that it did not are no result.
        if t.purpose != "fixed" and not (t.purpose == "calibration" and t.validity != "invalid"):
            continue
        asked = "as fast as it can" if t.asked_dps is None else f"asked {quantity.rate(t.asked_dps)}"
        rows.append(
            (
                t.scenario,
                Row(
                    (
                        row_name(data, t),
                        Cell(labels.steered(t)),
                        Cell(quantity.rate(t.offered_dps), asked),
                        Cell(quantity.rate(t.delivered_dps), doubts=words.trial_doubts(t)),
                        Cell(quantity.percent(t.loss_ratio)),
                        Cell(words.bound(t.bound_by)),
                    ),
                    trials=(t.trial_id,),
                ),
            )
        )
    return split("fixed-rates", "Fixed-rate trials and the generator's own ceiling", columns, rows)


# ------------------------------------------------------------------------------------- processor, latency


def cpu(data: Dataset) -> list[Table]:
    columns = (
        Column("Case"),
        Column("Subject", word=True),
        Column("Net of the baseline", "µs per copy, median", numeric=True),
        Column("Whole machine", "µs per copy, median", numeric=True),
        Column("of that in softirq", "µs per copy, median", numeric=True),
        Column("Trials", numeric=True),
    )
    rows = []
    groups = _preferred(
        data,
        lambda t: (
            t.cpu is not None and t.cpu.copies > 0 and t.subject != "none" and t.load_share in (None, HALF)
        ),
        lambda t: t.cpu is not None and t.cpu.baseline_ns is not None,
    )
    for trials in groups:
        used = [t.cpu for t in trials if t.cpu is not None]
        doubts = [*words.group_doubts(trials)]
        if any(sample.baseline_ns is None for sample in used):
            doubts.append("generator and receivers included: no baseline was taken")
        rows.append(
            (
                trials[0].scenario,
                Row(
                    (
                        row_name(data, trials[0]),
                        Cell(labels.steered(trials[0])),
                        Cell(
                            f"{median((s.ns_per_copy or 0) / 1000 for s in used):.2f}",
                            doubts=tuple(in_order(doubts)),
                        ),
                        Cell(f"{median(s.busy_ns / s.copies / 1000 for s in used):.2f}"),
                        Cell(f"{median(s.softirq_ns / s.copies / 1000 for s in used):.2f}"),
                        Cell(quantity.count(len(used))),
                    ),
                    trials=ids(trials),
                ),
            )
        )
    return split("cpu", "Processor time of the whole machine per copy, softirq included", columns, rows)


def latency(data: Dataset) -> list[Table]:
    columns = (
        Column("Case"),
        Column("Subject", word=True),
        Column("Offered", "datagrams/s", numeric=True),
        *(Column(name, "µs", numeric=True) for name in ("p50", "p90", "p99", "p99.9", "max")),
        Column("Trials", numeric=True),
    )
    rows = []
    for trials in latency_groups(data):
        doubts = words.group_doubts(trials)
        values = latency_medians(trials)
        rows.append(
            (
                trials[0].scenario,
                Row(
                    (
                        row_name(data, trials[0]),
                        Cell(labels.steered(trials[0])),
                        Cell(quantity.rate(median(t.offered_dps for t in trials)), load_share(trials[0])),
                        Cell(quantity.microseconds(values[0]), doubts=doubts),
                        *(Cell(quantity.microseconds(value)) for value in values[1:]),
                        Cell(quantity.count(len(trials))),
                    ),
                    trials=ids(trials),
                ),
            )
        )
    return split("latency", "Latency percentiles, medians over the trials", columns, rows)


def load_share(trial: Trial) -> str:
    """``50 % of the zero-loss rate``, the subject's own; empty where the rate was not chosen so."""
    return "" if trial.load_share is None else f"{quantity.percent(trial.load_share)} of the zero-loss rate"


def latency_groups(data: Dataset) -> list[list[Trial]]:
    """Trials made for latency; where a case has none, others at one rate."""
    return _preferred(data, lambda t: t.latency is not None, lambda t: t.purpose == "latency")


def latency_medians(trials: Sequence[Trial]) -> list[float]:
    """p50, p90, p99, p99.9 and maximum in ns: the median of each over the trials that have them."""
    seen = [t.latency for t in trials if t.latency is not None]
    return [median(getattr(x, name) for x in seen) for name in ("p50", "p90", "p99", "p999", "max")]


def _preferred(
    data: Dataset, wanted: Callable[[Trial], bool], best: Callable[[Trial], bool]
) -> list[list[Trial]]:
    """Groups of the wanted trials that are best; where a case has none, of those at one rate."""
    made = _grouped(data, lambda t: wanted(t) and best(t))
    covered = {(trials[0].scenario, trials[0].case) for trials in made}
    rest = _grouped(
        data,
        lambda t: wanted(t) and (t.scenario, t.case) not in covered and t.purpose in ("fixed", "comparison"),
    )
    return made + rest


def _grouped(data: Dataset, wanted: Callable[[Trial], bool]) -> list[list[Trial]]:
    """Trials alike in scenario, case, subject, setting and share of the zero-loss rate.

    Invalid ones only where there is no other.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in data.trials:
        if wanted(trial):
            key = f"{trial.scenario}\0{trial.case}\0{trial.subject}\0{trial.setting.model_dump_json()}"
            key += f"\0{trial.load_share}"
            groups.setdefault(key, []).append(trial)
    return [[t for t in members if t.validity != "invalid"] or members for members in groups.values()]


# ------------------------------------------------------------------------------------- workers and memory


def worker_shares(data: Dataset) -> list[Table]:
    columns = (
        Column("Case"),
        Column("Subject", word=True),
        Column("Workers", numeric=True),
        Column("Offered", "datagrams/s", numeric=True),
        Column("Share of datagrams received", "by worker, in order of CPU"),
        Column("Busiest", "times an even share", numeric=True),
    )
    rows = []
    for trials in _grouped(data, lambda t: len(t.workers) > 0):
        trial = max(trials, key=lambda t: t.offered)
        received = [w.received for w in sorted(trial.workers, key=lambda w: (w.cpu, w.worker_id))]
        total = sum(received)
        if not total:
            shares, busiest = "none received anything", quantity.NONE
        else:
            shares = _shares(received, total)
            busiest = f"{max(received) * len(received) / total:.2f}"
        idle = received.count(0)
        doubts = words.trial_doubts(trial)
        if total and idle:
            doubts = (*doubts, f"{quantity.plural(idle, 'worker')} of {len(received)} received nothing")
        rows.append(
            (
                trial.scenario,
                Row(
                    (
                        row_name(data, trial),
                        Cell(labels.steered(trial)),
                        Cell(quantity.count(len(received))),
                        Cell(quantity.rate(trial.offered_dps)),
                        Cell(shares, doubts=doubts),
                        Cell(busiest),
                    ),
                    trials=(trial.trial_id,),
                ),
            )
        )
    return split("worker-shares", "How the load was spread over the workers", columns, rows)


def _shares(received: Sequence[int], total: int) -> str:
    if len(received) <= SHARES_LISTED:
        return " · ".join(f"{number / total:.1%}" for number in received)
    ordered = sorted(received)
    low, middle, high = ordered[0], median(ordered), ordered[-1]
    return f"least {low / total:.2%}, median {middle / total:.2%}, most {high / total:.2%}"
