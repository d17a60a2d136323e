"""Memory of workers and their supervisor, in bytes: laws over footprints of workers really started.

* *private*: each worker's process, rules and sockets. A single worker shares nothing with another one, so
  what a fork would leave shared is its own.
* *template*: private to the supervisor: its own copy of every rule, and a little for each worker.
* *shared*: held once by all: code, and what was in memory before the forks, with rules.
* *kernel*: growth of the kernel's own memory: page tables, stacks, sockets.
* *rings* are configuration: they are as large as the plan says.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lab.results import Footprint, Memory
from reports.capacity.law import Law, Part, Range

ALONE = 1


@dataclass(frozen=True, slots=True, order=True)
class Holding:
    """Everything that is started."""

    workers: int
    rules: int
    rules_per_worker: int
    """Most rules in one worker."""
    sockets: int
    """In all workers: one for each interface that a worker reads."""


def memory_terms(held: Holding) -> dict[str, dict[str, float]]:
    """The terms of each law, by its field in :class:`MemoryModel`."""
    workers, rules, sockets = float(held.workers), float(held.rules), float(held.sockets)
    alone = float(held.workers == ALONE)
    several = 1 - alone  # what one that is alone does not share is in its private memory
    each = {"process": 1.0, "rule": float(held.rules_per_worker), "socket": sockets / workers}
    shared = {"code": 1.0, "rule": rules, "several": several, "several_rule": several * rules}
    return {
        "private": {**each, "alone": alone, "alone_rule": alone * rules},
        "template": {"code": 1.0, "rule": rules, "worker": workers},
        "shared": {**shared, "worker": workers},  # its counters
        "kernel": {"machine": 1.0, "worker": workers, "socket": sockets},
    }


SIZES = {
    "private": "private_bytes_per_worker",
    "template": "template_bytes",
    "shared": "shared_bytes",
    "kernel": "kernel_bytes",
}
"""The field of a footprint's memory that each law is fitted to."""


class MemoryModel(Part):
    """The laws, and what they were fitted to."""

    private: Law
    template: Law
    shared: Law | None = None
    """``None`` if the footprints do not measure it."""
    kernel: Law | None
    ranges: dict[str, Range]
    cases: list[str]
    """Run, scenario and case of each footprint."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A footprint as the laws see it."""

    case: str
    held: Holding
    memory: Memory


def measured(run_id: str, footprints: Iterable[Footprint]) -> list[Measured]:
    known = (f for f in footprints if f.memory.workers and not f.warnings)
    return [Measured(f"{run_id}:{f.scenario}: {f.case}", holding_of(f), f.memory) for f in known]


def holding_of(f: Footprint) -> Holding:
    per_interface = f.strategy in ("fanout-per-interface", "full-fanout", "dynamic")
    groups = f.interfaces if per_interface else (f.setting.groups if f.setting else None) or 1
    return Holding(
        workers=f.memory.workers,
        rules=f.rules,
        rules_per_worker=f.rules_per_worker,
        sockets=f.memory.workers * max(1, f.interfaces // groups),
    )
