"""What tests of the report share: records made up from the few figures that a test is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.results import (
    AnyRecord,
    Cpu,
    Drop,
    Footprint,
    Latency,
    Ledger,
    Memory,
    Setting,
    Stage,
    Trial,
    WorkerSample,
    ZeroLoss,
)
from reports.dataset import sort_records
from reports.model import Table
from reports.tables import strategies

SECOND = 1_000_000_000


def setting(strategy: str | None = "fanout", **changes: object) -> Setting:
    return Setting(payload_bytes=64, flows=8, rules=8, strategy=strategy).model_copy(update=changes)


@dataclass(frozen=True)
class Numbers:
    """What a made-up trial measured."""

    received: tuple[int, ...] = ()
    p99: int | None = None
    busy_ns: int | None = None
    baseline_ns: int | None = None
    astray: int = 0


def trial(
    case: str, offered: int, given: Setting, numbers: Numbers | None = None, **changes: object
) -> Trial:
    n = numbers or Numbers()
    left = offered - n.astray
    made = Trial(
        trial_id=f"{case}-{offered}",
        scenario="s",
        case=case,
        subject="mcrd" if given.strategy else "kernel",
        setting=given,
        purpose="search",
        asked_dps=offered,
        duration_ns=SECOND,
        offered=offered,
        delivered=left,
        expected=offered,
        validity="valid",
        ledger=Ledger(
            ingress=Stage(
                entered=offered,
                left=left,
                drops=[Drop(place="forwarder", reason="wrong_worker", count=n.astray)],
            ),
            egress=Stage(entered=left, left=left),
        ),
        latency=None if n.p99 is None else Latency(count=1, p50=1000, p90=1, p99=n.p99, p999=1, max=1),
        cpu=None
        if n.busy_ns is None
        else Cpu(busy_ns=n.busy_ns, softirq_ns=0, baseline_ns=n.baseline_ns, copies=left),
        workers=[
            WorkerSample(worker_id=i, cpu=i, received=part, matched=part) for i, part in enumerate(n.received)
        ],
    )
    return made.model_copy(update=changes)


def rate(case: str, lower: float | None, given: Setting, **changes: object) -> ZeroLoss:
    made = ZeroLoss(
        scenario="s",
        case=case,
        subject="mcrd",
        setting=given,
        goal_loss_ratio=0,
        lower_dps=lower,
        upper_dps=None if lower is None else lower * 1.1,
        generator_ceiling_dps=500_000,
        bound_by="forwarder",
        trial_ids=[],
    )
    return made.model_copy(update=changes)


def footprint(case: str, workers: int, **changes: object) -> Footprint:
    made = Footprint(
        scenario="s",
        case=case,
        strategy="fanout",
        interfaces=1,
        cpus=2,
        workers=workers,
        rules=8,
        rules_per_worker=8,
        documented_bytes=None,
        modelled_bytes=workers * 1_000_000,
        memory=Memory(
            workers=workers,
            private_bytes_per_worker=1_000_000,
            pss_bytes_total=0,
            ring_bytes_total=0,
            template_bytes=30_000_000,
        ),
        ready_ns=SECOND,
    )
    return made.model_copy(update=changes)


def rows(table: Table) -> list[dict[str, str]]:
    return [
        {c.title: cell.text for c, cell in zip(table.columns, row.cells, strict=True)} for row in table.rows
    ]


def only_group(records: Iterable[AnyRecord]) -> strategies.Group:
    (group,) = strategies.groups(sort_records(records))
    return group
