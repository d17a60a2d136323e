"""Scenario files: what is measured, on what, against whom. Pure: TOML text in, a validated model out.

A scenario is a list of *cases* (rows), each a full setting; what is done with them is said by what the
file has: ``functional`` checks, ``[[footprint]]`` entries, ``measure`` for each case and subject,
``[[expect]]`` for what one trial must show exactly, ``[[latency]]``, ``[[delay]]`` and ``[[capacity]]`` for
what RFC 3918 asks besides rates, ``[[sweep]]`` and ``[[soak]]`` for loads that are given, ``[[course]]`` for
loads that change over time, ``[[change]]`` for what a change of the running forwarder costs, and
``[[compare]]`` for paired comparisons.
``[profile.quick]`` and ``[profile.full]`` say how long and how often; CI runs quick. Every problem of a file
is reported at once, by key, with the value and what is allowed (:class:`ScenarioError`); what a file's
tables must say together is in :mod:`lab.scenario.validate`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from forwarder.plan.strategy import PRESETS, Grouping
from forwarder.problems import MISSING, Problem, ProblemsError, key, shown, words
from lab.results import Setting
from lab.scenario.layout import groups_in
from lab.scenario.load_tables import ChangeTable, CourseTable, SoakTable, SweepTable
from lab.scenario.profiles import PROFILES, Profile, ProfileName, ProfileOverride
from lab.scenario.rfc3918_tables import CapacityTable, Chosen, DelayTable, LatencyTable, Section
from lab.scenario.tables import (
    BOTH_STEERINGS,
    Case,
    Compare,
    Defaults,
    Expect,
    FootprintCase,
    Measure,
    Model,
    Name,
    PacketSteering,
    SubjectName,
)
from lab.scenario.validate import sense_problems

DIRECTORY = Path(__file__).resolve().parents[2] / "scenarios"


class Scenario(BaseModel):
    """A whole file; see the module for what its parts are for."""

    model_config = Model.model_config

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=120)]
    seed: str = ""
    """The line of the architecture document that this covers, if any."""
    default: bool = True
    """Whether ``mcastlab run`` without names runs it."""
    functional: bool = False
    subjects: list[SubjectName] = []
    measure: list[Measure] = []
    pdr_loss_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.005
    """The share of copies that may be lost at the rate that ``pdr`` finds."""
    setting: Defaults = Defaults()
    rps: dict[SubjectName, PacketSteering] = {}
    case: list[Case] = []
    expect: list[Expect] = []
    compare: list[Compare] = []
    footprint: list[FootprintCase] = []
    latency: list[LatencyTable] = []
    delay: list[DelayTable] = []
    capacity: list[CapacityTable] = []
    sweep: list[SweepTable] = []
    soak: list[SoakTable] = []
    course: list[CourseTable] = []
    change: list[ChangeTable] = []
    rfc3918: list[Section] = []
    """The tests of RFC 3918 that this makes, by their sections."""
    profile: dict[ProfileName, ProfileOverride] = {}

    def probes(self) -> tuple[tuple[str, Sequence[Chosen]], ...]:
        """The tables that choose cases and subjects, by their key."""
        return (
            ("latency", self.latency),
            ("delay", self.delay),
            ("capacity", self.capacity),
            ("sweep", self.sweep),
            ("soak", self.soak),
            ("course", self.course),
            ("change", self.change),
        )

    def profile_named(self, name: ProfileName) -> Profile:
        override = self.profile.get(name)
        changes = override.model_dump(exclude_none=True) if override else {}
        return PROFILES[name].model_copy(update=changes)

    def settings_of(self, case: Case) -> Defaults:
        own = case.model_dump(exclude_none=True, exclude={"name", "measure", "subjects"})
        return self.setting.model_copy(update=own)

    def rps_of(self, subject: str) -> list[bool]:
        """With and without packet steering: what is tried for a subject."""
        return self.rps.get(subject, list(BOTH_STEERINGS))

    def commits(self) -> list[str]:
        """The commits whose forwarder is wanted, each once."""
        found = (self.settings_of(case).commit for case in self.case)
        return list(dict.fromkeys(commit for commit in found if commit is not None))

    def subjects_in(self, case: Case) -> list[SubjectName]:
        return self.subjects if case.subjects is None else case.subjects

    def measured_in(self, case: Case) -> list[Measure]:
        """What is measured of a case, for each subject."""
        return self.measure if case.measure is None else case.measure

    def result_setting(self, case: Case, subject: str, rps: bool) -> Setting:
        """The record's setting; what does not apply to a subject is left out."""
        values = self.settings_of(case)
        loads = {
            key: getattr(values, key)
            for key in (
                "payload_bytes",
                "inputs",
                "skew",
                "outputs",
                "flows",
                "burst",
                "generator",
                "unicast_percent",
                "rules",
                "egress",
            )
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
            commit=values.commit,
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
    if problems := sense_problems(scenario):
        raise ScenarioError(replace(problem, field=f"{source}: {problem.field}") for problem in problems)
    return scenario


def load_scenarios(names: Iterable[str], directory: Path = DIRECTORY) -> list[Scenario]:
    """Scenarios by name (in ``directory``) or by path; all default ones when ``names`` is empty.

    A name that is none stands for all that begin with it: ``rfc3918`` for ``rfc3918-delay`` and the others.

    Raises :class:`ScenarioError` with the problems of every file that has any.
    """
    chosen = list(names)
    available = {path.stem: path for path in sorted(directory.glob("*.toml"))}
    paths = [path for name in chosen for path in _named(name, available)] or list(available.values())
    scenarios: list[Scenario] = []
    problems: list[Problem] = []
    for path in paths:
        if path.suffix != ".toml" or not path.is_file():
            problems.append(Problem("scenario", repr(str(path)), _allowed(path, available)))
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


def _allowed(path: Path, available: Mapping[str, Path]) -> str:
    if path.suffix == ".toml":
        return "a file ending in .toml that is there"
    if near := get_close_matches(str(path), available, n=3):
        return f"a file ending in .toml, or a name of `mcastlab list`: {' or '.join(near)}?"
    return f"a file ending in .toml, or one of {', '.join(available)}"


def _named(name: str, available: Mapping[str, Path]) -> list[Path]:
    """The scenario of that name; else all whose names begin with it and a hyphen; else the file."""
    if name in available:
        return [available[name]]
    return [path for stem, path in available.items() if stem.startswith(f"{name}-")] or [Path(name)]


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
    if kind == "missing":
        return Problem(field, MISSING, "a value: it is required")
    if kind == "extra_forbidden":
        return Problem(field, shown(error["input"]), f"no such key; here are: {_keys_beside(error['loc'])}")
    if kind == "literal_error":
        return Problem(field, shown(error["input"]), context["expected"])
    if kind in _BOUNDS:
        name, bound = _BOUNDS[kind]
        return Problem(field, shown(error["input"]), f"{bound} {context[name]}")
    return Problem(field, shown(error["input"]), words(error["msg"]))


_TABLES: Mapping[str, type[Model]] = {
    "setting": Defaults,
    "case": Case,
    "expect": Expect,
    "compare": Compare,
    "footprint": FootprintCase,
    "latency": LatencyTable,
    "delay": DelayTable,
    "capacity": CapacityTable,
    "sweep": SweepTable,
    "soak": SoakTable,
    "course": CourseTable,
    "change": ChangeTable,
    "profile": ProfileOverride,
}


def _keys_beside(loc: tuple[str | int, ...]) -> str:
    model = _TABLES.get(str(loc[0]), Scenario) if len(loc) > 1 else Scenario
    return ", ".join(model.model_fields)
