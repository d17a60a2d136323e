"""The difference between a running forwarder and the wanted one. Pure: a dry run computes it and stops there.

A *state* is the shape of a plan and the rules in force. The running workers can add and remove rules. For a
plan of another shape, or a rule with other outputs, workers of the wanted plan are started beside the running
ones, and take over (:mod:`forwarder.supervisor.switchover`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic_core import to_jsonable_python

from forwarder.plan.model import GroupPlan, Plan
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule
from forwarder.workers.rule_index import Placer


@dataclass(frozen=True)
class Shape:
    """The parts of a plan that determine its workers, without what depends on the rules alone."""

    strategy: Mapping[str, object]
    """Name and axes."""
    groups: tuple[Mapping[str, object], ...]
    """Interfaces and number of workers of each; minimum and maximum for an elastic group."""
    workers: tuple[Mapping[str, object], ...]
    """Place and sockets of each."""
    settings: Mapping[str, object]
    """Options that apply to all workers, by name."""


@dataclass(frozen=True)
class State:
    shape: Shape
    rules: Mapping[str, ForwardingRule]


@dataclass(frozen=True)
class Difference:
    """The changes from one state to another; false when there are none."""

    shape: Shape | None
    """The shape of the new workers; ``None`` if it stays."""
    add: tuple[ForwardingRule, ...]
    remove: tuple[str, ...]
    """Ids of rules, including those that are added with other outputs."""
    switchover: bool
    """Whether new workers take over."""

    def __bool__(self) -> bool:
        return bool(self.switchover or self.add or self.remove)


def shape(plan: Plan, settings: Mapping[str, object]) -> Shape:
    """The shape of a plan; elastic groups have the size that the plan gives them, not their present one."""
    return Shape(
        asdict(plan.strategy),
        tuple(_group(plan, group) for group in plan.groups),
        tuple(
            {name: getattr(worker, name) for name in ("worker_id", "group", "cpu", "sockets")}
            for worker in plan.workers
        ),
        settings,
    )


def _group(plan: Plan, group: GroupPlan) -> dict[str, object]:
    bounds = {"min_workers": group.min_workers, "max_workers": group.max_workers}
    size = bounds if group.elastic else {"workers": group.workers}
    # where workers that join later may run
    node = {"memory_node": group.node} if len(plan.nodes) > 1 else {}
    return {"group": group.group_id, "interfaces": group.interfaces, **size, **node}


def difference(now: State, wanted: State) -> Difference:
    differing = [name for name, rule in wanted.rules.items() if now.rules.get(name, rule) != rule]
    add = tuple(rule for name, rule in wanted.rules.items() if now.rules.get(name) != rule)
    remove = (*(name for name in now.rules if name not in wanted.rules), *differing)
    # Rules are added before others are removed, and must not collide with them.
    collide = bool(remove) and bool(add) and bool(RuleBook(now.rules.values()).check(add))
    other = wanted.shape if wanted.shape != now.shape else None
    return Difference(other, add, remove, switchover=other is not None or bool(differing) or collide)


def moved_rules(before: Plan, after: Plan, rules: Sequence[ForwardingRule]) -> int:
    """How many of the rules are in another partition, by number, in the other plan."""
    pairs = zip(Placer(before).partitions(rules), Placer(after).partitions(rules), strict=True)
    return sum(old != new for old, new in pairs)


def as_dict(found: Difference, now: State, moved: int) -> dict[str, Any]:
    """The difference for the answer to `apply`."""
    reshaped = None
    if found.shape is not None:
        shapes = {"now": now.shape, "wanted": found.shape}
        parts = {
            field.name: {when: getattr(shape, field.name) for when, shape in shapes.items()}
            for field in fields(Shape)
        }
        reshaped = {
            name: to_jsonable_python(part) for name, part in parts.items() if part["now"] != part["wanted"]
        }
    added = dict.fromkeys(rule.rule_id for rule in found.add)  # in the order of the file
    return {
        "plan": reshaped,
        "workers_relieved": found.switchover,
        "rules_added": [name for name in added if name not in now.rules],
        "rules_changed": [name for name in found.remove if name in added],
        "rules_removed": [name for name in found.remove if name not in added],
        "rules_moved": moved,
    }
