"""What the document's rows and use cases are planned as: ``python -m lab.cli.document_layouts`` writes it.

The report shows them beside what a model predicts of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from forwarder.cli.plan import PlanOptions, make_plan
from forwarder.plan.document import DOCUMENTED, Documented
from forwarder.plan.memory import Estimate
from forwarder.plan.planner import Plan
from lab.cli.advice import candidates, host_of, planned_candidate
from lab.cli.workload import Demand
from reports.capacity.layouts import LAYOUTS, Configuration, DocumentedRow, Layouts, UseCase
from reports.capacity.rank import Candidate

PAYLOAD_BYTES = 1316
"""Seven MPEG transport packets: what multicast mostly carries. The document names no size."""
TABLE = "Worker Count Table"
FEWER = (1, 2, 4, 8, 16, 32)
"""Workers that are offered besides one for each CPU."""

_CONFIGURATIONS = (
    ("1 IF, 96 CPUs", "Worker Count Table, row 2", 5, 5, "Distributed", "Low", "Medium"),
    ("20 IFs, 1 CPU", "Worker Count Table, row 4", 1, 3, "Bottleneck", "Low", "Minimal"),
    ("20 IFs, 96 CPUs (Hybrid)", "Worker Count Table, row 6", 4, 4, "Distributed", "Medium", "Medium"),
    ("20 IFs, 96 CPUs (Full)", "Worker Count Table, row 7", 5, 5, "Distributed", "High", "Very High"),
)
_USE_CASES = (
    (
        "use case 1",
        "Single interface, high throughput: 100 Gbps on eth0, 48 CPU cores, 1,000 rules",
        "PACKET_FANOUT_CPU, 48 workers (one per CPU)",
        "Throughput: excellent; ~48 MB",
        100.0,
    ),
    (
        "use case 2",
        "Few interfaces, high throughput each: 4 × 25 Gbps, 96 CPU cores, 500 rules per interface",
        "Interface-specific fanout groups, 4 × 24 workers",
        "~96 MB",
        100.0,
    ),
    (
        "use case 3",
        "Many interfaces, low throughput each: 20 VLANs, 1 Gbps total, 4 CPU cores, 100 rules per interface",
        "Worker pool with interface multiplexing, 4 workers",
        "~8 MB",
        1.0,
    ),
    (
        "use case 4, phase 1",
        "Many interfaces, high throughput: 20 × 10 Gbps, 96 CPU cores, 10,000 rules",
        "Hybrid: 4 groups of 5 interfaces, 24 workers each",
        "2,500 rules a worker after phase 2",
        200.0,
    ),
)


def layouts() -> Layouts:
    """All of it, planned."""
    by_source = {row.source: row for row in DOCUMENTED}
    return Layouts(
        payload_bytes=PAYLOAD_BYTES,
        outputs=1,
        rows=[_row(row) for row in DOCUMENTED if row.source.startswith(TABLE)],
        configurations=[
            Configuration(
                name=name,
                throughput=throughput,
                latency=latency,
                cpu_usage=usage,
                memory=memory,
                overhead=overhead,
                planned=_candidate(by_source[source]),
            )
            for name, source, throughput, latency, usage, memory, overhead in _CONFIGURATIONS
        ],
        use_cases=[
            _use_case(by_source[source], scenario, recommendation, claims, gbps)
            for source, scenario, recommendation, claims, gbps in _USE_CASES
        ],
    )


def _row(row: Documented) -> DocumentedRow:
    plan = _plan(row)
    modelled: Estimate = plan.figures.modelled
    prefix = f"{row.source}: "
    return DocumentedRow(
        source=row.source,
        strategy=row.strategy,
        interfaces=row.interfaces,
        cpus=row.cpus,
        rules=row.rules,
        workers=row.workers,
        rules_per_worker=row.rules_per_worker,
        total_bytes=row.total_bytes,
        modelled_bytes=modelled.total_bytes,
        discrepancies=[
            text.removeprefix(prefix) for text in plan.figures.discrepancies if text.startswith(prefix)
        ],
        planned=_candidate(row),
    )


def _plan(row: Documented) -> Plan:
    words = iter(row.arguments)
    given = {
        name.removeprefix("--").replace("-", "_"): value for name, value in zip(words, words, strict=True)
    }
    return make_plan(PlanOptions.model_validate(given), [])


def _fields(words: Sequence[str]) -> dict[str, Any]:
    """``--num-workers 4`` as ``num_workers``."""
    pairs = zip(words[::2], words[1::2], strict=True)
    return {name.removeprefix("--").replace("-", "_"): value for name, value in pairs}


def _demand(row: Documented, gbps: float = 1.0) -> Demand:
    return Demand(
        interfaces=row.interfaces, cpus=row.cpus, rules=row.rules, payload_bytes=PAYLOAD_BYTES, gbps=gbps
    )


def _candidate(row: Documented) -> Candidate:
    demand = _demand(row)
    given: dict[str, Any] = {"strategy": row.strategy, "interfaces": demand.names}
    words = iter(row.options)
    given |= {
        name.removeprefix("--").replace("-", "_"): word for name, word in zip(words, words, strict=True)
    }
    found = planned_candidate(given, host_of(demand), demand)
    if found is None:
        raise ValueError(f"{row.source}: cannot be planned")
    return found


def _use_case(row: Documented, scenario: str, recommendation: str, claims: str, gbps: float) -> UseCase:
    demand = _demand(row, gbps)
    offered = {found.options: found for found in (*candidates(demand, host_of(demand)), *_fewer(demand))}
    return UseCase(
        source=row.source,
        scenario=scenario,
        recommendation=recommendation,
        claims=claims,
        gbps=gbps,
        dps=demand.dps,
        documented=_candidate(row),
        candidates=list(offered.values()),
    )


def _fewer(demand: Demand) -> Iterator[Candidate]:
    for workers in (number for number in FEWER if number < demand.cpus):
        given: dict[str, Any] = {"interfaces": demand.names, "num_workers": workers}
        if demand.interfaces == 1:
            given = {"interface": demand.names[0], "num_workers": workers}
        found = planned_candidate(given, host_of(demand), demand)
        if found is not None:
            yield found


if __name__ == "__main__":
    LAYOUTS.write_text(layouts().model_dump_json(indent=1) + "\n", encoding="utf-8")
