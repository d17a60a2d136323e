"""How rules are written: JSON and TOML, and outputs as the command line has them."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from forwarder.problems import Problem, from_pydantic, shown
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ALLOWED, ForwardingRule, RulesError

_OUTPUT = "group:port:interface, then :ttl=N and :source=ADDRESS or :source=preserve when wanted, each once"


def parse_rules(data: object) -> list[ForwardingRule]:
    """Rules from decoded JSON or TOML: ``{"rules": [...]}`` or the list alone.

    Raises :class:`RulesError` with every problem: of each rule, and of the well-formed ones together.
    """
    problems: list[Problem] = []
    if isinstance(data, Mapping):
        problems += [
            Problem(str(name), shown(value), "no such field: leave it out")
            for name, value in data.items()
            if name != "rules"
        ]
        if "rules" not in data:
            raise RulesError([*problems, Problem("rules", "(missing)", "required: a list of rules")])
        data = data["rules"]
    if not isinstance(data, list | tuple):
        raise RulesError([*problems, Problem("rules", shown(data), ALLOWED["rules"])])
    rules: list[ForwardingRule] = []
    places: list[int] = []
    for place, item in enumerate(data):
        try:
            rules.append(ForwardingRule.model_validate(item))
            places.append(place)
        except ValidationError as error:
            problems += from_pydantic(error, ALLOWED, f"rules[{place}]")
    for problem in RuleBook().check(rules):
        # The book counts the well-formed rules only.
        head, _, tail = problem.field.removeprefix("rules[").partition("]")
        problems.append(replace(problem, field=f"rules[{places[int(head)]}]{tail}"))
    if problems:
        raise RulesError(problems)
    return rules


def load_rules(path: Path) -> list[ForwardingRule]:
    """The rules in a ``.toml`` file (``[[rules]]`` tables) or, under any other name, a JSON file.

    Raises :class:`RulesError`, also for a file that cannot be read or decoded.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return parse_rules(tomllib.loads(text) if path.suffix == ".toml" else json.loads(text))
    except OSError as error:
        raise RulesError([Problem("rules", str(path), f"a readable file: {error.strerror}")]) from error
    except RulesError:
        raise
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise RulesError([Problem("rules", str(path), f"a {kind} file in UTF-8: {error}")]) from error


def parse_outputs(text: str) -> list[dict[str, str | int]]:
    """Outputs from ``GROUP:PORT:IF[:ttl=N][:source=ADDRESS][,…]``, yet to be checked by :func:`parse_rules`.

    Raises :class:`RulesError` when an item has other parts, or a port or time to live that is no number.
    """
    outputs: list[dict[str, str | int]] = []
    problems = []
    for place, item in enumerate(text.split(",")):
        group, port, interface, *extra = [*item.strip().split(":"), "", "", ""]
        more = [part.partition("=")[::2] for part in extra[: item.count(":") - 2]]
        names = [name for name, _ in more]
        if item.count(":") < 2 or not set(names) <= {"ttl", "source"} or len(set(names)) < len(names):
            problems.append(Problem(f"outputs[{place}]", shown(item), _OUTPUT))
            continue
        output: dict[str, str | int] = {"group": group, "port": port, "interface": interface, **dict(more)}
        for name, allowed in (("port", ALLOWED["port"]), ("ttl", ALLOWED["ttl"])):
            value = output.get(name)
            if isinstance(value, str) and value.isascii() and value.isdigit():
                output[name] = int(value)
            elif value is not None:
                problems.append(Problem(f"outputs[{place}].{name}", shown(value), allowed))
        outputs.append(output)
    if problems:
        raise RulesError(problems)
    return outputs


def output_text(output: Mapping[str, Any]) -> str:
    """An output as :func:`parse_outputs` takes it; ``output`` is a rule's, as JSON."""
    text = "{group}:{port}:{interface}".format_map(output)
    return text + "".join(f":{name}={output[name]}" for name in ("ttl", "source") if output.get(name))
