"""Where a figure changed over many runs. Pure.

Change points are found by PELT (Killick, Fearnhead, Eckley, "Optimal Detection of Changepoints With a Linear
Computational Cost", JASA 107(500), 2012; library ruptures) in the mean of the logarithms, so that a change is
a factor. Each change costs :data:`PENALTY` times the variance of the noise, which is estimated from the
differences between neighbours, as a change affects only one of them. In noise alone, one series in forty with
10 to 200 points has a change (500 simulated series each; a property test holds it to one in twenty).
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from lab.journal.provenance import machine_of
from lab.results import AnyRecord, Comparison, Footprint, RunStarted, ZeroLoss
from lab.results.series import ChangePoint, Point, Series, SeriesKey
from lab.scenario.gate import NAME as GATE

LEAST_POINTS = 10
"""With fewer points, noise cannot be told from a change."""
LEAST_LENGTH = 3
"""Points between two changes, at least."""
PENALTY = 12.0
NOISE_FLOOR = 0.002
"""Noise is taken to be at least this share, so that tiny differences are not changes."""


def changes(values: Sequence[float]) -> tuple[ChangePoint, ...]:
    """Where the level of ``values`` changes.

    Raises:
        ValueError: fewer than :data:`LEAST_POINTS` values, or values without a logarithm.
    """
    if len(values) < LEAST_POINTS:
        raise ValueError(f"{len(values)} values; changes are looked for in {LEAST_POINTS} or more")
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"values {list(values)}: want finite numbers above 0")
    from ruptures import KernelCPD  # takes half a second to import

    logs = np.log(np.asarray(values, dtype=np.float64))
    # ruptures adds up squares: large equal values must not differ by rounding.
    centred = logs - logs.mean()
    penalty = PENALTY * noise(values) ** 2
    ends = KernelCPD(kernel="linear", min_size=LEAST_LENGTH).fit(centred.reshape(-1, 1)).predict(pen=penalty)
    bounds = [0, *ends]
    means = [float(logs[start:end].mean()) for start, end in zip(bounds, ends, strict=False)]
    return tuple(
        ChangePoint(int(index), math.exp(after - before))
        for index, before, after in zip(ends, means, means[1:], strict=False)
    )


def noise(values: Sequence[float]) -> float:
    """Standard deviation of the logarithms around their level, from the differences between neighbours."""
    steps = np.diff(np.log(np.asarray(values, dtype=np.float64)))
    return max(NOISE_FLOOR, float(np.sqrt(np.mean(steps**2) / 2)))


def series_of(runs: Iterable[Sequence[AnyRecord]], absolute: bool = False) -> list[Series]:
    """Every series in the records of ``runs``, sorted by key.

    Args:
        absolute: include rates and sizes of cases that have a ratio within each run, which is more certain.
    """
    series: dict[SeriesKey, dict[str, Point]] = {}
    for records in runs:
        for key, point in _points(records):
            series.setdefault(key, {})[point.run_id] = point
    ratios = {(key.machine, key.scenario, key.case) for key in series if key.kind == "ratio"}
    return [
        _series(key, sorted(points.values(), key=lambda point: (point.at, point.run_id)))
        for key, points in sorted(series.items())
        if absolute or key.kind == "ratio" or (key.machine, key.scenario, key.case) not in ratios
    ]


def _series(key: SeriesKey, points: Sequence[Point]) -> Series:
    try:
        found, refused = changes([point.value for point in points]), None
    except ValueError as error:
        found, refused = (), str(error)
    return Series(key, tuple(points), found, refused)


def _points(records: Sequence[AnyRecord]) -> Iterator[tuple[SeriesKey, Point]]:
    started = next((record for record in records if isinstance(record, RunStarted)), None)
    if started is None:
        return
    machine = machine_of(started.provenance)
    ratios: dict[SeriesKey, list[float]] = {}
    for record in records:
        if isinstance(record, Comparison):
            if record.scenario == GATE:
                continue  # each time against another commit, so not a series
            subject, better = f"{record.a} / {record.b}", record.higher_is_better
            about = _digest(record.setting.model_dump(), started.profile)
            key = SeriesKey(
                machine, "ratio", record.scenario, record.case, subject, record.figure, about, "", better
            )
            ratios.setdefault(key, []).append(record.ratio)
        elif isinstance(record, ZeroLoss) and record.lower_dps:
            metric = f"rate with at most {record.goal_loss_ratio:.1%} loss"
            about = _digest(record.setting.model_dump(), started.profile, started.provenance.packages)
            key = SeriesKey(
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
                    key = SeriesKey(
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
