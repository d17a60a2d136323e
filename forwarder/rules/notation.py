"""Outputs of rules as the command line writes them: ``group:port:interface``, and what else there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forwarder.problems import Problem, shown
from forwarder.rules.model import PORT_ALLOWED, TTL_ALLOWED, RulesError

_ALLOWED = "group:port:interface, then :ttl=N and :source=ADDRESS or :source=preserve when wanted, each once"


def parse_outputs(text: str) -> list[dict[str, str | int]]:
    """``239.2.2.2:5002:veth1[:ttl=N][:source=ADDRESS][,...]`` as the ``outputs`` of a rule yet to be checked
    by :func:`parse_rules`.

    Raises :class:`RulesError` when an item has other parts, or a port or time to live that is no number.
    """
    outputs: list[dict[str, str | int]] = []
    problems = []
    for place, item in enumerate(text.split(",")):
        group, port, interface, *extra = [*item.strip().split(":"), "", "", ""]
        more = [part.partition("=")[::2] for part in extra[: item.count(":") - 2]]
        names = [name for name, _ in more]
        if item.count(":") < 2 or not set(names) <= {"ttl", "source"} or len(set(names)) < len(names):
            problems.append(Problem(f"outputs[{place}]", shown(item), _ALLOWED))
            continue
        output: dict[str, str | int] = {"group": group, "port": port, "interface": interface, **dict(more)}
        for name, allowed in (("port", PORT_ALLOWED), ("ttl", TTL_ALLOWED)):
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
