"""What a number of workers costs: really started, measured and stopped, beside the document and the model.

Every worker is a process with its sockets, rings and rules, on however many CPUs this machine has; the model
is of a machine with as many as the case says. Nothing is sent. Of thousands of workers, memory is read of a
sample: the kernel takes 10 ms for each process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from forwarder.plan.document import documented
from forwarder.plan.host import described_host
from forwarder.plan.model import Plan, Sizing
from forwarder.plan.placement import imbalance
from forwarder.plan.planner import plan
from forwarder.rules.notation import parse_rules
from lab.load.flows import rules_of
from lab.load.topology import Topology
from lab.measure.memory import ProcessMemory, kernel_memory, process_memory
from lab.measure.processes import processor_ns, user_and_kernel_ns
from lab.results import Check, Footprint, Memory, Setting
from lab.scenario.layout import is_elastic, least_workers, strategy_of, workers_in_all
from lab.scenario.mcrd_command import fixed_workers, strategy_options
from lab.scenario.tables import FootprintCase
from lab.steps.step import Selection, Step, StepError

if TYPE_CHECKING:
    from lab.netns.build import Lab
    from lab.peers.mcrd import Forwarder
    from lab.steps.context import Context

ESTIMATED_S, ESTIMATED_WORKER_S = 4.0, 0.013
"""Estimates for the lab, and for starting, measuring and stopping each worker."""
IDLE_S = 1.0
"""How long processor time is counted while nothing is sent."""
SETTLE_S = 0.5
"""Wait before that, for what the start leaves behind, such as pages that the kernel takes back."""
STOP_TIMEOUT_S = 60.0
MEMORY_SAMPLE = 32
"""Workers whose memory is read, at most, spread evenly."""


@dataclass(frozen=True)
class FootprintStep(Step):
    """A number of workers, really started."""

    footprint: FootprintCase

    records: ClassVar = (Footprint,)

    @classmethod
    def for_scenario(cls, selection: Selection) -> Iterator[FootprintStep]:
        for footprint in selection.scenario.footprint:
            yield cls(selection.scenario, selection.profile, footprint)

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/{self.footprint.name}/footprint"

    @property
    def seconds(self) -> float:
        return ESTIMATED_S + ESTIMATED_WORKER_S * workers_in_all(self.footprint.setting)

    def perform(self, context: Context) -> None:
        with context.benches.alone():  # nothing else may run or be mapped meanwhile
            record = run_footprint(self.scenario.name, self.footprint, f"{context.run_id}-footprint")
        context.archive.write(record)
        checks = [counted(record, self.footprint.setting)]
        context.check(checks[0], self.step_id)
        missed = misses(record)
        context.failures += [f"{self.step_id}: {text}" for text in missed]
        if self.footprint.ready_aim_s is not None:
            context.check(aimed(record, self.footprint.ready_aim_s))
        if self.footprint.like is not None and self.footprint.like_target is not None:
            other = self._measured(context, self.footprint.like)
            checks.append(compared(record, other, self.footprint.like_target))
            context.check(checks[-1], self.step_id)
        missed += [check.observed for check in checks if not check.passed]
        private = record.memory.private_bytes_per_worker / 1e6
        ready = f"{record.workers} workers ready in {ready_text(record)}"
        context.reporter.outcome("; ".join([f"{ready}, {private:.2f} MB private each", *missed]))

    def _measured(self, context: Context, name: str) -> Footprint:
        """The footprint of that name, measured before."""
        for other in context.of_kind(Footprint):
            if (other.scenario, other.case) == (self.scenario.name, name):
                return other
        raise StepError(f"{name}: not measured, so there is nothing to compare with")


def run_footprint(scenario: str, case: FootprintCase, run_id: str) -> Footprint:
    """Start the workers of ``case``, read their memory and what they do when idle, stop them.

    Raises:
        PeerError: it did not start, ended otherwise than asked to, or left something behind.
    """
    from lab.netns import namespaces as netns
    from lab.netns.build import build
    from lab.peers.mcrd import rules_document, start_forwarder

    setting = case.setting
    names = [f"in{number}" for number in range(case.inputs)]
    document = rules_document(rules_of(setting, ["out0"]))
    with build(Topology(inputs=case.inputs), run_id) as lab:
        before = kernel_memory()
        forwarder = start_forwarder(
            lab.fwd,
            names,
            document,
            strategy=case.strategy,
            workers=fixed_workers(setting),
            options=strategy_options(setting),
        )
        try:
            user_ns, kernel_ns = user_and_kernel_ns(netns.processes(lab.fwd))
            grown = kernel_memory().since(before).total_bytes
            workers = forwarder.ask("stats", rules=False)["workers"]
            pids = [forwarder.process.pid, *(worker["pid"] for worker in workers)]
            idle_cpu_ns, idle_ns = _idle(pids)
            memory = _memory(pids, grown)
            stopped_ns = forwarder.finish(STOP_TIMEOUT_S)
            _demand_clean_end(forwarder, lab)
        finally:
            forwarder.stop()
    planned = _plan(case, names, document)
    stated = documented(planned)
    held = [worker["rules"] for worker in workers]
    return Footprint(
        scenario=scenario,
        case=case.name,
        strategy=case.strategy,
        interfaces=case.inputs,
        cpus=case.cpus or case.workers,
        workers=len(workers),
        rules=case.rules,
        rules_per_worker=max(held),
        setting=setting,
        imbalance=imbalance(held),
        idle_cpu_ns=idle_cpu_ns,
        idle_ns=idle_ns,
        documented_bytes=case.documented_bytes or stated.total_bytes,
        modelled_bytes=planned.figures.modelled.total_bytes,
        memory=memory,
        ready_ns=forwarder.ready_ns,
        ready_user_ns=user_ns,
        ready_kernel_ns=kernel_ns,
        stopped_ns=stopped_ns,
        ready_target_ns=_nanoseconds(case.ready_target_s),
        stop_target_ns=_nanoseconds(case.stop_target_s),
        private_target_bytes=case.private_target_bytes,
        idle_target=case.idle_target,
        discrepancies=list(stated.discrepancies),
    )


def counted(record: Footprint, setting: Setting) -> Check:
    """Whether as many workers ran as the strategy makes."""
    expected = least_workers(setting)
    return Check(
        scenario=record.scenario,
        case=record.case,
        passed=record.workers == expected,
        expected=f"{expected} workers",
        observed=f"{record.workers} workers",
    )


def misses(record: Footprint) -> list[str]:
    """The targets that the measurement missed, one sentence each."""
    missed = []
    for what, took_ns, target_ns in (
        ("ready", record.ready_ns, record.ready_target_ns),
        ("stopped", record.stopped_ns, record.stop_target_ns),
    ):
        if target_ns is not None and took_ns is not None and took_ns > target_ns:
            missed.append(f"{what} in {took_ns / 1e9:.2f} s, at most {target_ns / 1e9:g} s promised")
    private = record.memory.private_bytes_per_worker
    if record.private_target_bytes is not None and private > record.private_target_bytes:
        promised = f"{record.private_target_bytes / 1e6:g} MB"
        missed.append(f"{private / 1e6:.2f} MB private per worker, at most {promised} promised")
    if record.idle_target is not None and record.idle_ns and record.idle_cpu_ns is not None:
        idle = record.idle_cpu_ns / record.idle_ns
        if idle > record.idle_target:
            missed.append(f"{idle:.2%} of a CPU busy when idle, at most {record.idle_target:.2%} promised")
    return missed


def ready_text(record: Footprint) -> str:
    """The time to start, and whose it is: the kernel's part of the processor time that was used."""
    text = f"{record.ready_ns / 1e9:.2f} s"
    if record.ready_kernel_ns is None or not (used := record.ready_kernel_ns + (record.ready_user_ns or 0)):
        return text
    return f"{text} (the kernel's part {record.ready_kernel_ns / used:.0%} of {used / 1e9:.2f} s of CPU time)"


def aimed(record: Footprint, seconds: float) -> Check:
    """Whether they were ready as soon as is hoped for."""
    return Check(
        scenario=record.scenario,
        case=record.case,
        passed=record.ready_ns <= seconds * 1e9,
        expected=f"ready in {seconds:g} s at most",
        observed=ready_text(record),
        aim=True,
    )


def compared(record: Footprint, other: Footprint, target: float) -> Check:
    """Whether all processes together hold at most ``target`` times the memory of the other's.

    Rings are reported, not judged: their size is configuration.
    """
    own, like = record.memory.held_bytes, other.memory.held_bytes
    rings = [one.memory.ring_bytes_total / 1e6 for one in (record, other)]
    return Check(
        scenario=record.scenario,
        case=record.case,
        passed=own <= like * target,
        expected=f"memory at most {target:g} × that of: {other.case}",
        observed=f"{own / 1e6:.1f} MB, {own / like:.3f} × {like / 1e6:.1f} MB; "
        f"rings of {rings[0]:.1f} and {rings[1]:.1f} MB beside",
    )


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


def _idle(pids: Sequence[int]) -> tuple[int, int]:
    """Processor time of all processes while nothing is sent, and the time that passed; nanoseconds."""
    time.sleep(SETTLE_S)
    before, began = processor_ns(pids), time.monotonic_ns()
    time.sleep(IDLE_S)
    after, ended = processor_ns(pids), time.monotonic_ns()
    return after - before, ended - began


def _memory(pids: Sequence[int], kernel_bytes: int) -> Memory:
    """``pids``: the supervisor's, then the workers'."""
    supervisor, *workers = pids
    template = process_memory(supervisor)
    each = [process_memory(pid) for pid in sampled(workers, MEMORY_SAMPLE)]
    return Memory(
        workers=len(workers),
        private_bytes_per_worker=round(statistics.median(one.private_bytes for one in each)),
        pss_bytes_total=template.pss_bytes + _of_all(each, "pss_bytes", len(workers)),
        ring_bytes_total=_of_all(each, "ring_bytes", len(workers)),
        template_bytes=template.dirty_bytes,
        shared_bytes=shared_bytes(template, each, len(workers)),
        kernel_bytes=kernel_bytes,
    )


def shared_bytes(template: ProcessMemory, each: Sequence[ProcessMemory], workers: int) -> int:
    """Memory that the supervisor and ``workers`` like ``each`` share: written before the forks, and files."""
    written = template.anonymous_pss_bytes + _of_all(each, "anonymous_pss_bytes", workers)
    own = template.dirty_bytes + _of_all(each, "dirty_bytes", workers)
    own -= template.mapped_dirty_bytes + _of_all(each, "mapped_dirty_bytes", workers)
    return max(0, written - own) + template.file_bytes


def sampled(pids: Sequence[int], most: int) -> Sequence[int]:
    """At most ``most`` of them, evenly spread from first to last."""
    if len(pids) <= most:
        return pids
    return [pids[place * (len(pids) - 1) // (most - 1)] for place in range(most)]


def _of_all(each: Sequence[ProcessMemory], field: str, workers: int) -> int:
    """The sum over ``workers`` workers, of which ``each`` are a sample."""
    return round(statistics.fmean(getattr(one, field) for one in each) * workers)


def _demand_clean_end(forwarder: Forwarder, lab: Lab) -> None:
    from lab.netns import namespaces as netns
    from lab.peers.base import PeerError

    status = forwarder.process.returncode
    if status:
        raise PeerError(f"mcrd: ended with status {status} when told to stop")
    processes = netns.processes(lab.fwd)
    sockets = len(netns.run(lab.fwd, ["cat", "/proc/net/packet"]).splitlines()) - 1
    control = forwarder.control_path.exists()
    if processes or sockets or control:
        raise PeerError(
            f"mcrd: left {len(processes)} processes, {sockets} packet sockets and "
            f"{'its' if control else 'no'} control socket behind"
        )


def _plan(case: FootprintCase, names: Sequence[str], document: object) -> Plan:
    """The plan for the same numbers on a machine with that many CPUs."""
    host = described_host(case.cpus or case.workers, names)
    strategy = strategy_of(case.strategy, case.placement, case.steering, case.hashing)
    if is_elastic(case.setting):
        sizing = Sizing(max_workers=case.workers)
    else:
        sizing = Sizing(workers=case.workers, group_count=case.groups or Sizing().group_count)
    return plan(host, names, parse_rules(document), strategy, sizing)
