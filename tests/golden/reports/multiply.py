"""Makes a long run of a real one, to see how long its report takes.

    python tests/golden/reports/multiply.py RUN/results.jsonl LONG/results.jsonl [--trials N] [--scenarios N]

Every copy of a trial has an id of its own, in its own scenario; with ``--scenarios 4`` the copies fall into
four of each scenario, each with the searches, comparisons and footprints of the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.results import AnyRecord, RunEnded, RunStarted, Trial, dump_line, read_results


def multiplied(records: Sequence[AnyRecord], trials: int, scenarios: int) -> Iterator[AnyRecord]:
    """At least ``trials`` of them, over ``scenarios`` times the scenarios there are."""
    inner = [record for record in records if not isinstance(record, RunStarted | RunEnded)]
    own = sum(isinstance(record, Trial) for record in inner)
    copies = -(-trials // own)
    yield from (record for record in records if isinstance(record, RunStarted))
    for copy in range(copies):
        suffix = f"-{copy % scenarios + 1}" if copy % scenarios else ""
        for record in inner:
            change = {"scenario": record.scenario + suffix}
            if isinstance(record, Trial):
                change["trial_id"] = f"{record.trial_id}+{copy}"
            elif copy >= scenarios:
                continue
            elif ids := getattr(record, "trial_ids", None):
                change["trial_ids"] = [f"{one}+{copy}" for one in ids]
            yield record.model_copy(update=change)
    yield from (record for record in records if isinstance(record, RunEnded))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--scenarios", type=int, default=1)
    asked = parser.parse_args()
    records = multiplied(list(read_results(asked.results)), asked.trials, asked.scenarios)
    asked.out.write_text("".join(map(dump_line, records)), encoding="utf-8")


if __name__ == "__main__":
    main()
