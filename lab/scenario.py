"""Scenario files: what is measured, on what, against whom. Pure: TOML text in, a validated model out.

A scenario is a list of *cases* (rows), each a full setting; what is done with them is said by what the
file has: ``functional`` checks, ``[[footprint]]`` entries, ``measure`` for each case and subject, and
``[[compare]]`` for paired comparisons. ``[profile.quick]`` and ``[profile.full]`` say how long and how
often; CI runs quick. Every problem of a file is reported at once, by key, with the value and what is
allowed (:class:`ScenarioError`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from forwarder.problems import MISSING, Problem, ProblemsError, key, shown
from forwarder.strategy import PRESETS
from lab.results import Setting
from lab.traffic.jobs import MAX_PAYLOAD_BYTES, MAX_SEGMENTS

ProfileName = Literal["quick", "full"]
SubjectName = Literal["mcrd", "kernel"]
Metric = Literal["zero-loss rate", "delivered copies/s", "CPU per copy", "latency p99"]
Measure = Literal["zero-loss", "flat-out"]


def _preset(value: str) -> str:
    if value not in PRESETS:
        raise ValueError(f"one of {', '.join(PRESETS)}")
    return value


StrategyName = Annotated[str, AfterValidator(_preset)]

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

KERNEL_MAX_INTERFACES = 32
"""MAXVIFS of linux/mroute.h: the bitmap of multicast interfaces is one machine word."""

DIRECTORY = Path(__file__).resolve().parents[1] / "scenarios"


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
Payload = Annotated[int, Field(ge=18, le=8972)]
"""UDP payload in bytes: 18 fills the smallest Ethernet frame, 8,972 a 9,000-byte MTU."""
Burst = Annotated[int, Field(ge=1, le=MAX_SEGMENTS)]
"""Datagrams of one flow that leave the generator back to back: one call, cut up before the link."""


class Defaults(Model):
    """``[setting]``: where every case starts from."""

    payload_bytes: Payload = 64
    outputs: Annotated[int, Field(ge=1, le=64)] = 1
    flows: Annotated[int, Field(ge=1, le=100_000)] = 1
    burst: Burst = 1
    rules: Annotated[int, Field(ge=1, le=100_000)] = 1
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    strategy: StrategyName = "fanout"
    egress: Literal["wire-like", "offload"] = "wire-like"
    mtu: Annotated[int, Field(ge=576, le=9000)] = 1500


class Case(Model):
    """``[[case]]``: one row; a key left out takes the value in ``[setting]``."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    payload_bytes: Payload | None = None
    outputs: Annotated[int, Field(ge=1, le=64)] | None = None
    flows: Annotated[int, Field(ge=1, le=100_000)] | None = None
    burst: Burst | None = None
    rules: Annotated[int, Field(ge=1, le=100_000)] | None = None
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    strategy: StrategyName | None = None
    egress: Literal["wire-like", "offload"] | None = None
    mtu: Annotated[int, Field(ge=576, le=9000)] | None = None


class Steering(Model):
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


class FootprintCase(Model):
    """``[[footprint]]``: a number of workers really started, measured, and stopped."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    workers: Annotated[int, Field(ge=1, le=4096)]
    rules: Annotated[int, Field(ge=1, le=100_000)]
    strategy: StrategyName = "fanout"
    cpus: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPUs of the planned host; the workers' number when left out."""
    documented_bytes: Annotated[int, Field(ge=0)] | None = None
    ready_target_s: Annotated[float, Field(gt=0)] | None = None
    private_target_bytes: Annotated[int, Field(gt=0)] | None = None


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
    rps: Steering = Steering()
    case: list[Case] = []
    compare: list[Compare] = []
    footprint: list[FootprintCase] = []
    profile: dict[ProfileName, ProfileOverride] = {}

    def profile_named(self, name: ProfileName) -> Profile:
        override = self.profile.get(name)
        changes = override.model_dump(exclude_none=True) if override else {}
        return PROFILES[name].model_copy(update=changes)

    def settings_of(self, case: Case) -> Defaults:
        return self.setting.model_copy(update=case.model_dump(exclude_none=True, exclude={"name"}))

    def result_setting(self, case: Case, subject: str, rps: bool) -> Setting:
        """The record's setting; what does not apply to a subject is left out."""
        values = self.settings_of(case)
        forwards = subject == "mcrd"
        return Setting(
            payload_bytes=values.payload_bytes,
            inputs=1,
            outputs=values.outputs,
            flows=values.flows,
            burst=values.burst,
            rules=values.rules,
            workers=values.workers if forwards else None,
            strategy=values.strategy if forwards else None,
            egress=values.egress,
            rps=rps,
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
    problems = [*_name_problems(scenario), *_sense_problems(scenario)]
    if problems:
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


def _name_problems(scenario: Scenario) -> Iterable[Problem]:
    """Names that are given twice, and references to names that do not exist."""
    for table, names in (
        ("case", [case.name for case in scenario.case]),
        ("footprint", [entry.name for entry in scenario.footprint]),
    ):
        for index, name in enumerate(names):
            if name in names[:index]:
                yield Problem(f"{table}[{index}].name", repr(name), "a name not used before")
    known = [case.name for case in scenario.case]
    references: list[tuple[str, str | None]] = []
    for profile_name, override in scenario.profile.items():
        references += [(f"profile.{profile_name}.cases", name) for name in override.cases or []]
    for index, compare in enumerate(scenario.compare):
        references += [(f"compare[{index}].cases", name) for name in compare.cases or []]
        references += [(f"compare[{index}].{side}", getattr(compare, side)) for side in ("a_case", "b_case")]
    for field, reference in references:
        if reference is not None and reference not in known:
            yield Problem(field, repr(reference), f"one of the cases: {', '.join(known) or 'there are none'}")


def _sense_problems(scenario: Scenario) -> Iterable[Problem]:
    """Combinations that cannot be measured."""
    if not (scenario.functional or scenario.case or scenario.footprint):
        yield Problem("(file)", "nothing to do", "functional = true, [[case]] or [[footprint]]")
    if scenario.case and not scenario.subjects:
        yield Problem("subjects", "[]", f"at least one of {', '.join(get_args(SubjectName))}, for the cases")
    for index, compare in enumerate(scenario.compare):
        table = f"compare[{index}]"
        for side in ("a", "b"):
            if getattr(compare, side) not in scenario.subjects:
                allowed = f"one of the subjects: {', '.join(scenario.subjects)}"
                yield Problem(f"{table}.{side}", repr(getattr(compare, side)), allowed)
            rps, tried = getattr(compare, f"{side}_rps"), getattr(scenario.rps, getattr(compare, side))
            if rps is not None and rps not in tried:
                yield Problem(f"{table}.{side}_rps", str(rps), f"one that is tried: {tried}")
        if (compare.a_case is None) != (compare.b_case is None):
            yield Problem(f"{table}.a_case", repr(compare.a_case), "a_case and b_case together, or neither")
        if compare.cases is not None and compare.a_case is not None:
            yield Problem(f"{table}.cases", repr(compare.cases), "cases, or a_case and b_case, not both")
        if (compare.a, compare.a_case, compare.a_rps) == (compare.b, compare.b_case, compare.b_rps):
            yield Problem(f"{table}.b", repr(compare.b), "another subject than a, or another case")
    for index, case in enumerate(scenario.case):
        values = scenario.settings_of(case)
        if values.payload_bytes + 28 > values.mtu:
            allowed = f"at most {values.mtu - 28} with mtu = {values.mtu}"
            yield Problem(f"case[{index}].payload_bytes", str(values.payload_bytes), allowed)
        if values.burst * values.payload_bytes > MAX_PAYLOAD_BYTES:
            allowed = (
                f"at most {MAX_PAYLOAD_BYTES // values.payload_bytes} with {values.payload_bytes} bytes each"
            )
            yield Problem(f"case[{index}].burst", str(values.burst), allowed)
        if "kernel" in scenario.subjects and values.outputs >= KERNEL_MAX_INTERFACES:
            allowed = (
                f"at most {KERNEL_MAX_INTERFACES - 1} with the subject kernel (MAXVIFS, the input is one)"
            )
            yield Problem(f"case[{index}].outputs", str(values.outputs), allowed)


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
    "rps": Steering,
    "compare": Compare,
    "footprint": FootprintCase,
    "profile": ProfileOverride,
}


def _keys_beside(loc: tuple[str | int, ...]) -> str:
    model = _TABLES.get(str(loc[0]), Scenario) if len(loc) > 1 else Scenario
    return ", ".join(model.model_fields)
