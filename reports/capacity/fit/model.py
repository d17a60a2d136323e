"""Fit a model to runs: laws, ranges, points, and predictions of held-out cases."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from reports.capacity.cost import terms
from reports.capacity.fit import holdout
from reports.capacity.fit.regression import FitError, fit_law, robust_scatter
from reports.capacity.fit.samples import Rate, Sample, rates, samples
from reports.capacity.fit.scaling import fit_scaling
from reports.capacity.law import Law, Spread, ranges
from reports.capacity.memory import SIZES, Measured, MemoryModel, measured
from reports.capacity.model import CapacityModel, Point, Source
from reports.dataset import Dataset

ASSUMED_SHARE = Spread(value=0.85, scatter=0.1, cases=0)
"""Without a measured zero-loss rate: 15 % less than a worker forwards that cannot keep up."""
FEWEST_LOADS = 6
"""With fewer loads the terms cannot be told apart: several of the eight occur in a few loads only."""
FEWEST_FOOTPRINTS = 4


def fit(runs: Sequence[Dataset]) -> CapacityModel:
    """Raises :class:`~reports.capacity.fit.regression.FitError` when there is too little to fit to."""
    sources = [_source(run) for run in runs]
    if len(machines := {source.machine for source in sources}) > 1:
        raise FitError(f"{len(machines)} machines ({'; '.join(sorted(machines))}); allowed: runs of one")
    known = samples(runs)
    single = [sample for sample in known if sample.cpus == 1 and sample.workers == 1]
    shown = len({sample.key for sample in single if sample.says == "cost"})
    if shown < FEWEST_LOADS:
        raise FitError(
            f"cost of a datagram: {shown} loads at which a worker could not keep up; allowed: {FEWEST_LOADS} "
            "or more (scenario capacity has some 70)"
        )
    seen = fit_law([holdout.observation(sample) for sample in single], "cost of a datagram")
    laws = holdout.laws_without(single)
    held = [holdout.hold_out_rates(single, laws)]
    # The scatter of held-out cases is the error to expect for a new case.
    scatter = robust_scatter([math.log(case.predicted / case.measured) for case in held[0].cases])
    cost = seen.model_copy(update={"scatter": max(seen.scatter, round(scatter, 4))})
    found = rates(runs)
    if len(found) >= 3:
        held.append(holdout.hold_out_zero_loss(found, laws, cost))
    footprints = [each for run in runs for each in measured(run.run_id, run.footprints)]
    memory = fit_memory(footprints)
    if memory is not None:
        held.append(holdout.hold_out_memory(footprints))
    points = _points(single)
    return CapacityModel(
        sources=sources,
        trials=len(single),
        cost=cost,
        steered=any(point.steered for point in points),
        ranges=ranges([point.load.quantities for point in points]),
        points=points,
        zero_loss_share=_share(found, cost),
        scaling=fit_scaling(known, cost),
        memory=memory,
        held_out=[each for each in held if each.cases],
    )


def fit_memory(footprints: Sequence[Measured]) -> MemoryModel | None:
    """``None`` with too few footprints."""
    if len({each.held for each in footprints}) < FEWEST_FOOTPRINTS:
        return None
    private, template, shared, kernel = (holdout.sizes(footprints, kind) for kind in SIZES)
    return MemoryModel(
        private=fit_law(private, "private memory of a worker"),
        template=fit_law(template, "memory of the supervisor"),
        shared=fit_law(shared, "memory that is shared") if len(shared) >= FEWEST_FOOTPRINTS else None,
        kernel=fit_law(kernel, "memory of the kernel") if len(kernel) >= FEWEST_FOOTPRINTS else None,
        ranges=ranges([asdict(each.held) for each in footprints]),
        cases=[each.case for each in footprints],
    )


def _share(found: Sequence[Rate], cost: Law) -> Spread:
    if not found:
        return ASSUMED_SHARE
    logs = [math.log(rate.dps * cost.at(terms(rate.load)) / 1e9) for rate in found]
    middle = median(logs)
    scatter = robust_scatter([log - middle for log in logs]) if len(logs) > 2 else ASSUMED_SHARE.scatter
    return Spread(value=round(math.exp(middle), 4), scatter=round(scatter, 4), cases=len(found))


def _points(single: Sequence[Sample]) -> list[Point]:
    points = []
    for load, found in holdout.costs_by_load(single).items():
        rates = [sample.forwarded_dps for sample in found]
        points.append(
            Point(
                case=found[0].case,
                **asdict(load),
                dps=round(median(rates), 1),
                least_dps=round(min(rates), 1),
                most_dps=round(max(rates), 1),
                trials=[sample.trial for sample in found],
            )
        )
    return points


def _source(data: Dataset) -> Source:
    if data.run is None:
        raise FitError("a results file without the record that opens a run: on what machine it ran is needed")
    started, where = data.run, data.run.provenance
    return Source(
        run_id=started.run_id,
        started_at=started.started_at,
        commit=where.commit,
        kernel=where.kernel,
        cpu_model=where.cpu_model,
        cpus=where.cpus,
    )
