"""What the architecture document says, and how a plan differs from it.

The rows are the seven of its Worker Count Table and its four use cases (the fourth in three phases). Each has
the ``mcrd plan`` options that reproduce it, the figures that the document states, and a sentence for whatever
its arithmetic does not explain.
"""

from dataclasses import dataclass
from typing import NamedTuple

from forwarder.plan.memory import KB, MB, Estimate, megabytes, span
from forwarder.plan.model import Plan

WORKER_COUNT_TABLE = "Worker Count Table"


@dataclass(frozen=True)
class DocumentRow:
    """One row; ``None`` where the document gives no figure."""

    source: str
    strategy: str
    interfaces: int
    cpus: int
    rules: int
    """Number of rules over all interfaces."""
    workers: int | None
    rules_per_worker: int | None
    total_bytes: int | None
    options: tuple[str, ...] = ()
    """Options of ``mcrd plan`` besides strategy, interfaces, CPUs and rules."""
    notes: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """The options of ``mcrd plan`` that reproduce this row."""
        sizes = f"--interface-count {self.interfaces} --cpus {self.cpus} --rules-count {self.rules}"
        return ("--strategy", self.strategy, *sizes.split(), *self.options)


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

_ROW = f"{WORKER_COUNT_TABLE}, row "

# source, strategy, interfaces, CPUs, rules; workers, rules per worker, total memory
# fmt: off
ROWS: tuple[DocumentRow, ...] = (
    DocumentRow(_ROW + "1", "fanout", 1, 4, 1000, 4, 1000, 4 * MB),
    DocumentRow(_ROW + "2", "fanout", 1, 96, 1000, 96, 1000, 96 * MB),
    DocumentRow(_ROW + "3", "fanout-per-interface", 4, 96, 1000, 384, 250, 96 * MB),
    DocumentRow(_ROW + "4", "pool", 20, 1, 10_000, 1, 10_000, 10 * MB),
    DocumentRow(_ROW + "5", "pool", 20, 4, 10_000, 4, 10_000, 40 * MB,
                options=("--num-workers", "4"), notes=(_NO_FANOUT,)),
    DocumentRow(_ROW + "6", "hybrid", 20, 96, 10_000, 96, 2000, 192 * MB, notes=(_FIVE_GROUPS,)),
    DocumentRow(_ROW + "7", "full-fanout", 20, 96, 10_000, 1920, 500, 960 * MB),
    DocumentRow("use case 1", "fanout", 1, 48, 1000, 48, 1000, 48 * MB),
    DocumentRow("use case 2", "fanout-per-interface", 4, 96, 2000, 96, 500, 96 * MB,
                options=("--width", "share")),
    DocumentRow("use case 3", "pool", 20, 4, 2000, 4, 2000, 8 * MB,
                options=("--num-workers", "4"), notes=(_NO_FANOUT,)),
    DocumentRow("use case 4, phase 1", "hybrid", 20, 96, 10_000, 96, 10_000, None, notes=(_PHASE_1,)),
    DocumentRow("use case 4, phase 2", "hybrid-hash", 20, 96, 10_000, 96, 2500, None,
                notes=(_PHASE_2, _SIXTY_PERCENT)),
    DocumentRow("use case 4, phase 3", "dynamic", 20, 96, 10_000, None, None, None,
                notes=("The document gives no figures for dynamic scaling.",)),
)
# fmt: on


class Documented(NamedTuple):
    """What the document says of a plan's strategy at the plan's sizes."""

    rows: tuple[DocumentRow, ...]
    discrepancies: tuple[str, ...]
    """Differences between the rows and the plan, each beginning with its row's source."""

    @property
    def total_bytes(self) -> int | None:
        return next((row.total_bytes for row in self.rows if row.total_bytes is not None), None)


def documented(plan: Plan) -> Documented:
    """The document's rows for this strategy, interfaces, CPUs and rules, compared with the plan's model."""
    wanted = (plan.strategy.name, len(plan.interfaces), plan.cpus, plan.rules)
    rows = tuple(row for row in ROWS if (row.strategy, row.interfaces, row.cpus, row.rules) == wanted)
    modelled = plan.figures.modelled
    differing = [f"{row.source}: {sentence}" for row in rows for sentence in discrepancies(row, modelled)]
    return Documented(rows, tuple(differing))


def discrepancies(row: DocumentRow, modelled: Estimate) -> tuple[str, ...]:
    """A sentence for each difference between the document's figures and the model's, then the row's notes."""
    found = []
    if row.workers is not None and row.workers != modelled.workers:
        found.append(f"The document has {row.workers:,} workers, the plan {modelled.workers:,}.")
    stated, least, most = row.rules_per_worker, modelled.rules_least, modelled.rules_most
    if stated is not None and not least <= stated <= most:
        found.append(f"The document has {stated:,} rules a worker, the plan {span(least, most)}.")
    if row.total_bytes is not None and row.total_bytes != modelled.total_bytes:
        found.append(_total(row, modelled, row.total_bytes))
    return (*found, *row.notes)


def _total(row: DocumentRow, modelled: Estimate, stated: int) -> str:
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
