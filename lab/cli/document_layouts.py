"""Plans of the document's rows and use cases: ``python -m lab.cli.document_layouts`` writes them.

The report shows the plans beside what a capacity model predicts of them.
"""

from collections.abc import Iterator

from forwarder.config.arguments import parse
from forwarder.config.plan_options import PlanOptions, make_plan
from forwarder.plan import document
from forwarder.plan.document import DocumentRow
from lab.cli.advice import Given, candidates, host_of, planned_candidate
from lab.cli.workload import Workload
from reports.capacity.layouts import LAYOUTS, Configuration, DocumentedRow, Layouts, UseCase
from reports.capacity.rank import Candidate

PAYLOAD_BYTES = 1316
"""Seven MPEG transport packets: what multicast mostly carries. The document names no size."""
FEWER = (1, 2, 4, 8, 16, 32)
"""Numbers of workers that are offered besides one for each CPU."""


_ROW = f"{document.WORKER_COUNT_TABLE}, row "
STARS = {
    _ROW + "2": ("1 IF, 96 CPUs", 5, 5, "Distributed", "Low", "Medium"),
    _ROW + "4": ("20 IFs, 1 CPU", 1, 3, "Bottleneck", "Low", "Minimal"),
    _ROW + "6": ("20 IFs, 96 CPUs (Hybrid)", 4, 4, "Distributed", "Medium", "Medium"),
    _ROW + "7": ("20 IFs, 96 CPUs (Full)", 5, 5, "Distributed", "High", "Very High"),
}
"""The document's Performance Characteristics, by the row that is meant: the columns of a Configuration."""
USE_CASES = {
    "use case 1": (
        "Single interface, high throughput: 100 Gbps on eth0, 48 CPU cores, 1,000 rules",
        "PACKET_FANOUT_CPU, 48 workers (one per CPU)",
        "Throughput: excellent; ~48 MB",
        100.0,
    ),
    "use case 2": (
        "Few interfaces, high throughput each: 4 × 25 Gbps, 96 CPU cores, 500 rules per interface",
        "Interface-specific fanout groups, 4 × 24 workers",
        "~96 MB",
        100.0,
    ),
    "use case 3": (
        "Many interfaces, low throughput each: 20 VLANs, 1 Gbps total, 4 CPU cores, 100 rules per interface",
        "Worker pool with interface multiplexing, 4 workers",
        "~8 MB",
        1.0,
    ),
    "use case 4, phase 1": (
        "Many interfaces, high throughput: 20 × 10 Gbps, 96 CPU cores, 10,000 rules",
        "Hybrid: 4 groups of 5 interfaces, 24 workers each",
        "2,500 rules a worker after phase 2",
        200.0,
    ),
}
"""The document's use cases in its words: scenario, recommendation, what it claims, and Gbit/s."""


def layouts() -> Layouts:
    """All rows, configurations and use cases, planned."""
    by_source = {row.source: row for row in document.ROWS}
    return Layouts(
        payload_bytes=PAYLOAD_BYTES,
        outputs=1,
        rows=[_row(row) for row in document.ROWS if row.source.startswith(document.WORKER_COUNT_TABLE)],
        configurations=[_configuration(by_source[source], *stars) for source, stars in STARS.items()],
        use_cases=[_use_case(by_source[source], *words) for source, words in USE_CASES.items()],
    )


def _configuration(
    row: DocumentRow, name: str, throughput: int, latency: int, cpu_usage: str, memory: str, overhead: str
) -> Configuration:
    return Configuration(
        name=name,
        throughput=throughput,
        latency=latency,
        cpu_usage=cpu_usage,
        memory=memory,
        overhead=overhead,
        planned=_candidate(row),
    )


def _row(row: DocumentRow) -> DocumentedRow:
    modelled = make_plan(*parse(PlanOptions, row.arguments)).figures.modelled
    shared = {name: getattr(row, name) for name in DocumentedRow.model_fields if hasattr(row, name)}
    return DocumentedRow(
        **shared,
        modelled_bytes=modelled.total_bytes,
        discrepancies=list(document.discrepancies(row, modelled)),
        planned=_candidate(row),
    )


def _workload(row: DocumentRow, gbps: float = 1.0) -> Workload:
    return Workload(
        interfaces=row.interfaces, cpus=row.cpus, rules=row.rules, payload_bytes=PAYLOAD_BYTES, gbps=gbps
    )


def _candidate(row: DocumentRow) -> Candidate:
    workload = _workload(row)
    given: Given = {"strategy": row.strategy, "interfaces": workload.names}
    names = (name.removeprefix("--").replace("-", "_") for name in row.options[::2])
    given |= dict(zip(names, row.options[1::2], strict=True))
    if (found := planned_candidate(given, host_of(workload), workload)) is None:
        raise ValueError(f"{row.source}: cannot be planned")
    return found


def _use_case(row: DocumentRow, scenario: str, recommendation: str, claims: str, gbps: float) -> UseCase:
    workload = _workload(row, gbps)
    offered = (*candidates(workload, host_of(workload)), *_fewer(workload))
    return UseCase(
        source=row.source,
        scenario=scenario,
        recommendation=recommendation,
        claims=claims,
        gbps=gbps,
        dps=workload.dps,
        documented=_candidate(row),
        candidates=list({found.options: found for found in offered}.values()),
    )


def _fewer(workload: Workload) -> Iterator[Candidate]:
    inputs: Given = {"interfaces": workload.names}
    if workload.interfaces == 1:
        inputs = {"interface": workload.names[0]}
    for workers in (number for number in FEWER if number < workload.cpus):
        given = {**inputs, "num_workers": workers}
        if (found := planned_candidate(given, host_of(workload), workload)) is not None:
            yield found


if __name__ == "__main__":
    LAYOUTS.write_text(layouts().model_dump_json(indent=1) + "\n", encoding="utf-8")
