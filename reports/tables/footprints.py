"""Tables of workers that were really started: what they hold, how fast they come and go, what they cost."""

from __future__ import annotations

from lab.results import Footprint
from reports import labels, quantity
from reports import verdicts as words
from reports.dataset import Dataset
from reports.model import Cell, Column, Row, Table
from reports.quantity import megabytes as mb
from reports.tables.trials import optional, plain, row_name


def in_size_order(data: Dataset) -> list[Footprint]:
    return sorted(data.footprints, key=lambda f: f.workers)


def workers(data: Dataset) -> Table | None:
    """From the fewest workers to the most, each figure with what was promised of it."""
    columns = (
        Column("Case"),
        Column("Strategy"),
        Column("Interfaces", numeric=True),
        Column("Workers", numeric=True),
        Column("Rules per worker", "most", numeric=True),
        Column("Ready", "s from start", numeric=True),
        Column("Stopped", "s from the signal", numeric=True),
        Column("Idle", "% of one CPU, all of them", numeric=True),
    )
    rows = []
    for f in in_size_order(data):
        share = words.idle_share(f)
        strategy = labels.axes_words(f.setting) if f.setting and f.setting.strategy else f.strategy
        rows.append(
            Row(
                (
                    row_name(data, f),
                    *plain(strategy, quantity.count(f.interfaces)),
                    Cell(quantity.count(f.workers), f"planned for {quantity.plural(f.cpus, 'CPU')}"),
                    Cell(quantity.count(f.rules_per_worker), _spread(f)),
                    _held(f, words.READY, quantity.seconds(f.ready_ns), words.own(f.warnings)),
                    _held(f, words.STOPPED, quantity.seconds(f.stopped_ns)),
                    _held(f, words.IDLE, quantity.NONE if share is None else f"{share:.2%}"),
                )
            )
        )
    return optional("workers", "Workers started for real, by their number", columns, rows)


def _spread(f: Footprint) -> str:
    """Of how many rules, and how uneven the workers' numbers are."""
    if f.rules_per_worker == f.rules:
        return "all of them"
    uneven = f.imbalance is not None and quantity.ratio(f.imbalance) != "1.00"
    return f"of {f.rules:,}" + (f"\n{quantity.ratio(f.imbalance or 1)} × the mean" if uneven else "")


def _held(f: Footprint, what: str, text: str, doubts: tuple[str, ...] = ()) -> Cell:
    """A figure with its target below, and whether it was met."""
    promise = next((p for p in words.promises(f) if p.what == what), None)
    if promise is None:
        return Cell(text, doubts=doubts)
    outcome = "met" if promise.met else "NOT MET"
    return Cell(text, f"at most {promise.limit}: {outcome}", doubts, "good" if promise.met else "bad")


def memory(data: Dataset) -> Table | None:
    """The document's figure, the model's and the measured one; under a row, each difference in words."""
    columns = (
        Column("Case"),
        Column("Workers", numeric=True),
        Column("Documented", "MB", numeric=True),
        Column("Modelled", "MB", numeric=True),
        Column("Measured", "MB, no rings", numeric=True),
        Column("Private per worker", "MB, median", numeric=True),
        Column("Template", "MB", numeric=True),
        Column("Shared", "MB, held once", numeric=True),
        Column("Rings", "MB", numeric=True),
        Column("Kernel growth", "MB", numeric=True),
    )
    rows = []
    for f in in_size_order(data):
        total = words.measured_bytes(f)
        notes = tuple(f"Discrepancy: {text.rstrip('.')}." for text in words.discrepancies(f))
        rows.append(
            Row(
                (
                    row_name(data, f),
                    Cell(quantity.count(f.workers)),
                    Cell("not in the document" if f.documented_bytes is None else mb(f.documented_bytes)),
                    Cell(mb(f.modelled_bytes)),
                    Cell(mb(total), doubts=words.footprint_doubts(f)),
                    _held(f, words.PRIVATE, mb(f.memory.private_bytes_per_worker)),
                    Cell(mb(f.memory.template_bytes)),
                    Cell(mb(f.memory.shared_bytes)),
                    Cell(mb(f.memory.ring_bytes_total)),
                    Cell(mb(f.memory.kernel_bytes)),
                ),
                notes,
            )
        )
    return optional("memory", "Memory: documented, modelled and measured", columns, rows)
