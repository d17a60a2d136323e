"""Fit a model to runs: laws, ranges, points, and predictions of held-out cases."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from reports.capacity.fit import holdout
from reports.capacity.fit.regression import FitError, fit_law
from reports.capacity.fit.samples import Sample, rates, sample_of, samples
from reports.capacity.fit.scaling import fit_scaling
from reports.capacity.law import ranges
from reports.capacity.memory import SIZES, Measured, MemoryModel, measured
from reports.capacity.model import CapacityModel, Delays, HeldOut, Point, Share, Source
from reports.dataset import Dataset, grouped

ASSUMED_SHARE = Share(value=0.85, scatter=0.1, cases=0)
"""Without a measured zero-loss rate: 15 % less than a worker forwards that cannot keep up."""
FEWEST_LOADS = 6
"""With fewer loads the terms cannot be told apart: several of the eight occur in a few loads only."""
FEWEST_FOOTPRINTS = 4
FEWEST_RATES = 3


def fit(runs: Sequence[Dataset]) -> CapacityModel:
    """Raises :class:`~reports.capacity.fit.regression.FitError` when there is too little to fit to."""
    sources = [_source(run) for run in runs]
    if len(machines := {source.machine for source in sources}) > 1:
        raise FitError(f"{len(machines)} machines ({'; '.join(sorted(machines))}); allowed: runs of one")
    known = samples(runs)
    single = [sample for sample in known if sample.workers == 1]
    shown = len({sample.key for sample in single if sample.says == "cost"})
    if shown < FEWEST_LOADS:
        raise FitError(
            f"cost of a datagram: {shown} loads at which a worker could not keep up; allowed: {FEWEST_LOADS} "
            "or more (scenario capacity has some 35)"
        )
    seen = fit_law([holdout.observation(sample) for sample in single], "cost of a datagram")
    laws = holdout.laws_without(single)
    held = [holdout.hold_out_rates(single, laws)]
    # The errors of held-out cases are those to expect for a new case.
    errors = _errors(held[0])
    cost = seen.model_copy(update={"scatter": max(seen.scatter, round(holdout.spread(errors), 4))})
    found, share = rates(runs), ASSUMED_SHARE
    if len(found) >= FEWEST_RATES:
        held.append(holdout.hold_out_zero_loss(found, laws, seen))
        beside = holdout.spread(_errors(held[1])) ** 2 - cost.scatter**2
        share = holdout.fit_share(found, seen).model_copy(
            update={"scatter": round(math.sqrt(max(0.0, beside)), 4)}
        )
    footprints = [each for run in runs for each in measured(run.run_id, run.footprints)]
    memory = fit_memory(footprints)
    if memory is not None:
        held.append(holdout.hold_out_memory(footprints))
        wider = max(memory.private.scatter, round(holdout.spread(_errors(held[-1])), 4))
        private = memory.private.model_copy(update={"scatter": wider})
        memory = memory.model_copy(update={"private": private})
    points = _points(single)
    return CapacityModel(
        sources=sources,
        trials=len(single),
        cost=cost,
        ranges=ranges([point.load.quantities for point in points]),
        points=points,
        zero_loss_share=share,
        scaling=fit_scaling(runs, known, seen),
        memory=memory,
        delays=_delays(runs),
        held_out=[each for each in held if each.cases],
    )


def _errors(held: HeldOut) -> list[float]:
    return [math.log(case.predicted / case.measured) for case in held.cases]


def _delays(runs: Sequence[Dataset]) -> list[Delays]:
    """Latency at shares of the zero-loss rate, of each load."""
    seen = [
        (sample, trial.load_share, trial.latency)
        for run in runs
        for trial in run.trials
        if trial.purpose == "latency" and trial.load_share and trial.latency
        if (sample := sample_of(run, trial)) is not None
    ]
    found = grouped(seen, lambda each: (each[0].key, each[1]))
    return [
        Delays(
            case=own[0][0].case,
            load_share=share,
            interfaces=load.interfaces,
            workers=workers,
            p50=median(latency.p50 for *_, latency in own),
            p99=median(latency.p99 for *_, latency in own),
            trials=[sample.trial for sample, *_ in own],
        )
        for ((load, workers), share), own in found.items()
    ]


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
