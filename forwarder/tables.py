"""Rules as workers hold them: keys, slots and outputs as numbers. Pure.

Names become numbers here: input interfaces get the slot that is part of a rule's key, output interfaces the
row of the workers' link table, rules a slot for their counters in each partition that holds them.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from forwarder.channel import WorkerRule
from forwarder.packet.layout import SOURCE_INTERFACE, SOURCE_PRESERVE
from forwarder.placement import owner
from forwarder.planned import Plan
from forwarder.rules import ForwardingRule, Output
from forwarder.strategy import RulePlacement


class Numbering:
    """Gives each name a small number, the same for as long as it is known."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Raises OverflowError when there are more than ``most`` names."""
        found = self._numbers.get(name)
        if found is None:
            if len(self._numbers) >= self.most:
                raise OverflowError(f"more than {self.most} interfaces")
            found = self._numbers[name] = len(self._numbers)
        return found

    def names(self) -> dict[str, int]:
        return dict(self._numbers)


class Slots:
    """The counter slots of one partition: dense, the lowest free one first."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._of)

    @property
    def used(self) -> int:
        """One more than the highest slot ever taken."""
        return len(self._of) + len(self._free)

    def take(self, rule_id: str) -> int:
        slot = self._free.pop() if self._free else len(self._of)
        self._of[rule_id] = slot
        return slot

    def give_back(self, rule_id: str) -> int:
        slot = self._of.pop(rule_id)
        self._free.append(slot)
        return slot

    def __getitem__(self, rule_id: str) -> int:
        return self._of[rule_id]


def raw_address(address: IPv4Address) -> int:
    """Four bytes in network order, read as a native word."""
    return int.from_bytes(address.packed, "little")


def raw_port(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), "little")


def rule_key(rule: ForwardingRule, inputs: Numbering) -> int:
    """What :func:`forwarder.packet.table.pack_key` makes of the rule's input."""
    interface = inputs.number(rule.input_interface)
    return interface << 48 | raw_port(rule.input_port) << 32 | raw_address(rule.input_group)


def worker_rule(rule: ForwardingRule, slot: int, inputs: Numbering, outputs: Numbering) -> WorkerRule:
    """The rule with every name resolved to its number."""
    return WorkerRule(
        key=rule_key(rule, inputs),
        slot=slot,
        outputs=tuple(_worker_output(output, outputs) for output in rule.outputs),
    )


def _worker_output(output: Output, outputs: Numbering) -> tuple[int, int, int, int]:
    if output.source is None:
        source = SOURCE_INTERFACE
    elif output.source == "preserve":
        source = SOURCE_PRESERVE
    else:
        source = raw_address(IPv4Address(output.source))
    port_ttl = raw_port(output.port) | (output.ttl or 0) << 16
    return raw_address(output.group), source, port_ttl, outputs.number(output.interface)


class Placer:
    """Says which of a plan's rule tables hold a rule."""

    def __init__(self, plan: Plan) -> None:
        self._strategy = plan.strategy
        members: dict[int, list[int]] = {}
        for worker in plan.workers:
            members.setdefault(worker.group, []).append(worker.partition)
        self._members = {name: members[group.group_id] for group in plan.groups for name in group.interfaces}

    def partition(self, rule: ForwardingRule) -> int | None:
        """None when the rule's input interface is in no group."""
        members = self._members.get(rule.input_interface)
        if members is None:
            return None
        if self._strategy.placement is RulePlacement.HASH:
            return members[
                owner(int(rule.input_group), rule.input_port, len(members), self._strategy.hashing)
            ]
        return members[0]
