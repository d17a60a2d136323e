"""What a number of workers costs: started for real, measured, stopped; beside the document and the model."""

from __future__ import annotations

from lab.results import Footprint
from lab.scenario import FootprintCase


def run_footprint(scenario: str, case: FootprintCase, run_id: str) -> Footprint:
    raise NotImplementedError


def misses(record: Footprint, case: FootprintCase) -> list[str]:
    """Which of the case's targets the measurement missed, in words."""
    missed = []
    if case.ready_target_s is not None and record.ready_ns > case.ready_target_s * 1e9:
        missed.append(f"ready in {record.ready_ns / 1e9:.2f} s, at most {case.ready_target_s:g} s promised")
    private = record.memory.private_bytes_per_worker
    if case.private_target_bytes is not None and private > case.private_target_bytes:
        missed.append(
            f"{private / 1e6:.2f} MB private per worker, at most {case.private_target_bytes / 1e6:g} promised"
        )
    return missed
