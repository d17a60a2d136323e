"""Records for tests of the lab: whole ones, of which a test says only what it is about."""

from __future__ import annotations

from lab.results import Comparison, Ledger, Provenance, RunStarted, Setting, Stage, Trial

STARTED_AT = "2026-01-02T03:04:05+00:00"


def trial_record(**changes: object) -> Trial:
    """100 datagrams/s for a second, without loss."""
    stage = Stage(entered=100, left=100)
    made = Trial(
        trial_id="t",
        scenario="s",
        case="c",
        subject="mcrd",
        setting=Setting(payload_bytes=64),
        purpose="fixed",
        asked_dps=100,
        duration_ns=1_000_000_000,
        offered=100,
        delivered=100,
        expected=100,
        validity="valid",
        ledger=Ledger(ingress=stage, egress=stage),
    )
    return made.model_copy(update=changes)


def comparison_record(ratio: float, **changes: object) -> Comparison:
    """Eight pairs, with an interval of 2 % to both sides."""
    made = Comparison(
        scenario="gate",
        case="1→1",
        metric="delivered copies/s",
        higher_is_better=True,
        a="mcrd",
        b="kernel",
        setting=Setting(payload_bytes=64),
        ratio=ratio,
        low=ratio * 0.98,
        high=ratio * 1.02,
        confidence=0.95,
        pairs=8,
    )
    return made.model_copy(update=changes)


def started_record(cpu: str = "CPU", commit: str | None = None, **changes: object) -> RunStarted:
    provenance = Provenance(
        kernel="6.18.0 #1",
        machine="x86_64",
        cpu_model=cpu,
        cpus=2,
        numa_nodes=1,
        memory_bytes=8_000_000_000,
        packages={"numba": "1"},
        python="3.11",
        commit=commit,
    )
    made = RunStarted(run_id="r", started_at=STARTED_AT, profile="quick", scenarios=[], provenance=provenance)
    return made.model_copy(update=changes)
