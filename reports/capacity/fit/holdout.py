"""Predict each case from all the others, as if it had not been measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from reports.capacity.cost import Load, terms
from reports.capacity.fit.regression import FitError, Observation, fit_coefficients, robust_scatter
from reports.capacity.fit.samples import Rate, Sample
from reports.capacity.law import Law, around
from reports.capacity.memory import Measured, private_terms, template_terms
from reports.capacity.model import HeldOut, HeldOutCase


def hold_out_rates(single: Sequence[Sample], laws: Mapping[Load, Law]) -> HeldOut:
    """For each load that showed it, the rate of a worker that cannot keep up."""
    loads = list(dict.fromkeys(sample.load for sample in single if sample.says == "cost"))
    cases = []
    for load in loads:
        of_case = [sample for sample in single if sample.load == load and sample.says == "cost"]
        law = laws.get(load)
        if law is None:
            continue
        # At the load that each trial had: overload costs the receiving side, too.
        ratios = [
            sample.cost_ns / law.at(terms(sample.load, sample.arrived_per_forwarded)) for sample in of_case
        ]
        rate = median(sample.forwarded_dps for sample in of_case)
        predicted = rate * median(ratios)
        cases.append(
            _case(of_case[0].case, predicted, rate, law.scatter, [sample.trial for sample in of_case])
        )
    return HeldOut(what="rate of a worker", cases=cases)


def hold_out_zero_loss(found: Sequence[Rate], laws: Mapping[Load, Law], every: Law) -> HeldOut:
    """The zero-loss rate of each searched load, from the other loads' trials and searches.

    ``every`` is the law of all cases, for a load that showed no cost itself.
    """
    cases = []
    for load in dict.fromkeys(rate.load for rate in found):
        law = laws.get(load, every)
        others = [rate for rate in found if rate.load != load]
        if not others:
            continue
        shares = [math.log(rate.dps * law.at(terms(rate.load))) for rate in others]
        middle = median(shares)
        scatter = math.hypot(law.scatter, robust_scatter([share - middle for share in shares]))
        own = [rate for rate in found if rate.load == load]
        predicted = math.exp(middle) / law.at(terms(load))
        cases.append(
            _case(
                own[0].case,
                predicted,
                median(rate.dps for rate in own),
                scatter,
                [trial for rate in own for trial in rate.trials],
            )
        )
    return HeldOut(what="zero-loss rate", cases=cases)


def hold_out_memory(footprints: Sequence[Measured]) -> HeldOut:
    """Private memory of workers and supervisor, for each number of workers and rules."""
    cases = []
    for held in dict.fromkeys(each.held for each in footprints):
        rest = [each for each in footprints if each.held != held]
        own = [each for each in footprints if each.held == held]
        try:
            private = fit_coefficients(
                [Observation(each.held, private_terms(each.held), each.private_bytes) for each in rest],
                "memory",
            )
            template = fit_coefficients(
                [Observation(each.held, template_terms(each.held), each.template_bytes) for each in rest],
                "memory",
            )
        except FitError:
            continue
        predicted = held.workers * private.at(private_terms(held)) + template.at(template_terms(held))
        total = median(each.total_bytes for each in own)
        scatter = max(private.scatter, template.scatter)
        cases.append(_case(own[0].case, predicted, total, scatter, [each.case for each in own]))
    return HeldOut(what="memory", cases=cases)


def observation(sample: Sample) -> Observation:
    found = terms(sample.load, sample.arrived_per_forwarded)
    return Observation(sample.key, found, sample.cost_ns, sample.says == "bound")


def laws_without(single: Sequence[Sample]) -> dict[Load, Law]:
    """For each load that showed its cost, the law of all the others if they are enough."""
    loads = dict.fromkeys(sample.load for sample in single if sample.says == "cost")
    found = {load: _without(single, load) for load in loads}
    return {load: law for load, law in found.items() if law is not None}


def _without(single: Sequence[Sample], load: Load) -> Law | None:
    try:
        return fit_coefficients([observation(s) for s in single if s.load != load], "cost of a datagram")
    except FitError:
        return None


def _case(
    case: str, predicted: float, measured: float, scatter: float, records: Sequence[str]
) -> HeldOutCase:
    low, high = around(predicted, scatter)
    return HeldOutCase(
        case=case,
        predicted=round(predicted, 1),
        measured=round(measured, 1),
        low=round(low, 1),
        high=round(high, 1),
        records=list(records),
    )
