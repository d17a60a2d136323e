"""Scenario files: TOML in, checked scenarios out, and back. All problems of a file are reported, by key."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from forwarder.problems import Problem, ProblemsError, from_pydantic
from lab.scenario.model import Scenario
from lab.scenario.tables import PER_CPU
from lab.scenario.validate import sense_problems

DIRECTORY = Path(__file__).resolve().parents[2] / "scenarios"


class ScenarioError(ProblemsError):
    """Scenarios that cannot be run."""


def parse_scenario(text: str, source: str, cpus: int = 1) -> Scenario:
    """The scenario in ``text`` (TOML); ``source`` names it in messages, ``cpus`` are the forwarder's.

    Raises :class:`ScenarioError`.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError([Problem(source, "not TOML", str(error))]) from None
    return check_scenario(data, source, cpus)


def check_scenario(data: Mapping[str, Any], source: str, cpus: int = 1) -> Scenario:
    """The scenario in a file's tables; otherwise like :func:`parse_scenario`."""
    try:
        scenario = Scenario.model_validate(data, context={PER_CPU: cpus})
    except ValidationError as error:
        raise ScenarioError(from_pydantic(error, prefix=f"{source}: ", unknown=_unknown)) from None
    if problems := sense_problems(scenario):
        raise ScenarioError(replace(problem, field=f"{source}: {problem.field}") for problem in problems)
    return scenario


def scenario_text(scenario: Scenario) -> str:
    """The file from which :func:`parse_scenario` reads ``scenario`` again."""
    return tomli_w.dumps(scenario.model_dump(mode="json", exclude_unset=True, exclude_none=True))


def load_scenarios(names: Iterable[str], cpus: int = 1) -> list[Scenario]:
    """Scenarios by name (of :data:`DIRECTORY`) or by path; all default ones when ``names`` is empty.

    ``cpus``: the forwarder's, of which ``workers = "per-cpu"`` takes as many workers.
    A name that is none stands for all that begin with it: ``rfc3918`` for ``rfc3918-delay`` and the others.

    Raises :class:`ScenarioError` with the problems of every file that has any.
    """
    chosen = list(names)
    available = {path.stem: path for path in sorted(DIRECTORY.glob("*.toml"))}
    paths = [path for name in chosen for path in _named(name, available)] or list(available.values())
    scenarios: list[Scenario] = []
    problems: list[Problem] = []
    for path in paths:
        if path.suffix != ".toml" or not path.is_file():
            problems.append(Problem("scenario", repr(str(path)), _allowed(path, available)))
            continue
        try:
            scenario = parse_scenario(path.read_text(encoding="utf-8"), str(path), cpus)
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


def _unknown(loc: tuple[str | int, ...]) -> str:
    """What to say of a key that the table around it does not have."""
    table: type[BaseModel] = Scenario
    for part in loc[:-1]:
        if isinstance(part, str) and part in table.model_fields:
            annotation = table.model_fields[part].annotation
            kinds = (annotation, *get_args(annotation))
            table = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), table)
    return f"no such key; here are: {', '.join(table.model_fields)}"
