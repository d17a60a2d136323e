"""Requests on the control socket: one model for each command, told apart by ``command``."""

import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, TypeAdapter, ValidationError

from forwarder.problems import Location, Problem, ProblemsError, field_key, from_pydantic, shown


class RequestError(ProblemsError):
    """A request that cannot be carried out."""


class _Request(BaseModel, extra="forbid"):
    """What all requests have in common."""


class Add(_Request):
    command: Literal["add"]
    rules: list[Any]
    """Read by :func:`~forwarder.rules.notation.parse_rules`, which also checks them together."""


class Remove(_Request):
    command: Literal["remove"]
    rule_id: StrictStr


class WithoutFields(_Request):
    command: Literal["list", "list-workers", "ping", "shutdown"]


class Stats(_Request):
    command: Literal["stats"]
    format: Literal["json", "prometheus"] = "json"
    rules: StrictBool = True
    """Whether to include rules in JSON: thousands of them take time."""


class ShowPlan(_Request):
    command: Literal["plan"]
    format: Literal["json", "text"] = "json"


class Resize(_Request):
    command: Literal["resize"]
    group: StrictInt
    workers: StrictInt


class Apply(_Request):
    command: Literal["apply"]
    config: dict[str, Any]
    """The keys of a ``--config`` file; ``rules`` is a list."""
    dry_run: StrictBool = False


Request = Add | Remove | WithoutFields | Stats | ShowPlan | Resize | Apply

_request: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="command")])
_FIELDS: dict[str, list[str]] = {
    command: [*model.model_fields][1:]
    for model in get_args(Request)
    for command in get_args(model.model_fields["command"].annotation)
}
"""The fields of each command's request."""
_ALLOWED = {
    "command": f"one of {', '.join(_FIELDS)}",
    "rules": "a list of rules",
    "rule_id": "the id of a rule in force",
    "stats.format": "json or prometheus",
    "stats.rules": "true or false",
    "plan.format": "json or text",
    "group": "the id of an elastic group",
    "workers": "an integer",
    "config": "a table of options",
    "dry_run": "true or false",
}


def parse(line: bytes) -> Request:
    """The request in one line of JSON; raises :class:`RequestError` with everything that is wrong."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError([Problem("request", shown(line[:200]), f"one line of JSON ({error})")]) from error
    if not isinstance(document, dict):
        raise RequestError([Problem("request", shown(document), "a JSON object")])

    # Locations begin with the command, unless it is the command that is wrong.
    def field(location: Location) -> str:
        return field_key(location[1:] or location)

    def unknown(location: Location) -> str:
        return f"no such field: {', '.join(_FIELDS[str(location[0])]) or 'none'} here"

    try:
        return _request.validate_python(document)
    except ValidationError as error:
        raise RequestError(from_pydantic(error, _ALLOWED, field=field, unknown=unknown)) from error
