"""Compare two runs: match figures of the same thing, and say how far apart they are.

The runs were not measured in turn, as the sides of a paired comparison are: the machine may have drifted in
between. So a verdict needs repeated measurements in both runs, and there is none across machines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from scipy import stats

from lab.results import Comparison, Footprint, Provenance, Setting, Trial, ZeroLoss
from reports import labels, quantity
from reports.dataset import Dataset

LEAST_REPEATED = 3
"""With fewer figures a side, their spread is too uncertain for Student's t to say much."""
CONFIDENCE = 0.95
MACHINE = ("machine", "cpu_model", "cpus", "numa_nodes", "memory_bytes")
"""Runs that differ in one of these were made on different machines."""
MOMENTARY = {"other load", "steal"}
"""Conditions that are those of the moment at which a run began, and differ between any two."""
MEMORY_ALIKE = 0.01
"""Relative difference in memory that is ignored: what the kernel reserves varies."""

Verdict = Literal["better", "worse", "no difference"]


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    unit: str
    higher_is_better: bool
    scale: float = 1.0
    """Multiplies a record's value to give ``unit``."""


RATE = Metric("zero-loss rate", "datagrams/s", higher_is_better=True)
DELIVERED = Metric("delivered copies", "copies/s", higher_is_better=True)
CPU = Metric("processor time per copy", "µs", higher_is_better=False, scale=1 / quantity.NS_PER_US)
P50 = Metric("latency p50", "µs", higher_is_better=False, scale=1 / quantity.NS_PER_US)
P99 = Metric("latency p99", "µs", higher_is_better=False, scale=1 / quantity.NS_PER_US)
PRIVATE = Metric("private memory of a worker", "MB", higher_is_better=False, scale=1 / quantity.BYTES_PER_MB)
READY = Metric("time to ready", "s", higher_is_better=False, scale=1 / quantity.NS_PER_S)
PAIRED = {"zero-loss rate": RATE, "delivered copies/s": DELIVERED, "CPU per copy": CPU, "latency p99": P99}
"""Metrics by their names in paired comparisons, whose values are in ns where the unit here is µs."""
REPEATABLE = ("fixed", "latency", "sweep", "soak")
"""Purposes of trials whose rate was given, not searched."""
METRICS = (RATE, DELIVERED, CPU, P50, P99, PRIVATE, READY)


@dataclass(frozen=True, slots=True)
class Key:
    """What a figure is about; only figures with equal keys are compared."""

    scenario: str
    case: str
    subject: str
    setting: str
    """Every setting but the forwarder's commit, as JSON."""
    load: str
    """The share of the zero-loss rate, or the rate asked for, in words."""
    name: str = field(default="", compare=False)
    """The case, as a reader sees it."""
    who: str = field(default="", compare=False)
    """The subject with its load, as a reader sees them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All measurements of one figure in one run."""

    values: tuple[float, ...]
    trial_ids: tuple[str, ...] = ()
    doubtful: int = 0
    open_end: bool = False
    """The generator was the limit: the figure is at least this."""

    def __add__(self, other: Measured) -> Measured:
        return Measured(
            self.values + other.values,
            self.trial_ids + other.trial_ids,
            self.doubtful + other.doubtful,
            self.open_end or other.open_end,
        )

    @property
    def middle(self) -> float:
        """The geometric mean."""
        return math.exp(fmean(map(math.log, self.values)))


@dataclass(frozen=True, slots=True)
class ComparedFigure:
    """One figure in both runs: ``ratio`` is a / b."""

    key: Key
    metric: Metric
    a: Measured
    b: Measured
    refused: str = ""
    """Why no verdict may be given, whatever the figures."""

    @property
    def scenario(self) -> str:
        return self.key.scenario

    @property
    def trial_ids(self) -> tuple[str, ...]:
        return (*(f"A: {one}" for one in self.a.trial_ids), *(f"B: {one}" for one in self.b.trial_ids))

    @property
    def ratio(self) -> float:
        return self.a.middle / self.b.middle

    @property
    def interval(self) -> tuple[float, float] | None:
        """Welch's interval of the ratio, from logarithms; ``None`` with too few figures or no spread."""
        logs = [[math.log(value) for value in side.values] for side in (self.a, self.b)]
        if min(map(len, logs)) < LEAST_REPEATED or all(len(set(side)) == 1 for side in logs):
            return None
        found = stats.ttest_ind(*logs, equal_var=False).confidence_interval(CONFIDENCE)
        return math.exp(found.low), math.exp(found.high)

    @property
    def unjudged(self) -> str:
        """Why there is no verdict; empty where there is one."""
        if self.refused:
            return f"no verdict: {self.refused}"
        if self.a.open_end or self.b.open_end:
            return "no verdict: limited by the generator"
        if self.interval is not None:
            return ""
        numbers = len(self.a.values), len(self.b.values)
        if numbers == (1, 1):
            return "one measurement each: no verdict"
        few = min(numbers) < LEAST_REPEATED
        return f"{numbers[0]} and {numbers[1]} measurements: no verdict" if few else "no spread: no verdict"

    @property
    def verdict(self) -> Verdict | None:
        if self.unjudged or self.interval is None:
            return None
        low, high = self.interval
        if low <= 1 <= high:
            return "no difference"
        return "better" if (low > 1) == self.metric.higher_is_better else "worse"

    @property
    def verdict_text(self) -> str:
        return self.verdict or self.unjudged


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of the provenance in which two runs differ."""

    what: str
    a: str
    b: str
    machine: bool
    """Whether it makes them different machines."""


def differences(a: Dataset, b: Dataset) -> list[Difference]:
    """Differences in profile, machine, kernel, settings, packages and commit."""
    if a.run is None or b.run is None:
        return []
    found = [Difference("profile", a.run.profile, b.run.profile, False)]
    one, other = a.run.provenance, b.run.provenance
    for what in Provenance.model_fields:
        left, right = getattr(one, what), getattr(other, what)
        if isinstance(left, dict):
            found += [
                Difference(f"{what}: {name}", str(left.get(name, "–")), str(right.get(name, "–")), False)
                for name in sorted({*left, *right} - MOMENTARY)
            ]
        elif what == "memory_bytes" and abs(left - right) <= MEMORY_ALIKE * max(left, right):
            continue
        elif what not in ("command", "doubts"):
            found.append(Difference(what, str(left), str(right), what in MACHINE))
    return [each for each in found if each.a != each.b]


def refusal(a: Dataset, b: Dataset) -> str:
    """Why figures of the two runs may be shown but not judged; empty when they may."""
    if a.run is None or b.run is None:
        return "a run without its opening record does not name its machine"
    if any(each.machine for each in differences(a, b)):
        return "different machines"
    return ""


def compared_figures(a: Dataset, b: Dataset) -> list[ComparedFigure]:
    """Every figure that both runs have, by metric and in the order of ``a``."""
    left, right, why = figures(a), figures(b), refusal(a, b)
    both = sorted((each for each in left if each in right), key=lambda each: METRICS.index(each[0]))
    return [ComparedFigure(key, metric, left[metric, key], right[metric, key], why) for metric, key in both]


def missing(a: Dataset, b: Dataset) -> list[tuple[str, str]]:
    """Names and subjects of the figures that ``a`` has and ``b`` has not."""
    there = {key for _, key in figures(b)}
    return list(dict.fromkeys((key.name, key.who) for _, key in figures(a) if key not in there))


def figures(data: Dataset) -> dict[tuple[Metric, Key], Measured]:
    """Every figure of a run by what it is about."""
    found: dict[tuple[Metric, Key], Measured] = {}
    for metric, key, measured in _each(data):
        found[metric, key] = found.get((metric, key), Measured(())) + measured
    return found


def _each(data: Dataset) -> Iterator[tuple[Metric, Key, Measured]]:
    for z in data.zero_losses:
        if z.lower_dps:
            doubtful, open_end = int(bool(z.warnings)), z.upper_dps is None
            yield RATE, _key(data, z), Measured((z.lower_dps,), tuple(z.trial_ids), doubtful, open_end)
    for c in data.comparisons:
        if c.metric in PAIRED and c.a != c.b:
            yield from _paired(data, c, PAIRED[c.metric])
    for t in data.trials:
        if t.validity == "invalid" or t.subject == "none" or t.purpose not in REPEATABLE:
            continue
        for metric, value in _of_trial(t).items():
            if value > 0:
                measured = Measured((value * metric.scale,), (t.trial_id,), int(t.validity != "valid"))
                yield metric, _key(data, t), measured
    for f in data.footprints:
        for metric, size in ((PRIVATE, f.memory.private_bytes_per_worker), (READY, f.ready_ns)):
            if size > 0:
                yield metric, _key(data, f), Measured((size * metric.scale,), (), int(bool(f.warnings)))


def _paired(data: Dataset, c: Comparison, metric: Metric) -> Iterator[tuple[Metric, Key, Measured]]:
    """Both sides of a paired comparison, each with its steering: a measurement for each pair."""
    wanted = set(c.trial_ids)
    trials = [t for t in data.trials if t.scenario == c.scenario and t.trial_id in wanted]
    sides = [[t for t in trials if t.subject == subject] for subject in (c.a, c.b)]
    a, b = (labels.subject_with_receive(side[0]) if side else "" for side in sides)
    a, b = a or labels.subject(c.a), b or labels.subject(c.b)
    case = f"{c.scenario}: {labels.case_name(data, c)}, {labels.egress(c.setting)}"
    for name, other, side, values in ((a, b, sides[0], c.a_values), (b, a, sides[1], c.b_values)):
        load = f"in turn with {other}" + ("" if c.share is None else f" at {c.share:g} ×")
        key = Key(c.scenario, c.case, name, _setting(c.setting), load, case, f"{name}, {load}")
        scaled = tuple(value * metric.scale for value in values if value > 0)
        if scaled:
            doubtful = len(values) if c.warnings else 0
            yield metric, key, Measured(scaled, tuple(t.trial_id for t in side), doubtful)


def _of_trial(t: Trial) -> Mapping[Metric, float]:
    found: dict[Metric, float] = {}
    if t.asked_dps is None:
        found[DELIVERED] = t.delivered_dps
    if t.cpu is not None and t.cpu.baseline_ns is not None and t.cpu.ns_per_copy is not None:
        found[CPU] = t.cpu.ns_per_copy
    if t.latency is not None and t.asked_dps is not None:
        found |= {P50: t.latency.p50, P99: t.latency.p99}
    return found


def _key(data: Dataset, record: ZeroLoss | Trial | Footprint) -> Key:
    setting = "" if record.setting is None else _setting(record.setting)
    case = f"{record.scenario}: {labels.case_name(data, record)}"
    if isinstance(record, Footprint):
        started = f"{record.strategy} {record.interfaces} {record.cpus} {record.workers} {record.rules}"
        who = f"{quantity.plural(record.workers, 'worker')}, {record.strategy}"
        return Key(record.scenario, record.case, record.strategy, f"{setting} {started}", "", case, who)
    load = _load(record)
    who = ", ".join(filter(None, (labels.subject_with_receive(record), load)))
    case += f", {labels.egress(record.setting)}"
    return Key(record.scenario, record.case, record.subject, setting, load, case, who)


def _setting(setting: Setting) -> str:
    return setting.model_dump_json(exclude={"commit"})


def _load(record: ZeroLoss | Trial) -> str:
    if isinstance(record, ZeroLoss):
        return ""
    if record.load_share is not None:
        return f"at {quantity.percent(record.load_share)} of its zero-loss rate"
    return "as fast as it can" if record.asked_dps is None else f"at {quantity.rate(record.asked_dps)}/s"
