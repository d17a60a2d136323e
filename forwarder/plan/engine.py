"""Engines, and the rules that the XDP engine cannot serve. Pure."""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from forwarder.problems import first_of
from forwarder.rules.model import ForwardingRule

MOST_XDP_OUTPUTS: Final = 256
"""Output interfaces of one engine, and so outputs of one rule, since each is on an interface of its own."""


class Engine(StrEnum):
    """How datagrams are moved."""

    PACKET = "packet"
    XDP = "xdp"


def not_for_xdp(rule: ForwardingRule) -> str | None:
    """Why the kernel cannot tell a rule's outputs apart, or None."""
    if len(rule.outputs) > MOST_XDP_OUTPUTS:
        return f"{len(rule.outputs):,} outputs: with XDP a rule may have {MOST_XDP_OUTPUTS}"
    name, times = Counter(output.interface for output in rule.outputs).most_common(1)[0]
    return f"{times} outputs on {name}: with XDP a rule may have one on an interface" if times > 1 else None


def engine_warnings(engine: Engine, rules: Iterable[ForwardingRule]) -> list[str]:
    """Which rules the packet engine serves though XDP was asked for, and why."""
    if engine is Engine.PACKET:
        return []
    found = [f"{rule.rule_id} has {why}" for rule in rules if (why := not_for_xdp(rule))]
    if not found:
        return []
    served = "1 rule is served" if len(found) == 1 else f"{len(found):,} rules are served"
    return [f"{served} by the packet engine, not by XDP: {first_of(found)}."]
