"""The tables of a scenario file, typed: what each key is called, what it allows, in which unit. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from forwarder.plan.strategy import PRESETS, Hashing, RulePlacement, Steering
from lab.load.jobs import MAX_SEGMENTS, GeneratorName
from lab.load.mixed_traffic import MOST_PERCENT
from lab.load.topology import MAX_LINKS
from lab.results import Receive, Setting
from lab.scenario.subjects import SUBJECTS

Metric = Literal[
    "zero-loss rate",
    "delivered copies/s",
    "goodput",
    "generator rate",
    "CPU per copy",
    "latency p50",
    "latency p99",
    "latency p99.9",
]
Measure = Literal["zero-loss", "pdr", "flat-out", "overload", "half-rate", "latency"]
"""The highest rate without loss; with little loss, found in the same search; what is delivered of as much as
the generator can offer; of twice and four times the first; latency and CPU at half of it; at 10, 50 and 90 %
of it."""


def _one_of(names: Iterable[str]) -> AfterValidator:
    allowed = [str(name) for name in names]

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return value

    return AfterValidator(check)


def _like(pattern: str, allowed: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return AfterValidator(check)


SubjectName = Annotated[str, _one_of(SUBJECTS)]
SideName = Annotated[str, _one_of([*SUBJECTS, "none"])]
"""A subject, or the generator alone."""
StrategyName = Annotated[str, _one_of(PRESETS)]
PlacementName = Annotated[str, _one_of(RulePlacement)]
SteeringName = Annotated[str, _one_of(Steering)]
HashingName = Annotated[str, _one_of(Hashing)]

UNITS: Mapping[Metric, str] = {
    "zero-loss rate": "dps",
    "delivered copies/s": "copies/s",
    "goodput": "",
    "generator rate": "dps",
    "CPU per copy": "ns",
    "latency p50": "ns",
    "latency p99": "ns",
    "latency p99.9": "ns",
}
LOWER_IS_BETTER = [metric for metric, unit in UNITS.items() if unit == "ns"]
LATENCY_FIELDS: Mapping[Metric, str] = {
    "latency p50": "p50",
    "latency p99": "p99",
    "latency p99.9": "p999",
}
"""Where a trial's record has it."""
SHARED_METRICS: Mapping[Metric, float] = {
    "goodput": 2,
    "CPU per copy": 0.5,
    **dict.fromkeys(LATENCY_FIELDS, 0.5),
}
"""Metrics that are taken at a share of the zero-loss rate, and the one that is meant when none is given."""


PER_CPU = "per-cpu"
"""A number of workers, and the key in the validation context that says how many these are."""


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Name = Annotated[str, _like("[a-z0-9][a-z0-9-]{,39}", "1 to 40 of a to z, 0 to 9 and -, but - not first")]
Inputs = Annotated[int, Field(ge=1, le=MAX_LINKS)]
_Commit = _like("[A-Za-z0-9][A-Za-z0-9._~^/@{}-]{,99}", "a commit, as git understands it")


def _per_cpu(value: object, info: ValidationInfo) -> object:
    return (info.context or {}).get(PER_CPU, 1) if value == PER_CPU else value


class Defaults(Model):
    """``[setting]``: where every case starts from."""

    payload_bytes: Annotated[int, Field(ge=18, le=8972)] = 64
    """UDP: 18 fills the smallest Ethernet frame, 8,972 a 9,000-byte MTU."""
    inputs: Inputs = 1
    skew: Annotated[int, Field(ge=1, le=64)] = 1
    """Datagrams that the first input gets for each one of another input."""
    outputs: Annotated[int, Field(ge=1, le=64)] = 1
    flows: Annotated[int, Field(ge=1, le=100_000)] = 1
    burst: Annotated[int, Field(ge=1, le=MAX_SEGMENTS)] = 1
    """Datagrams of one flow that leave the generator back to back: one call, cut up before the link."""
    generator: GeneratorName = "packet"
    """Packet sockets, or live frames made in the kernel: several times the rate, veth only."""
    unicast_percent: Annotated[int, Field(ge=0, le=MOST_PERCENT)] = 0
    """Unicast share of all datagrams offered, to each output in turn; the kernel routes them."""
    udp_checksum: bool = True
    """Whether datagrams have one; without, the field is zero."""
    rules: Annotated[int, Field(ge=1, le=100_000)] = 1
    workers: Annotated[int, BeforeValidator(_per_cpu), Field(ge=1, le=1024)] = 1
    """Workers of each group; with an elastic strategy the most that a group may have. ``"per-cpu"``: as many
    as the forwarder has CPUs."""
    cpus: Literal["apart", "one", "all"] = "apart"
    """The forwarder's: those that are apart from the bench's; one of them, which then does all of its work on
    any machine; or all of the machine, for what needs several workers to run at once and no figure of its
    speed."""
    strategy: StrategyName = "fanout"
    groups: Inputs | None = None
    """Interface groups; left out: as many as the strategy makes."""
    placement: PlacementName | None = None
    steering: SteeringName | None = None
    hashing: HashingName | None = None
    """Left out: the strategy's own."""
    options: list[str] = []
    """More words for the command line of ``mcrd supervisor``."""
    commit: Annotated[str, _Commit] | None = None
    """The forwarder of this commit; left out: the one that is installed."""
    egress: Literal["wire-like", "offload"] = "wire-like"
    mtu: Annotated[int, Field(ge=576, le=9000)] = 1500


class Case(Defaults):
    """``[[case]]``: one row; a key left out takes the value in ``[setting]``, ``measure`` the scenario's.

    :meth:`lab.scenario.model.Scenario.settings_of` alone puts them together.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    measure: list[Measure] | None = None
    subjects: list[SubjectName] | None = None
    """Those of the scenario's that are measured in it; all when left out."""


ReceiveTried = Annotated[list[Receive], Field(min_length=1, max_length=4)]
"""In ``[receive]``, for each subject: who does the receive work. Each value is tried, the best is kept."""
DEFAULT_RECEIVE: tuple[Receive, ...] = ("first",)
"""Tried for a subject that ``[receive]`` does not name."""


class Compare(Model):
    """``[[compare]]``: ``a / b`` in one metric, paired and interleaved."""

    metric: Metric
    a: SideName
    b: SideName
    cases: list[str] | None = None
    """Cases in which both are taken; all when left out. Not together with ``a_case`` and ``b_case``."""
    a_case: str | None = None
    b_case: str | None = None
    a_receive: Receive | None = None
    b_receive: Receive | None = None
    """Who receives for each side; what suits it best when left out."""
    target: Annotated[float, Field(gt=0)] | None = None
    """The ratio that is promised: missed beyond doubt, it fails the run."""
    aim: Annotated[float, Field(gt=0)] | None = None
    """The ratio that is hoped for: shown apart, it never fails a run."""
    dps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The rate for both sides, of CPU per copy and of what is delivered; left out: ``share``, and where each
    side delivers most."""
    share: Annotated[float, Field(gt=0, le=10)] | None = None
    """The share of the zero-loss rate at which the metric is taken: of the side's own, or for CPU per copy of
    the lower one. Left out: half of it, twice for goodput."""
    tolerance: Annotated[float, Field(gt=0, le=1)] | None = None
    """The run fails when the whole interval is worse than this share of ``b``: below it where more is better,
    above its inverse where less is. Only after a second measurement, with everything started anew."""
    repeat: Annotated[int, Field(ge=1, le=100)] = 1
    """Comparisons, each of its own. Several of a subject with itself show what the instrument finds where
    there is nothing to find: at most one in twenty may see a difference."""
    within: Annotated[float, Field(gt=0)] | None = None
    """For a subject compared with itself: the half-width that its interval must reach, as a share of the
    ratio. Pairs are added until it does, up to three times as many."""


class Bisect(Model):
    """``[bisect]``: which commit changed a figure of the only case, whose commit is the good one."""

    metric: Metric
    share: Annotated[float, Field(gt=0, le=10)] | None = None
    """As for a comparison."""
    commits: Annotated[list[Annotated[str, _Commit]], Field(min_length=1)]
    """Those after the good one that may have changed it, in order; the last one is bad."""
    pairs_max: Annotated[int, Field(ge=6, le=200)] = 16
    """Pairs of one comparison at most. With fewer than six there is no verdict."""


class Expect(Model):
    """``[[expect]]``: what one trial must show, to the datagram. One check for each key that is given."""

    case: str
    subject: SubjectName = "mcrd"
    receive: Receive | None = None
    """Who receives; left out: the first that is tried."""
    dps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Offered rate; left out: as fast as the generator can."""
    pace: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The generator kept its rate, to this share of it."""
    copies: Annotated[int, Field(ge=1, le=254)] | None = None
    """Every copy that is due arrives exactly so many times."""
    lost: Literal[0, "some"] | None = None
    """Copies that never arrive."""
    others_lost: Literal[0] | None = None
    """The same, of all inputs but the first."""
    wrong_worker: Literal[0, "some"] | None = None
    """Datagrams that reach a worker other than the one that holds their rule."""
    every_worker: Annotated[float, Field(gt=0, le=1)] | None = None
    """Each worker has matched at least this share of the even one, all datagrams over all workers. Where
    chance deals flows to the workers of a group, what chance may leave of it is enough."""
    rules_held: Literal["all", "part"] | None = None
    """By each worker, of the rules of its group's interfaces: all, or fewer, and each rule by one worker."""
    aim: bool = False
    """Hoped for, not promised: the checks are shown apart, and never fail a run."""

    ABOUT: ClassVar[set[str]] = {"case", "subject", "receive", "dps", "aim"}
    """The keys that say where and how; all others are expected of the trial."""

    @property
    def expected(self) -> dict[str, object]:
        """The keys that are given, with what they want."""
        return self.model_dump(exclude_none=True, exclude=self.ABOUT)


class FootprintCase(Model):
    """``[[footprint]]``: a number of workers really started, measured, and stopped."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    workers: Annotated[int, BeforeValidator(_per_cpu), Field(ge=1, le=4096)]
    """Workers of each group, as ``--num-workers``."""
    rules: Annotated[int, Field(ge=1, le=100_000)]
    """Rules of all inputs together."""
    inputs: Inputs = 1
    strategy: StrategyName = "fanout"
    groups: Inputs | None = None
    placement: PlacementName | None = None
    steering: SteeringName | None = None
    hashing: HashingName | None = None
    """Left out: the strategy's own."""
    cpus: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPUs of the planned host; the workers of a group when left out."""
    documented_bytes: Annotated[int, Field(ge=0)] | None = None
    """Left out: what the document says of these numbers, where it does."""
    ready_target_s: Annotated[float, Field(gt=0)] | None = None
    ready_aim_s: Annotated[float, Field(gt=0)] | None = None
    """Hoped for: it never fails a run."""
    stop_target_s: Annotated[float, Field(gt=0)] | None = None
    private_target_bytes: Annotated[int, Field(gt=0)] | None = None
    like: str | None = None
    """The name of a footprint before this one, whose memory this one's is compared with,"""
    like_target: Annotated[float, Field(gt=0)] | None = None
    """and how many times as much it may be."""
    idle_target: Annotated[float, Field(gt=0)] | None = None
    """Processors busy with supervisor and workers, together, while there is no traffic."""

    @property
    def setting(self) -> Setting:
        """The same as the setting of a trial."""
        axes = self.model_dump(
            include={"inputs", "rules", "workers", "strategy", "groups", "placement", "steering", "hashing"}
        )
        return Setting(payload_bytes=64, **axes)
