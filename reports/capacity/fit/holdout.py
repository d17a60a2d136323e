"""Predict each case from all the others, as if it had not been measured."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import median

from reports.capacity.cost import Load, terms
from reports.capacity.fit.regression import FitError, Observation, fit_coefficients, robust_scatter
from reports.capacity.fit.samples import Rate, Sample
from reports.capacity.law import Law, around
from reports.capacity.memory import SIZES, Measured, memory_terms
from reports.capacity.model import HeldOut, HeldOutCase
from reports.dataset import grouped


def hold_out_rates(single: Sequence[Sample], laws: Mapping[Load, Law]) -> HeldOut:
    """For each load that showed it, the rate of a worker that cannot keep up."""
    cases = []
    for load, own in costs_by_load(single).items():
        if law := laws.get(load):
            # At the load that each trial had: overload costs the receiving side, too.
            ratios = [s.cost_ns / law.at(terms(s.load, s.arrived_per_forwarded)) for s in own]
            rate = median(sample.forwarded_dps for sample in own)
            trials = [sample.trial for sample in own]
            cases.append(_case(own[0].case, rate * median(ratios), rate, law.scatter, trials))
    return HeldOut(what="rate of a worker", cases=cases)


def hold_out_zero_loss(found: Sequence[Rate], laws: Mapping[Load, Law], every: Law) -> HeldOut:
    """The zero-loss rate of each searched load, from the other loads' trials and searches.

    ``every`` is the law of all cases, for a load that showed no cost itself.
    """
    cases = []
    for load, own in grouped(found, lambda rate: rate.load).items():
        law = laws.get(load, every)
        shares = [math.log(rate.dps * law.at(terms(rate.load))) for rate in found if rate.load != load]
        if shares:
            middle = median(shares)
            scatter = math.hypot(law.scatter, robust_scatter([share - middle for share in shares]))
            predicted, measured = math.exp(middle) / law.at(terms(load)), median(rate.dps for rate in own)
            trials = [trial for rate in own for trial in rate.trials]
            cases.append(_case(own[0].case, predicted, measured, scatter, trials))
    return HeldOut(what="zero-loss rate", cases=cases)


def hold_out_memory(footprints: Sequence[Measured]) -> HeldOut:
    """Private memory of workers and supervisor, for each number of workers and rules."""
    cases = []
    for held, own in grouped(footprints, lambda each: each.held).items():
        rest = [each for each in footprints if each.held != held]
        try:
            private = fit_coefficients(sizes(rest, "private"), "memory")
            template = fit_coefficients(sizes(rest, "template"), "memory")
        except FitError:
            continue
        terms_of = memory_terms(held)
        predicted = held.workers * private.at(terms_of["private"]) + template.at(terms_of["template"])
        total = median(each.memory.own_bytes for each in own)
        scatter = max(private.scatter, template.scatter)
        cases.append(_case(own[0].case, predicted, total, scatter, [each.case for each in own]))
    return HeldOut(what="memory", cases=cases)


def sizes(footprints: Sequence[Measured], kind: str) -> list[Observation]:
    """One of :data:`~reports.capacity.memory.SIZES`, where it was measured and is not 0."""
    known = ((each.held, getattr(each.memory, SIZES[kind])) for each in footprints)
    return [Observation(held, memory_terms(held)[kind], value) for held, value in known if value]


def observation(sample: Sample) -> Observation:
    found = terms(sample.load, sample.arrived_per_forwarded)
    return Observation(sample.key, found, sample.cost_ns, sample.says == "bound")


def costs_by_load(single: Sequence[Sample]) -> dict[Load, list[Sample]]:
    return grouped((sample for sample in single if sample.says == "cost"), lambda sample: sample.load)


def laws_without(single: Sequence[Sample]) -> dict[Load, Law]:
    """For each load that showed its cost, the law of all the others if they are enough."""
    found = {}
    for load in costs_by_load(single):
        others = [observation(sample) for sample in single if sample.load != load]
        with suppress(FitError):
            found[load] = fit_coefficients(others, "cost of a datagram")
    return found


def _case(
    case: str, predicted: float, measured: float, scatter: float, records: Sequence[str]
) -> HeldOutCase:
    ends = (predicted, measured, *around(predicted, scatter))
    figures = zip(("predicted", "measured", "low", "high"), (round(each, 1) for each in ends), strict=True)
    return HeldOutCase(case=case, records=list(records), **dict(figures))
