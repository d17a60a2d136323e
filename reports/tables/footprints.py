"""Tables of workers that were really started: memory, time to start and stop, idle cost."""

from lab.results import Footprint
from reports import labels, quantity, verdicts
from reports.dataset import Dataset
from reports.model import Cell, Column, Table
from reports.quantity import megabytes, plural, seconds
from reports.tables.build import CASE, Columns, number, row_name, table


def in_size_order(data: Dataset) -> list[Footprint]:
    return sorted(data.footprints, key=lambda f: f.workers)


def workers(data: Dataset) -> list[Table]:
    """From the fewest workers to the most, each figure with its target."""

    def strategy(f: Footprint) -> str:
        return labels.strategy_text(f.setting) if f.setting and f.setting.strategy else f.strategy

    def idle(f: Footprint) -> Cell:
        share = verdicts.idle_share(f)
        return _with_target(f, verdicts.IDLE, quantity.NONE if share is None else f"{share:.2%}")

    def ready(f: Footprint) -> Cell:
        text, used = seconds(f.ready_ns), (f.ready_user_ns or 0) + (f.ready_kernel_ns or 0)
        if used:
            text += f" (kernel {(f.ready_kernel_ns or 0) / used:.0%} of the CPU time)"
        return _with_target(f, verdicts.READY, text, verdicts.distinct(f.warnings))

    def stopped(f: Footprint) -> Cell:
        return _with_target(f, verdicts.STOPPED, seconds(f.stopped_ns))

    columns: Columns[Footprint] = [
        (CASE, lambda f: row_name(data, f)),
        (Column("Strategy"), strategy),
        (number("Interfaces"), lambda f: f.interfaces),
        (number("Workers"), lambda f: Cell(f"{f.workers:,}", f"planned for {plural(f.cpus, 'CPU')}")),
        (number("Rules per worker", "most"), lambda f: Cell(f"{f.rules_per_worker:,}", _spread(f))),
        (number("Ready", "s from start"), ready),
        (number("Stopped", "s from the signal"), stopped),
        (number("Idle", "% of one CPU, all of them"), idle),
    ]
    return table("workers", "Workers really started, by their number", columns, in_size_order(data))


def _spread(f: Footprint) -> str:
    """How many rules there are, and how unevenly workers hold them."""
    if f.rules_per_worker == f.rules:
        return "all of them"
    uneven = f.imbalance is not None and quantity.ratio(f.imbalance) != "1.00"
    return f"of {f.rules:,}" + (f"\n{quantity.ratio(f.imbalance or 1)} × the mean" if uneven else "")


def _with_target(f: Footprint, what: str, text: str, doubts: tuple[str, ...] = ()) -> Cell:
    target = next((each for each in verdicts.footprint_targets(f) if each.what == what), None)
    if target is None:
        return Cell(text, doubts=doubts)
    outcome = "met" if target.met else "NOT MET"
    return Cell(text, f"at most {target.limit}: {outcome}", doubts, "good" if target.met else "bad")


def memory(data: Dataset) -> list[Table]:
    """Documented, modelled and measured memory, each difference in words under its row."""

    def documented(f: Footprint) -> str:
        return "not in the document" if f.documented_bytes is None else megabytes(f.documented_bytes)

    def measured(f: Footprint) -> Cell:
        return Cell(megabytes(verdicts.measured_bytes(f)), doubts=verdicts.footprint_doubts(f))

    def private(f: Footprint) -> Cell:
        return _with_target(f, verdicts.PRIVATE, megabytes(f.memory.private_bytes_per_worker))

    columns: Columns[Footprint] = [
        (CASE, lambda f: row_name(data, f)),
        (number("Workers"), lambda f: f.workers),
        (number("Documented", "MB"), documented),
        (number("Modelled", "MB"), lambda f: megabytes(f.modelled_bytes)),
        (number("Measured", "MB, no rings"), measured),
        (number("Private per worker", "MB, median"), private),
        (number("Template", "MB"), lambda f: megabytes(f.memory.template_bytes)),
        (number("Shared", "MB, held once"), lambda f: megabytes(f.memory.shared_bytes)),
        (number("Rings", "MB"), lambda f: megabytes(f.memory.ring_bytes_total)),
        (number("Kernel growth", "MB"), lambda f: megabytes(f.memory.kernel_bytes)),
    ]

    def notes(f: Footprint) -> list[str]:
        return [f"Discrepancy: {text.rstrip('.')}." for text in verdicts.discrepancies(f)]

    caption = "Memory: documented, modelled and measured"
    return table("memory", caption, columns, in_size_order(data), notes)
