"""The example run's loads that change over time, and changes of the running forwarder."""

from __future__ import annotations

from collections.abc import Iterator

from given_records import SECOND, setting

from lab.results import (
    AnyRecord,
    Change,
    ChangeKind,
    Course,
    Drop,
    Ledger,
    OfferedPhase,
    Resize,
    ScalingSample,
    Setting,
    Stage,
    Streams,
    Trial,
)

MS = 1_000_000


def trial(trial_id: str, of: Setting, offered: int, lost: int, **changes: object) -> Trial:
    values = Trial(
        trial_id=trial_id,
        scenario="elastic",
        case="one hot interface",
        subject="mcrd",
        setting=of,
        purpose="course",
        asked_dps=offered // 4,
        duration_ns=4 * SECOND,
        offered=offered,
        delivered=offered - lost,
        expected=offered,
        validity="valid",
        bound_by="forwarder" if lost else "asked",
        ledger=Ledger(
            ingress=Stage(
                entered=offered,
                left=offered - lost,
                drops=[Drop(place="packet-socket", reason="ring full", count=lost)] if lost else [],
            ),
            egress=Stage(entered=offered - lost, left=offered - lost),
        ),
        streams=Streams(streams=64, checked=offered - lost, lost=lost, duplicated=0, reordered=0),
    )
    return values.model_copy(update=changes)


def course(number: int, *, scaled_ns: int | None, inputs: int) -> Iterator[AnyRecord]:
    """A flash crowd: four seconds, three times what a worker is meant for in the last three."""
    of = setting("mcrd", 64, strategy="dynamic", workers=3, flows=64, inputs=inputs, skew=32)
    name = "one hot interface" if inputs > 1 else "one interface"
    lost = 0 if inputs > 1 else 3_200
    yield trial(f"mcrd-course-{number}", of, 170_000, lost, case=name)
    grown = SECOND + (scaled_ns or 2 * SECOND)
    samples = [
        ScalingSample(
            at_ns=at * SECOND // 2,
            group=group,
            workers=3 if group == 0 and at * SECOND // 2 > grown else 1,
            offered_dps=(5_000 if at < 3 else 55_000) // (1 if group == 0 else 32),
        )
        for at in range(9)
        for group in range(min(inputs, 2))
    ]
    yield Course(
        scenario="elastic",
        case=name,
        subject="mcrd",
        setting=of,
        trial_ids=[f"mcrd-course-{number}"],
        threshold_dps=20_000,
        min_workers=1,
        max_workers=3,
        hot_group=0,
        hot_share=0.9 if inputs > 1 else 1.0,
        phases=[
            OfferedPhase(started_ns=0, duration_ns=SECOND, asked_dps=5_000, offered=5_000),
            OfferedPhase(started_ns=SECOND, duration_ns=3 * SECOND, asked_dps=55_000, offered=165_000),
        ],
        samples=samples,
        resizes=[
            Resize(
                at_ns=grown - 40 * MS,
                took_ns=40 * MS,
                group=0,
                before=1,
                after=3,
                reason="55,000 datagrams/s, more than 20,000",
            ),
            Resize(
                at_ns=grown + SECOND // 2,
                took_ns=9 * MS,
                group=0,
                before=3,
                after=4,
                reason="asked",
                failed="out of memory",
            ),
        ],
        offered=170_000,
        expected=170_000,
        delivered=170_000 - lost,
        duplicated=0,
        reordered=12,
        scaled_ns=scaled_ns,
        scaled_target_ns=2 * SECOND,
    )


def change(kind: ChangeKind, lost: tuple[int, ...], **changes: object) -> Iterator[AnyRecord]:
    of = setting("mcrd", 64, strategy="dynamic", workers=2, flows=64)
    ids = [f"mcrd-{kind.replace(' ', '-')}-{number}" for number, _ in enumerate(lost, start=1)]
    for trial_id, gone in zip(ids, lost, strict=True):
        yield trial(
            trial_id,
            of,
            100_000,
            gone,
            case="changed",
            purpose="change",
            asked_dps=100_000,
            duration_ns=SECOND,
        )
    values = Change(
        scenario="elastic",
        case="changed",
        subject="mcrd",
        setting=of,
        change=kind,
        asked_dps=100_000,
        trial_ids=ids,
        offered=[100_000 for _ in lost],
        duration_ns=[SECOND for _ in lost],
        lost=list(lost),
        duplicated=[0 for _ in lost],
        reordered=[0 for _ in lost],
        reordered_moved=[0 for _ in lost],
        share=[1.0 for _ in lost],
        took_ns=[30 * MS + number * MS for number, _ in enumerate(lost)],
        blocked_target_ns=0,
    )
    yield values.model_copy(update=changes)


def scaling() -> Iterator[AnyRecord]:
    """One that scales in time and one that does not; changes that cost nothing, little, and much."""
    yield from course(1, scaled_ns=420 * MS, inputs=4)
    yield from course(2, scaled_ns=None, inputs=1)
    yield from change("grow", (0, 0, 0), flows_moved=31, reordered_moved=[0, 3, 0])
    yield from change(
        "shrink", (0, 4, 0), flows_moved=31, left_out=2, warnings=["2 trials left out, the last: x"]
    )
    yield from change("crash", (1_200, 900), share=[0.48, 0.52], blocked_target_ns=150 * MS)
    yield from change("restart", (74_000,), blocked_target_ns=None, took_ns=[740 * MS])
