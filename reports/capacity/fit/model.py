"""Fit a model to runs: laws, ranges, points, and predictions of held-out cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from reports.capacity.cost import Load, terms
from reports.capacity.fit.holdout import (
    hold_out_memory,
    hold_out_rates,
    hold_out_zero_loss,
    laws_without,
    observation,
)
from reports.capacity.fit.regression import FitError, Observation, fit_law, robust_scatter
from reports.capacity.fit.samples import Rate, Run, Sample, rates, samples
from reports.capacity.fit.scaling import fit_scaling
from reports.capacity.law import Law, Spread, ranges
from reports.capacity.memory import (
    Holding,
    Measured,
    MemoryModel,
    kernel_terms,
    measured,
    private_terms,
    shared_terms,
    template_terms,
)
from reports.capacity.model import CapacityModel, HeldOut, Point, Source

ASSUMED_SHARE = Spread(value=0.85, scatter=0.1, cases=0)
"""Without a measured zero-loss rate: 15 % less than a worker forwards that cannot keep up."""
FEWEST_LOADS = 6
"""With fewer loads the terms cannot be told apart: several of the eight occur in a few loads only."""
FEWEST_FOOTPRINTS = 4


def fit(runs: Sequence[Run]) -> CapacityModel:
    """Raises :class:`~reports.capacity.fit.regression.FitError` when there is too little to fit to."""
    if len(machines := {_machine(run) for run in runs}) > 1:
        raise FitError(f"{len(machines)} machines ({'; '.join(sorted(machines))}); allowed: runs of one")
    known = samples(runs)
    single = [sample for sample in known if sample.cpus == 1 and sample.workers == 1]
    shown = len({sample.key for sample in single if sample.says == "cost"})
    if shown < FEWEST_LOADS:
        raise FitError(
            f"cost of a datagram: {shown} loads at which a worker could not keep up; allowed: {FEWEST_LOADS} "
            "or more (scenario capacity has some 70)"
        )
    observations = [observation(sample) for sample in single]
    seen = fit_law(observations, "cost of a datagram")
    laws = laws_without(single)
    held_rates = hold_out_rates(single, laws)
    cost = _scattered(seen, held_rates)
    found = rates(runs)
    share = _share(found, cost)
    held = [held_rates]
    if len(found) >= 3:
        held.append(hold_out_zero_loss(found, laws, cost))
    footprints = [each for run in runs for each in measured(run.run_id, run.footprints)]
    memory = fit_memory(footprints)
    if memory is not None:
        held.append(hold_out_memory(footprints))
    points = _points(single)
    return CapacityModel(
        sources=[_source(run) for run in runs],
        trials=len(single),
        cost=cost,
        steered=any(point.steered for point in points),
        ranges=ranges([point.load.quantities for point in points]),
        points=points,
        zero_loss_share=share,
        scaling=fit_scaling(known, cost),
        memory=memory,
        held_out=[each for each in held if each.cases],
    )


def fit_memory(footprints: Sequence[Measured]) -> MemoryModel | None:
    """``None`` with too few footprints."""
    if len({each.held for each in footprints}) < FEWEST_FOOTPRINTS:
        return None

    def law_of(
        what: str, terms_of: Callable[[Holding], dict[str, float]], sizes: Iterable[int | None]
    ) -> Law | None:
        known = [
            Observation(each.held, terms_of(each.held), size)
            for each, size in zip(footprints, sizes, strict=True)
            if size is not None and size > 0
        ]
        return fit_law(known, what) if len(known) >= FEWEST_FOOTPRINTS else None

    return MemoryModel(
        private=fit_law(
            [Observation(each.held, private_terms(each.held), each.private_bytes) for each in footprints],
            "private memory of a worker",
        ),
        template=fit_law(
            [Observation(each.held, template_terms(each.held), each.template_bytes) for each in footprints],
            "memory of the supervisor",
        ),
        shared=law_of("memory that is shared", shared_terms, (each.shared_bytes for each in footprints)),
        kernel=law_of("memory of the kernel", kernel_terms, (each.kernel_bytes for each in footprints)),
        ranges=ranges([each.held.quantities for each in footprints]),
        cases=[each.case for each in footprints],
    )


def _scattered(law: Law, held: HeldOut) -> Law:
    """The law with the scatter of held-out cases, which is the error to expect for a new case."""
    logs = [math.log(case.predicted / case.measured) for case in held.cases]
    return law.model_copy(update={"scatter": max(law.scatter, round(robust_scatter(logs), 4))})


def _share(found: Sequence[Rate], cost: Law) -> Spread:
    if not found:
        return ASSUMED_SHARE
    logs = [math.log(rate.dps * cost.at(terms(rate.load)) / 1e9) for rate in found]
    middle = median(logs)
    scatter = robust_scatter([log - middle for log in logs]) if len(logs) > 2 else ASSUMED_SHARE.scatter
    return Spread(value=round(math.exp(middle), 4), scatter=round(scatter, 4), cases=len(found))


def _points(single: Sequence[Sample]) -> list[Point]:
    by_load: dict[Load, list[Sample]] = {}
    for sample in single:
        if sample.says == "cost":
            by_load.setdefault(sample.load, []).append(sample)
    return [
        Point(
            case=found[0].case,
            **{name: getattr(load, name) for name in Load.__dataclass_fields__},
            dps=round(median(s.forwarded_dps for s in found), 1),
            least_dps=round(min(s.forwarded_dps for s in found), 1),
            most_dps=round(max(s.forwarded_dps for s in found), 1),
            trials=[s.trial for s in found],
        )
        for load, found in by_load.items()
    ]


def _machine(run: Run) -> str:
    return _source(run).machine


def _source(run: Run) -> Source:
    if run.run is None:
        raise FitError("a results file without the record that opens a run: on what machine it ran is needed")
    where = run.run.provenance
    return Source(
        run_id=run.run.run_id,
        started_at=run.run.started_at,
        commit=where.commit,
        kernel=where.kernel,
        cpu_model=where.cpu_model,
        cpus=where.cpus,
    )
