"""What each trial shows the model: the cost of a datagram, or an upper bound of it.

* A worker whose ring overflowed, or that was sending long after the trial, *could not keep up*: its processor
  was busy throughout, so the rate shows its cost. Not if the machine stalled: then another trial of the case
  forwarded far more, or the hypervisor reports stolen time.
* In any other trial the generator, or the rate asked for, was the limit: the worker costs *at most* what its
  processor had. Only the highest such rate of a case counts, and only as a bound.
* Only one CPU that does all of a forwarder's work, receiving included, and nothing else, shows a cost.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from lab.results import NS_PER_S, CpuUse, Setting, Trial
from reports.capacity.cost import Load
from reports.dataset import Dataset, grouped

SUBJECT = "mcrd"
LOST_BEHIND = 0.03
"""Share of the offered datagrams whose loss means that a worker could not keep up; a stall loses less."""
DRAINED_BEHIND = 0.1
"""Or it was still sending for this share of the trial after its end."""
OVERLOADED = 1.5
"""Arrived over forwarded datagrams from which on it is overload, not a stall."""
ARRIVED_MOST = 4.0
"""Arrived over forwarded datagrams beyond which a trial shows what dropping costs, and hardly more."""
STALLED = 0.7
"""With less overload, a worker below this share of the best rate of its case was stalled."""
STOLEN_MOST = 0.05
"""Most processor time, as a share, that the hypervisor may take in a trial that shows a cost."""
MOST_TRIALS = 24
"""Trials used of one case, spread evenly. A case weighs the same however many it has."""
CHANGING = ("course", "change")
"""Purposes of trials in which the load or the forwarder changes: their rates are not those of a case."""
RING = "packet-socket"
"""Place in the ledger for drops of a full ring."""
RECEIVED_HERE = 0.9
"""Share of what arrived that the worker's CPU must have received itself."""
SKIPPED = "--skip-host-stack"

Says = Literal["cost", "bound"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One trial: the load of each worker, and what the CPU that they share did."""

    trial: str
    """The run's id and the trial's."""
    case: str
    """Scenario and case, for people."""
    load: Load
    says: Says
    forwarded_dps: float
    """All workers together, until the last copy."""
    arrived_per_forwarded: float
    """Datagrams that the kernel received for each that was forwarded."""
    workers: int

    @property
    def key(self) -> tuple[Load, int]:
        """Samples with equal keys measured the same."""
        return self.load, self.workers

    @property
    def cost_ns(self) -> float:
        """Processor time for each forwarded datagram; an upper limit if ``says`` is bound."""
        return NS_PER_S / self.forwarded_dps


def samples(runs: Iterable[Dataset]) -> list[Sample]:
    """Usable samples: costs, up to :data:`MOST_TRIALS` a case; for other cases the best bound.

    A worker that drops nearly everything bounds nothing.
    """
    every = (sample for run in runs for trial in run.trials if (sample := sample_of(run, trial)) is not None)
    kept: list[Sample] = []
    for case in grouped(every, lambda sample: sample.key).values():
        best = max(case, key=lambda sample: sample.forwarded_dps)
        steady = STALLED * best.forwarded_dps
        behind = [s for s in case if s.says == "cost" and s.arrived_per_forwarded <= ARRIVED_MOST]
        costs = [s for s in behind if s.arrived_per_forwarded >= OVERLOADED or s.forwarded_dps >= steady]
        kept += _spread(costs) or [replace(best, says="bound")]
    return kept


def _spread(case: list[Sample]) -> list[Sample]:
    if len(case) <= MOST_TRIALS:
        return case
    return [case[place * (len(case) - 1) // (MOST_TRIALS - 1)] for place in range(MOST_TRIALS)]


def sample_of(run: Dataset, trial: Trial) -> Sample | None:
    """``None``: not usable, or not all of the forwarder's work was on one CPU of its own."""
    if not usable(trial.subject, trial.setting) or trial.ended or not trial.ledger.balanced:
        return None
    forwarded = sum(worker.matched for worker in trial.workers)
    if trial.purpose in CHANGING or not forwarded or (cpu := _own_cpu(trial)) is None:
        return None
    ring = sum(drop.count for drop in trial.ledger.ingress.drops if drop.place == RING)
    if cpu.received < RECEIVED_HERE * (forwarded + ring):
        return None
    behind = ring >= LOST_BEHIND * trial.offered or trial.drain_ns >= DRAINED_BEHIND * trial.duration_ns
    held_up = cpu.steal_ns > STOLEN_MOST * trial.duration_ns
    seconds = (trial.duration_ns + trial.drain_ns) / NS_PER_S
    return Sample(
        trial=f"{run.run_id}:{trial.trial_id}",
        case=f"{trial.scenario}: {trial.case}",
        load=load_of(trial.setting, len(trial.workers), max(worker.rules for worker in trial.workers)),
        says="cost" if behind and not held_up else "bound",
        forwarded_dps=forwarded / seconds,
        arrived_per_forwarded=(forwarded + ring) / forwarded,
        workers=len(trial.workers),
    )


def _own_cpu(trial: Trial) -> CpuUse | None:
    """The CPU of all workers, if it is a single one with nothing else to do."""
    cpus = {worker.cpu for worker in trial.workers}
    used = trial.cpu.by_cpu if trial.cpu else []
    found = [use for use in used if use.cpu in cpus and use.role == "forwarder"]
    return found[0] if len(cpus) == len(found) == 1 else None


def usable(subject: str, setting: Setting) -> bool:
    """Whether this is the installed forwarder with settings that the model describes."""
    return (
        subject == SUBJECT
        and setting.commit is None
        and setting.receive == "first"
        and setting.pipelines is None
        and setting.egress == "wire-like"
        and setting.skew == 1
        and setting.unicast_percent == 0
        and setting.udp_checksum
        and setting.steering in (None, "cpu", "hash", "rule-hash")
        and set(setting.options) <= {SKIPPED}
    )


def load_of(setting: Setting, workers: int, rules: int | None = None) -> Load:
    """The load of each of ``workers``, with ``rules`` in each (all of them if not given)."""
    per_interface = setting.strategy in ("fanout-per-interface", "full-fanout", "dynamic")
    groups = setting.inputs if per_interface else setting.groups or 1
    return Load(
        payload_bytes=setting.payload_bytes,
        outputs=setting.outputs,
        rules=max(1, setting.rules if rules is None else rules),
        flows=max(1, round(setting.flows / max(1, workers))),
        interfaces=max(1, setting.inputs // groups),
        burst=setting.burst,
        host_skipped=SKIPPED in setting.options,
    )


@dataclass(frozen=True, slots=True)
class Rate:
    """A zero-loss rate whose limit was the worker."""

    trials: tuple[str, ...]
    case: str
    load: Load
    dps: float


def rates(runs: Iterable[Dataset]) -> list[Rate]:
    """Zero-loss rates of a single worker on a CPU that does all of its work, limited by the forwarder."""
    found = []
    for run in runs:
        alone = {t.trial_id: t for t in run.trials if len(t.workers) == 1 and sample_of(run, t) is not None}
        for zero in run.zero_losses:
            first = next((alone[one] for one in zero.trial_ids if one in alone), None)
            if first is None or not zero.lower_dps or zero.upper_dps is None:
                continue
            if zero.bound_by == "forwarder" and usable(zero.subject, zero.setting):
                load = load_of(zero.setting, 1, first.workers[0].rules)
                ids = tuple(f"{run.run_id}:{one}" for one in zero.trial_ids)
                found.append(Rate(ids, f"{zero.scenario}: {zero.case}", load, zero.lower_dps))
    return found
