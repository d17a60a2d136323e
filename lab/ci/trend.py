"""A figure over many runs, and where it changed: series of one machine, change points, words. Pure.

Change points are found by PELT (Killick, Fearnhead, Eckley, "Optimal Detection of Changepoints With a Linear
Computational Cost", JASA 107(500), 2012; library ruptures) in the mean of the logarithms, so that a change is
a factor. The penalty of each is :data:`PENALTY` times the variance of the noise, which is taken from the
differences of neighbours: a step is in one of them only. Of noise alone with 10 to 200 points that leaves one
series in forty with a change (500 simulated series each, ``tests/property/test_lab_trend.py`` holds it to one
in twenty).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lab.results import AnyRecord, Comparison, Footprint, Provenance, RunStarted, ZeroLoss
from lab.scenario.gate import NAME as GATE

LEAST_POINTS = 10
"""Below this noise cannot be told from a change."""
LEAST_LENGTH = 3
"""Points between two changes."""
PENALTY = 12.0
NOISE_FLOOR = 0.002
"""Of values that hardly differ: what is less than that, as a share, is not looked at."""


@dataclass(frozen=True, order=True)
class Key:
    """What one series is about: only figures for which all of this is equal are set beside each other."""

    machine: str
    kind: Literal["ratio", "absolute"]
    scenario: str
    case: str
    subject: str
    metric: str
    setting: str
    """A digest of the setting, profile and, of an absolute figure, the packages."""
    unit: str
    higher_is_better: bool


@dataclass(frozen=True)
class Point:
    """``value`` in the unit of its series, measured by a run that began ``at`` (UTC, ISO 8601)."""

    at: str
    run_id: str
    commit: str | None
    value: float


@dataclass(frozen=True)
class Change:
    """From the point with this index on, values are ``factor`` times those of the part before."""

    index: int
    factor: float


@dataclass(frozen=True)
class Trend:
    """A series in the order of time, and what was found in it."""

    key: Key
    points: tuple[Point, ...]
    changes: tuple[Change, ...]
    refused: str | None
    """Why changes were not looked for, where they were not."""

    def words(self, change: Change) -> str:
        """ "×0.83, worse, from run … (2026-01-02) on"."""
        better = (change.factor > 1) == self.key.higher_is_better
        first = self.points[change.index]
        commit = f", commit {first.commit[:12]}" if first.commit else ""
        verdict = "better" if better else "worse"
        return f"× {change.factor:.3f}, {verdict}, from {first.run_id} on ({first.at[:10]}{commit})"


def machine_of(provenance: Provenance) -> str:
    """What must be equal for two absolute figures to be compared: processor, CPUs, memory, kernel release."""
    gigabytes = provenance.memory_bytes / 1e9
    kernel = provenance.kernel.split()[0]
    return f"{provenance.cpu_model}, {provenance.cpus} CPUs, {gigabytes:.0f} GB, Linux {kernel}"


def changes(values: Sequence[float]) -> tuple[Change, ...]:
    """Where the level of ``values`` changes. Raises ValueError for fewer than :data:`LEAST_POINTS`, and for
    values that have no logarithm."""
    if len(values) < LEAST_POINTS:
        raise ValueError(f"{len(values)} values; changes are looked for in {LEAST_POINTS} or more")
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"values {list(values)}: want finite numbers above 0")
    from ruptures import KernelCPD  # half a second, that only this needs

    logs = np.log(np.asarray(values, dtype=np.float64))
    # The levels must not be told apart by rounding: ruptures adds up squares.
    centred = logs - logs.mean()
    penalty = PENALTY * noise(values) ** 2
    ends = KernelCPD(kernel="linear", min_size=LEAST_LENGTH).fit(centred.reshape(-1, 1)).predict(pen=penalty)
    bounds = [0, *ends]
    means = [float(logs[start:end].mean()) for start, end in zip(bounds, ends, strict=False)]
    return tuple(
        Change(int(index), math.exp(after - before))
        for index, before, after in zip(ends, means, means[1:], strict=False)
    )


def noise(values: Sequence[float]) -> float:
    """The standard deviation of the logarithms around their level, from the differences of neighbours."""
    steps = np.diff(np.log(np.asarray(values, dtype=np.float64)))
    return max(NOISE_FLOOR, float(np.sqrt(np.mean(steps**2) / 2)))


def trends(runs: Iterable[Sequence[AnyRecord]], absolute: bool = False) -> list[Trend]:
    """Every series in the records of ``runs``, in the order of their keys.

    Args:
        absolute: also rates and sizes about which a ratio within the run says the same, and more surely.
    """
    series: dict[Key, dict[str, Point]] = {}
    for records in runs:
        for key, point in _points(records):
            series.setdefault(key, {})[point.run_id] = point
    ratios = {(key.machine, key.scenario, key.case) for key in series if key.kind == "ratio"}
    return [
        _trend(key, sorted(points.values(), key=lambda point: (point.at, point.run_id)))
        for key, points in sorted(series.items())
        if absolute or key.kind == "ratio" or (key.machine, key.scenario, key.case) not in ratios
    ]


def _trend(key: Key, points: Sequence[Point]) -> Trend:
    try:
        found, refused = changes([point.value for point in points]), None
    except ValueError as error:
        found, refused = (), str(error)
    return Trend(key, tuple(points), found, refused)


def _points(records: Sequence[AnyRecord]) -> Iterator[tuple[Key, Point]]:
    started = next((record for record in records if isinstance(record, RunStarted)), None)
    if started is None:
        return
    machine = machine_of(started.provenance)
    ratios: dict[Key, list[float]] = {}
    for record in records:
        if isinstance(record, Comparison):
            if record.scenario == GATE:
                continue  # against another commit each time: no series
            subject, better = f"{record.a} / {record.b}", record.higher_is_better
            about = _digest(record.setting.model_dump(), started.profile)
            key = Key(
                machine, "ratio", record.scenario, record.case, subject, record.metric, about, "", better
            )
            ratios.setdefault(key, []).append(record.ratio)
        elif isinstance(record, ZeroLoss) and record.lower_dps:
            metric = f"rate with at most {record.goal_loss_ratio:.1%} loss"
            about = _digest(record.setting.model_dump(), started.profile, started.provenance.packages)
            key = Key(
                machine, "absolute", record.scenario, record.case, record.subject, metric, about, "dps", True
            )
            yield key, _point(started, record.lower_dps)
        elif isinstance(record, Footprint):
            setting = None if record.setting is None else record.setting.model_dump()
            about = _digest(setting, started.profile, started.provenance.packages)
            for metric, value, unit in (
                ("private memory of a worker", record.memory.private_bytes_per_worker, "bytes"),
                ("time until ready", record.ready_ns, "ns"),
            ):
                if value > 0:
                    key = Key(
                        machine, "absolute", record.scenario, record.case, "mcrd", metric, about, unit, False
                    )
                    yield key, _point(started, value)
    for key, values in ratios.items():
        yield key, _point(started, math.exp(sum(map(math.log, values)) / len(values)))


def _point(started: RunStarted, value: float) -> Point:
    return Point(started.started_at, started.run_id, started.provenance.commit, value)


def _digest(*parts: object) -> str:
    texts = (repr(sorted(part.items())) if isinstance(part, Mapping) else repr(part) for part in parts)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
