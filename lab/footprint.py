"""What a number of workers costs: started for real, measured, stopped; beside the document and the model."""

from __future__ import annotations

import statistics

from forwarder.host import described_host
from forwarder.plan import Plan, Sizing, plan
from forwarder.rules import parse_rules
from forwarder.strategy import PRESETS
from lab.build import build
from lab.load import rules_of
from lab.measure.memory import kernel_memory, process_memory
from lab.peers.mcrd import Forwarder, rules_document, start_forwarder
from lab.results import Footprint, Memory, Setting
from lab.scenario import FootprintCase
from lab.topology import Topology


def run_footprint(scenario: str, case: FootprintCase, run_id: str) -> Footprint:
    """Start ``case.workers`` workers on one interface, read their memory, stop them."""
    rules = rules_of(Setting(payload_bytes=64, rules=case.rules), ["out0"])
    document = rules_document(rules)
    with build(Topology(), run_id) as lab:
        before = kernel_memory()
        forwarder = start_forwarder(lab.fwd, ["in0"], document, strategy=case.strategy, workers=case.workers)
        try:
            grown = kernel_memory().since(before).total_bytes
            memory = _memory(forwarder, grown)
            held = _rules_held(forwarder)
            stopped_ns = forwarder.finish()
        finally:
            forwarder.stop()
    planned = _plan(case, document)
    return Footprint(
        scenario=scenario,
        case=case.name,
        strategy=case.strategy,
        interfaces=1,
        cpus=case.cpus or case.workers,
        workers=memory.workers,
        rules=case.rules,
        rules_per_worker=held,
        documented_bytes=case.documented_bytes or planned.figures.documented_bytes,
        modelled_bytes=planned.figures.modelled.total_bytes,
        memory=memory,
        ready_ns=forwarder.ready_ns,
        stopped_ns=stopped_ns,
        ready_target_ns=None if case.ready_target_s is None else round(case.ready_target_s * 1e9),
        private_target_bytes=case.private_target_bytes,
        discrepancies=list(planned.figures.discrepancies),
        warnings=[]
        if memory.workers == case.workers
        else [f"{memory.workers} of {case.workers} workers ran"],
    )


def misses(record: Footprint) -> list[str]:
    """Which of its targets the measurement missed, in words."""
    missed = []
    if record.ready_target_ns is not None and record.ready_ns > record.ready_target_ns:
        promised = f"{record.ready_target_ns / 1e9:g} s"
        missed.append(f"ready in {record.ready_ns / 1e9:.2f} s, at most {promised} promised")
    private = record.memory.private_bytes_per_worker
    if record.private_target_bytes is not None and private > record.private_target_bytes:
        promised = f"{record.private_target_bytes / 1e6:g} MB"
        missed.append(f"{private / 1e6:.2f} MB private per worker, at most {promised} promised")
    return missed


def _memory(forwarder: Forwarder, kernel_bytes: int) -> Memory:
    supervisor, *workers = forwarder.pids
    template = process_memory(supervisor)
    each = [process_memory(pid) for pid in workers]
    return Memory(
        workers=len(each),
        private_bytes_per_worker=round(statistics.median(one.private_bytes for one in each)) if each else 0,
        pss_bytes_total=template.pss_bytes + sum(one.pss_bytes for one in each),
        ring_bytes_total=sum(one.ring_bytes for one in each),
        template_bytes=template.private_bytes,
        kernel_bytes=kernel_bytes,
    )


def _rules_held(forwarder: Forwarder) -> int:
    """Rules in one worker: with ``replicate`` placement that is all of them."""
    return len(forwarder.stats()["rules"])


def _plan(case: FootprintCase, document: object) -> Plan:
    """What the plan says of the same numbers on a machine of that many CPUs."""
    host = described_host(case.cpus or case.workers, ["in0"])
    strategy = PRESETS[case.strategy]
    return plan(host, ["in0"], parse_rules(document), strategy, Sizing(workers=case.workers))
