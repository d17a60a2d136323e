"""``mcastlab compare A B``: build a comparison scenario from two short subject descriptions. Pure.

A side is a subject, or comma-separated changes to a base case, or both: ``kernel``,
``strategy=pool,workers=2``, ``mcrd,options=--skip-host-stack``. What a key may be is what ``[[case]]`` of a
scenario file has; ``receive=`` says who does the receive work (``first`` otherwise). A part
that holds a comma is put in double quotes, all of it, as in CSV.
"""

import csv
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from forwarder.problems import Problem, ProblemsError
from lab.results import Receive
from lab.scenario.files import ScenarioError, check_scenario
from lab.scenario.model import Scenario
from lab.scenario.profiles import PROFILES
from lab.scenario.subjects import SUBJECTS
from lab.scenario.tables import Case, Metric

NAME = "compare"
KEYS = tuple(key for key in Case.model_fields if key not in ("name", "measure", "subjects"))
"""What may be changed."""
METRICS: Mapping[str, Metric] = {
    "zero-loss": "zero-loss rate",
    "delivered": "delivered copies/s",
    "goodput": "goodput",
    "cpu": "CPU per copy",
    "p50": "latency p50",
    "p99": "latency p99",
    "p99.9": "latency p99.9",
}
"""What two subjects can be compared in, by the short name."""
DEFAULT_METRICS = ("zero-loss", "delivered", "cpu", "p99")
_NAMES: Mapping[str, Metric] = {
    **METRICS,
    **{name: name for name in METRICS.values()},
    "latency": "latency p99",
}
PAIRS = 8
"""Where none are asked for and the profile has fewer: enough for a verdict."""
_NAME_LENGTH, _TITLE_LENGTH = 60, 120
RECEIVE: tuple[Receive, ...] = get_args(Receive)
Options = Sequence[tuple[str, str]]
_OPTIONS: Options = (
    (r"^case\[0\]\.", "A."),
    (r"^case\[1\]\.", "B."),
    (r"^setting\.", "--case."),
    (r"^compare\[\d+\]\.(?=metric|share)", "--metric."),
    (r"^profile\..*\.pairs", "--pairs"),
    (r"^profile\..*", "--profile"),
)
"""The scenario's fields, and the part of the command line that each was taken from."""

Resolve = Callable[[str], str]
"""The permanent name of a commit: what ``HEAD`` is called now. Raises ProblemsError."""


@dataclass(frozen=True)
class Side:
    """One side: a subject, what differs from the base case, and who receives, where that is fixed."""

    text: str
    subject: str
    changes: Mapping[str, object]
    receive: Receive | None


def ask(
    a: str,
    b: str,
    base: Sequence[str],
    metrics: Sequence[str],
    pairs: int | None,
    profile: str,
    resolve: Resolve,
) -> Scenario:
    """The scenario that compares ``a`` with ``b``.

    Args:
        base: ``KEY=VALUE`` of both.
        metrics: all where none is named.
        pairs: as the profile says when ``None``, but enough for a verdict.

    Raises:
        CompareError: with everything that is wrong.
    """
    problems: list[Problem] = []
    sides = (_side("A", a, resolve, problems), _side("B", b, resolve, problems))
    common = common_settings(base, resolve, problems)
    compared = metric_tables(metrics or DEFAULT_METRICS, problems)
    return checked(_tables(sides, common, compared, profile, pairs), NAME, problems)


class CompareError(ProblemsError):
    """Sides that cannot be compared."""


def checked(
    tables: Mapping[str, object], name: str, problems: list[Problem], options: Options = _OPTIONS
) -> Scenario:
    """The scenario in ``tables``, if nothing is wrong with it and there are no ``problems`` yet.

    Raises:
        CompareError: with everything that is wrong, by option of the command.
    """
    try:
        scenario = check_scenario(tables, name)
    except ScenarioError as error:
        for problem in error.problems:
            field = problem.field.removeprefix(f"{name}: ")
            for pattern, option in options:
                field = re.sub(pattern, option, field)
            problems.append(replace(problem, field=field))
    else:
        if not problems:
            return scenario
    raise CompareError(problems)


def common_settings(parts: Sequence[str], resolve: Resolve, problems: list[Problem]) -> dict[str, object]:
    """The settings that ``--case KEY=VALUE`` gives; adds what is wrong to ``problems``."""
    common: dict[str, object] = {}
    for part in parts:
        key, equals, value = _split(part)
        if equals:
            _take(common, "--case", key, value, resolve, problems)
        else:
            problems.append(Problem("--case", repr(part), f"key=value with one of {', '.join(KEYS)}"))
    return common


def _side(where: str, text: str, resolve: Resolve, problems: list[Problem]) -> Side:
    """A side; adds what is wrong with its text to ``problems``, in which ``where`` names it.

    Values are checked with the scenario.
    """
    subjects: list[str] = []
    changes: dict[str, object] = {}
    receive: Receive | None = None
    for part in next(csv.reader([text], skipinitialspace=True)) or [""]:
        key, equals, value = _split(part)
        if not equals:
            if key not in SUBJECTS:
                keys = f"key=value with one of {', '.join(KEYS)}, receive"
                problems.append(Problem(where, repr(key), f"a subject ({', '.join(SUBJECTS)}), or {keys}"))
            subjects.append(key)
        elif key == "receive":
            receive = next((known for known in RECEIVE if known == value), None)
            if receive is None:
                problems.append(Problem(f"{where}.receive", repr(value), " or ".join(RECEIVE)))
        else:
            _take(changes, where, key, value, resolve, problems)
    if len(subjects) > 1:
        problems.append(Problem(where, repr(text), f"one subject, not {len(subjects)}"))
    subject = next((name for name in subjects if name in SUBJECTS), "mcrd")
    return Side(text, subject, changes, receive)


def _split(part: str) -> Iterable[str]:
    return (piece.strip() for piece in part.partition("="))


def _take(
    into: dict[str, object], where: str, key: str, value: str, resolve: Resolve, problems: list[Problem]
) -> None:
    """Put a value where a scenario has it, or add to ``problems`` what is wrong with its key."""
    if key not in KEYS:
        allowed = f"no such key; here are: {', '.join(KEYS)}, receive"
        problems.append(Problem(f"{where}.{key}", repr(value), allowed))
    elif key in into:
        problems.append(Problem(f"{where}.{key}", repr(value), "each key once"))
    else:
        try:
            into[key] = resolve(value) if key == "commit" else _typed(key, value)
        except ProblemsError as error:
            problems += [replace(problem, field=f"{where}.{problem.field}") for problem in error.problems]


def _typed(key: str, value: str) -> object:
    """Options are words as in a shell; a number or a truth value is as TOML has it, anything else is text."""
    if key == "options":
        try:
            return shlex.split(value)
        except ValueError as error:
            raise CompareError([Problem(key, repr(value), f"words as in a shell: {error}")]) from None
    try:
        read: object = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value
    return read if isinstance(read, int | float | bool) else value


def metric_tables(given: Sequence[str], problems: list[Problem]) -> list[dict[str, object]]:
    """``metric``, and ``share`` if it has one, of each of ``given``: ``zero-loss``, ``goodput,share=4``.

    Adds what is wrong to ``problems``; a share is checked with the scenario.
    """
    tables: list[dict[str, object]] = []
    for text in given:
        name, comma, share = (piece.strip() for piece in text.partition(","))
        key, _, value = _split(share)
        if name not in _NAMES or (comma and key != "share"):
            problems.append(
                Problem("--metric", repr(text), f"NAME or NAME,share=NUMBER with {', '.join(METRICS)}")
            )
        else:
            tables.append({"metric": _NAMES[name], **({"share": _typed(key, value)} if comma else {})})
    return [table for index, table in enumerate(tables) if table not in tables[:index]]


def _tables(
    sides: tuple[Side, Side],
    base: Mapping[str, object],
    metrics: Sequence[Mapping[str, object]],
    profile: str,
    pairs: int | None,
) -> Mapping[str, object]:
    """The tables of the scenario that compares both sides in each of ``metrics``."""
    a, b = sides
    names = [side.text[:_NAME_LENGTH] or "(nothing)" for side in sides]
    if names[0] == names[1]:
        names[1] = f"{names[1][: _NAME_LENGTH - 8]} (again)"
    compared = {"a": a.subject, "b": b.subject, "a_case": names[0], "b_case": names[1]}
    fixed = {
        f"{key}_receive": side.receive
        for key, side in zip("ab", sides, strict=True)
        if side.receive is not None
    }
    tried = {one.subject: {side.receive for side in sides if side.subject == one.subject} for one in sides}
    if pairs is None:
        pairs = max((PAIRS, *(known.pairs for name, known in PROFILES.items() if name == profile)))
    return {
        "name": NAME,
        "title": f"{a.text} against {b.text}"[:_TITLE_LENGTH],
        "seed": "mcastlab compare",
        "default": False,
        "subjects": list(tried),
        "measure": ["zero-loss", *(["flat-out"] if {"metric": "delivered copies/s"} in metrics else [])],
        "setting": base,
        "receive": {name: sorted(filter(None, ways)) for name, ways in tried.items() if None not in ways},
        "case": [
            {"name": name, "subjects": [side.subject], **side.changes}
            for name, side in zip(names, sides, strict=True)
        ],
        "compare": [{**metric, **compared, **fixed} for metric in metrics],
        "profile": {profile: {"pairs": pairs}},
    }
