"""Makes the example run in this folder, and from it the reference report.

    python tests/golden/reports/update.py

writes ``results.jsonl`` (from the models of ``lab.results``), then ``report.md`` and the CSV files. Run it
when a change to the report or to the schema is meant, and read the difference before committing it.

The figures are invented, and chosen so that every kind of record, verdict and doubt occurs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import given_records
import rfc3918_records
import scaling_records
import strategy_records
from given_records import SECOND, setting

from lab.results import (
    AnyRecord,
    Check,
    Cpu,
    Drop,
    Footprint,
    Frames,
    Latency,
    Ledger,
    Memory,
    Provenance,
    RunEnded,
    RunStarted,
    Stage,
    Streams,
    Trial,
    WorkerSample,
    ZeroLoss,
    dump_line,
)
from reports.page.html import write_report

HERE = Path(__file__).parent
REFERENCES = ("report.md", "*.csv")
CEILINGS = {64: 470_000, 512: 455_000}
BREAKING = {"mcrd": {64: 470_000, 512: 430_000}, "kernel": {64: 262_000, 512: 251_000}}
"""Invented rates, in datagrams/s, from which each subject loses."""


def records() -> Iterator[AnyRecord]:
    yield run()
    yield from checks()
    for payload in (64, 512):
        yield calibration(payload)
        for subject in ("mcrd", "kernel"):
            trials = [search_trial(subject, payload, rate) for rate in (100_000, 200_000, 300_000, 440_000)]
            yield from trials
            yield zero_loss(subject, payload, trials)
    yield from replication()
    yield from latency_trials()
    yield from given_records.given_loads()
    yield from given_records.comparisons()
    yield footprint(4, 4_000_000, ready_ns=640_000_000)
    yield footprint(96, 96_000_000, ready_ns=1_870_000_000)
    yield from strategy_records.strategies()
    yield from strategy_records.isolation()
    yield from strategy_records.multiplexing()
    yield from strategy_records.many_workers()
    yield from rfc3918_records.rfc3918()
    yield from scaling_records.scaling()
    yield RunEnded(
        ended_at="2025-01-02T03:09:05Z",
        outcome="failed",
        failures=["functional: VLAN-tagged frame", "isolation: one worker: other inputs lose nothing"],
        inconclusive=["fanout-throughput/1,400 B/zero-loss-rate: no rate was found without loss"],
    )


def run() -> RunStarted:
    return RunStarted(
        run_id="20250102-030405-ab12",
        started_at="2025-01-02T03:04:05Z",
        profile="quick",
        scenarios=[
            "functional",
            "fanout-throughput",
            "fanout-replication",
            "fanout-workers",
            "strategies",
            "isolation",
            "multiplexing",
            "table-row-7",
            *rfc3918_records.SECTIONS,
        ],
        rfc3918=rfc3918_records.SECTIONS,
        provenance=Provenance(
            kernel="6.18.0",
            machine="x86_64",
            cpu_model="Example CPU 2000 @ 2.40GHz",
            cpus=2,
            numa_nodes=1,
            memory_bytes=8_000_000_000,
            mitigations={"spectre_v2": "Mitigation: Retpolines", "meltdown": "Not affected"},
            sysctls={"net.core.netdev_max_backlog": "1000", "net.ipv4.igmp_max_memberships": "1000"},
            packages={"numba": "0.61.0", "scapy": "2.6.1"},
            python="3.11.7",
            commit="0123456789abcdef",
            dirty=False,
            command=["mcastlab", "run", "--profile", "quick"],
            conditions={"other load": "1% busy", "steal": "3.0%", "turbo": "no switch for it here"},
            doubts=["the hypervisor took 3% of the processor time when the run began"],
        ),
    )


def checks() -> Iterator[AnyRecord]:
    rewritten = "239.2.2.2:5002, TTL 63, source 10.20.0.1"
    yield Check(
        scenario="functional", case="header rewritten", passed=True, expected=rewritten, observed=rewritten
    )
    yield Check(
        scenario="functional",
        case="TTL 1 not forwarded",
        passed=True,
        expected="0 copies, ttl_expired + 1",
        observed="0 copies, ttl_expired + 1",
    )
    yield Check(
        scenario="functional",
        case="VLAN-tagged frame",
        passed=False,
        expected="0 copies, vlan_tagged + 1",
        observed="1 copy | <untagged>",
        frames=Frames(file="evidence/functional-checks-0a1b2c3d.pcapng", what="all packets of the checks"),
    )
    yield Check(
        scenario="table-row-7",
        case="1,920 workers, 500 rules each",
        passed=False,
        expected="ready in 20 s at most",
        observed="22.20 s (the kernel's part 71% of 41.30 s of CPU time)",
        aim=True,
    )


def calibration(payload: int) -> Trial:
    offered = CEILINGS[payload]
    return Trial(
        trial_id=f"calibrate-{payload}",
        scenario="fanout-throughput",
        case=f"{payload} B",
        subject="none",
        setting=setting("none", payload),
        purpose="calibration",
        asked_dps=None,
        duration_ns=SECOND,
        offered=offered,
        delivered=offered,
        expected=offered,
        validity="valid",
        bound_by="generator",
        ledger=Ledger(
            ingress=Stage(entered=offered, left=offered), egress=Stage(entered=offered, left=offered)
        ),
    )


def search_trial(subject: str, payload: int, offered: int) -> Trial:
    dropped = max(0, offered - BREAKING[subject][payload])
    matched = offered - dropped
    place = Drop(place="packet-socket", reason="ring full", count=dropped)
    if subject == "kernel":
        place = Drop(place="softnet", reason="input backlog full", count=dropped)
    return Trial(
        trial_id=f"{subject}-{payload}-{offered}",
        scenario="fanout-throughput",
        case=f"{payload} B",
        subject=subject,
        setting=setting(subject, payload),
        purpose="search",
        asked_dps=offered,
        duration_ns=SECOND,
        offered=offered,
        delivered=matched,
        expected=offered,
        validity="valid",
        bound_by="forwarder" if dropped else "asked",
        ledger=Ledger(
            ingress=Stage(entered=offered, left=matched, drops=[place] if dropped else []),
            egress=Stage(entered=matched, left=matched),
        ),
        streams=Streams(streams=16, checked=matched, lost=dropped, duplicated=0, reordered=0),
        workers=workers(matched) if subject == "mcrd" else [],
    )


def workers(matched: int) -> list[WorkerSample]:
    first = matched * 9 // 16
    return [
        WorkerSample(worker_id=n, cpu=n, received=part, matched=part, private_bytes=1_010_000, rules=1)
        for n, part in enumerate((first, matched - first))
    ]


def zero_loss(subject: str, payload: int, trials: list[Trial]) -> ZeroLoss:
    without = max(t.offered_dps for t in trials if not t.loss_ratio)
    lossy = [t.offered_dps for t in trials if t.loss_ratio]
    return ZeroLoss(
        scenario="fanout-throughput",
        case=f"{payload} B",
        subject=subject,
        setting=setting(subject, payload),
        goal_loss_ratio=0.0,
        lower_dps=without,
        upper_dps=min(lossy) if lossy else None,
        generator_ceiling_dps=CEILINGS[payload],
        bound_by="forwarder" if lossy else "generator",
        trial_ids=[t.trial_id for t in trials],
        warnings=[] if payload == 64 else ["two trials at one rate disagreed"],
    )


def replication() -> Iterator[AnyRecord]:
    """Eight outputs: an invalid trial, one whose ledger stays open, and a subject without any sound rate."""
    for subject, offered, missing in (("mcrd", 150_000, 0), ("kernel", 60_000, 3)):
        due = offered * 8
        refused = 0 if subject == "mcrd" else 40_000
        yield Trial(
            trial_id=f"{subject}-fan-out",
            scenario="fanout-replication",
            case="1→8",
            subject=subject,
            setting=setting(subject, 64, outputs=8, egress="offload" if subject == "mcrd" else "wire-like"),
            purpose="fixed",
            asked_dps=200_000,
            duration_ns=SECOND,
            offered=offered,
            delivered=due - refused - missing,
            expected=due,
            validity="invalid" if subject == "mcrd" else "doubtful",
            warnings=["offered 150,000 of 200,000 datagrams asked for"]
            if subject == "mcrd"
            else ["egress: 3 of 480,000 copies unaccounted for", "2 copies arrived out of order"],
            bound_by="generator" if subject == "mcrd" else "unknown",
            ledger=Ledger(
                ingress=Stage(entered=offered, left=offered),
                egress=Stage(
                    entered=due,
                    left=due - refused - missing,
                    drops=[Drop(place="transmit", reason="refused", count=refused)] if refused else [],
                ),
            ),
            streams=Streams(streams=128, checked=due, lost=refused, duplicated=0, reordered=2),
            cpu=Cpu(busy_ns=1_400_000_000, softirq_ns=500_000_000, copies=due - refused),
        )
    yield ZeroLoss(
        scenario="fanout-replication",
        case="1→8",
        subject="kernel",
        setting=setting("kernel", 64, outputs=8),
        goal_loss_ratio=0.0,
        lower_dps=None,
        upper_dps=20_000.0,
        generator_ceiling_dps=470_000.0,
        bound_by="unknown",
        trial_ids=["kernel-fan-out"],
        warnings=["no rate without loss found"],
    )
    yield ZeroLoss(
        scenario="fanout-replication",
        case="1→8",
        subject="kernel",
        setting=setting("kernel", 64, outputs=8),
        goal_loss_ratio=0.005,
        lower_dps=18_500.0,
        upper_dps=19_000.0,
        generator_ceiling_dps=470_000.0,
        bound_by="forwarder",
        trial_ids=["kernel-fan-out"],
    )


def latency_trials() -> Iterator[AnyRecord]:
    for subject, scale in (("mcrd", 1), ("kernel", 2)):
        for turn in range(2):
            base = 9_000 * scale + turn * 500
            offered = 110_000
            yield Trial(
                trial_id=f"{subject}-latency-{turn}",
                scenario="fanout-throughput",
                case="64 B",
                subject=subject,
                setting=setting(subject, 64),
                purpose="latency",
                asked_dps=offered,
                load_share=(0.1, 0.5)[turn] if subject == "mcrd" else None,
                duration_ns=SECOND,
                offered=offered,
                delivered=offered,
                expected=offered,
                validity="valid",
                bound_by="asked",
                ledger=Ledger(
                    ingress=Stage(entered=offered, left=offered),
                    egress=Stage(entered=offered, left=offered),
                ),
                latency=Latency(
                    count=offered, p50=base, p90=base * 2, p99=base * 5, p999=base * 14, max=base * 90
                ),
                cpu=Cpu(busy_ns=700_000_000, softirq_ns=200_000_000, baseline_ns=300_000_000, copies=offered),
            )


def footprint(workers: int, documented: int, ready_ns: int) -> Footprint:
    rules = 1000
    modelled = workers * (rules * 1000 + 1_000_000)
    return Footprint(
        scenario="fanout-workers",
        case=f"{workers} workers",
        strategy="fanout",
        interfaces=1,
        cpus=workers,
        workers=workers,
        rules=rules,
        rules_per_worker=rules,
        documented_bytes=documented,
        modelled_bytes=modelled,
        memory=Memory(
            workers=workers if workers < 96 else 95,
            private_bytes_per_worker=1_040_000,
            pss_bytes_total=workers * 1_300_000,
            ring_bytes_total=workers * 2_097_152,
            template_bytes=38_000_000,
            shared_bytes=181_000_000,
            kernel_bytes=None if workers < 96 else 21_000_000,
        ),
        ready_ns=ready_ns,
        stopped_ns=210_000_000,
        ready_target_ns=None if workers < 96 else 3_000_000_000,
        private_target_bytes=1_000_000 if workers < 96 else 1_200_000,
        discrepancies=["the document leaves out the 1 MB of each process that it assumes"],
        warnings=[] if workers < 96 else ["96 workers planned on 2 CPUs: oversubscribed"],
    )


def write_results(path: Path) -> Path:
    path.write_text("".join(map(dump_line, records())), encoding="utf-8")
    return path


def main() -> None:
    results = write_results(HERE / "results.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        write_report(results, Path(folder))
        for pattern in REFERENCES:
            for made in Path(folder).glob(pattern):
                (HERE / made.name).write_text(made.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    main()
