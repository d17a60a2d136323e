"""Predict rates and memory with a model; every figure has an interval, a basis and reasons. Pure.

The interval of 95 % contains: other choices of the measured cases, the distance of cases from the law, the
share of its rate that a worker reaches without loss, and a convention for loads outside the measured ranges
(:data:`~reports.capacity.law.OUTSIDE_DOUBLING`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal

from reports.capacity.cost import Load, terms
from reports.capacity.law import OUTSIDE_DOUBLING, Basis, Law, Prediction, Range, around, assumed, weakest
from reports.capacity.memory import Holding, memory_terms
from reports.capacity.model import CapacityModel, Delays
from reports.capacity.scaling import CROWDED_LEAST, OTHER_NODE_LEAST
from reports.quantity import plural

NS_PER_S = 1e9
Reasons = tuple[str, ...]
QUANTITIES = {
    "payload_bytes": "a payload of {:,.0f} B",
    "outputs": "{:,.0f} outputs",
    "rules": "{:,.0f} rules in a worker",
    "datagrams_per_frame": "{:.3g} datagrams in a frame",
    "interfaces": "{:,.0f} interfaces of a worker",
    "workers": "{:,.0f} workers",
    "rules_per_worker": "{:,.0f} rules a worker",
    "sockets": "{:,.0f} sockets",
}


class UnknownError(ValueError):
    """The model cannot predict this; the message says what it would need."""


def cost_ns(model: CapacityModel, load: Load) -> Prediction:
    """Time of a forwarder's CPU for one datagram that arrives and is forwarded to all outputs."""
    basis, reasons, outside = _basis(load.quantities, model.ranges)
    if basis == "interpolated":
        point = next((point for point in model.points if point.load == load), None)
        if point is not None:
            basis, reasons = "measured", (f"{len(point.trials)} trials of {point.case}",)
    return _of_law(model.cost, terms(load), basis, reasons, outside)


def zero_loss_dps(model: CapacityModel, load: Load, workers: float = 1.0) -> Prediction:
    """Datagrams/s that one worker with a processor to itself forwards without loss.

    Args:
        workers: on one processor, each with interfaces of its own, for which threads wake up there.
    """
    cost = cost_ns(model, load)
    share = model.zero_loss_share
    value = NS_PER_S / cost.value * share.at(load.interfaces * workers)
    low, high = around(value, math.hypot(cost.deviation, share.scatter))
    return Prediction(value, low, high, cost.basis, cost.reasons)


@dataclass(frozen=True, slots=True)
class Machine:
    """How workers are placed on processors, and what reaches the busiest of them."""

    load: Load
    """The load of one worker."""
    cpus: int
    """Processors with workers."""
    workers_per_cpu: float
    busiest_share: float
    """Share of all datagrams that the busiest processor handles."""
    crosses_nodes: bool = False
    """Workers on another memory node than their interface."""

    @property
    def evenness(self) -> float:
        """Mean share of a processor over the busiest one's: at most 1."""
        return min(1.0, 1 / (self.cpus * self.busiest_share))


def machine_dps(model: CapacityModel, machine: Machine) -> Prediction:
    """Highest rate without loss on the busiest processor: datagrams/s of all interfaces together."""
    one = zero_loss_dps(model, machine.load, machine.workers_per_cpu)
    others = _losses(model, machine)
    told = others if one.basis == "measured" else [one, *others]
    reasons = tuple(reason for factor in told for reason in factor.reasons)
    return _product([one, *others], machine.evenness * machine.cpus, reasons)


def cpu_ns(model: CapacityModel, machine: Machine) -> Prediction:
    """Time of all processors together for one datagram, while all of them are busy."""
    cost, share = cost_ns(model, machine.load), _product(_losses(model, machine), 1.0, ())
    low, high = (
        cost.value * math.exp(sign * math.hypot(math.log(cost.high / cost.value), math.log(ratio)))
        for sign, ratio in ((-1, share.high / share.value), (1, share.value / share.low))
    )
    value = cost.value / share.value
    return Prediction(value, low / share.value, high / share.value, weakest(cost.basis, share.basis), ())


def _losses(model: CapacityModel, machine: Machine) -> list[Prediction]:
    """Shares of its rate that a processor keeps beside others, with several workers, far from its memory."""
    speedup = model.scaling.speedup(machine.cpus)
    value, low, high = (each / machine.cpus for each in (speedup.value, speedup.low, speedup.high))
    factors = [
        Prediction(value, low, high, speedup.basis, speedup.reasons),
        _crowding(model, machine.workers_per_cpu),
    ]
    if machine.crosses_nodes:
        apart = "Workers on another memory node than their interface: not measured"
        reason = f"{apart}; {OTHER_NODE_LEAST:.0%} to 100 % of the rate."
        factors.append(assumed(OTHER_NODE_LEAST, 1.0, reason))
    return factors


def _product(factors: Sequence[Prediction], times: float, reasons: Reasons) -> Prediction:
    """Independent of one another: logarithms add as their squares do."""
    value = math.prod(factor.value for factor in factors) * times
    low = value / math.exp(math.hypot(*(math.log(factor.value / factor.low) for factor in factors)))
    high = value * math.exp(math.hypot(*(math.log(factor.high / factor.value) for factor in factors)))
    return Prediction(value, low, high, weakest(*(factor.basis for factor in factors)), reasons)


@dataclass(frozen=True, slots=True)
class LatencyPrediction:
    """Of a worker at the same share of its zero-loss rate; ns, with the range over the loads measured."""

    p50: Prediction
    p99: Prediction


ALIKE_SHARE = 0.1
"""Utilisations that differ by no more than this count as the same."""


def latency(model: CapacityModel, machine: Machine, utilisation: float) -> LatencyPrediction | None:
    """Latency where the busiest processor has this share of its zero-loss rate.

    From the measured workers at the nearest share, with as many interfaces each and as many workers on their
    processor as can be had. ``None`` above the zero-loss rate, where rings fill, or if none was measured.
    """
    if utilisation > 1 or not model.delays:
        return None
    interfaces, workers = machine.load.interfaces, machine.workers_per_cpu

    def distance(each: Delays) -> tuple[float, float]:
        shape = abs(math.log2(each.interfaces / interfaces)) + abs(math.log2(each.workers / workers))
        return abs(each.load_share - utilisation), shape

    nearest = min(map(distance, model.delays))
    found = [each for each in model.delays if distance(each) == nearest]
    share, shape = nearest
    told = found[0]
    what = f"{plural(told.interfaces, 'interface')} and {plural(told.workers, 'worker')} on a processor"
    reason = f"Latency: workers at {told.load_share:.0%} of their rate, {what}."
    basis: Basis = "measured" if share <= ALIKE_SHARE and not shape else "extrapolated"

    def of(name: Literal["p50", "p99"]) -> Prediction:
        values = [float(getattr(each, name)) for each in found]
        return Prediction(median(values), min(values), max(values), basis, (reason,))

    return LatencyPrediction(of("p50"), of("p99"))


def _crowding(model: CapacityModel, workers_per_cpu: float) -> Prediction:
    """The share of its rate that a processor keeps when this many workers share it."""
    if workers_per_cpu <= 1:
        return Prediction(1.0, 1.0, 1.0, "measured", ())
    spread = model.scaling.crowding
    told = f"{workers_per_cpu:.3g} workers on a processor"
    if spread is None:
        return assumed(CROWDED_LEAST, 1.0, f"{told}: not measured; {CROWDED_LEAST:.0%} to 100 % of the rate.")
    doublings = math.log2(workers_per_cpu)
    value = spread.value**-doublings
    outside = max(0.0, math.log2(workers_per_cpu / model.scaling.crowded_most))
    low, high = around(value, spread.scatter * doublings + OUTSIDE_DOUBLING * outside)
    basis: Basis = "extrapolated" if outside else "interpolated"
    reasons = (f"{told}: {model.scaling.crowded_most:.3g} were measured.",) if outside else ()
    return Prediction(value, low, max(value, min(high, 1.0)), basis, reasons)


@dataclass(frozen=True, slots=True)
class MemoryPrediction:
    """Bytes."""

    private_per_worker: Prediction
    processes: Prediction
    """Private memory of all workers and of the supervisor, without rules."""
    rules: Prediction
    """In all workers, and in the supervisor."""
    total: Prediction
    """Processes and rules: what a footprint measures."""
    shared: Prediction | None
    """Held once, by all processes."""
    kernel: Prediction | None
    rings_bytes: int

    @property
    def everything(self) -> float:
        beside = sum(each.value for each in (self.shared, self.kernel) if each is not None)
        return self.total.value + self.rings_bytes + beside


def memory(model: CapacityModel, held: Holding, rings_bytes: int) -> MemoryPrediction:
    """Memory for ``held``; ``rings_bytes`` is from the plan."""
    found = model.memory
    if found is None:
        raise UnknownError("the model has no footprints; allowed: a model fitted to a run that has some")
    basis, reasons, outside = _basis(asdict(held), found.ranges)

    def of_law(law: Law, terms: Mapping[str, float]) -> Prediction:
        return _of_law(law, terms, basis, reasons, outside)

    of = memory_terms(held)
    private, template = of_law(found.private, of["private"]), of_law(found.template, of["template"])
    a_rule, own_rule = (law.coefficients.get("rule", 0.0) for law in (found.private, found.template))
    rules = held.workers * held.rules_per_worker * a_rule + held.rules * own_rule
    total = held.workers * private.value + template.value

    def part(value: float) -> Prediction:
        return Prediction(value, *around(value, max(private.deviation, template.deviation)), basis, reasons)

    return MemoryPrediction(
        private_per_worker=private,
        processes=part(total - rules),
        rules=part(rules),
        total=part(total),
        shared=of_law(found.shared, of["shared"]) if found.shared else None,
        kernel=of_law(found.kernel, of["kernel"]) if found.kernel else None,
        rings_bytes=rings_bytes,
    )


def _of_law(
    law: Law, found: Mapping[str, float], basis: Basis, reasons: Reasons, outside: float
) -> Prediction:
    value = law.at(found)
    low, high = around(value, law.deviation(found) + OUTSIDE_DOUBLING * outside)
    return Prediction(value, low, high, basis, reasons)


def _basis(quantities: Mapping[str, float], ranges: Mapping[str, Range]) -> tuple[Basis, Reasons, float]:
    """Basis, reasons, and doublings beyond what was measured, all quantities together."""
    reasons, outside = [], 0.0
    for name, value in quantities.items():
        known = ranges.get(name)
        beyond = 1.0 if known is None else known.doublings_outside(value)
        if beyond:
            measured = "nothing" if known is None else f"{known.least:,.4g} to {known.most:,.4g}"
            reasons.append(f"{QUANTITIES[name].format(value)} ({measured} measured).")
            outside += beyond
    if not reasons:
        return "interpolated", (), 0.0
    return "extrapolated", tuple(reasons), outside
