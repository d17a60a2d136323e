"""Options from the command line, a TOML file, or both.

All problems are reported at once, under the name that the user wrote: ``--num-workers`` or
``mcrd.toml: num_workers``.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from forwarder.config.conflicts import conflicts
from forwarder.config.options import SELECTION, SupervisorOptions
from forwarder.problems import Location, Problem, ProblemsError, flag, from_pydantic
from forwarder.rules.model import ForwardingRule, RulesError
from forwarder.rules.notation import load_rules, parse_rules


class OptionsError(ProblemsError):
    """Options were refused."""


Options = TypeVar("Options", bound=SupervisorOptions)


def read_options(
    model: type[Options],
    given: Mapping[str, Any],
    config: Path | None = None,
    read: Mapping[str, Any] | None = None,
) -> tuple[Options, list[ForwardingRule]]:
    """Options and starting rules; values of the command line take precedence over those of a TOML file.

    Args:
        given: the command line's options, by field name.
        read: the content of ``config``, if :func:`read_config` has read it already.

    Raises OptionsError: every problem of the options, of their combination, and of the rules.
    """
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    if config is not None:
        try:
            values = dict(read_config(config) if read is None else read)
            names = {name: f"{config.name}: {name}" for name in values}
        except OptionsError as error:
            problems += error.problems
    if any(name in given for name in SELECTION):  # this replaces the file's choice of interfaces
        for name in (*SELECTION, "workers_per_group", "interface_node"):
            values.pop(name, None)
    values.update(given)
    names.update({name: flag(name) for name in given})

    rules: list[ForwardingRule] = []
    if isinstance(values.get("rules"), list):
        try:
            values["rules"] = tuple(rules := parse_rules(values["rules"]))
        except RulesError as error:
            del values["rules"]
            where = names["rules"].removesuffix("rules")
            problems += [replace(problem, field=where + problem.field) for problem in error.problems]
    options, wrong, more = _validated(model, values, names)
    problems += more
    if isinstance(options.rules, Path):
        try:
            rules = load_rules(options.rules)
        except RulesError as error:
            for problem in error.problems:  # of the file, or of its content under the file's name
                of_file = problem.value == str(options.rules)
                field = names["rules"] if of_file else f"{options.rules.name}: {problem.field}"
                problems.append(replace(problem, field=field))
    problems += conflicts(options, names, wrong)
    if problems:
        raise OptionsError(problems)
    return options, rules


def read_config(path: Path, *, field: str = "--config", whole: bool = False) -> dict[str, Any]:
    """The options in a TOML file, not validated; raises :class:`OptionsError`.

    Args:
        field: the file's name in messages.
        whole: refuse a file that does not end with a newline, because it may still be being written.
    """

    def refused(allowed: str) -> OptionsError:
        return OptionsError([Problem(field, str(path), allowed)])

    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise refused(f"a readable file: {error.strerror}") from error
    except ValueError as error:
        raise refused(f"a TOML file in UTF-8: {error}") from error
    if whole and not text.endswith("\n"):
        raise refused("a whole file, whose last line ends with a newline: this one may be half-written")
    if isinstance(values.get("rules"), str):
        values["rules"] = str(path.parent / values["rules"])  # a file beside the configuration
    return values


def _validated(
    model: type[Options], values: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[Options, set[str], list[Problem]]:
    """The options that are valid, the names of the others, and the problems."""
    try:
        return model.model_validate(values), set(), []
    except ValidationError as error:
        allowed = {
            name: str(field.json_schema_extra["allowed"])
            for name, field in model.model_fields.items()
            if isinstance(field.json_schema_extra, dict)
        }

        def unknown(location: Location) -> str:
            """What to say of an unknown option in a file; names there are written with underscores."""
            near = get_close_matches(str(location[0]).replace("-", "_"), allowed, n=2)
            return f"no such option; {' or '.join(near)}?" if near else "no such option: leave it out"

        found = from_pydantic(error, allowed, field=lambda location: str(location[0]), unknown=unknown)
        wrong = {problem.field for problem in found}
        right = {name: value for name, value in values.items() if name not in wrong}
        problems = [replace(problem, field=names.get(problem.field, problem.field)) for problem in found]
        return model.model_validate(right), wrong, problems
