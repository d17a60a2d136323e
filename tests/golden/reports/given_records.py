"""The example run's sweep, soak and paired comparisons."""

from __future__ import annotations

from collections.abc import Iterator

from lab.results import AnyRecord, Comparison, Drop, Latency, Ledger, Setting, Soak, SoakSample, Stage, Trial

SECOND = 1_000_000_000


def setting(subject: str, payload: int, **changes: object) -> Setting:
    base = Setting(payload_bytes=payload, flows=16, receive="softirq" if subject == "kernel" else "first")
    if subject == "mcrd":
        base = base.model_copy(update={"workers": 2, "strategy": "fanout"})
    return base.model_copy(update=changes)


def swept(number: int, offered: int, lost: int) -> Trial:
    return Trial(
        trial_id=f"kernel-sweep-{number}",
        scenario="sweep",
        case="swept",
        subject="kernel",
        setting=setting("kernel", 64),
        purpose="sweep",
        asked_dps=offered,
        duration_ns=SECOND,
        offered=offered,
        delivered=offered - lost,
        expected=offered,
        validity="valid",
        bound_by="forwarder" if lost else "asked",
        ledger=Ledger(
            ingress=Stage(
                entered=offered,
                left=offered - lost,
                drops=[Drop(place="softnet", reason="backlog full", count=lost)] if lost else [],
            ),
            egress=Stage(entered=offered - lost, left=offered - lost),
        ),
        latency=Latency(
            count=offered, p50=9_000 * number, p90=20_000, p99=40_000 * number, p999=90_000, max=900_000
        ),
    )


def given_loads() -> Iterator[AnyRecord]:
    """A sweep that meets a limit, and a soak whose memory grows."""
    for number, (offered, lost) in enumerate(((100_000, 0), (200_000, 0), (400_000, 60_000)), start=1):
        yield swept(number, offered, lost)
    soaked = setting("mcrd", 64)
    for number, lost in enumerate((0, 0, 0, 1, 0, 1), start=1):
        yield swept(number, 2_000_000, lost).model_copy(
            update={
                "trial_id": f"mcrd-soak-{number}",
                "scenario": "soak",
                "case": "soaked",
                "subject": "mcrd",
                "setting": soaked,
                "purpose": "soak",
                "asked_dps": 200_000,
                "duration_ns": 10 * SECOND,
            }
        )
    samples = [
        SoakSample(pids=[11, 12], private_bytes=size, descriptors=count, threads=2)
        for size, count in ((21_400_000, 64), (21_700_000, 66), (21_900_000, 66))
    ]
    yield Soak(
        scenario="soak",
        case="soaked",
        subject="mcrd",
        setting=setting("mcrd", 64),
        asked_dps=200_000,
        trial_ids=[f"mcrd-soak-{number}" for number in range(1, 7)],
        duration_ns=60 * SECOND,
        offered=12_000_000,
        expected=12_000_000,
        delivered=11_999_998,
        p99_ns=[61_000, 62_500, 60_800, 64_000, 61_900, 63_000],
        first=samples[0],
        middle=samples[1],
        last=samples[2],
    )


def comparisons() -> Iterator[AnyRecord]:
    def compared(
        case: str, metric: str, ratio: float, low: float, high: float, **changes: object
    ) -> Comparison:
        higher = metric in ("zero-loss rate", "delivered copies/s")
        base = Comparison(
            scenario="fanout-throughput",
            case=case,
            metric=metric,
            higher_is_better=higher,
            a="mcrd",
            b="kernel",
            setting=setting("mcrd", 64),
            ratio=ratio,
            low=low,
            high=high,
            confidence=0.95,
            pairs=8,
            a_values=[440_000.0, 442_500.0, 438_000.0],
            b_values=[262_000.0, 259_000.0, 264_500.0],
            unit="dps",
            bound_by="forwarder",
            trial_ids=["mcrd-latency-1", "kernel-latency-1"],
        )
        return base.model_copy(update=changes)

    yield compared("64 B", "zero-loss rate", 1.68, 1.61, 1.77, target=1.4, verdict="better", detectable=0.034)
    yield compared("512 B", "zero-loss rate", 1.42, 1.35, 1.51, target=1.4, bound_by="generator")
    yield compared(
        "1→8",
        "delivered copies/s",
        2.41,
        2.2,
        2.6,
        scenario="fanout-replication",
        setting=setting("mcrd", 64, outputs=8),
        trial_ids=["mcrd-fan-out", "kernel-fan-out"],
        target=3.0,
        unit="copies/s",
    )
    yield compared(
        "64 B",
        "CPU per copy",
        0.97,
        0.91,
        1.04,
        unit="ns",
        a_values=[],
        b_values=[],
        verdict="no difference",
        detectable=0.084,
    )
    yield compared(
        "64 B",
        "latency p99",
        1.31,
        1.31,
        1.31,
        pairs=1,
        target=2.0,
        unit="ns",
        warnings=["one pair: no interval"],
    )
