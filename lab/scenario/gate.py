"""The gate: the forwarder as it is against that of another commit, measured in turn in the same run. Pure.

``scenarios/gate.toml`` says what is compared with itself; :func:`against` makes of it the scenario in which
one side is the forwarder of a commit. No figure of another machine, or of another day, is in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lab.scenario.model import Scenario

NAME = "gate"
FILE = "gate.toml"
_TITLE_LENGTH = 120


def against(scenario: Scenario, commit: str) -> str:
    """The file of ``scenario`` with each case twice, once with the forwarder of ``commit``.

    Each comparison of a case with itself becomes one of the present (``a``) with the commit (``b``).
    """
    tables: dict[str, Any] = scenario.model_dump(mode="json", exclude_unset=True)
    tables["title"] = f"No slower than the forwarder of {commit}"[:_TITLE_LENGTH]
    tables["case"] = [
        case | changes
        for case in tables["case"]
        for changes in ({}, {"name": _twin(case["name"], commit), "commit": commit})
    ]
    tables["compare"] = [
        {key: value for key, value in compare.items() if key != "cases"}
        | {"a_case": name, "b_case": _twin(name, commit)}
        for compare in tables["compare"]
        for name in compare.get("cases", [case.name for case in scenario.case])
    ]
    return "\n".join(_lines(tables)) + "\n"


def _twin(name: str, commit: str) -> str:
    return f"{name} at {commit}"


def _lines(table: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """TOML: values that are no tables are written as in JSON, and come before those that are."""
    for key, value in table.items():
        if not _is_table(value):
            yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ("", f"[{path}{key}]", *_lines(value, f"{path}{key}."))
        elif _is_table(value):
            for entry in value:
                yield from ("", f"[[{path}{key}]]", *_lines(entry, f"{path}{key}."))


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value))
