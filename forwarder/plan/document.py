"""The rows of the seed document, and how its figures differ from what its own assumptions give.

They are the seven rows of its Worker Count Table and its four use cases (the fourth in three phases). Each
carries the ``mcrd plan`` options that reproduce it, what the document states, and a sentence for whatever
arithmetic alone would not explain.
"""

from __future__ import annotations

from dataclasses import dataclass

from forwarder.plan.memory import KB, MB, Estimate, megabytes


@dataclass(frozen=True)
class Documented:
    """One row; ``None`` where the document gives no figure."""

    source: str
    strategy: str
    interfaces: int
    cpus: int
    rules: int
    """Over all interfaces."""
    workers: int | None
    rules_per_worker: int | None
    total_bytes: int | None
    options: tuple[str, ...] = ()
    """Beyond strategy, interfaces, CPUs and rules."""
    notes: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """The options of ``mcrd plan`` that give this row."""
        return (
            *("--strategy", self.strategy),
            *("--interface-count", str(self.interfaces)),
            *("--cpus", str(self.cpus)),
            *("--rules-count", str(self.rules)),
            *self.options,
        )


_TABLE = "Worker Count Table, row "
_NO_FANOUT = (
    "The document's pool has no fanout group: each of its 4 workers would get, and forward, every datagram. "
    "The plan puts the 4 sockets of each interface in one fanout group."
)
_FIVE_GROUPS = (
    "2,000 rules a worker would be five groups; the document's hybrid has four groups of five interfaces, "
    "which makes 2,500."
)
_PHASE_1 = (
    "The document takes 10,000 rules a worker for phase 1, though a worker that holds the rules of its own "
    "five interfaces has 2,500 already."
)
_PHASE_2 = (
    "2,500 rules are what a group of five interfaces has; hashed over the 24 workers of the group they are "
    "about 104 a worker."
)
_SIXTY_PERCENT = "2,500 rules instead of 10,000 are 75 % fewer, where the document says 60 %."

# source, strategy, interfaces, CPUs, rules; workers, rules per worker, total memory
# fmt: off
DOCUMENTED: tuple[Documented, ...] = (
    Documented(_TABLE + "1", "fanout", 1, 4, 1000, 4, 1000, 4 * MB),
    Documented(_TABLE + "2", "fanout", 1, 96, 1000, 96, 1000, 96 * MB),
    Documented(_TABLE + "3", "fanout-per-interface", 4, 96, 1000, 384, 250, 96 * MB),
    Documented(_TABLE + "4", "pool", 20, 1, 10_000, 1, 10_000, 10 * MB),
    Documented(_TABLE + "5", "pool", 20, 4, 10_000, 4, 10_000, 40 * MB,
               options=("--num-workers", "4"), notes=(_NO_FANOUT,)),
    Documented(_TABLE + "6", "hybrid", 20, 96, 10_000, 96, 2000, 192 * MB, notes=(_FIVE_GROUPS,)),
    Documented(_TABLE + "7", "full-fanout", 20, 96, 10_000, 1920, 500, 960 * MB),
    Documented("use case 1", "fanout", 1, 48, 1000, 48, 1000, 48 * MB),
    Documented("use case 2", "fanout-per-interface", 4, 96, 2000, 96, 500, 96 * MB,
               options=("--width", "share")),
    Documented("use case 3", "pool", 20, 4, 2000, 4, 2000, 8 * MB,
               options=("--num-workers", "4"), notes=(_NO_FANOUT,)),
    Documented("use case 4, phase 1", "hybrid", 20, 96, 10_000, 96, 10_000, None, notes=(_PHASE_1,)),
    Documented("use case 4, phase 2", "hybrid-hash", 20, 96, 10_000, 96, 2500, None,
               notes=(_PHASE_2, _SIXTY_PERCENT)),
    Documented("use case 4, phase 3", "dynamic", 20, 96, 10_000, None, None, None,
               notes=("The document gives no figures for dynamic scaling.",)),
)
# fmt: on


def documented(strategy: str, interfaces: int, cpus: int, rules: int) -> tuple[Documented, ...]:
    """The rows that speak of this strategy, at these sizes."""
    wanted = (strategy, interfaces, cpus, rules)
    return tuple(row for row in DOCUMENTED if (row.strategy, row.interfaces, row.cpus, row.rules) == wanted)


def discrepancies(row: Documented, modelled: Estimate) -> tuple[str, ...]:
    """A sentence for each way in which the plan's model differs from what the document states."""
    found = []
    if row.workers is not None and row.workers != modelled.workers:
        found.append(f"The document has {row.workers:,} workers, the plan {modelled.workers:,}.")
    stated = row.rules_per_worker
    if stated is not None and not modelled.rules_least <= stated <= modelled.rules_most:
        found.append(f"The document has {stated:,} rules a worker, the plan {_rules(modelled)}.")
    if row.total_bytes is not None and row.total_bytes != modelled.total_bytes:
        found.append(_total(row, modelled, row.total_bytes))
    return (*found, *row.notes)


def _total(row: Documented, modelled: Estimate, stated: int) -> str:
    held = row.rules_per_worker or 0
    rules, processes = modelled.workers * held * KB, modelled.workers * MB
    sentence = (
        f"The document has {megabytes(stated)} in total, the model {megabytes(modelled.rules_bytes)} of "
        f"rules + {megabytes(modelled.process_bytes)} of processes = {megabytes(modelled.total_bytes)}"
    )
    if row.workers != modelled.workers:
        return f"{sentence}, for another number of workers."
    if stated == rules:
        sentence += f": the document leaves out its own 1 MB per process ({megabytes(processes)})"
    else:  # its processes alone
        sentence += f": the document leaves out its own {held:,} rules a worker ({megabytes(rules)})"
    rest = modelled.total_bytes - rules - processes
    return sentence + (f"; the other {megabytes(rest)} follow from the numbers above." if rest else ".")


def _rules(modelled: Estimate) -> str:
    if modelled.rules_least == modelled.rules_most:
        return f"{modelled.rules_most:,}"
    return f"{modelled.rules_least:,} to {modelled.rules_most:,}"
