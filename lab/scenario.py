"""Scenario files: what is measured, on what, against whom. Pure: TOML text in, a validated model out.

A scenario is a list of *cases* (rows), each a full setting; what is done with them is said by what the
file has: ``functional`` checks, ``[[footprint]]`` entries, ``measure`` for each case and subject,
``[[expect]]`` for what one trial must show exactly, and ``[[compare]]`` for paired comparisons.
``[profile.quick]`` and ``[profile.full]`` say how long and how often; CI runs quick. Every problem of a file
is reported at once, by key, with the value and what is allowed (:class:`ScenarioError`); what a file's
tables must say together is in :mod:`lab.sense`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from forwarder.problems import MISSING, Problem, ProblemsError, key, shown
from forwarder.strategy import PRESETS, Grouping, Hashing, RulePlacement, Steering
from lab.results import Setting
from lab.sense import sense_problems
from lab.strategies import groups_in
from lab.topology import MAX_LINKS
from lab.traffic.jobs import MAX_SEGMENTS

ProfileName = Literal["quick", "full"]
SubjectName = Literal["mcrd", "kernel"]
Metric = Literal["zero-loss rate", "delivered copies/s", "CPU per copy", "latency p99"]
Measure = Literal["zero-loss", "flat-out", "half-rate"]
"""The highest rate without loss; what is delivered under overload; latency and CPU at half the first."""


def _one_of(names: Iterable[str]) -> AfterValidator:
    allowed = [str(name) for name in names]

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return value

    return AfterValidator(check)


StrategyName = Annotated[str, _one_of(PRESETS)]
PlacementName = Annotated[str, _one_of(RulePlacement)]
SteeringName = Annotated[str, _one_of(Steering)]
HashingName = Annotated[str, _one_of(Hashing)]

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "zero-loss rate": True,
    "delivered copies/s": True,
    "CPU per copy": False,
    "latency p99": False,
}
UNITS: Mapping[str, str] = {
    "zero-loss rate": "dps",
    "delivered copies/s": "copies/s",
    "CPU per copy": "ns",
    "latency p99": "ns",
}

DIRECTORY = Path(__file__).resolve().parents[1] / "scenarios"


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
Payload = Annotated[int, Field(ge=18, le=8972)]
"""UDP payload in bytes: 18 fills the smallest Ethernet frame, 8,972 a 9,000-byte MTU."""
Inputs = Annotated[int, Field(ge=1, le=MAX_LINKS)]
Skew = Annotated[int, Field(ge=1, le=64)]
"""Datagrams that the first input gets for each one of another input."""
Burst = Annotated[int, Field(ge=1, le=MAX_SEGMENTS)]
"""Datagrams of one flow that leave the generator back to back: one call, cut up before the link."""


class Defaults(Model):
    """``[setting]``: where every case starts from."""

    payload_bytes: Payload = 64
    inputs: Inputs = 1
    skew: Skew = 1
    outputs: Annotated[int, Field(ge=1, le=64)] = 1
    flows: Annotated[int, Field(ge=1, le=100_000)] = 1
    burst: Burst = 1
    rules: Annotated[int, Field(ge=1, le=100_000)] = 1
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """Of each worker group."""
    strategy: StrategyName = "fanout"
    groups: Inputs | None = None
    """Interface groups; left out: as many as the strategy makes."""
    placement: PlacementName | None = None
    steering: SteeringName | None = None
    hashing: HashingName | None = None
    """Left out: the strategy's own."""
    options: list[str] = []
    """More words for the command line of ``mcrd supervisor``."""
    generator_apart: bool = False
    """The generator has a CPU to itself even when the workers do not fit on the others."""
    egress: Literal["wire-like", "offload"] = "wire-like"
    mtu: Annotated[int, Field(ge=576, le=9000)] = 1500


class Case(Model):
    """``[[case]]``: one row; a key left out takes the value in ``[setting]``, ``measure`` the scenario's."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    measure: list[Measure] | None = None
    payload_bytes: Payload | None = None
    inputs: Inputs | None = None
    skew: Skew | None = None
    outputs: Annotated[int, Field(ge=1, le=64)] | None = None
    flows: Annotated[int, Field(ge=1, le=100_000)] | None = None
    burst: Burst | None = None
    rules: Annotated[int, Field(ge=1, le=100_000)] | None = None
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    strategy: StrategyName | None = None
    groups: Inputs | None = None
    placement: PlacementName | None = None
    steering: SteeringName | None = None
    hashing: HashingName | None = None
    options: list[str] | None = None
    generator_apart: bool | None = None
    egress: Literal["wire-like", "offload"] | None = None
    mtu: Annotated[int, Field(ge=576, le=9000)] | None = None


class PacketSteering(Model):
    """``[rps]``: receive packet steering, onto the workers' CPUs; each value is tried, the best is kept."""

    mcrd: Annotated[list[bool], Field(min_length=1, max_length=2)] = [False, True]
    kernel: Annotated[list[bool], Field(min_length=1, max_length=2)] = [False, True]


class Compare(Model):
    """``[[compare]]``: ``a / b`` in one metric, paired and interleaved."""

    metric: Metric
    a: SubjectName
    b: SubjectName
    cases: list[str] | None = None
    """Cases in which both are taken; all when left out. Not together with ``a_case`` and ``b_case``."""
    a_case: str | None = None
    b_case: str | None = None
    a_rps: bool | None = None
    b_rps: bool | None = None
    """Steering of each side; its best one when left out."""
    target: Annotated[float, Field(gt=0)] | None = None


class Expect(Model):
    """``[[expect]]``: what one trial must show, to the datagram. One check for each key that is given."""

    case: str
    subject: SubjectName = "mcrd"
    rps: bool | None = None
    """Packet steering; left out: the first that is tried."""
    dps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Offered rate; left out: as fast as the generator can."""
    copies: Annotated[int, Field(ge=1, le=254)] | None = None
    """Every copy that is due arrives exactly so many times."""
    lost: Literal[0, "some"] | None = None
    """Copies that never arrive."""
    others_lost: Literal[0] | None = None
    """The same, of all inputs but the first."""
    wrong_worker: Literal[0, "some"] | None = None
    """Datagrams that reach a worker other than the one that holds their rule."""
    every_worker: Literal[True] | None = None
    """Each worker has matched datagrams."""
    rules_held: Literal["all", "part"] | None = None
    """By each worker: all rules, or fewer, and each rule by one worker."""

    @property
    def expected(self) -> dict[str, object]:
        """The keys that are given, with what they want."""
        return self.model_dump(exclude_none=True, exclude={"case", "subject", "rps", "dps"})


class FootprintCase(Model):
    """``[[footprint]]``: a number of workers really started, measured, and stopped."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    workers: Annotated[int, Field(ge=1, le=4096)]
    """Of each worker group, as ``--num-workers``."""
    rules: Annotated[int, Field(ge=1, le=100_000)]
    """Of all inputs together."""
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
    stop_target_s: Annotated[float, Field(gt=0)] | None = None
    private_target_bytes: Annotated[int, Field(gt=0)] | None = None
    idle_target: Annotated[float, Field(gt=0)] | None = None
    """Processors busy with supervisor and workers, together, while there is no traffic."""

    @property
    def setting(self) -> Setting:
        """As a trial's."""
        axes = self.model_dump(
            include={"inputs", "rules", "workers", "strategy", "groups", "placement", "steering", "hashing"}
        )
        return Setting(payload_bytes=64, **axes)


class Profile(Model):
    """How long and how often. A scenario's ``[profile.*]`` overrides single keys."""

    trial_ms: Annotated[int, Field(ge=50, le=600_000)]
    search_width: Annotated[float, Field(gt=0, lt=1)]
    """Relative distance of the two bounds at which a search ends."""
    search_trials: Annotated[int, Field(ge=1, le=100)]
    """Trials that decide about one rate: it holds when at least half of them lost nothing."""
    search_trials_max: Annotated[int, Field(ge=2, le=1000)]
    """Trials after which a search ends, settled or not."""
    pairs: Annotated[int, Field(ge=1, le=200)]
    cases: list[str] | None = None
    """Cases to run; all when left out. Footprints always run."""
    demand_targets: bool = False
    """A comparison that misses its target fails the run."""


PROFILES: Mapping[ProfileName, Profile] = {
    "quick": Profile(trial_ms=300, search_width=0.05, search_trials=2, search_trials_max=14, pairs=2),
    "full": Profile(trial_ms=2000, search_width=0.02, search_trials=4, search_trials_max=48, pairs=8),
}


class ProfileOverride(Model):
    trial_ms: Annotated[int, Field(ge=50, le=600_000)] | None = None
    search_width: Annotated[float, Field(gt=0, lt=1)] | None = None
    search_trials: Annotated[int, Field(ge=1, le=100)] | None = None
    search_trials_max: Annotated[int, Field(ge=2, le=1000)] | None = None
    pairs: Annotated[int, Field(ge=1, le=200)] | None = None
    cases: list[str] | None = None
    demand_targets: bool | None = None


class Scenario(Model):
    name: Name
    title: Annotated[str, Field(min_length=1, max_length=120)]
    seed: Annotated[str, Field(min_length=1)]
    """The line of the architecture document that this covers."""
    default: bool = True
    """Whether ``mcastlab run`` without names runs it."""
    functional: bool = False
    subjects: list[SubjectName] = []
    measure: list[Measure] = []
    setting: Defaults = Defaults()
    rps: PacketSteering = PacketSteering()
    case: list[Case] = []
    expect: list[Expect] = []
    compare: list[Compare] = []
    footprint: list[FootprintCase] = []
    profile: dict[ProfileName, ProfileOverride] = {}

    def profile_named(self, name: ProfileName) -> Profile:
        override = self.profile.get(name)
        changes = override.model_dump(exclude_none=True) if override else {}
        return PROFILES[name].model_copy(update=changes)

    def settings_of(self, case: Case) -> Defaults:
        return self.setting.model_copy(update=case.model_dump(exclude_none=True, exclude={"name", "measure"}))

    def measured_in(self, case: Case) -> list[Measure]:
        """What is measured of a case, for each subject."""
        return self.measure if case.measure is None else case.measure

    def result_setting(self, case: Case, subject: str, rps: bool) -> Setting:
        """The record's setting; what does not apply to a subject is left out."""
        values = self.settings_of(case)
        loads = {
            key: getattr(values, key)
            for key in ("payload_bytes", "inputs", "skew", "outputs", "flows", "burst", "rules", "egress")
        }
        if subject != "mcrd":
            return Setting(**loads, rps=rps)
        own = PRESETS[values.strategy]
        grouped = own.grouping is Grouping.INTERFACE_GROUPS
        return Setting(
            **loads,
            rps=rps,
            workers=values.workers,
            strategy=values.strategy,
            groups=groups_in(values.strategy, values.inputs, values.groups) if grouped else None,
            placement=values.placement if values.placement != own.placement else None,
            steering=values.steering if values.steering != own.steering else None,
            hashing=values.hashing if values.hashing != own.hashing else None,
            options=tuple(values.options),
        )

    def cases_in(self, profile: Profile) -> list[Case]:
        return [case for case in self.case if profile.cases is None or case.name in profile.cases]


class ScenarioError(ProblemsError):
    """Scenarios that cannot be run."""


def parse_scenario(text: str, source: str) -> Scenario:
    """The scenario in ``text`` (TOML); ``source`` names it in messages. Raises :class:`ScenarioError`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError([Problem(source, "not TOML", str(error))]) from None
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise ScenarioError(_as_problem(item, source) for item in error.errors()) from None
    if problems := sense_problems(scenario, get_args(SubjectName)):
        raise ScenarioError(replace(problem, field=f"{source}: {problem.field}") for problem in problems)
    return scenario


def load_scenarios(names: Iterable[str], directory: Path = DIRECTORY) -> list[Scenario]:
    """Scenarios by name (in ``directory``) or by path; all default ones when ``names`` is empty.

    Raises :class:`ScenarioError` with the problems of every file that has any.
    """
    chosen = list(names)
    available = {path.stem: path for path in sorted(directory.glob("*.toml"))}
    paths = [available.get(name, Path(name)) for name in chosen] or list(available.values())
    scenarios: list[Scenario] = []
    problems: list[Problem] = []
    for path in paths:
        if path.suffix != ".toml" or not path.is_file():
            allowed = f"a file ending in .toml, or one of {', '.join(available)}"
            problems.append(Problem("scenario", repr(str(path)), allowed))
            continue
        try:
            scenario = parse_scenario(path.read_text(encoding="utf-8"), str(path))
        except UnicodeDecodeError:
            problems.append(Problem(str(path), "not text", "TOML in UTF-8"))
            continue
        except ScenarioError as error:
            problems += error.problems
            continue
        if chosen or scenario.default:
            scenarios.append(scenario)
    for name in sorted({s.name for s in scenarios if sum(o.name == s.name for o in scenarios) > 1}):
        problems.append(Problem("name", repr(name), "each scenario once"))
    if problems:
        raise ScenarioError(problems)
    # What forwards wrongly need not be measured: the functional checks come first.
    return sorted(scenarios, key=lambda scenario: not scenario.functional)


_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
    "too_short": ("min_length", "at least this many entries:"),
    "too_long": ("max_length", "at most this many entries:"),
}


def _as_problem(error: Any, source: str) -> Problem:
    """A pydantic error in this project's words."""
    field, kind, context = key(error["loc"], f"{source}: "), error["type"], error.get("ctx", {})
    # key() joins names with a dot; the first one follows the file's name.
    field = field.replace(": .", ": ", 1)
    if kind == "missing":
        return Problem(field, MISSING, "a value: it is required")
    if kind == "extra_forbidden":
        return Problem(field, shown(error["input"]), f"no such key; here are: {_keys_beside(error['loc'])}")
    if kind == "literal_error":
        return Problem(field, shown(error["input"]), context["expected"])
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return Problem(field, shown(error["input"]), f"{words} {context[name]}")
    return Problem(field, shown(error["input"]), error["msg"].removeprefix("Value error, "))


_TABLES: Mapping[str, type[Model]] = {
    "setting": Defaults,
    "case": Case,
    "rps": PacketSteering,
    "expect": Expect,
    "compare": Compare,
    "footprint": FootprintCase,
    "profile": ProfileOverride,
}


def _keys_beside(loc: tuple[str | int, ...]) -> str:
    model = _TABLES.get(str(loc[0]), Scenario) if len(loc) > 1 else Scenario
    return ", ".join(model.model_fields)
