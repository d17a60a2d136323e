"""Problems with input, reported the same way everywhere: field, value, and what is allowed.

Input is checked as a whole: every :class:`Problem` is collected, then all are raised at once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from pydantic import ValidationError

Log = Callable[[str], None]
"""Takes one sentence at a time, for whoever runs the forwarder."""

MISSING = "(missing)"
UNKNOWN = "no such field: leave it out"
_LONGEST_VALUE = 120

Location = tuple[int | str, ...]
"""Where in a document an error is, as pydantic has it: ``("rules", 3, "outputs", 0, "port")``."""


@dataclass(frozen=True)
class Problem:
    """One error in input."""

    field: str
    """The field's key, such as ``rules[3].outputs[0].port``, or its option on the command line."""
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value}; allowed: {self.allowed}"


class ProblemsError(ValueError):
    """Input was refused because of ``problems``, in order of appearance."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def flag(name: str) -> str:
    """A field's option on the command line."""
    return "--" + name.replace("_", "-")


def shown(value: object) -> str:
    """A value as messages show it: text is quoted, and the middle of a long value left out."""
    if isinstance(value, bool):
        value = "true" if value else "false"  # as in TOML and JSON
    elif isinstance(value, str | bytes):
        value = repr(value)
    text = str(value)
    if len(text) > _LONGEST_VALUE:
        text = f"{text[: _LONGEST_VALUE // 2]}…{text[-_LONGEST_VALUE // 3 :]} ({len(text)} characters)"
    return text


def first_of(names: Sequence[str], most: int = 8, separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def field_key(location: Location, prefix: str = "") -> str:
    """``("rules", 3, "outputs", 0, "port")`` as ``rules[3].outputs[0].port``, after ``prefix``."""
    text = prefix
    for part in location:
        if part == "[key]":  # pydantic's mark for the key of a mapping, as opposed to its value
            continue
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text and not text.endswith(" ") else part
    return text


_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
    "too_short": ("min_length", "at least this many entries:"),
    "too_long": ("max_length", "at most this many entries:"),
}
"""pydantic's errors that name a bound: the bound's name in the error, and words for it."""


def from_pydantic(
    error: ValidationError,
    allowed: Mapping[str, str] = MappingProxyType({}),
    prefix: str = "",
    *,
    field: Callable[[Location], str] | None = None,
    unknown: Callable[[Location], str] = lambda _: UNKNOWN,
) -> list[Problem]:
    """pydantic's errors as problems, one for each field.

    Args:
        allowed: what a field may be, by its name or by ``parent.name``. Other fields take the text of the
            nearest field around them, or else pydantic's own message.
        prefix: goes before each field's key.
        field: names a field, instead of its key after ``prefix``.
        unknown: what to say of a field that does not exist.
    """
    field = field or partial(field_key, prefix=prefix)
    problems: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        kind, location, value = detail["type"], detail["loc"], shown(detail["input"])
        context = detail.get("ctx", {})
        if kind == "default_factory_not_called":
            continue  # follows from another error, which is reported itself
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            tag, found = context["discriminator"].strip("'"), detail["input"]
            location = (*location, tag)
            value = shown(found[tag]) if isinstance(found, Mapping) and tag in found else MISSING
        names = [part for part in location if isinstance(part, str)]
        candidates = (".".join(names[-2:]), *reversed(names))
        expected = next((allowed[name] for name in candidates if name in allowed), None)
        if kind == "extra_forbidden":
            expected = unknown(location)
        elif kind == "model_type" or (kind == "dict_type" and expected is None):
            expected = "a table (JSON object) of fields"
        elif kind == "missing":
            value, expected = MISSING, f"required: {expected or 'a value'}"
        elif expected is None and kind in _BOUNDS:
            name, bound = _BOUNDS[kind]
            expected = f"{bound} {context[name]}"
        elif expected is None:
            expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        key = field(location)
        problems.setdefault(key, Problem(key, value, expected))
    return list(problems.values())
