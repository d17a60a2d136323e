"""The architecture document's rows, use cases and configurations, as the forwarder plans them.

Reports do not import the forwarder: its plans are written to a file by
``python -m lab.cli.document_layouts``, and a test compares the file with the plans.
"""

from pathlib import Path

from reports.capacity.law import Part
from reports.capacity.rank import Candidate

LAYOUTS = Path(__file__).with_name("models") / "seed.json"


class DocumentedRow(Part):
    """A row of the Worker Count Table."""

    source: str
    strategy: str
    interfaces: int
    cpus: int
    rules: int
    workers: int | None
    rules_per_worker: int | None
    total_bytes: int | None
    modelled_bytes: int
    """From the document's own sizes of a rule and a process."""
    discrepancies: list[str]
    """Where the document's arithmetic does not give its figure."""
    planned: Candidate


class Configuration(Part):
    """A row of the Performance Characteristics: numbers of stars, or words."""

    name: str
    throughput: int
    latency: int
    cpu_usage: str
    memory: str
    overhead: str
    planned: Candidate


class UseCase(Part):
    source: str
    scenario: str
    recommendation: str
    claims: str
    """What it says about throughput or memory."""
    gbps: float
    dps: float
    documented: Candidate
    candidates: list[Candidate]


class Layouts(Part):
    payload_bytes: int
    """Assumed: the document names no size of datagrams."""
    outputs: int
    rows: list[DocumentedRow]
    configurations: list[Configuration]
    use_cases: list[UseCase]


def read_layouts(path: Path = LAYOUTS) -> Layouts:
    return Layouts.model_validate_json(path.read_text(encoding="utf-8"))
