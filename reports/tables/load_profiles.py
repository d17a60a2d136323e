"""Loads that were given, not searched: sweeps over the offered load, and soaks."""

from __future__ import annotations

from lab.results import Soak, Trial
from reports import labels, quantity
from reports import verdicts as words
from reports.collapse import split
from reports.dataset import Dataset
from reports.model import Cell, Column, Row, Table, Tone
from reports.tables.trials import row_name


def sweeps(data: Dataset) -> list[Table]:
    """One row a trial, in the order of the rates."""
    columns = (
        Column("Case"),
        Column("Subject", word=True),
        Column("Offered", "datagrams/s", numeric=True),
        Column("Delivered", "copies/s", numeric=True),
        Column("Loss", "of copies due", numeric=True),
        *(Column(name, "µs", numeric=True) for name in ("p50", "p99", "p99.9", "max")),
        Column("Bounded by", word=True),
    )
    swept = [trial for trial in data.trials if trial.purpose == "sweep"]
    rows = [(trial.scenario, Row(_swept(data, trial), trials=(trial.trial_id,))) for trial in swept]
    return split("sweeps", "Loss and latency against offered load", columns, rows)


def _swept(data: Dataset, trial: Trial) -> tuple[Cell, ...]:
    seen = trial.latency
    percentiles = (None,) * 4 if seen is None else (seen.p50, seen.p99, seen.p999, seen.max)
    asked = "" if trial.asked_dps is None else f"asked {quantity.rate(trial.asked_dps)}"
    return (
        row_name(data, trial),
        Cell(labels.steered(trial)),
        Cell(quantity.rate(trial.offered_dps), asked, words.trial_doubts(trial)),
        Cell(quantity.rate(trial.delivered_dps)),
        Cell(quantity.percent(trial.loss_ratio)),
        *(Cell(quantity.microseconds(value)) for value in percentiles),
        Cell(words.bound(trial.bound_by)),
    )


def soaks(data: Dataset) -> list[Table]:
    """What was lost in a long time, and what changed between its first trial and its last."""
    columns = (
        Column("Case"),
        Column("Subject", word=True),
        Column("Offered", "datagrams/s", numeric=True),
        Column("Lasted", "s", numeric=True),
        Column("Lost", "copies", numeric=True),
        Column("p99", "µs, first and last trial", numeric=True),
        Column("Private memory", "MB, then its growth, in the second half", numeric=True),
        Column("Descriptors", "then their growth", numeric=True),
        Column("Threads", "then their growth", numeric=True),
        Column("Grew", word=True),
    )
    rows = [(s.scenario, Row(_soaked(s), trials=tuple(s.trial_ids))) for s in data.soaks]
    return split("soaks", "One rate for a long time", columns, rows)


def _soaked(soak: Soak) -> tuple[Cell, ...]:
    lost = soak.expected - soak.delivered
    tone: Tone = "bad" if lost else "good"
    first, memory, descriptors, threads = soak.first, quantity.NONE, quantity.NONE, quantity.NONE
    if first is not None and soak.grown_bytes is not None:
        grown, late = (size / quantity.BYTES_PER_MB for size in (soak.grown_bytes, soak.late_bytes or 0))
        memory = f"{quantity.megabytes(first.private_bytes)} {grown:+.2f}, {late:+.2f}"
        descriptors = f"{first.descriptors:,} {soak.grown_descriptors:+,}"
        if soak.grown_threads is not None:
            threads = f"{first.threads:,} {soak.grown_threads:+,}"
    p99 = (
        f"{quantity.microseconds(soak.p99_ns[0])} / {quantity.microseconds(soak.p99_ns[-1])}"
        if soak.p99_ns
        else ""
    )
    return (
        Cell(soak.case, f"{soak.scenario}, {labels.egress(soak.setting)}"),
        Cell(f"{labels.subject(soak.subject)}{', RPS on' if soak.setting.rps else ''}"),
        Cell(
            quantity.rate(soak.offered * quantity.NS_PER_S / soak.duration_ns),
            f"asked {quantity.rate(soak.asked_dps)}",
            words.own(soak.warnings),
        ),
        Cell(quantity.seconds(soak.duration_ns)),
        Cell(quantity.count(lost), f"of {soak.expected:,}", tone=tone),
        Cell(p99 or quantity.NONE),
        Cell(memory),
        Cell(descriptors),
        Cell(threads),
        _grew(soak.grew),
    )


def _grew(grew: bool | None) -> Cell:
    """Whether anything did that should not."""
    if grew is None:
        return Cell(quantity.NONE)
    return Cell("yes", tone="bad") if grew else Cell("no", tone="good")
