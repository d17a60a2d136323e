"""The seed document's rows: its figures, the model's, and what differs, kept as files.

Each file under ``plans/`` is what ``mcrd plan`` prints for one row. To accept a change after reading it:
``GOLDEN_UPDATE=1 pytest tests/golden``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from forwarder.cli.mcrd import plan_command
from forwarder.config.arguments import parse
from forwarder.config.plan_options import PlanOptions, make_plan
from forwarder.plan.document import ROWS, DocumentRow, documented
from forwarder.plan.memory import megabytes
from forwarder.plan.model import Plan

PLANS = Path(__file__).parent / "plans"

# Documented total; modelled workers, rules a worker (least, most) and total; number of differences named.
# From the seed's own assumptions, 1 KB a rule and 1 MB a process, worked out by hand.
EXPECTED = {
    "Worker Count Table, row 1": ("4 MB", 4, (1000, 1000), "8 MB", 1),
    "Worker Count Table, row 2": ("96 MB", 96, (1000, 1000), "192 MB", 1),
    "Worker Count Table, row 3": ("96 MB", 384, (250, 250), "480 MB", 1),
    "Worker Count Table, row 4": ("10 MB", 1, (10_000, 10_000), "11 MB", 1),
    "Worker Count Table, row 5": ("40 MB", 4, (10_000, 10_000), "44 MB", 2),
    "Worker Count Table, row 6": ("192 MB", 96, (2500, 2500), "336 MB", 3),
    "Worker Count Table, row 7": ("960 MB", 1920, (500, 500), "2,880 MB", 1),
    "use case 1": ("48 MB", 48, (1000, 1000), "96 MB", 1),
    "use case 2": ("96 MB", 96, (500, 500), "144 MB", 1),
    "use case 3": ("8 MB", 4, (2000, 2000), "12 MB", 2),
    "use case 4, phase 1": (None, 96, (2500, 2500), "336 MB", 2),
    "use case 4, phase 2": (None, 96, (81, 136), "106 MB", 3),
    "use case 4, phase 3": (None, 20, (500, 500), "30 MB", 1),
}

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.source)


def planned(row: DocumentRow) -> Plan:
    return make_plan(*parse(PlanOptions, row.arguments))


def test_every_row_of_the_document_is_there() -> None:
    assert [row.source for row in ROWS] == list(EXPECTED)


@rows
def test_the_model_is_the_documents_own_arithmetic(row: DocumentRow) -> None:
    total_stated, workers, rules, total, differences = EXPECTED[row.source]
    plan = planned(row)
    modelled = plan.figures.modelled
    stated = documented(plan)
    assert row in stated.rows
    assert (megabytes(row.total_bytes) if row.total_bytes else None) == total_stated
    assert modelled.workers == len(plan.workers) == workers
    assert (modelled.rules_least, modelled.rules_most) == rules
    assert megabytes(modelled.total_bytes) == total
    named = [sentence for sentence in stated.discrepancies if sentence.startswith(f"{row.source}: ")]
    assert len(named) == differences
    assert all(sentence.endswith(".") for sentence in named)


@rows
def test_what_the_command_prints_is_as_it_was(row: DocumentRow) -> None:
    app = typer.Typer()
    app.command()(plan_command)
    result = CliRunner().invoke(app, list(row.arguments))
    assert result.exit_code == 0, result.output
    printed = f"$ mcrd plan {' '.join(row.arguments)}\n{result.stdout}"
    path = PLANS / (re.sub(r"[^a-z0-9]+", "-", row.source.lower()) + ".txt")
    if os.environ.get("GOLDEN_UPDATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(printed, encoding="utf-8")
    assert printed == path.read_text(encoding="utf-8")
