"""Engines, what they cannot serve, and where datagrams are dropped early. Pure."""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from forwarder.plan.model import Plan
from forwarder.problems import first_of
from forwarder.rules.model import ForwardingRule

MOST_XDP_OUTPUTS: Final = 256
"""Output interfaces of one engine, and so outputs of one rule, since each is on an interface of its own."""


class Engine(StrEnum):
    """How datagrams are moved."""

    PACKET = "packet"
    XDP = "xdp"


class EarlyDrop(StrEnum):
    """Whether multicast for a ring that is nearly full is dropped by the driver."""

    AUTO = "auto"
    """Where that takes nothing from anybody else."""
    ON = "on"
    OFF = "off"


def no_early_drop(plan: Plan, engine: Engine) -> dict[str, str]:
    """Interfaces of a plan that cannot have early drop, and why."""
    if engine is Engine.XDP:
        return dict.fromkeys(plan.interfaces, "XDP forwards in front of the workers")
    found = {}
    for group in plan.groups:
        if group.max_workers > 1:
            to = "" if group.max_workers == group.workers else f" to {group.max_workers:,}"
            found.update(dict.fromkeys(group.interfaces, f"{group.workers:,}{to} workers share it"))
    return found


def early_drop_text(plan: Plan, engine: Engine, choice: EarlyDrop) -> str:
    """Where early drop is used, in a sentence."""
    if choice is EarlyDrop.OFF:
        return "No early drop: it is off."
    without = no_early_drop(plan, engine)
    if len(without) < len(plan.interfaces) or not plan.interfaces:
        where = first_of([name for name in plan.interfaces if name not in without]) or "interfaces with rules"
        return f"Early drop on {where}" + (
            ", if they are network cards." if choice is EarlyDrop.AUTO else "."
        )
    reasons: dict[str, list[str]] = {}
    for name, why in without.items():
        reasons.setdefault(why, []).append(name)
    return f"No early drop: {first_of([f'{why} ({first_of(names, 4)})' for why, names in reasons.items()])}."


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
