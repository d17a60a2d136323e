"""The gate: the forwarder as it is against that of another commit, measured in turn in the same run. Pure.

``scenarios/gate.toml`` says what is compared with itself; :func:`against` makes of it the scenario in which
one side is the forwarder of a commit. No figure of another machine, or of another day, is in it.
"""

from lab.scenario.files import check_scenario
from lab.scenario.model import Scenario

NAME = "gate"
_TITLE_LENGTH = 120


def against(scenario: Scenario, commit: str) -> Scenario:
    """``scenario`` with each case twice, once with the forwarder of ``commit``.

    Each comparison of a case with itself becomes one of the present (``a``) with the commit (``b``).
    """
    tables = scenario.model_dump(exclude_unset=True)
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
    return check_scenario(tables, NAME)


def _twin(name: str, commit: str) -> str:
    return f"{name} at {commit}"
