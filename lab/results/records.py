"""The records themselves: one line of a results file each."""

from typing import Literal

from lab.results.parts import (
    NS_PER_S,
    Bound,
    CapacityStep,
    Cpu,
    Frames,
    Generated,
    InputSample,
    Latency,
    Ledger,
    Measured,
    Memory,
    OutputSample,
    Provenance,
    Record,
    Setting,
    SoakSample,
    Streams,
    Subject,
    Validity,
    WorkerSample,
    keeps_up,
)

Purpose = Literal[
    "calibration",
    "search",
    "fixed",
    "comparison",
    "latency",
    "functional",
    "sweep",
    "soak",
    "course",
    "change",
    "pipelines",
]
"""What a trial was made for."""

SCHEMA = "mcastlab.results/1"


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
    forwarder_cpus: list[int] | None = None
    """CPUs that did a forwarder's work and nothing else."""
    baseline: str | None = None
    """The commit that the gate measures against, or why it measures nothing, where one was asked for."""
    provenance: Provenance


class Trial(Record):
    kind: Literal["trial"] = "trial"
    trial_id: str
    scenario: str
    case: str
    subject: Subject
    setting: Setting
    purpose: Purpose
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
    frames: Frames | None = None
    """Kept because the ledger does not balance."""

    @property
    def offered_dps(self) -> float:
        return self.offered * NS_PER_S / self.duration_ns

    @property
    def delivered_dps(self) -> float:
        """Copies a second that reached a receiver, until the last one."""
        return self.delivered * NS_PER_S / (self.duration_ns + self.drain_ns)

    def goodput(self, zero_loss_dps: float) -> float:
        """What was delivered, in datagrams at every output, as a share of a zero-loss rate."""
        copies = self.expected / self.offered if self.offered else 1
        return self.delivered_dps / copies / zero_loss_dps

    @property
    def kept_up(self) -> bool:
        """Whether what was offered did not pile up: a buffer hides, for a while, that a rate is too high."""
        return keeps_up(self.drain_ns, self.duration_ns)

    @property
    def loss_ratio(self) -> float:
        return 1 - self.delivered / self.expected if self.expected else 0.0


class ZeroLoss(Measured):
    """The outcome of a search: the highest offered rate that met a goal, and between what it lies.

    With a goal of 0 it is the rate without loss (NDR), else the one with little (PDR).
    """

    kind: Literal["zero-loss"] = "zero-loss"
    goal_loss_ratio: float
    lower_dps: float | None
    """Highest offered rate that met the goal; ``None`` when no rate did."""
    upper_dps: float | None
    """Lowest offered rate that did not; ``None`` when the generator's ceiling met the goal."""
    generator_ceiling_dps: float
    bound_by: Bound
    trial_ids: list[str]
    warnings: list[str] = []


class Comparison(Record):
    """``ratio = a / b``, from pairs taken in turn (A B B A …), with a bootstrap interval."""

    kind: Literal["comparison"] = "comparison"
    scenario: str
    case: str
    metric: str
    """"zero-loss rate", "delivered copies/s", "CPU per copy", "latency p99" …"""
    share: float | None = None
    """The share of the zero-loss rate at which the metric was taken; ``None`` for its usual one."""
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
    """``a`` against ``b``; ``None`` if there are too few pairs to decide."""
    detectable: float | None = None
    """The smallest relative difference that these pairs could have shown: 0.03 is 3 %."""
    bound_by: Bound = "unknown"
    trial_ids: list[str] = []
    warnings: list[str] = []

    @property
    def figure(self) -> str:
        """The metric, with its share of the zero-loss rate: "goodput at 4 ×"."""
        return self.metric if self.share is None else f"{self.metric} at {self.share:g} ×"


Judgement = Literal["good", "bad", "undecided", "skipped"]


class Judged(Record):
    """On which side of a change a commit is. Its comparison with the good one, if any, stands before."""

    kind: Literal["judged"] = "judged"
    scenario: str
    case: str
    commit: str
    judgement: Judgement
    why: str = ""
    """Why it was skipped."""


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
    ready_user_ns: int | None = None
    ready_kernel_ns: int | None = None
    """Processor time of supervisor and workers when they were ready: in their own code, and in the kernel."""
    stopped_ns: int | None = None
    ready_target_ns: int | None = None
    stop_target_ns: int | None = None
    private_target_bytes: int | None = None
    idle_target: float | None = None
    """What the project promises of ``ready_ns``, ``stopped_ns``, ``memory.private_bytes_per_worker`` and
    ``idle_cpu_ns / idle_ns``, when it does."""
    discrepancies: list[str] = []
    warnings: list[str] = []


class Delay(Measured):
    """How long after a request to add or remove a rule its effect was seen, over all repetitions."""

    kind: Literal["delay"] = "delay"
    change: Literal["add", "remove"]
    sign: Literal["datagram", "membership report"]
    """What was waited for: the group's first datagram after an addition, its last one after a removal; or
    the IGMP report on the input that joins or leaves the group."""
    interface: str
    """Where."""
    offered_dps: int
    """Rate of the group that is joined and left."""
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


class Capacity(Measured):
    """The largest number of groups, a rule each, that were all forwarded without loss.

    ``rules`` and ``flows`` of ``setting`` are those of the last step that held, or of the first.
    """

    kind: Literal["capacity"] = "capacity"
    offered_dps: int
    steps: list[CapacityStep]
    bound_by: Literal["limit", "loss", "refused", "generator"]
    """What ended it: the largest number to be tried, a loss, the subject's refusal, or too little offered."""
    warnings: list[str] = []

    @property
    def groups(self) -> int | None:
        return max((step.groups for step in self.steps if step.held), default=None)


NOISE_BYTES = 64 * 1024
"""Sixteen pages: a process touches its last ones at some time, and gives some back."""
SETTLED_NS = 600_000_000_000
"""Ten minutes: in shorter soaks processes still copy pages that they shared since the fork (half a megabyte
in the second half of 30 s), which says nothing of what they would come to."""


class Soak(Measured):
    """One rate for a long time, in trials one after another."""

    kind: Literal["soak"] = "soak"
    asked_dps: int
    trial_ids: list[str]
    duration_ns: int
    """Time spent sending, over all trials."""
    offered: int
    expected: int
    delivered: int
    p99_ns: list[int] = []
    """Latency of each trial, in order."""
    first: SoakSample | None = None
    """After the first trial; ``None`` where the subject has no processes, or had ended."""
    middle: SoakSample | None = None
    """After half of them: what a process touches at some time or other, it has touched by then."""
    last: SoakSample | None = None
    """After the last one."""
    warnings: list[str] = []

    @property
    def grown_bytes(self) -> int | None:
        """Private memory, from first to last; ``None`` where the processes are not the same."""
        return _growth(self.first, self.last, "private_bytes")

    @property
    def late_bytes(self) -> int | None:
        """The part of :attr:`grown_bytes` that came in the second half; all where that is not known."""
        late = _growth(self.middle, self.last, "private_bytes")
        return self.grown_bytes if late is None else late

    @property
    def grown_descriptors(self) -> int | None:
        return _growth(self.first, self.last, "descriptors")

    @property
    def grown_threads(self) -> int | None:
        return _growth(self.first, self.last, "threads")

    @property
    def judges_memory(self) -> bool:
        return self.duration_ns >= SETTLED_NS

    @property
    def grew(self) -> bool | None:
        """Whether descriptors or threads are more at the end, or memory (by more than :data:`NOISE_BYTES` a
        process) than at half time, where it is judged; ``None`` where that cannot be told."""
        if self.first is None or self.late_bytes is None or self.grown_descriptors is None:
            return None
        more = self.judges_memory and self.late_bytes > NOISE_BYTES * len(self.first.pids)
        return more or self.grown_descriptors > 0 or (self.grown_threads or 0) > 0


def _growth(
    first: SoakSample | None,
    last: SoakSample | None,
    what: Literal["private_bytes", "descriptors", "threads"],
) -> int | None:
    """From one sample to another; ``None`` where either is missing or has other processes."""
    if first is None or last is None or first.pids != last.pids:
        return None
    before, after = getattr(first, what), getattr(last, what)
    return None if before is None or after is None else after - before


class Pipelines(Measured):
    """What a CPU is worth while others work: pipelines at the same time against one, in turn (A B B A …).

    A pipeline is generator, subject and receivers on one CPU. ``setting.pipelines`` is how many there were.
    """

    kind: Literal["pipelines"] = "pipelines"
    together: list[float]
    """Copies/s delivered by each of them in the mean, one value a pair."""
    alone: list[float]
    """Copies/s delivered by one of them, a different one in each pair."""
    ratio: float
    """``together`` over ``alone``: 1 if they do not get in each other's way."""
    low: float
    high: float
    trial_ids: list[str]
    warnings: list[str] = []

    @property
    def pipelines(self) -> int:
        return self.setting.pipelines or 1


class Check(Record):
    """One expectation, met or not."""

    kind: Literal["check"] = "check"
    scenario: str
    case: str
    passed: bool
    expected: str
    observed: str
    aim: bool = False
    """Hoped for, not promised: it does not fail a run."""
    frames: Frames | None = None
    """Kept because it was not met."""

    @property
    def outcome(self) -> str:
        return f"expected {self.expected}, observed {self.observed}{self._frames_text}"

    @property
    def text(self) -> str:
        outcome = f"expected {self.expected}; observed {self.observed}{self._frames_text}"
        return f"{self.scenario}, {self.case}: {outcome}"

    @property
    def _frames_text(self) -> str:
        return "" if self.frames is None else f"; {self.frames.text}"


class RunEnded(Record):
    kind: Literal["end"] = "end"
    ended_at: str
    outcome: Literal["passed", "failed", "interrupted"]
    failures: list[str] = []
    inconclusive: list[str] = []
    """Comparisons that nothing came out of, each with the reason: tried again when the run is resumed."""
    skipped: list[str] = []
    """Subjects that could not run on this machine, each with the scenarios and the reason."""
