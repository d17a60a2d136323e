"""What records are made of: counts, samples, and what was varied."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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
    conditions: dict[str, str] = {}
    """What bends figures on a machine, as it was when the run began."""
    doubts: list[str] = []
    """Those of the conditions that bend this run's figures, a sentence each."""


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
    """Streams, counted at each output, of which nothing arrived."""


class Latency(Record):
    """Send stamp to receive stamp, one clock; nanoseconds."""

    count: int
    min: int | None = None
    p50: int
    p90: int
    p99: int
    p999: int
    max: int


class Frames(Record):
    """The frames around a failure, or why there are none."""

    file: Annotated[str, Field(pattern=r"^evidence/[A-Za-z0-9.-]+\.pcapng$")] | None
    """Relative to the run's directory."""
    what: str
    """Which frames they are: "all of a repeat of the trial, which failed too" …; or the reason."""

    @property
    def text(self) -> str:
        return f"frames in {self.file} ({self.what})" if self.file else f"no frames were kept: {self.what}"


Role = Literal["forwarder", "bench", "both"]
"""Whose work a CPU does."""


class CpuUse(Record):
    """What one CPU did during a trial."""

    cpu: int
    role: Role
    busy_ns: int
    """To the microsecond on a watched CPU, in the kernel's ticks on others."""
    softirq_ns: int
    steal_ns: int
    received: int
    """Frames that the network stack took in there."""
    napi_ns: int | None = None
    """By the kernel's threads that receive for interfaces; ``None`` where there were none."""

    @property
    def processes_ns(self) -> int:
        """What is left for processes, and other threads of the kernel."""
        return max(0, self.busy_ns - self.softirq_ns - (self.napi_ns or 0))


class Cpu(Record):
    """Processor time of the forwarder's CPUs during the trial, less what they use without it when known."""

    busy_ns: int
    softirq_ns: int
    steal_ns: int = 0
    """Taken by the hypervisor: time in which nothing of this machine could run."""
    baseline_ns: int | None = None
    """Busy time of the same CPUs without a subject, scaled to this duration."""
    copies: int
    by_cpu: list[CpuUse] = []

    @property
    def ns_per_copy(self) -> float | None:
        if not self.copies:
            return None
        return (self.busy_ns - (self.baseline_ns or 0)) / self.copies


class WorkerSample(Record):
    worker_id: int
    cpu: int
    group: int | None = None
    """``None`` where it is of no group, or an elastic group has no use for it now."""
    interfaces: tuple[str, ...] = ()
    """Those that it has a socket on."""
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
    """What the supervisor has written for itself: rules, a little for each worker."""
    shared_bytes: int | None = None
    """Held once, by supervisor and workers together: what was in memory before the forks, and resident pages
    of programs and libraries."""
    kernel_bytes: int | None = None
    """Growth of the kernel's own memory (slab, socket buffers, page tables) while the forwarder ran."""

    @property
    def own_bytes(self) -> int:
        """What each process has for itself, of all of them."""
        return self.private_bytes_per_worker * self.workers + self.template_bytes

    @property
    def held_bytes(self) -> int:
        """By all processes together, without rings."""
        return self.own_bytes + (self.shared_bytes or 0)


Receive = Literal["first", "in turn", "softirq", "sender"]
"""Who does the receive work of a forwarder's inputs. Kernel threads (NAPI) on the forwarder's CPUs: *first*,
at real-time priority, as with a card whose interrupt goes to the worker's CPU; or *in turn* with the workers,
at their priority. *softirq*: receive packet steering to the workers' CPUs, behind veth's own half on the
sender's. *sender*: all of it on the sender's CPU, veth's own way, so that the generator pays for it."""


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
    """Unicast share of all datagrams offered; the kernel routes it, whoever forwards the multicast."""
    udp_checksum: bool = True
    workers: int | None = None
    """Workers of each group."""
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
    receive: Receive = "first"
    pipelines: int | None = None
    """Benches that were measured at the same time, all of each on a CPU of its own: generator, subject and
    receivers. ``None``: one bench, on the CPUs as they are divided."""


Validity = Literal["valid", "invalid", "doubtful"]
Bound = Literal["generator", "forwarder", "receiver", "unknown"]
"""What limited a rate."""
NONE = "none"
"""The subject of a calibration: generator straight into the receivers."""
Subject = str
"""``none`` (generator straight to receivers), ``mcrd``, ``kernel``, or a later peer's name."""


class Measured(Record):
    """What was measured of one subject in one case of a scenario."""

    kind: str
    scenario: str
    case: str
    """The row of the scenario, for people: "64 B", "1→8", "10,000 rules"."""
    subject: Subject
    setting: Setting


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


class SoakSample(Record):
    """What the subject's processes, all together, held at one moment."""

    pids: list[int]
    private_bytes: int
    """What they have written for themselves: neither rings nor pages of files that the cache may take."""
    descriptors: int
    threads: int | None = None
