"""The rule index: which partition holds a rule, and the numbers that its workers know it by. Pure.

An input interface gets the number that is part of a rule's key, an output interface its row of the workers'
link table, and a rule the slot of its counters in its partition.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from forwarder.engines.encoded_rules import output_row, raw_address, raw_port
from forwarder.plan.model import Plan
from forwarder.plan.placement import Distribution, distribution, owners
from forwarder.plan.strategy import RulePlacement
from forwarder.problems import Problem
from forwarder.rules.model import ForwardingRule
from forwarder.workers.encoding import WorkerRule

INPUTS: Final = 65_535
"""Input interfaces that a forwarder can know in its life: their number is part of a rule's key."""
FOREIGN: Final = 0
"""The counter slot of all rules that belong to another worker, where workers know these."""


class Numbering(dict[str, int]):
    """Gives each name a small number for good; OverflowError when there are more than ``most`` names."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __missing__(self, name: str) -> int:
        if len(self) >= self._most:
            raise OverflowError(f"more than {self._most} interfaces")
        return self.setdefault(name, len(self))


class Slots:
    """The counter slots of one partition behind ``reserved`` ones; a free slot is used before a new one."""

    def __init__(self, reserved: int = 0) -> None:
        self.used = reserved
        """One more than the highest slot ever assigned."""
        self.free: list[int] = []
        """Slots that were given back; that of a removed rule is not while workers count in it."""

    def take(self) -> int:
        if self.free:
            return self.free.pop()
        self.used += 1
        return self.used - 1


def rule_key(rule: ForwardingRule, inputs: Numbering) -> int:
    """What :func:`forwarder.engines.packet.rule_table.pack_key` makes of the rule's input."""
    interface = inputs[rule.input_interface]
    return interface << 48 | raw_port(rule.input_port) << 32 | raw_address(rule.input_group)


def worker_rule(rule: ForwardingRule, slot: int, inputs: Numbering, outputs: Numbering) -> WorkerRule:
    """The rule with every name resolved to its number."""
    resolved = tuple(output_row(output, outputs[output.interface]) for output in rule.outputs)
    return WorkerRule(rule_key(rule, inputs), slot, resolved)


class Placer:
    """Finds the partition of a plan that holds a rule."""

    def __init__(self, plan: Plan) -> None:
        self._strategy = plan.strategy
        self.groups: dict[int, list[int]] = {}
        """The partitions of each group's workers, in worker order."""
        for worker in plan.workers:
            self.groups.setdefault(worker.group, []).append(worker.partition)
        groups = plan.groups
        self._members = {name: self.groups[one.group_id] for one in groups for name in one.interfaces}
        self._anywhere = self.groups[groups[0].group_id] if plan.follows_rules else None

    def members(self, interface: str) -> list[int] | None:
        """The partitions of an interface's group, in slot order; None if it is in no group."""
        return self._members.get(interface, self._anywhere)

    def partitions(self, rules: Sequence[ForwardingRule]) -> list[int | None]:
        """The partition that holds each rule; None if its input interface is in no group."""
        found: list[int | None] = [None] * len(rules)
        hashed: dict[int, list[int]] = {}
        for index, rule in enumerate(rules):
            members = self.members(rule.input_interface)
            if members is None:
                continue
            found[index] = members[0]
            if self._strategy.placement is RulePlacement.HASH:
                hashed.setdefault(members[0], []).append(index)
        for indices in hashed.values():
            members = self.members(rules[indices[0]].input_interface)
            assert members is not None
            keys = [(int(rules[index].input_group), rules[index].input_port) for index in indices]
            slots = owners(keys, len(members), self._strategy.hashing)
            for index, slot in zip(indices, slots, strict=True):
                found[index] = members[slot]
        return found


class Removed(NamedTuple):
    """A rule that was taken out of the index."""

    key: int
    known_to: tuple[int, ...]
    """The partitions whose workers know it."""
    partition: int
    """The one that held it."""
    slot: int
    """Its counters' row there."""


class RuleIndex:
    """The rules of every partition, with the numbers that its workers know them by.

    Where rules are hashed to workers but datagrams are not steered by rule, a worker also knows the rules of
    the others in its group, as keys without outputs that count in :data:`FOREIGN`. It can then tell a
    datagram that reached the wrong worker from one that has no rule.

    ``most_rules``: limit of rules in a partition; ``most_outputs`` and ``most_inputs``: of interfaces that a
    worker can send to and receive from.
    """

    def __init__(self, plan: Plan, *, most_rules: int, most_outputs: int, most_inputs: int) -> None:
        self._most_rules = most_rules
        self._most_outputs = most_outputs
        self._most_inputs = most_inputs
        self._plan, self._placer = plan, Placer(plan)
        self.knows_foreign = plan.strategy.leaves_wrong_workers
        self._inputs = Numbering(INPUTS)
        self._outputs = Numbering(most_outputs)
        self._reserved = FOREIGN + 1 if self.knows_foreign else 0
        self._slots = {partition.partition_id: Slots(self._reserved) for partition in plan.partitions}
        self._rules_on: Counter[str] = Counter()
        self._rules: dict[int, dict[str, ForwardingRule]] = {number: {} for number in self._slots}
        self._places: dict[str, tuple[int, int]] = {}
        """The partition that holds each rule, and its slot there."""
        self._distributions: tuple[Distribution, ...] | None = None

    def __contains__(self, rule_id: object) -> bool:
        return rule_id in self._places

    def problems(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        """Why the index cannot take ``rules``; nothing if it can."""
        return tuple(self._problems(rules))

    def _problems(self, rules: Sequence[ForwardingRule]) -> Iterator[Problem]:
        served = ", ".join(self._plan.interfaces)
        more: Counter[int] = Counter()
        for index, (rule, partition) in enumerate(zip(rules, self._placer.partitions(rules), strict=True)):
            if partition is None:
                name = f"{rule.input_interface!r} of rule {rule.rule_id!r}"
                allowed = f"an interface that the workers serve: {served}"
                yield Problem(f"rules[{index}].input_interface", name, allowed)
                continue
            more[partition] += 1
            if self._reserved + len(self._rules[partition]) + more[partition] > self._most_rules:
                allowed = f"at most {self._most_rules:,} rules in a worker"
                yield Problem(f"rules[{index}]", rule.rule_id, allowed)
        names = {output.interface for rule in rules for output in rule.outputs} | self._outputs.keys()
        if len(names) > self._most_outputs:
            allowed = f"at most {self._most_outputs} of them"
            yield Problem("rules", f"{len(names)} output interfaces", allowed)
        if self._plan.follows_rules:
            inputs = {name for name, count in self._rules_on.items() if count}
            inputs |= {rule.input_interface for rule in rules}
            if len(inputs) > self._most_inputs:
                allowed = f"at most {self._most_inputs} in a worker"
                yield Problem("rules", f"{len(inputs)} input interfaces", allowed)

    def add(self, rules: Sequence[ForwardingRule]) -> dict[int, list[WorkerRule]]:
        """Take rules that :meth:`problems` accepts; returns what each partition has to know of them."""
        self._distributions = None
        added: dict[int, list[ForwardingRule]] = {}
        for rule, partition in zip(rules, self._placer.partitions(rules), strict=True):
            assert partition is not None, f"{rule.rule_id}: checked before"
            self._places[rule.rule_id] = partition, self._slots[partition].take()
            self._rules[partition][rule.rule_id] = rule
            self._rules_on[rule.input_interface] += 1
            for known in self._known_to(rule, partition):
                added.setdefault(known, []).append(rule)
        return {partition: self._resolved(partition, news) for partition, news in added.items()}

    def remove(self, rule: ForwardingRule) -> Removed:
        """Take a rule out; its slot can be given back when no worker counts in it any more."""
        self._distributions = None
        partition, slot = self._places.pop(rule.rule_id)
        del self._rules[partition][rule.rule_id]
        self._rules_on[rule.input_interface] -= 1
        return Removed(rule_key(rule, self._inputs), self._known_to(rule, partition), partition, slot)

    def give_back(self, removed: Removed) -> None:
        self._slots[removed.partition].free.append(removed.slot)

    def contents(self, partition: int) -> list[WorkerRule]:
        """Everything that a worker of a partition has to know."""
        known = self.rules(partition)
        if self.knows_foreign:
            placed = [(rule, number) for number in self._rules for rule in self.rules(number)]
            known = [rule for rule, number in placed if partition in self._known_to(rule, number)]
        return self._resolved(partition, known)

    def place(self, rule: ForwardingRule) -> tuple[int, int]:
        """The partition that holds a rule in force, and its counters' row there."""
        return self._places[rule.rule_id]

    def slots_used(self, partition: int) -> int:
        """Rows of counters that a partition has used so far; 0 for an unknown partition."""
        return self._slots[partition].used if partition in self._slots else 0

    def rules(self, partition: int) -> list[ForwardingRule]:
        return list(self._rules[partition].values())

    def held(self, partition: int) -> int:
        """Number of rules in a partition; 0 for an unknown partition."""
        return len(self._rules.get(partition, ()))

    def distributions(self) -> tuple[Distribution, ...]:
        """How the rules of each group are distributed over its workers; computed anew when rules change."""
        if self._distributions is None:
            groups = self._placer.groups.items()
            self._distributions = tuple(self._distribution(group, members) for group, members in groups)
        return self._distributions

    def _distribution(self, group: int, members: Sequence[int]) -> Distribution:
        rules = [rule for partition in dict.fromkeys(members) for rule in self.rules(partition)]
        keys = [(int(rule.input_group), rule.input_port) for rule in rules]
        return distribution(group, [self.held(partition) for partition in members], keys, self._plan.strategy)

    def input_number(self, interface: str) -> int:
        """The number of an input interface in the keys of its rules."""
        return self._inputs[interface]

    def rules_on(self, interface: str) -> int:
        return self._rules_on[interface]

    @property
    def outputs(self) -> dict[str, int]:
        """Row of the link table of each output interface."""
        return dict(self._outputs)

    def _known_to(self, rule: ForwardingRule, partition: int) -> tuple[int, ...]:
        if not self.knows_foreign:
            return (partition,)
        return tuple(self._placer.members(rule.input_interface) or ())

    def _resolved(self, partition: int, rules: Sequence[ForwardingRule]) -> list[WorkerRule]:
        placed = ((rule, *self._places[rule.rule_id]) for rule in rules)
        return [
            worker_rule(rule, slot, self._inputs, self._outputs)
            if holder == partition
            else WorkerRule(rule_key(rule, self._inputs), FOREIGN, ())
            for rule, holder, slot in placed
        ]
