"""What an elastic forwarder made of a load that changes over time. Pure: samples in, figures and checks out.

A group is *overloaded* from when it is offered more than its workers are meant for (their number times the
threshold), as far as more are allowed. It is *scaled* when it has as many as what it is offered calls for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from lab.load.jobs import Phase, PhaseReport
from lab.results import NS_PER_S, Check, Course, OfferedPhase, Resize, ScalingSample, Setting
from lab.scenario.load_tables import CourseTable

HOT_GROUP = 0
"""That of the first input: the place of its group among the elastic ones."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a group may do; ``threshold_dps``: what a worker is meant for."""

    min_workers: int
    max_workers: int
    threshold_dps: int

    def needed(self, dps: float) -> int:
        """Workers for so many datagrams a second, within the bounds."""
        asked = -(-int(dps) // self.threshold_dps)
        return min(self.max_workers, max(self.min_workers, asked))


def hot_share(setting: Setting) -> float:
    """Share of the load at the first input, which has a group of its own."""
    return setting.skew / (setting.skew + setting.inputs - 1)


def offered_phases(asked: Sequence[Phase], sent: Sequence[PhaseReport]) -> list[OfferedPhase]:
    """What was offered, phase by phase; neighbours of one rate are one phase."""
    made = []
    for dps, parts in groupby(zip(asked, sent, strict=False), key=lambda pair: pair[0].dps):
        reports = [report for _, report in parts]
        made.append(
            OfferedPhase(
                started_ns=reports[0].started_ns,
                duration_ns=sum(report.duration_ns for report in reports),
                asked_dps=dps,
                offered=sum(report.offered for report in reports),
            )
        )
    return made


def sizes(samples: Sequence[ScalingSample], resizes: Sequence[Resize], group: int) -> list[tuple[int, int]]:
    """``(since when, workers)`` of a group: what it had at first, and each change when it was complete."""
    first = next((sample.workers for sample in samples if sample.group == group), None)
    if first is None:
        return []
    done = [change for change in resizes if change.group == group and change.failed is None]
    # A sample may be younger than the first change.
    begun = done[0].before if done else first
    return [(0, begun), *((change.at_ns + change.took_ns, change.after) for change in done)]


def scaled_ns(
    phases: Sequence[OfferedPhase], had: Sequence[tuple[int, int]], bounds: Bounds, share: float
) -> int | None:
    """From the first overload until there were workers enough; ``None`` without either.

    Args:
        phases: of the whole load, of which the group is offered ``share``.
        had: as :func:`sizes` gives it.
    """
    overloaded: int | None = None
    moments = sorted({*(phase.started_ns for phase in phases), *(at for at, _ in had)})
    for moment in moments:
        workers = next((n for at, n in reversed(had) if at <= moment), None)
        phase = next((p for p in reversed(phases) if p.started_ns <= moment), None)
        if workers is None or phase is None:
            continue
        enough = workers >= bounds.needed(phase.asked_dps * share)
        if not enough and overloaded is None:
            overloaded = moment
        elif enough and overloaded is not None:
            return moment - overloaded
    return None


def checks(table: CourseTable, record: Course) -> Iterator[Check]:
    """One for each thing that the table expects."""
    hot = sizes(record.samples, record.resizes, record.hot_group)
    most = max((workers for _, workers in hot), default=0)
    last = hot[-1][1] if hot else 0
    changes = max(0, len(hot) - 1)
    others: dict[int, int] = {}
    for sample in record.samples:
        if sample.group != record.hot_group:
            others[sample.group] = max(others.get(sample.group, 0), sample.workers)
    largest = ", ".join(map(str, others.values())) or "no other groups"
    lost = record.expected - record.delivered
    took = "never" if record.scaled_ns is None else f"after {record.scaled_ns / NS_PER_S:.2f} s"
    in_time = (
        record.scaled_ns is not None
        and record.scaled_target_ns is not None
        and record.scaled_ns <= record.scaled_target_ns
    )
    for key, passed, observed in (
        ("scaled_within_s", in_time, f"as many workers as the load called for {took}"),
        ("most_workers", most == table.most_workers, f"{most} at the largest"),
        ("last_workers", last == table.last_workers, f"{last} at the end"),
        ("other_workers", set(others.values()) == {table.other_workers}, f"{largest} at the largest"),
        ("changes_at_most", changes <= (table.changes_at_most or 0), f"{changes} changes"),
        ("lost", lost == 0, f"{lost:,} of {record.expected:,} copies lost"),
    ):
        wanted = getattr(table, key)
        if wanted is not None:
            yield Check(
                scenario=record.scenario,
                case=record.case,
                passed=passed,
                expected=f"{key} = {wanted:g}",
                observed=observed,
            )


def describe(record: Course) -> str:
    """A course in one line."""
    hot = sizes(record.samples, record.resizes, record.hot_group)
    steps = " → ".join(f"{workers} at {at / NS_PER_S:.1f} s" for at, workers in hot)
    lost = record.expected - record.delivered
    line = f"workers {steps}; {lost:,} of {record.expected:,} copies lost"
    if record.scaled_ns is not None:
        line += f"; scaled {record.scaled_ns / NS_PER_S:.2f} s after the overload"
    return line
