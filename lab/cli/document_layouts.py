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


def layouts() -> Layouts:
    """All rows, configurations and use cases, planned."""
    by_source = {row.source: row for row in document.ROWS}
    return Layouts(
        payload_bytes=PAYLOAD_BYTES,
        outputs=1,
        rows=[_row(row) for row in document.ROWS if row.source.startswith(document.WORKER_COUNT_TABLE)],
        configurations=[_configuration(by_source[stars.source], stars) for stars in document.STARS],
        use_cases=[_use_case(by_source[case.source], case) for case in document.USE_CASES],
    )


def _configuration(row: DocumentRow, stars: document.Stars) -> Configuration:
    words = {name: value for name, value in stars._asdict().items() if name != "source"}
    return Configuration(**words, planned=_candidate(row))


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


def _use_case(row: DocumentRow, case: document.UseCase) -> UseCase:
    workload = _workload(row, case.gbps)
    offered = (*candidates(workload, host_of(workload)), *_fewer(workload))
    return UseCase(
        **case._asdict(),
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
