"""Records to lines and back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from lab.results import changing, records
from lab.results.records import SCHEMA, RunStarted

AnyRecord = Annotated[
    RunStarted
    | records.Trial
    | records.ZeroLoss
    | records.Comparison
    | records.Judged
    | records.Footprint
    | records.Delay
    | records.Capacity
    | records.Soak
    | records.Pipelines
    | changing.Course
    | changing.Change
    | records.Check
    | records.RunEnded,
    Field(discriminator="kind"),
]
_adapter: TypeAdapter[AnyRecord] = TypeAdapter(AnyRecord)


class ResultsError(ValueError):
    """A results file that cannot be used; the message says which line and why."""


def dump_line(record: AnyRecord) -> str:
    return record.model_dump_json() + "\n"


def parse_line(line: str) -> AnyRecord:
    return _adapter.validate_json(line)


def read_results(path: Path) -> Iterator[AnyRecord]:
    """The records of one ``results.jsonl``, in order.

    A last line cut short by a killed run is left out; any other bad line raises :class:`ResultsError`.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            return
        try:
            record = parse_line(line)
        except ValidationError as error:
            raise ResultsError(
                f"{path}:{number}: not a {SCHEMA} record: {first_problem(error, line)}"
            ) from error
        if isinstance(record, RunStarted) and record.schema_version != SCHEMA:
            raise ResultsError(
                f"{path}:{number}: schema {record.schema_version}, this version reads {SCHEMA}"
            )
        yield record


def first_problem(error: ValidationError, line: str) -> str:
    """What is wrong with a line, in a few words."""
    try:
        kind = json.loads(line).get("kind", "no kind")
    except (json.JSONDecodeError, AttributeError):
        return "not a JSON object"
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{kind} record: {where}: {problem['msg']}"
