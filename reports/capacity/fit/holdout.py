"""Predict each case from all the others, as if it had not been measured, with an interval from theirs.

A case's interval is as wide as the errors of 95 % of the *other* held-out cases (leave-one-out conformal
prediction: Barber et al., "Predictive inference with the jackknife+", Annals of Statistics 49(1), 2021). So
how often intervals hold does not depend on how the errors are distributed, nor on the case's own.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import median

from lab.results import NS_PER_S
from reports.capacity.cost import Load, terms
from reports.capacity.fit.regression import FitError, Observation, fit_coefficients
from reports.capacity.fit.samples import Rate, Sample
from reports.capacity.law import NORMAL_95, Law, around
from reports.capacity.memory import SIZES, Measured, memory_terms
from reports.capacity.model import HeldOut, HeldOutCase, Predicted, Share
from reports.dataset import grouped

Case = tuple[str, float, float, Sequence[str]]
"""Its name, predicted, measured, and the records."""
UNKNOWN = 0.5
"""Standard deviation of a logarithm where there is no other case."""


def hold_out_rates(single: Sequence[Sample], laws: Mapping[Load, Law]) -> HeldOut:
    """For each load that showed it, the rate of a worker that cannot keep up."""
    cases: list[Case] = []
    for load, own in costs_by_load(single).items():
        if law := laws.get(load):
            # At the load that each trial had: overload costs the receiving side, too.
            ratios = [s.cost_ns / law.at(terms(s.load, s.arrived_per_forwarded)) for s in own]
            rate = median(sample.forwarded_dps for sample in own)
            trials = [sample.trial for sample in own]
            cases.append((own[0].case, rate * median(ratios), rate, trials))
    return _held_out("rate of a worker", cases)


def hold_out_zero_loss(found: Sequence[Rate], laws: Mapping[Load, Law], every: Law) -> HeldOut:
    """The zero-loss rate of each searched load, from the other loads' trials and searches.

    ``every`` is the law of all cases, for a load that showed no cost itself.
    """
    cases: list[Case] = []
    for load, own in grouped(found, lambda rate: rate.load).items():
        law = laws.get(load, every)
        if others := [rate for rate in found if rate.load != load]:
            predicted = fit_share(others, law).at(load.interfaces) * NS_PER_S / law.at(terms(load))
            trials = [trial for rate in own for trial in rate.trials]
            cases.append((own[0].case, predicted, median(rate.dps for rate in own), trials))
    return _held_out("zero-loss rate", cases)


def fit_share(found: Sequence[Rate], cost: Law) -> Share:
    """What of a worker's rate is without loss, and how that falls with its interfaces (Theil-Sen slope)."""
    points = [
        (math.log(rate.load.interfaces), math.log(rate.dps * cost.at(terms(rate.load)) / NS_PER_S))
        for rate in found
    ]
    slopes = [(y - v) / (x - u) for u, v in points for x, y in points if x > u]
    slope = min(0.0, median(slopes)) if slopes else 0.0
    value = math.exp(median(y - slope * x for x, y in points))
    return Share(value=round(value, 4), power=round(slope, 4), scatter=0.0, cases=len(found))


def hold_out_memory(footprints: Sequence[Measured]) -> HeldOut:
    """Private memory of workers and supervisor, for each number of workers and rules."""
    cases: list[Case] = []
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
        cases.append((own[0].case, predicted, total, [each.case for each in own]))
    return _held_out("memory", cases)


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


def spread(errors: Sequence[float]) -> float:
    """Standard deviation whose interval of 95 % holds as many of these errors (of logarithms), and a case
    more."""
    if not errors:
        return UNKNOWN
    ranked = sorted(map(abs, errors))
    return ranked[min(len(ranked), math.ceil(0.95 * (len(ranked) + 1))) - 1] / NORMAL_95


def _held_out(what: Predicted, cases: Sequence[Case]) -> HeldOut:
    errors = [math.log(predicted / measured) for _, predicted, measured, _ in cases]
    found = []
    for place, (case, predicted, measured, records) in enumerate(cases):
        low, high = around(predicted, spread(errors[:place] + errors[place + 1 :]))
        ends = {"predicted": predicted, "measured": measured, "low": low, "high": high}
        figures = {name: round(value, 1) for name, value in ends.items()}
        found.append(HeldOutCase(case=case, records=list(records), **figures))
    return HeldOut(what=what, cases=found)
