"""What workers and their supervisor hold, in bytes: laws over footprints, each of workers really started.

* *private*: of each worker: the process, its rules, its sockets. A worker that is alone shares nothing with
  another one, so what a fork would have left shared is its own.
* *template*: private to the supervisor: its own copy of every rule, a little for each worker.
* *shared*: held once by all of them: code, and what was in memory before the forks, rules among it.
* *kernel*: what the kernel's own memory grows by: page tables, stacks, sockets.
* *rings* are configuration: the plan says how large they are, and they are as large as that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.results import Footprint
from reports.capacity.law import Law, Part, Range

ALONE = 1


@dataclass(frozen=True, slots=True, order=True)
class Holding:
    """What is started, all together."""

    workers: int
    rules: int
    """That there are."""
    rules_per_worker: int
    """Held by the worker that holds most."""
    sockets: int
    """Of all workers: one for each interface that a worker reads."""

    @property
    def quantities(self) -> dict[str, float]:
        return {
            "workers": self.workers,
            "rules": self.rules,
            "rules_per_worker": self.rules_per_worker,
            "sockets": self.sockets,
        }


def private_terms(held: Holding) -> dict[str, float]:
    alone = float(held.workers == ALONE)
    return {
        "process": 1.0,
        "rule": float(held.rules_per_worker),
        "socket": held.sockets / held.workers,
        "alone": alone,
        "alone_rule": alone * held.rules,
    }


def template_terms(held: Holding) -> dict[str, float]:
    return {"code": 1.0, "rule": float(held.rules), "worker": float(held.workers)}


def shared_terms(held: Holding) -> dict[str, float]:
    several = float(held.workers > ALONE)  # what one that is alone does not share is in its private memory
    return {
        "code": 1.0,
        "rule": float(held.rules),
        "several": several,
        "several_rule": several * held.rules,
        "worker": float(held.workers),  # its counters
    }


def kernel_terms(held: Holding) -> dict[str, float]:
    return {"machine": 1.0, "worker": float(held.workers), "socket": float(held.sockets)}


class MemoryModel(Part):
    """The laws, and what they were fitted to."""

    private: Law
    template: Law
    shared: Law | None = None
    """Of runs whose footprints tell."""
    kernel: Law | None
    ranges: dict[str, Range]
    cases: list[str]
    """Scenario and case of each footprint, behind its run."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A footprint as the laws see it."""

    case: str
    held: Holding
    private_bytes: int
    template_bytes: int
    shared_bytes: int | None
    kernel_bytes: int | None

    @property
    def total_bytes(self) -> int:
        return self.held.workers * self.private_bytes + self.template_bytes


def measured(run_id: str, footprints: Iterable[Footprint]) -> list[Measured]:
    return [
        Measured(
            case=f"{run_id}:{f.scenario}: {f.case}",
            held=holding_of(f),
            private_bytes=f.memory.private_bytes_per_worker,
            template_bytes=f.memory.template_bytes,
            shared_bytes=f.memory.shared_bytes,
            kernel_bytes=f.memory.kernel_bytes,
        )
        for f in footprints
        if f.memory.workers and not f.warnings
    ]


def holding_of(f: Footprint) -> Holding:
    per_interface = f.strategy in ("fanout-per-interface", "full-fanout", "dynamic")
    groups = f.interfaces if per_interface else (f.setting.groups if f.setting else None) or 1
    return Holding(
        workers=f.memory.workers,
        rules=f.rules,
        rules_per_worker=f.rules_per_worker,
        sockets=f.memory.workers * max(1, f.interfaces // groups),
    )


def ranges_of(held: Sequence[Holding]) -> dict[str, Range]:
    every = [each.quantities for each in held]
    return {
        name: Range(least=min(q[name] for q in every), most=max(q[name] for q in every)) for name in every[0]
    }
