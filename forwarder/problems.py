"""What is wrong with an input, said the same way everywhere: field, value, what is allowed.

Input is checked whole: whoever checks gathers every :class:`Problem` and raises once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

MISSING = "(missing)"
_LONGEST_VALUE = 120


@dataclass(frozen=True)
class Problem:
    """One thing to put right: ``field`` by key (``rules[3].outputs[0].port``), its value, what is allowed."""

    field: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value}; allowed: {self.allowed}"


class ProblemsError(ValueError):
    """Input that was refused; ``problems`` holds all there is to put right, in order of appearance."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def flag(name: str) -> str:
    """A field's name on the command line."""
    return "--" + name.replace("_", "-")


def shown(value: object) -> str:
    """A value as it appears in a message: text quoted, long ones cut in the middle."""
    if isinstance(value, bool):
        value = "true" if value else "false"  # as TOML and JSON have it
    elif isinstance(value, str | bytes):
        value = repr(value)
    text = str(value)
    if len(text) > _LONGEST_VALUE:
        text = f"{text[: _LONGEST_VALUE // 2]}…{text[-_LONGEST_VALUE // 3 :]} ({len(text)} characters)"
    return text


def from_pydantic(error: ValidationError, allowed: dict[str, str], prefix: str = "") -> list[Problem]:
    """pydantic's errors as problems.

    ``allowed`` says, by the last *name* in an error's location, what that field may be; ``prefix`` goes
    before the location.
    """
    problems = []
    for detail in error.errors(include_url=False, include_context=False):
        kind, location = detail["type"], detail["loc"]
        if kind == "default_factory_not_called":
            continue  # follows from another error, which is reported itself
        field = key(location, prefix)
        name = next((part for part in reversed(location) if isinstance(part, str)), "")
        if kind == "extra_forbidden":
            problems.append(Problem(field, shown(detail["input"]), "no such field: leave it out"))
        elif kind in ("model_type", "dict_type"):
            problems.append(Problem(field, shown(detail["input"]), "a table (JSON object) of fields"))
        elif kind == "missing":
            problems.append(Problem(field, MISSING, f"required: {allowed.get(name, 'a value')}"))
        else:
            problems.append(Problem(field, shown(detail["input"]), allowed.get(name, words(detail["msg"]))))
    return problems


def words(message: str) -> str:
    """What is allowed, of pydantic's own sentence."""
    for opening in ("Input should be ", "Value error, "):
        message = message.removeprefix(opening)
    return message


def key(location: tuple[int | str, ...], prefix: str = "") -> str:
    """``("rules", 3, "outputs", 0, "port")`` as ``rules[3].outputs[0].port``."""
    text = prefix
    for part in location:
        if part == "[key]":  # pydantic's way to say that it is not the value
            continue
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text and not text.endswith(" ") else part
    return text
