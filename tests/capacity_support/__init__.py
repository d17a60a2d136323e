"""Records of machines whose laws are known, for tests of what is fitted to them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from statistics import fmean

from lab.results import (
    Cpu,
    CpuUse,
    Drop,
    Footprint,
    Ledger,
    Memory,
    Pipelines,
    Provenance,
    RunStarted,
    Setting,
    Stage,
    Trial,
    WorkerSample,
    ZeroLoss,
)
from reports.capacity.cost import Load, terms
from reports.capacity.law import Law, Range
from reports.capacity.memory import MemoryModel
from reports.capacity.model import CapacityModel, Delays, Point, Share, Source
from reports.capacity.scaling import Scaling
from reports.dataset import Dataset, sort_records

COST = {
    "receive": 900.0,
    "frame": 2500.0,
    "copy": 400.0,
    "copy_bytes": 20.0,
    "lookup": 30.0,
    "receive_bytes": 10.0,
    "host_stack": 500.0,
    "drop": 250.0,
}
"""Nanoseconds: the law of the machine that these records come from."""
DURATION_NS = 1_000_000_000
PRIVATE, RULE, CODE, TEMPLATE_RULE, KERNEL = 600_000, 90, 12_000_000, 1_700, 700_000
SHARED, SHARED_RULE = 180_000_000, 400


def cost_ns(load: Load, arrived: float = 1.0) -> float:
    return sum(COST[name] * value for name, value in terms(load, arrived).items())


def setting(load: Load) -> Setting:
    return Setting(
        payload_bytes=load.payload_bytes,
        outputs=load.outputs,
        rules=load.rules,
        flows=load.flows,
        inputs=load.interfaces,
        workers=1,
        strategy="pool" if load.interfaces > 1 else "fanout",
        receive="first",
        generator="xdp",
        options=("--skip-host-stack",) if load.host_skipped else (),
    )


def trial(
    load: Load,
    number: int = 0,
    overload: float = 2.0,
    noise: float = 1.0,
    cpus: tuple[int, ...] = (1,),
) -> Trial:
    """What workers on ``cpus`` do with ``overload`` times as much as one can take: 0.5 leaves them idle."""
    able = 1e9 / (cost_ns(load) * noise)
    offered = round(able * overload)
    forwarded = offered
    if overload > 1:
        # The processor pays for what it then has no time to forward.
        drop = cost_ns(load, 2.0) - cost_ns(load, 1.0)
        forwarded = round((1e9 / noise - drop * offered) / (cost_ns(load) - drop))
        if forwarded < offered * 0.05:
            raise ValueError("overload leaves nothing to forward")
    lost = offered - forwarded
    drops = [Drop(place="packet-socket", reason="ring full", count=lost)] if lost else []
    return Trial(
        trial_id=f"{load}/{number}",
        scenario="grid",
        case=str(load),
        subject="mcrd",
        setting=setting(load).model_copy(update={"workers": len(cpus), "flows": load.flows * len(cpus)}),
        purpose="search",
        asked_dps=offered,
        duration_ns=DURATION_NS,
        offered=offered,
        delivered=forwarded * load.outputs,
        expected=offered * load.outputs,
        validity="valid",
        bound_by="forwarder" if lost else "asked",
        ledger=Ledger(
            ingress=Stage(entered=offered, left=forwarded, drops=drops),
            egress=Stage(entered=forwarded * load.outputs, left=forwarded * load.outputs),
        ),
        cpu=Cpu(
            busy_ns=DURATION_NS,
            softirq_ns=0,
            copies=forwarded * load.outputs,
            by_cpu=[
                CpuUse(
                    cpu=cpu,
                    role="forwarder",
                    busy_ns=DURATION_NS,
                    softirq_ns=0,
                    steal_ns=0,
                    received=offered,
                )
                for cpu in cpus
            ],
        ),
        workers=[
            WorkerSample(
                worker_id=place, cpu=cpu, received=forwarded, matched=forwarded // len(cpus), rules=load.rules
            )
            for place, cpu in enumerate(cpus)
        ],
    )


def run(
    trials: Iterable[Trial],
    zero_losses: Iterable[ZeroLoss] = (),
    footprints: Iterable[Footprint] = (),
    pipelines: Iterable[Pipelines] = (),
    cpus: int = 2,
    run_id: str = "20250102-030405-ab12",
    machine: str = "a machine",
) -> Dataset:
    provenance = Provenance(
        kernel="6.18",
        machine="x86_64",
        cpu_model=machine,
        cpus=cpus,
        numa_nodes=1,
        memory_bytes=8_000_000_000,
        python="3.11",
    )
    started = RunStarted(
        run_id=run_id, started_at="2025-01-02T03:04:05Z", profile="quick", scenarios=[], provenance=provenance
    )
    return sort_records([started, *trials, *zero_losses, *footprints, *pipelines])


_GRID = [
    Load(payload_bytes=payload, outputs=outputs, rules=rules, flows=flows)
    for payload, outputs, rules, flows in (
        (64, 1, 1, 1),
        (64, 4, 1, 16),
        (64, 2, 1000, 64),
        (512, 1, 10_000, 100),
        (512, 2, 1, 1),
        (512, 8, 100, 100),
        (1400, 1, 1, 1),
        (1400, 4, 1000, 16),
        (1024, 8, 1, 1),
        (256, 1, 1, 1),
        (256, 4, 10, 32),
        (1024, 1, 100, 4),
        (64, 8, 1, 8),
        (1400, 2, 10_000, 128),
    )
]
LOADS = (
    *_GRID,
    Load(payload_bytes=64, outputs=1, rules=1, flows=1, host_skipped=True),
    Load(payload_bytes=512, outputs=4, rules=1, flows=1, host_skipped=True),
)


def grid(noise: float = 0.0, repeats: int = 3, seed: int = 1) -> list[Trial]:
    """Workers that cannot keep up, at every load of :data:`LOADS`."""
    dice = random.Random(seed)
    return [
        trial(load, number, overload=1.15 + 0.3 * (number % 3), noise=1 + noise * dice.uniform(-1, 1))
        for load in LOADS
        for number in range(repeats)
    ]


def zero_loss(load: Load, of: Trial, share: float = 0.8) -> ZeroLoss:
    rate = share * 1e9 / cost_ns(load)
    return ZeroLoss(
        scenario="grid",
        case=str(load),
        subject="mcrd",
        setting=setting(load),
        goal_loss_ratio=0,
        lower_dps=rate,
        upper_dps=rate * 1.05,
        generator_ceiling_dps=5e6,
        bound_by="forwarder",
        trial_ids=[of.trial_id],
    )


def pipelines(cpus: int, ratios: Iterable[float]) -> Pipelines:
    """So many at the same time, each of which delivers these shares of what it does alone."""
    found = list(ratios)
    return Pipelines(
        scenario="pipelines",
        case="512 B",
        subject="mcrd",
        setting=Setting(payload_bytes=512, receive="sender", pipelines=cpus),
        together=[ratio * 1e5 for ratio in found],
        alone=[1e5] * len(found),
        ratio=fmean(found),
        low=min(found),
        high=max(found),
        trial_ids=[f"pipelines/{cpus}"],
    )


def footprint(workers: int, rules: int, interfaces: int = 1, name: str = "") -> Footprint:
    return Footprint(
        scenario="grid",
        case=name or f"{workers} workers, {rules} rules",
        strategy="pool" if interfaces > 1 else "fanout",
        interfaces=interfaces,
        cpus=workers,
        workers=workers,
        rules=rules,
        rules_per_worker=rules,
        documented_bytes=None,
        modelled_bytes=0,
        memory=Memory(
            workers=workers,
            private_bytes_per_worker=PRIVATE + RULE * rules,
            pss_bytes_total=0,
            ring_bytes_total=0,
            template_bytes=CODE + TEMPLATE_RULE * rules,
            shared_bytes=SHARED + SHARED_RULE * rules,
            kernel_bytes=KERNEL * workers,
        ),
        ready_ns=1,
    )


FOOTPRINTS = tuple(
    footprint(workers, rules)
    for workers, rules in ((2, 1), (4, 1000), (8, 10_000), (24, 100), (48, 2000), (96, 10_000))
)


def model(scatter: float = 0.05) -> CapacityModel:
    """Made up, so that what is predicted can be worked out by hand."""

    def law(coefficients: dict[str, float]) -> Law:
        return Law(coefficients=coefficients, resamples=[coefficients] * 3, scatter=scatter, cases=20)

    load = Load(payload_bytes=1316, outputs=1, rules=1000, flows=16)
    point = Point(
        case="grid: 1,316 B",
        **{name: getattr(load, name) for name in Load.__dataclass_fields__},
        dps=300_000,
        least_dps=290_000,
        most_dps=310_000,
        trials=["20250102-030405-ab12:grid/1"],
    )
    return CapacityModel(
        sources=[
            Source(
                run_id="20250102-030405-ab12",
                started_at="2025-01-02T03:04:05Z",
                commit=None,
                kernel="6.18",
                cpu_model="a machine",
                cpus=2,
            )
        ],
        trials=100,
        cost=law(COST),
        ranges={
            "payload_bytes": Range(least=64, most=1400),
            "outputs": Range(least=1, most=16),
            "rules": Range(least=1, most=10_000),
            "datagrams_per_frame": Range(least=1, most=64),
            "interfaces": Range(least=1, most=20),
        },
        points=[point],
        zero_loss_share=Share(value=0.8, scatter=0.05, cases=10),
        scaling=Scaling(kind="range", counts=[], why="No pipelines were measured."),
        delays=[
            Delays(
                case="grid: 1,316 B",
                load_share=share,
                interfaces=interfaces,
                workers=workers,
                p50=30_000 / (1 - share) * interfaces,
                p99=300_000 / (1 - share) * interfaces * workers,
                trials=["20250102-030405-ab12:grid/1"],
            )
            for share in (0.1, 0.5, 0.9)
            for interfaces, workers in ((1, 1), (20, 1), (1, 16))
        ],
        memory=MemoryModel(
            private=law({"process": PRIVATE, "rule": RULE, "alone": 1_000_000.0}),
            template=law({"code": CODE, "rule": TEMPLATE_RULE}),
            shared=law({"code": SHARED, "rule": SHARED_RULE}),
            kernel=law({"worker": KERNEL}),
            ranges={
                "workers": Range(least=1, most=1920),
                "rules": Range(least=1, most=10_000),
                "rules_per_worker": Range(least=1, most=10_000),
                "sockets": Range(least=1, most=1920),
            },
            cases=["20250102-030405-ab12:grid: 96 workers"],
        ),
    )
