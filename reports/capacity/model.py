"""The capacity model as a JSON file, with the source of each part."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import Field, ValidationError

from reports.capacity.cost import Load
from reports.capacity.law import Law, Part, Range, Spread
from reports.capacity.memory import MemoryModel
from reports.capacity.scaling import Scaling
from reports.quantity import plural

SCHEMA = "mcastlab.capacity/3"
SHIPPED = Path(__file__).with_name("models") / "default.json"


class Source(Part):
    """A run that the model was fitted on."""

    run_id: str
    started_at: str
    commit: str | None
    kernel: str
    cpu_model: str
    cpus: int

    @property
    def machine(self) -> str:
        return f"{self.cpu_model}, {self.cpus} CPUs, Linux {self.kernel}"


class Point(Part):
    """A measured load: datagrams/s that one worker forwarded when it could not keep up."""

    case: str
    payload_bytes: int
    outputs: int
    rules: int
    flows: int
    interfaces: int
    burst: int
    host_skipped: bool
    dps: float
    least_dps: float
    most_dps: float
    trials: list[str]

    @property
    def load(self) -> Load:
        return Load(**{name: getattr(self, name) for name in Load.__dataclass_fields__})


class Share(Spread):
    """Zero-loss rate over the rate of a worker that cannot keep up, and the scatter of its logarithm."""

    power: float = Field(default=0.0, le=0)
    """Of the interfaces that a worker reads: the thread of each wakes up as long as it keeps up."""

    def at(self, interfaces: float) -> float:
        return float(self.value * interfaces**self.power)


class Delays(Part):
    """Latency of workers on one CPU at a share of their zero-loss rate; medians over the trials, in ns."""

    case: str
    load_share: float
    interfaces: int
    """That each worker reads."""
    workers: int
    p50: float
    p99: float
    trials: list[str]


Predicted = Literal["rate of a worker", "zero-loss rate", "memory"]


class HeldOut(Part):
    """Predictions of cases that the fit had not seen."""

    what: Predicted
    cases: list[HeldOutCase]

    @property
    def within(self) -> int:
        """Cases whose measurement is within the predicted interval."""
        return sum(case.low <= case.measured <= case.high for case in self.cases)

    @property
    def errors(self) -> list[float]:
        """Relative error of each case, without sign, sorted."""
        return sorted(abs(case.predicted / case.measured - 1) for case in self.cases)

    @property
    def median_error(self) -> float:
        return median(self.errors)


class HeldOutCase(Part):
    case: str
    predicted: float
    measured: float
    low: float
    high: float
    records: list[str]
    """Run and id of each trial, or the footprint."""


class CapacityModel(Part):
    """All that predictions need. Rates in datagrams/s that arrive, costs in ns, memory in bytes."""

    schema_version: Literal["mcastlab.capacity/3"] = "mcastlab.capacity/3"
    """Changes whenever the terms change their meaning (:data:`~reports.capacity.cost.BATCH_FRAMES`)."""
    sources: list[Source] = Field(min_length=1)
    trials: int
    """Trials that the cost was fitted to."""
    cost: Law
    ranges: dict[str, Range]
    points: list[Point]
    zero_loss_share: Share
    scaling: Scaling
    memory: MemoryModel | None
    delays: list[Delays] = Field(default_factory=list)
    held_out: list[HeldOut] = Field(default_factory=list)

    @property
    def provenance(self) -> str:
        """Runs and machines in words."""
        machines = list(dict.fromkeys(source.machine for source in self.sources))
        runs = ", ".join(source.run_id for source in self.sources)
        footprints = len(self.memory.cases) if self.memory else 0
        return (
            f"fitted to {plural(self.trials, 'trial')} of {plural(self.cost.cases, 'case')} and "
            f"{plural(footprints, 'footprint')}, "
            f"run {runs}, on {'; '.join(machines)}"
        )


class ModelError(ValueError):
    """A model file that cannot be used; the message says which and why."""


def read_model(path: Path) -> CapacityModel:
    """The model in ``path``; raises :class:`ModelError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not readable as a model file: {error}") from error
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"{path}: not JSON, or cut short: {error}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA:
        raise ModelError(f"{path}: schema_version: {version!r}; allowed: {SCHEMA!r}")
    try:
        return CapacityModel.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{path}: {where}: {first['msg']}") from error


def dump_model(model: CapacityModel) -> str:
    return model.model_dump_json(indent=1) + "\n"
