"""``mcastlab compare A B``: two short texts to a scenario file that compares them. Pure.

A side is a subject, or comma-separated changes to a base case, or both: ``kernel``,
``strategy=pool,workers=2``, ``mcrd,options=--skip-host-stack``. What a key may be is what ``[[case]]`` of a
scenario file has; ``rps=on`` or ``rps=off`` fixes packet steering, which is tried both ways otherwise. A part
that holds a comma is put in double quotes, all of it, as in CSV.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from forwarder.problems import Problem, ProblemsError
from lab.scenario.files import ScenarioError, parse_scenario
from lab.scenario.model import Scenario
from lab.scenario.profiles import PROFILES, ProfileName
from lab.scenario.subjects import SUBJECTS
from lab.scenario.tables import Case, Metric

NAME = "compare"
FILE = "compare.toml"
KEYS = tuple(key for key in Case.model_fields if key not in ("name", "measure", "subjects"))
"""What may be changed."""
METRICS: tuple[Metric, ...] = ("zero-loss rate", "delivered copies/s", "CPU per copy", "latency p99")
"""What two subjects can be compared in."""
PAIRS = 8
"""Where none are asked for and the profile has fewer: enough for a verdict."""
_NAME_LENGTH, _TITLE_LENGTH = 60, 120
_STEERING = {"on": True, "off": False}


@dataclass(frozen=True)
class Side:
    """One side: a subject, what differs from the base case, and whether packet steering is fixed."""

    text: str
    subject: str = "mcrd"
    changes: Mapping[str, object] = field(default_factory=dict)
    rps: bool | None = None


def parse_side(where: str, text: str) -> tuple[Side, list[Problem]]:
    """A side and everything that is wrong with its text; ``where`` names it in messages.

    Values are checked with the scenario: see :func:`scenario_text`.
    """
    problems: list[Problem] = []
    subjects: list[str] = []
    changes: dict[str, object] = {}
    rps: bool | None = None
    for part in _parts(text):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            if key not in SUBJECTS:
                allowed = (
                    f"a subject ({', '.join(SUBJECTS)}), or key=value with one of {', '.join(KEYS)}, rps"
                )
                problems.append(Problem(where, repr(part), allowed))
            subjects.append(key)
        elif key == "rps":
            if value not in _STEERING:
                problems.append(Problem(f"{where}.rps", repr(value), " or ".join(_STEERING)))
            rps = _STEERING.get(value)
        else:
            problems += _take(changes, where, key, value)
    if len(subjects) > 1:
        problems.append(Problem(where, repr(text), f"one subject, not {len(subjects)}"))
    known = [name for name in subjects if name in SUBJECTS]
    return Side(text, known[0] if known else "mcrd", changes, rps), problems


def parse_base(parts: Iterable[str]) -> tuple[dict[str, object], list[Problem]]:
    """The settings of ``--case KEY=VALUE``, and everything that is wrong with them."""
    base: dict[str, object] = {}
    problems: list[Problem] = []
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if equals:
            problems += _take(base, "--case", key, value)
        else:
            problems.append(Problem("--case", repr(part), f"key=value with one of {', '.join(KEYS)}"))
    return base, problems


def _parts(text: str) -> list[str]:
    return [part.strip() for row in csv.reader([text], skipinitialspace=True) for part in row] or [""]


def _take(into: dict[str, object], where: str, key: str, value: str) -> list[Problem]:
    if key not in KEYS:
        return [Problem(f"{where}.{key}", repr(value), f"no such key; here are: {', '.join(KEYS)}, rps")]
    if key in into:
        return [Problem(f"{where}.{key}", repr(value), "each key once")]
    into[key] = shlex.split(value) if key == "options" else _typed(value)
    return []


def _typed(value: str) -> object:
    """A number or a truth value as TOML has them; anything else is text."""
    try:
        read: object = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value
    return read if isinstance(read, int | float | bool) else value


def scenario_text(
    a: Side,
    b: Side,
    base: Mapping[str, object],
    metrics: Sequence[str],
    profile: str,
    pairs: int | None,
) -> str:
    """The scenario file that compares both sides in each of ``metrics``."""
    names = [_named(a.text), _named(b.text)]
    if names[0] == names[1]:
        names[1] = f"{names[1][: _NAME_LENGTH - 8]} (again)"
    measure = ["zero-loss", *(["flat-out"] if "delivered copies/s" in metrics else [])]
    title = f"{a.text} against {b.text}"
    lines = [
        *_table("", name=NAME, title=title[:_TITLE_LENGTH], seed="mcastlab compare", default=False),
        *_table("", subjects=list(dict.fromkeys((a.subject, b.subject))), measure=measure),
        *_table("[setting]", **base),
    ]
    steered = {
        subject: sorted({side.rps for side in (a, b) if side.subject == subject and side.rps is not None})
        for subject in (a.subject, b.subject)
        if all(side.rps is not None for side in (a, b) if side.subject == subject)
    }
    if steered:
        lines += _table("[rps]", **steered)
    for name, side in zip(names, (a, b), strict=True):
        lines += _table("[[case]]", name=name, subjects=[side.subject], **side.changes)
    for metric in metrics:
        lines += _table(
            "[[compare]]", metric=metric, a=a.subject, b=b.subject, a_case=names[0], b_case=names[1]
        )
        lines += _table(
            "", **{f"{key}_rps": side.rps for key, side in (("a", a), ("b", b)) if side.rps is not None}
        )
    if pairs is None:
        pairs = max((PAIRS, *(known.pairs for name, known in PROFILES.items() if name == profile)))
    lines += _table(f"[profile.{profile}]", pairs=pairs)
    return "\n".join(lines) + "\n"


def _named(text: str) -> str:
    return text[:_NAME_LENGTH] or "(nothing)"


def _table(head: str, **values: object) -> list[str]:
    """Lines of TOML: strings, numbers, truth values and lists of them are written as in JSON."""
    return [*(["", head] if head else []), *(f"{key} = {json.dumps(value)}" for key, value in values.items())]


def _problems_of(text: str) -> list[Problem]:
    """What is wrong with the scenario, in terms of the two sides."""
    try:
        parse_scenario(text, NAME)
    except ScenarioError as error:
        return [replace(problem, field=_side_of(problem.field)) for problem in error.problems]
    return []


def _side_of(name: str) -> str:
    for pattern, side in (
        (r"^compare: case\[0\]\.", "A."),
        (r"^compare: case\[1\]\.", "B."),
        (r"^compare: setting\.", "--case."),
        (r"^compare: compare\[\d+\]\.metric", "--metric"),
        (r"^compare: profile\.\w+\.pairs", "--pairs"),
    ):
        name = re.sub(pattern, side, name)
    return name


def _metrics_of(given: Sequence[str]) -> tuple[list[str], list[Problem]]:
    """All metrics where none is given; short names are allowed: the first word."""
    problems: list[Problem] = []
    chosen: list[str] = []
    for name in given:
        found = [metric for metric in METRICS if name in (metric, metric.split()[0].lower())]
        if not found:
            short = ", ".join(metric.split()[0].lower() for metric in METRICS)
            allowed = f"one of {', '.join(METRICS)}; or in short: {short}"
            problems.append(Problem("--metric", repr(name), allowed))
        chosen += found
    return list(dict.fromkeys(chosen)) or list(METRICS), problems


@dataclass(frozen=True)
class Asked:
    """What a command line comes to."""

    text: str
    """The scenario file."""
    scenario: Scenario
    profile: ProfileName


def ask(
    a: str,
    b: str,
    base: Sequence[str],
    metrics: Sequence[str],
    pairs: int | None,
    profile: str,
    resolve: Callable[[str], str],
) -> Asked:
    """The scenario that compares ``a`` with ``b``.

    Args:
        base: ``KEY=VALUE`` of both.
        metrics: all where none is named.
        pairs: as the profile says when ``None``, but enough for a verdict.
        resolve: the name of a commit for good: what ``HEAD`` is called now. Raises ProblemsError.

    Raises:
        VersusError: with everything that is wrong.
    """
    (side_a, found_a), (side_b, found_b) = parse_side("A", a), parse_side("B", b)
    common, found_base = parse_base(base)
    chosen, found_metrics = _metrics_of(metrics)
    problems = [*found_a, *found_b, *found_base, *found_metrics]
    known = [name for name in get_args(ProfileName) if name == profile]
    if not known:
        problems.append(Problem("--profile", repr(profile), " or ".join(get_args(ProfileName))))
    settled = []
    for where, values in (("A", side_a.changes), ("B", side_b.changes), ("--case", common)):
        changed, found = _settled(where, values, resolve)
        settled.append(changed)
        problems += found
    side_a, side_b = replace(side_a, changes=settled[0]), replace(side_b, changes=settled[1])
    text = scenario_text(side_a, side_b, settled[2], chosen, known[0] if known else "quick", pairs)
    problems += _problems_of(text)
    if problems:
        raise VersusError(problems)
    return Asked(text, parse_scenario(text, NAME), known[0])


def _settled(
    where: str, values: Mapping[str, object], resolve: Callable[[str], str]
) -> tuple[dict[str, object], list[Problem]]:
    """``values`` with the commit, if there is one, by its name for good."""
    settled = dict(values)
    if "commit" not in values:
        return settled, []
    try:
        settled["commit"] = resolve(str(settled.pop("commit")))
    except ProblemsError as error:
        return settled, [replace(problem, field=f"{where}.{problem.field}") for problem in error.problems]
    return settled, []


class VersusError(ProblemsError):
    """Sides that cannot be compared."""
