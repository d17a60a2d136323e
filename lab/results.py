"""What a run leaves behind: records of one schema, one JSON object a line.

Rules:

* integers are counted, rates are derived: a record stores how many and how long, properties divide;
* a doubt travels with the number: ``warnings`` and ``validity`` sit beside the figure they are about;
* a *datagram* is one UDP packet on the wire; a *copy* is one datagram on one output; times are nanoseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

SCHEMA = "mcastlab.results/1"

NS_PER_S = 1_000_000_000

DRAIN_ALLOWED_NS, DRAIN_ALLOWED_SHARE = 10_000_000, 0.02
"""A subject that keeps up has forwarded the last datagram so soon: as long as a shared machine stalls, and a
share of the trial, by which its rate may be overestimated."""


def keeps_up(drain_ns: int, duration_ns: int) -> bool:
    """Whether a subject that took ``drain_ns`` longer than its generator's ``duration_ns`` kept up."""
    return drain_ns <= DRAIN_ALLOWED_NS + DRAIN_ALLOWED_SHARE * duration_ns


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Provenance(Record):
    """Where the figures come from: enough to repeat the run, or to see why another differs."""

    kernel: str
    machine: str
    cpu_model: str
    cpus: int
    numa_nodes: int
    memory_bytes: int
    mitigations: dict[str, str] = {}
    sysctls: dict[str, str] = {}
    packages: dict[str, str] = {}
    python: str
    commit: str | None = None
    dirty: bool | None = None
    command: list[str] = []


class RunStarted(Record):
    kind: Literal["run"] = "run"
    schema_version: str = SCHEMA
    run_id: str
    started_at: str
    """UTC, ISO 8601."""
    profile: str
    scenarios: list[str]
    peers: dict[str, str] = {}
    """Paths of the programs that the user chose, by subject."""
    rfc3918: dict[str, list[str]] = {}
    """Tests of RFC 3918, by their sections, that a scenario makes."""
    wires: dict[str, list[tuple[str, str]]] | None = None
    """Existing interfaces that took the place of veth pairs, as the user's file names them."""
    provenance: Provenance


class Drop(Record):
    """Datagrams (ingress stage) or copies (egress stage) that ended somewhere other than a receiver."""

    place: str
    """generator, softnet, veth, packet-socket, forwarder, transmit, receiver, kernel-mroute …"""
    reason: str
    count: int


class Stage(Record):
    """One balance: ``entered == left + sum(drops) + unattributed``."""

    entered: int
    left: int
    drops: list[Drop] = []

    @property
    def unattributed(self) -> int:
        return self.entered - self.left - sum(drop.count for drop in self.drops)


class Ledger(Record):
    """Two balances: datagrams, generator to matching rule; copies, rule to receivers."""

    ingress: Stage
    egress: Stage

    @property
    def balanced(self) -> bool:
        return self.ingress.unattributed == 0 and self.egress.unattributed == 0


class Streams(Record):
    """What the receivers saw, over all streams and outputs (sequence numbers, RFC 4737 reordering)."""

    streams: int
    checked: int
    lost: int
    duplicated: int
    reordered: int
    corrupted: int = 0
    copies_max: int | None = None
    """Most intact copies of one datagram on one output: 1 where nothing was duplicated."""
    silent: int | None = None
    """Of all streams on all outputs, those of which nothing arrived."""


class Latency(Record):
    """Send stamp to receive stamp, one clock; nanoseconds."""

    count: int
    min: int | None = None
    p50: int
    p90: int
    p99: int
    p999: int
    max: int


class Cpu(Record):
    """Processor time of the whole machine during the trial, less the generator-only baseline when known."""

    busy_ns: int
    softirq_ns: int
    steal_ns: int = 0
    """Taken by the hypervisor: time in which nothing of this machine could run."""
    baseline_ns: int | None = None
    """Busy time of generator, topology and receivers alone at this rate, scaled to this duration."""
    copies: int

    @property
    def ns_per_copy(self) -> float | None:
        if not self.copies:
            return None
        return (self.busy_ns - (self.baseline_ns or 0)) / self.copies


class WorkerSample(Record):
    worker_id: int
    cpu: int
    received: int
    matched: int
    private_bytes: int | None = None
    """Private (USS) memory of the process, ring mappings not included."""
    pss_bytes: int | None = None
    ring_bytes: int = 0
    rules: int = 0


class Generated(Record):
    """How the generator did; ``late``: of a burst against its schedule, nanoseconds."""

    generator: Literal["packet", "xdp"]
    """What sent: packet sockets take over where the kernel makes no live frames."""
    late_ns_mean: int
    late_ns_max: int
    slipped_ns: int
    """By so much the schedule moved: a generator that is held up does not catch up with a burst."""


class InputSample(Record):
    """What became of the datagrams of one input, over all of its streams and outputs."""

    interface: str
    offered: int
    expected: int
    """Copies that a perfect forwarder would have delivered."""
    delivered: int
    duplicated: int
    """Copies beyond the first."""


class OutputSample(Record):
    """What arrived on one output, of one class of traffic; the latencies are those of first copies."""

    interface: str
    traffic: Literal["multicast", "unicast"]
    streams: int
    offered: int
    """Datagrams that should arrive here."""
    delivered: int
    latency_min_ns: int | None = None
    latency_mean_ns: int | None = None
    latency_max_ns: int | None = None
    """Over all streams; ``None`` where nothing arrived."""


class Memory(Record):
    workers: int
    private_bytes_per_worker: int
    """Median over the workers."""
    pss_bytes_total: int
    ring_bytes_total: int
    template_bytes: int
    """Private memory of the supervisor: imported code, rules, the template that workers share."""
    kernel_bytes: int | None = None
    """Growth of the kernel's own memory (slab, socket buffers, page tables) while the forwarder ran."""


class Setting(Record):
    """What was varied. ``None`` means that it does not apply to this subject."""

    payload_bytes: int
    inputs: int = 1
    outputs: int = 1
    flows: int = 1
    burst: int = 1
    """Datagrams of one flow that leave the generator back to back."""
    generator: Literal["packet", "xdp"] = "packet"
    """Packet sockets, or live frames made in the kernel."""
    rules: int = 1
    skew: int = 1
    """Datagrams that the first input gets for each one of another input."""
    unicast_percent: int = 0
    """Of all datagrams offered; the kernel routes them, whoever forwards the others."""
    workers: int | None = None
    """Of each worker group."""
    strategy: str | None = None
    groups: int | None = None
    """Interface groups, where the strategy makes groups of interfaces."""
    placement: str | None = None
    steering: str | None = None
    hashing: str | None = None
    """What differs from the strategy's own; ``None`` where nothing does."""
    options: tuple[str, ...] = ()
    """More words of the subject's command line."""
    commit: str | None = None
    """The forwarder is that of this commit, not the installed one."""
    egress: Literal["wire-like", "offload"] = "wire-like"
    rps: bool = False


Validity = Literal["valid", "invalid", "doubtful"]
NONE = "none"
"""The subject of a calibration: generator straight into the receivers."""
Subject = str
"""``none`` (generator straight to receivers), ``mcrd``, ``kernel``, or a later peer's name."""


class Trial(Record):
    kind: Literal["trial"] = "trial"
    trial_id: str
    scenario: str
    case: str
    """The row of the scenario, for people: "64 B", "1→8", "10,000 rules"."""
    subject: Subject
    setting: Setting
    purpose: Literal["calibration", "search", "fixed", "comparison", "latency", "functional", "sweep", "soak"]
    asked_dps: int | None
    """Offered rate asked for; ``None`` for as fast as the generator can."""
    load_share: float | None = None
    """That rate over the subject's zero-loss rate, where it was chosen as a share of it."""
    duration_ns: int
    drain_ns: int = 0
    """From the last datagram offered to the last copy received: for so long buffers were being emptied."""
    offered: int
    delivered: int
    expected: int
    """Copies that a perfect forwarder would have delivered."""
    validity: Validity
    warnings: list[str] = []
    bound_by: Literal["generator", "forwarder", "receiver", "asked", "unknown"] = "unknown"
    ended: str | None = None
    """How the subject ended before the trial was over, if it did: "socat: exited 1: its message"."""
    ledger: Ledger
    generated: Generated | None = None
    streams: Streams | None = None
    latency: Latency | None = None
    cpu: Cpu | None = None
    workers: list[WorkerSample] = []
    inputs: list[InputSample] = []
    """One for each input, where there are several."""
    outputs: list[OutputSample] = []
    """One for each output and class of traffic."""

    @property
    def offered_dps(self) -> float:
        return self.offered * NS_PER_S / self.duration_ns

    @property
    def delivered_dps(self) -> float:
        """Copies a second that reached a receiver, until the last one."""
        return self.delivered * NS_PER_S / (self.duration_ns + self.drain_ns)

    @property
    def kept_up(self) -> bool:
        """Whether what was offered did not pile up: a buffer hides, for a while, that a rate is too high."""
        return keeps_up(self.drain_ns, self.duration_ns)

    @property
    def loss_ratio(self) -> float:
        return 1 - self.delivered / self.expected if self.expected else 0.0


class ZeroLoss(Record):
    """The outcome of a search: the highest offered rate that met a goal, and between what it lies.

    With a goal of 0 it is the rate without loss (NDR), else the one with little (PDR).
    """

    kind: Literal["zero-loss"] = "zero-loss"
    scenario: str
    case: str
    subject: Subject
    setting: Setting
    goal_loss_ratio: float
    lower_dps: float | None
    """Highest offered rate that met the goal; ``None`` when no rate did."""
    upper_dps: float | None
    """Lowest offered rate that did not; ``None`` when the generator's ceiling met the goal."""
    generator_ceiling_dps: float
    bound_by: Literal["generator", "forwarder", "receiver", "unknown"]
    trial_ids: list[str]
    warnings: list[str] = []


class Comparison(Record):
    """``ratio = a / b``, from pairs taken in turn (A B B A …), with a bootstrap interval."""

    kind: Literal["comparison"] = "comparison"
    scenario: str
    case: str
    metric: str
    """"zero-loss rate", "delivered copies/s", "CPU per copy", "latency p99" …"""
    higher_is_better: bool
    a: Subject
    b: Subject
    setting: Setting
    ratio: float
    low: float
    high: float
    confidence: float
    pairs: int
    a_values: list[float] = []
    b_values: list[float] = []
    unit: str = ""
    target: float | None = None
    """The ratio the project promises, when it does."""
    verdict: Literal["better", "worse", "no difference"] | None = None
    """Of ``a`` against ``b``; ``None`` where there are too few pairs to tell."""
    detectable: float | None = None
    """The smallest relative difference that these pairs could have shown: 0.03 is 3 %."""
    bound_by: Literal["generator", "forwarder", "receiver", "unknown"] = "unknown"
    trial_ids: list[str] = []
    warnings: list[str] = []


class Footprint(Record):
    """What a number of workers costs when really started, beside what the document and the model say."""

    kind: Literal["footprint"] = "footprint"
    scenario: str
    case: str
    strategy: str
    interfaces: int
    cpus: int
    workers: int
    rules: int
    rules_per_worker: int
    """Held by the worker that holds most."""
    setting: Setting | None = None
    """Strategy axes and groups, as for a trial."""
    imbalance: float | None = None
    """Most rules in one worker over the mean."""
    idle_cpu_ns: int | None = None
    """Processor time of supervisor and workers during ``idle_ns`` without traffic."""
    idle_ns: int | None = None
    documented_bytes: int | None
    modelled_bytes: int
    memory: Memory
    ready_ns: int
    """From exec of the supervisor to its readiness notice."""
    stopped_ns: int | None = None
    ready_target_ns: int | None = None
    stop_target_ns: int | None = None
    private_target_bytes: int | None = None
    idle_target: float | None = None
    """What the project promises of ``ready_ns``, ``stopped_ns``, ``memory.private_bytes_per_worker`` and
    ``idle_cpu_ns / idle_ns``, when it does."""
    discrepancies: list[str] = []
    warnings: list[str] = []


class Delay(Record):
    """How long after a request to add or remove a rule its effect was seen, over all repetitions."""

    kind: Literal["delay"] = "delay"
    scenario: str
    case: str
    subject: Subject
    setting: Setting
    change: Literal["add", "remove"]
    sign: Literal["datagram", "membership report"]
    """What was waited for: the group's first datagram after an addition, its last one after a removal; or
    the IGMP report on the input that joins or leaves the group."""
    interface: str
    """Where."""
    offered_dps: int
    """Of the group that is joined and left."""
    values_ns: list[int]
    answered_ns: list[int] = []
    """From each request to its answer."""
    missed: int = 0
    """Repetitions without the sign."""
    gaps: int = 0
    """Datagrams that were lost between the first and the last of a repetition."""
    held_back: int = 0
    """Datagrams that were sent before the request and came after it."""
    warnings: list[str] = []

    @property
    def resolution_ns(self) -> int:
        """What a delay is known to: the interval between two datagrams; a report has its own time stamp."""
        return NS_PER_S // self.offered_dps if self.sign == "datagram" else 0


class CapacityStep(Record):
    """One number of groups that was tried."""

    groups: int
    offered: int = 0
    expected: int = 0
    delivered: int = 0
    silent: int = 0
    """Groups, over all outputs, of which nothing arrived."""
    held: bool
    why: str = ""
    """It did not hold, where that is not to be seen from the counts."""
    trial_ids: list[str] = []


class Capacity(Record):
    """The largest number of groups, a rule each, that were all forwarded without loss."""

    kind: Literal["capacity"] = "capacity"
    scenario: str
    case: str
    subject: Subject
    setting: Setting
    """``rules`` and ``flows`` are those of the last step that held, or of the first."""
    offered_dps: int
    steps: list[CapacityStep]
    bound_by: Literal["limit", "loss", "refused", "generator"]
    """What ended it: the largest number to be tried, a loss, the subject's refusal, or too little offered."""
    warnings: list[str] = []

    @property
    def groups(self) -> int | None:
        return max((step.groups for step in self.steps if step.held), default=None)


class SoakSample(Record):
    """What the subject's processes, all together, held at one moment."""

    pids: list[int]
    private_bytes: int
    """USS, packet-socket rings not included."""
    descriptors: int


class Soak(Record):
    """One rate for a long time, in trials one after another."""

    kind: Literal["soak"] = "soak"
    scenario: str
    case: str
    subject: Subject
    setting: Setting
    asked_dps: int
    trial_ids: list[str]
    duration_ns: int
    """Of sending, all trials together."""
    offered: int
    expected: int
    delivered: int
    p99_ns: list[int] = []
    """Latency of each trial, in order."""
    first: SoakSample | None = None
    """After the first trial; ``None`` where the subject has no processes, or had ended."""
    last: SoakSample | None = None
    """After the last one."""
    warnings: list[str] = []

    @property
    def comparable(self) -> bool:
        return self.first is not None and self.last is not None and self.first.pids == self.last.pids

    @property
    def grown_bytes(self) -> int | None:
        """Private memory, from first to last; ``None`` where the processes are not the same."""
        if self.first is None or self.last is None or not self.comparable:
            return None
        return self.last.private_bytes - self.first.private_bytes

    @property
    def grown_descriptors(self) -> int | None:
        if self.first is None or self.last is None or not self.comparable:
            return None
        return self.last.descriptors - self.first.descriptors


class Check(Record):
    """One functional expectation, met or not."""

    kind: Literal["check"] = "check"
    scenario: str
    case: str
    passed: bool
    expected: str
    observed: str


class RunEnded(Record):
    kind: Literal["end"] = "end"
    ended_at: str
    outcome: Literal["passed", "failed", "interrupted"]
    failures: list[str] = []
    inconclusive: list[str] = []
    """Comparisons that nothing came out of, each with the reason: tried again when the run is resumed."""
    skipped: list[str] = []
    """Subjects that could not run on this machine, each with the scenarios and the reason."""


AnyRecord = Annotated[
    RunStarted | Trial | ZeroLoss | Comparison | Footprint | Delay | Capacity | Soak | Check | RunEnded,
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
                f"{path}:{number}: not a {SCHEMA} record: {_first_problem(error, line)}"
            ) from error
        if isinstance(record, RunStarted) and record.schema_version != SCHEMA:
            raise ResultsError(
                f"{path}:{number}: schema {record.schema_version}, this version reads {SCHEMA}"
            )
        yield record


def _first_problem(error: ValidationError, line: str) -> str:
    try:
        kind = json.loads(line).get("kind", "no kind")
    except (json.JSONDecodeError, AttributeError):
        return "not a JSON object"
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{kind} record: {where}: {problem['msg']}"
