"""Records of strategies for the example run: one load for all, a flooded input, and many workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.results import (
    AnyRecord,
    Check,
    Comparison,
    Cpu,
    Drop,
    Footprint,
    InputSample,
    Latency,
    Ledger,
    Memory,
    Setting,
    Stage,
    Streams,
    Trial,
    WorkerSample,
    ZeroLoss,
)

SECOND = 1_000_000_000
OVERSUBSCRIBED = "8 workers on 2 CPUs: oversubscribed"
INPUTS = 4


@dataclass(frozen=True)
class Invented:
    """A strategy case: its rate, how its workers share the load, and how many of them its footprint has."""

    case: str
    strategy: str
    rate: int
    shares: tuple[int, ...]
    footprint: int | None
    groups: int | None = None
    inputs: int = INPUTS
    steering: str | None = None
    astray: int = 0
    copies: int = 0
    """Beyond the first."""


STRATEGIES = (
    Invented("fanout-per-interface", "fanout-per-interface", 240_000, (25, 25, 25, 25, 0, 0, 0, 0), 8),
    Invented("fanout", "fanout", 238_000, (50, 50), 2, inputs=1),
    Invented("pool", "pool", 205_000, (100,), 1),
    Invented("hybrid", "hybrid", 232_000, (27, 23, 26, 24), 4, groups=2),
    Invented("rule-hash", "rule-hash", 236_000, (61, 39), 2),
    Invented("rule-hash by CPU", "rule-hash", 90_000, (52, 48), 2, steering="cpu", astray=20_000),
    Invented("pool without fanout", "pool", 60_000, (50, 50), None, steering="ungrouped", copies=30_000),
)


def strategies() -> Iterator[AnyRecord]:
    for one in STRATEGIES:
        trial = half_loaded(one)
        yield trial
        yield ZeroLoss(
            scenario="strategies",
            case=one.case,
            subject="mcrd",
            setting=setting(one),
            goal_loss_ratio=0.0,
            lower_dps=one.rate,
            upper_dps=None if one.case == "fanout-per-interface" else one.rate * 1.05,
            generator_ceiling_dps=250_000,
            bound_by="generator" if one.case == "fanout-per-interface" else "forwarder",
            trial_ids=[trial.trial_id],
            warnings=[] if one.case != "hybrid" else ["the search had not settled after 14 trials"],
        )
        if one.footprint is not None:
            yield footprint("strategies", one.case, one.strategy, one.footprint, one.footprint * 1_000_000)


def setting(one: Invented) -> Setting:
    return Setting(
        payload_bytes=64,
        inputs=one.inputs,
        flows=16,
        rules=16,
        workers=2,
        strategy=one.strategy,
        groups=one.groups,
        steering=one.steering,
        receive="softirq",
    )


def half_loaded(one: Invented) -> Trial:
    """The trial at half the zero-loss rate, with its shares."""
    offered = one.rate // 2
    matched = offered - one.astray
    drops = [Drop(place="forwarder", reason="wrong_worker", count=one.astray)] if one.astray else []
    return Trial(
        trial_id=f"strategies-{one.case}",
        scenario="strategies",
        case=one.case,
        subject="mcrd",
        setting=setting(one),
        purpose="latency",
        asked_dps=offered,
        duration_ns=SECOND,
        offered=offered,
        delivered=matched,
        expected=offered,
        validity="valid",
        warnings=[OVERSUBSCRIBED] if len(one.shares) > 2 else [],
        bound_by="asked",
        ledger=Ledger(
            ingress=Stage(entered=offered, left=matched, drops=drops),
            egress=Stage(entered=matched, left=matched),
        ),
        streams=Streams(streams=16, checked=matched, lost=one.astray, duplicated=one.copies, reordered=0),
        latency=Latency(count=matched, p50=11_000, p90=24_000, p99=61_000, p999=180_000, max=900_000),
        cpu=Cpu(
            busy_ns=900_000_000,
            softirq_ns=300_000_000,
            baseline_ns=None if one.case == "pool" else 400_000_000,
            copies=matched,
        ),
        workers=[
            WorkerSample(worker_id=n, cpu=n % 2, received=offered * share // 100, matched=0, rules=16)
            for n, share in enumerate(one.shares)
        ],
    )


def isolation() -> Iterator[AnyRecord]:
    """One of eight inputs is flooded; a trial that loses nothing on the others, and one that does."""
    for case, strategy, spared in (("per interface", "fanout-per-interface", 0), ("one worker", "pool", 900)):
        samples = inputs(flooded=160_000, even=2_000, spared=spared)
        yield input_trial("isolation", case, strategy, samples, skew=80)
        losing = sum(s.delivered < s.expected for s in samples[1:])
        yield Check(
            scenario="isolation",
            case=f"{case}: other inputs lose nothing",
            passed=not losing,
            expected="0 copies lost on the inputs that are not flooded",
            observed=f"{sum(s.expected - s.delivered for s in samples[1:]):,} copies lost on {losing} inputs",
        )


def inputs(flooded: int, even: int, spared: int) -> list[InputSample]:
    first = InputSample(
        interface="in0", offered=flooded, expected=flooded, delivered=flooded - 21_000, duplicated=0
    )
    others = [
        InputSample(
            interface=f"in{n}",
            offered=even,
            expected=even,
            delivered=even - (spared if n < 3 else 0),
            duplicated=0,
        )
        for n in range(1, 8)
    ]
    return [first, *others]


def input_trial(
    scenario: str, case: str, strategy: str, samples: Sequence[InputSample], skew: int = 1, burst: int = 1
) -> Trial:
    offered = sum(s.offered for s in samples)
    delivered = sum(s.delivered for s in samples)
    return Trial(
        trial_id=f"{scenario}-{case}-{burst}",
        scenario=scenario,
        case=case,
        subject="mcrd",
        setting=Setting(
            payload_bytes=64,
            inputs=len(samples),
            flows=8,
            rules=8,
            skew=skew,
            burst=burst,
            workers=1,
            strategy=strategy,
        ),
        purpose="fixed",
        asked_dps=offered,
        duration_ns=SECOND,
        offered=offered,
        delivered=delivered,
        expected=offered,
        validity="valid",
        bound_by="forwarder" if delivered < offered else "asked",
        ledger=Ledger(
            ingress=Stage(
                entered=offered,
                left=delivered,
                drops=[Drop(place="packet-socket", reason="ring full", count=offered - delivered)],
            ),
            egress=Stage(entered=delivered, left=delivered),
        ),
        inputs=list(samples),
    )


def multiplexing() -> Iterator[AnyRecord]:
    """Two cases of one subject against each other; rows that differ in nothing but their bursts."""
    even = [
        InputSample(interface=f"in{n}", offered=9, expected=9, delivered=9, duplicated=0) for n in range(20)
    ]
    for burst in (1, 16):
        yield input_trial("multiplexing", "20 inputs", "pool", even, burst=burst)
    yield input_trial("multiplexing", "1 input", "pool", even[:1])
    yield Comparison(
        scenario="multiplexing",
        case="20 inputs / 1 input",
        metric="zero-loss rate",
        higher_is_better=True,
        a="mcrd",
        b="mcrd",
        setting=Setting(payload_bytes=64, inputs=20, flows=20, rules=20, workers=1, strategy="pool"),
        ratio=0.95,
        low=0.92,
        high=0.98,
        confidence=0.95,
        pairs=8,
        a_values=[190_000.0, 192_000.0],
        b_values=[200_000.0, 202_000.0],
        unit="dps",
        target=0.9,
        bound_by="forwarder",
        trial_ids=["multiplexing-20 inputs-1", "multiplexing-20 inputs-16", "multiplexing-1 input-1"],
    )


def many_workers() -> Iterator[AnyRecord]:
    """The last row of the document's table: slow to stop, and otherwise as promised."""
    full = footprint("table-row-7", "1,920 workers", "full-fanout", 1920, 960_000_000, interfaces=20)
    yield full.model_copy(
        update={
            "cpus": 96,
            "rules": 10_000,
            "rules_per_worker": 500,
            "imbalance": 1.0,
            "ready_ns": 12_400_000_000,
            "ready_target_ns": 20 * SECOND,
            "stopped_ns": 11_300_000_000,
            "stop_target_ns": 10 * SECOND,
            "idle_cpu_ns": 12_000_000,
            "idle_ns": 3 * SECOND,
            "idle_target": 0.01,
            "private_target_bytes": 1_200_000,
        }
    )


def footprint(
    scenario: str, case: str, strategy: str, workers: int, documented: int, interfaces: int = INPUTS
) -> Footprint:
    return Footprint(
        scenario=scenario,
        case=case,
        strategy=strategy,
        interfaces=interfaces,
        cpus=2,
        workers=workers,
        rules=16,
        rules_per_worker=16 if strategy == "pool" else 9,
        setting=Setting(payload_bytes=64, inputs=interfaces, rules=16, strategy=strategy),
        imbalance=None if strategy == "pool" else 1.125,
        documented_bytes=documented,
        modelled_bytes=workers * 1_016_000,
        memory=Memory(
            workers=workers,
            private_bytes_per_worker=1_050_000,
            pss_bytes_total=workers * 1_300_000,
            ring_bytes_total=workers * 4_194_304,
            template_bytes=38_000_000,
        ),
        ready_ns=700_000_000,
        stopped_ns=250_000_000,
        warnings=[f"{workers} workers on 2 CPUs: oversubscribed"] if workers > 2 else [],
    )
