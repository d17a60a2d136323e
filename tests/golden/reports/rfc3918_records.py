"""Records of RFC 3918's tests for the example run: a row for each table, and a doubt for each kind of it."""

from __future__ import annotations

from collections.abc import Iterator

from lab.results import (
    AnyRecord,
    Capacity,
    CapacityStep,
    Delay,
    Drop,
    Latency,
    Ledger,
    OutputSample,
    Setting,
    Stage,
    Trial,
    ZeroLoss,
)

SECOND = 1_000_000_000
SECTIONS = {
    "rfc3918-mixed": ["4.1"],
    "rfc3918-throughput": ["4.2", "4.3", "5.1", "5.2"],
    "rfc3918-delay": ["6.1", "6.2", "8.2"],
    "rfc3918-capacity": ["7.1"],
    "rfc3918-burdened": ["8.1"],
}


def rfc3918() -> Iterator[AnyRecord]:
    yield from found(
        "rfc3918-mixed", "half unicast", Setting(payload_bytes=64, outputs=2, unicast_percent=50)
    )
    throughput = Setting(payload_bytes=512, outputs=2, rules=100, flows=100)
    yield from found("rfc3918-throughput", "100 groups", throughput)
    yield trial("rfc3918-throughput", "100 groups", throughput, "fixed", None, 400_000, lost=80_000)
    yield trial("rfc3918-throughput", "100 groups", throughput, "latency", 100_000, 100_000)
    none = Setting(payload_bytes=64, outputs=2)
    yield ZeroLoss(
        scenario="rfc3918-throughput",
        case="no rate",
        subject="kernel",
        setting=none,
        goal_loss_ratio=0.0,
        lower_dps=None,
        upper_dps=4_000,
        generator_ceiling_dps=400_000,
        bound_by="forwarder",
        trial_ids=[],
        warnings=["loss already at 4,000 dps, the lowest rate tried"],
    )
    for percent in (0, 80):
        setting = Setting(payload_bytes=64, outputs=2, unicast_percent=percent)
        yield trial("rfc3918-burdened", f"{percent} % unicast", setting, "latency", 20_000, 20_000)
    yield from delays()
    steps = [
        CapacityStep(groups=1000, offered=3000, expected=3000, delivered=3000, held=True),
        CapacityStep(groups=4000, offered=12_000, expected=12_000, delivered=11_990, silent=2, held=False),
    ]
    yield capacity("mcrd", steps[:1], "limit")
    yield capacity("kernel", steps, "loss")
    refused = CapacityStep(groups=4000, held=False, why="mcrd: not ready, exited 1: no memory")
    yield capacity("mcr", [refused], "refused")


def found(scenario: str, case: str, setting: Setting) -> Iterator[AnyRecord]:
    best = trial(scenario, case, setting, "search", 200_000, 200_000)
    yield best
    yield ZeroLoss(
        scenario=scenario,
        case=case,
        subject="mcrd",
        setting=setting,
        goal_loss_ratio=0.0,
        lower_dps=200_000.4,
        upper_dps=220_000,
        generator_ceiling_dps=400_000,
        bound_by="forwarder",
        trial_ids=[best.trial_id],
    )


def trial(
    scenario: str, case: str, setting: Setting, purpose: str, asked: int | None, offered: int, lost: int = 0
) -> Trial:
    unicast = offered * setting.unicast_percent // 100
    multicast = offered - unicast
    due = multicast * setting.outputs + unicast
    samples = []
    for number in range(setting.outputs):
        for traffic, count in (("multicast", multicast), ("unicast", unicast // setting.outputs)):
            if count:
                samples.append(
                    OutputSample(
                        interface=f"r{number}",
                        traffic=traffic,
                        streams=setting.flows if traffic == "multicast" else 1,
                        offered=count,
                        delivered=count - lost // setting.outputs,
                        latency_min_ns=5_000 + 400 * number,
                        latency_mean_ns=20_000 + 900 * number,
                        latency_max_ns=900_000 + 10_000 * number,
                    )
                )
    drops = [Drop(place="transmit", reason="refused", count=lost)] if lost else []
    return Trial(
        trial_id=f"{scenario}-{case}-{purpose}-{asked}",
        scenario=scenario,
        case=case,
        subject="mcrd",
        setting=setting,
        purpose=purpose,
        asked_dps=asked,
        duration_ns=SECOND,
        offered=offered,
        delivered=due - lost,
        expected=due,
        validity="valid",
        bound_by="forwarder" if lost else "asked",
        ledger=Ledger(
            ingress=Stage(entered=offered, left=offered),
            egress=Stage(entered=due, left=due - lost, drops=drops),
        ),
        latency=Latency(
            count=multicast, min=5_000, p50=18_000, p90=60_000, p99=120_000, p999=700_000, max=910_000
        ),
        outputs=samples,
    )


def delays() -> Iterator[AnyRecord]:
    setting = Setting(payload_bytes=64, rules=10, flows=10)
    values = [1_000_000 + 7_000 * number for number in range(100)]
    for change in ("add", "remove"):
        for sign, interface, shift in (("datagram", "r0", 0), ("membership report", "in0", 9_000_000)):
            yield Delay(
                scenario="rfc3918-delay",
                case="no other load",
                subject="mcrd",
                setting=setting,
                change=change,
                sign=sign,
                interface=interface,
                offered_dps=10_000,
                values_ns=[value + shift for value in values],
                answered_ns=[2_000_000] * 100,
            )
    yield Delay(
        scenario="rfc3918-delay",
        case="90 % unicast",
        subject="kernel",
        setting=setting.model_copy(update={"unicast_percent": 90, "receive": "softirq"}),
        change="add",
        sign="datagram",
        interface="r0",
        offered_dps=10_000,
        values_ns=[300_000, 450_000, 380_000],
        answered_ns=[500_000] * 4,
        missed=1,
        gaps=2,
        held_back=12,
        warnings=["offered 9,000 of 10,000 datagrams asked for"],
    )
    yield Delay(
        scenario="rfc3918-delay",
        case="90 % unicast",
        subject="kernel",
        setting=setting.model_copy(update={"unicast_percent": 90, "receive": "softirq"}),
        change="remove",
        sign="datagram",
        interface="r0",
        offered_dps=10_000,
        values_ns=[],
        answered_ns=[500_000] * 4,
        missed=4,
    )


def capacity(subject: str, steps: list[CapacityStep], bound_by: str) -> Capacity:
    return Capacity(
        scenario="rfc3918-capacity",
        case="groups",
        subject=subject,
        setting=Setting(payload_bytes=64, rules=1000, flows=1000),
        offered_dps=20_000,
        steps=steps,
        bound_by=bound_by,
    )
