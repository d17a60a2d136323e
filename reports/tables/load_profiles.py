"""Tables of given loads (sweeps, soaks, load profiles) and of changes to a running forwarder."""

from collections.abc import Callable, Sequence
from statistics import median

from lab.results import NS_PER_S, Change, Course, Soak, Trial
from reports import quantity, verdicts
from reports.dataset import Dataset
from reports.model import Cell, Table, Tone
from reports.tables.build import BOUND_BY, CASE, Columns, named, number, row_name, tables, word
from reports.tables.trials import PERCENTILES

NS_PER_MS = 1_000_000

Steps = list[tuple[float, float]]
"""``(seconds, value from then on)``."""


def sweeps(data: Dataset) -> list[Table]:
    """One row a trial, in the order of the rates."""

    def offered(trial: Trial) -> Cell:
        asked = "" if trial.asked_dps is None else f"asked {quantity.rate(trial.asked_dps)}"
        return Cell(quantity.rate(trial.offered_dps), asked, verdicts.trial_doubts(trial))

    def percentile(field: str) -> Callable[[Trial], str]:
        return lambda t: quantity.microseconds(getattr(t.latency, field, None))

    columns: Columns[Trial] = [
        *named(data),
        (number("Offered", "datagrams/s"), offered),
        (number("Delivered", "copies/s"), lambda t: quantity.rate(t.delivered_dps)),
        (number("Loss", "of copies due"), lambda t: quantity.percent(t.loss_ratio)),
        *((number(title, "µs"), percentile(field)) for title, field in PERCENTILES.items() if title != "p90"),
        (BOUND_BY, lambda t: verdicts.bound(t.bound_by)),
    ]
    swept = [trial for trial in data.trials if trial.purpose == "sweep"]
    return tables("sweeps", "Loss and latency against offered load", columns, swept)


def soaks(data: Dataset) -> list[Table]:
    """What was lost in a long time, and what grew between the first trial and the last."""

    def offered(soak: Soak) -> Cell:
        asked, doubts = f"asked {quantity.rate(soak.asked_dps)}", verdicts.distinct(soak.warnings)
        return Cell(quantity.rate(soak.offered * NS_PER_S / soak.duration_ns), asked, doubts)

    def p99(soak: Soak) -> str | None:
        if not soak.p99_ns:
            return None
        return f"{quantity.microseconds(soak.p99_ns[0])} / {quantity.microseconds(soak.p99_ns[-1])}"

    def memory(soak: Soak) -> str | None:
        if soak.first is None or soak.grown_bytes is None:
            return None
        grown, late = (size / quantity.BYTES_PER_MB for size in (soak.grown_bytes, soak.late_bytes or 0))
        return f"{quantity.megabytes(soak.first.private_bytes)} {grown:+.2f}, {late:+.2f}"

    def held(name: str) -> Callable[[Soak], str | None]:
        def read(soak: Soak) -> str | None:
            grown = getattr(soak, f"grown_{name}")
            return None if grown is None else f"{getattr(soak.first, name):,} {grown:+,}"

        return read

    grew = {True: Cell("yes", tone="bad"), False: Cell("no", tone="good")}
    columns: Columns[Soak] = [
        *named(data),
        (number("Offered", "datagrams/s"), offered),
        (number("Lasted", "s"), lambda s: quantity.seconds(s.duration_ns)),
        (number("Lost", "copies"), _lost),
        (number("p99", "µs, first and last trial"), p99),
        (number("Private memory", "MB, then its growth, in the second half"), memory),
        (number("Descriptors", "then their growth"), held("descriptors")),
        (number("Threads", "then their growth"), held("threads")),
        (word("Grew"), lambda s: None if s.grew is None else grew[s.grew]),
    ]
    return tables("soaks", "One rate for a long time", columns, data.soaks)


def _lost(record: Soak | Course) -> Cell:
    lost = record.expected - record.delivered
    return Cell(quantity.count(lost), f"of {record.expected:,}", tone="bad" if lost else "good")


def offered_steps(record: Course) -> Steps:
    """The offered rate of each phase."""
    rates = [phase.offered * NS_PER_S / max(1, phase.duration_ns) for phase in record.phases]
    starts = [phase.started_ns / NS_PER_S for phase in record.phases]
    return [*zip(starts, rates, strict=True), (record.duration_ns / NS_PER_S, rates[-1])]


def worker_steps(record: Course, group: int) -> Steps:
    """The size of a worker group: at first that of the first sample, then as the forwarder logged it."""
    first = next((sample.workers for sample in record.samples if sample.group == group), 0)
    done = [change for change in record.resizes if change.group == group and change.failed is None]
    steps: Steps = [(0.0, done[0].before if done else first)]
    steps += [((change.at_ns + change.took_ns) / NS_PER_S, change.after) for change in done]
    return [*steps, (max(record.duration_ns / NS_PER_S, steps[-1][0]), steps[-1][1])]


def load_profiles(data: Dataset) -> list[Table]:
    def rates(record: Course) -> str:
        found = [rate for _, rate in offered_steps(record)]
        return f"{quantity.rate(min(found))} / {quantity.rate(max(found))}"

    def sizes(record: Course) -> list[int]:
        return [int(size) for _, size in worker_steps(record, record.hot_group)]

    def workers(record: Course) -> Cell:
        found = sizes(record)
        limits = f"{record.min_workers} to {record.max_workers}"
        return Cell(f"{min(found)} / {max(found)} / {found[-1]}", limits)

    columns: Columns[Course] = [
        (CASE, lambda c: row_name(data, c, verdicts.distinct(c.warnings))),
        (number("Offered", "datagrams/s, least and most"), rates),
        (number("A worker is meant for", "datagrams/s"), lambda c: quantity.rate(c.threshold_dps)),
        (number("Workers", "least, most, at the end"), workers),
        (number("Changes"), lambda c: len(sizes(c)) - 2),
        (number("Overload to scaled", "s"), _scaled),
        (number("Lost", "copies"), _lost),
        (number("Again", "copies"), lambda c: c.duplicated),
        (number("Out of order", "copies"), lambda c: c.reordered),
    ]
    return tables("courses", "Loads that change over time", columns, data.courses)


def _scaled(record: Course) -> Cell:
    """Seconds from overload until there were enough workers, with the target."""
    took_ns, target_ns = record.scaled_ns, record.scaled_target_ns
    if target_ns is None:
        return Cell(quantity.seconds(took_ns))
    met = took_ns is not None and took_ns <= target_ns
    detail = f"at most {quantity.seconds(target_ns)} promised: {'kept' if met else 'missed'}"
    return Cell(quantity.seconds(took_ns), detail, tone="good" if met else "bad")


def changes(data: Dataset) -> list[Table]:
    def offered(record: Change) -> Cell:
        return Cell(quantity.rate(record.offered_dps), f"asked {quantity.rate(record.asked_dps)}")

    def lost(record: Change) -> Cell:
        due = sum(record.offered) * record.setting.outputs
        return Cell(quantity.count(sum(record.lost)), f"of {due:,}")

    def duplicated(record: Change) -> Cell:
        again = sum(record.duplicated)
        return Cell(quantity.count(again), tone="bad" if again else "plain")

    def reordered(record: Change) -> Cell:
        moved = f"{record.flows_moved} of {record.setting.flows} flows move" if record.flows_moved else ""
        return Cell(f"{sum(record.reordered):,} / {sum(record.reordered_moved):,}", moved)

    def took(record: Change) -> str:
        return f"{median(record.took_ns) / NS_PER_MS:,.1f} / {max(record.took_ns) / NS_PER_MS:,.1f}"

    columns: Columns[Change] = [
        (CASE, lambda c: row_name(data, c, verdicts.distinct(c.warnings))),
        (word("Change"), lambda c: c.title),
        (number("Offered", "datagrams/s"), offered),
        (number("Times"), lambda c: len(c.trial_ids)),
        (number("Lost", "copies"), lost),
        (number("Again", "copies"), duplicated),
        (number("Out of order", "copies of flows that stayed / moved"), reordered),
        (number("Blocked", "ms, median and most"), _blocked),
        (number("Took", "ms, median and most"), took),
    ]
    return tables("changes", "What a change of the running forwarder costs", columns, data.changes)


def _blocked(record: Change) -> Cell:
    tone: Tone = "plain" if record.kept is None else "good" if record.kept else "bad"
    details = [f"of {_shares(record.share)} of the load"] if min(record.share) < 1 else []
    if record.blocked_target_ns is not None:
        limit = record.blocked_target_ns / NS_PER_MS
        details.append(f"at most {limit:g} promised: {'kept' if record.kept else 'missed'}")
    middle, most = median(record.blocked_ns) / NS_PER_MS, max(record.blocked_ns) / NS_PER_MS
    return Cell(f"{middle:.2f} / {most:.2f}", "\n".join(details), tone=tone)


def _shares(shares: Sequence[float]) -> str:
    low, high = quantity.percent(round(min(shares), 2)), quantity.percent(round(max(shares), 2))
    return low if low == high else f"{low} to {high}"
