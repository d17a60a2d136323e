"""The XDP engine: programs and maps that forward in the kernel, without a process.

The kernel reads what is written here while datagrams flow, so the order of changes matters:

* What an entry refers to is there before the entry: outputs and sets of outputs, then the rule that leads to
  them.
* An entry goes first, then what it refers to, once no CPU handles a datagram that has seen it.
* Programs are attached by descriptors of this process: when it ends in whatever way, nothing stays attached.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from forwarder.abi import bpf, netdev
from forwarder.abi.bpf_maps import Map
from forwarder.abi.bpf_object import Object
from forwarder.engines.encoded_rules import output_row, raw_address, raw_port
from forwarder.engines.xdp import layout, suitability
from forwarder.engines.xdp.layout import Counts, RuleCount
from forwarder.engines.xdp.sets import Numbers, OutputSets, put, word
from forwarder.engines.xdp.suitability import Device, UnsuitedError
from forwarder.plan.engine import MOST_XDP_OUTPUTS, not_for_xdp
from forwarder.rules.model import ForwardingRule, Node

Find = Callable[[str], Device | None]
Features = Callable[[int], int]

RULES: Final = 16_384
OUTPUTS: Final = 65_536


@dataclass
class _Rule:
    """A rule that is in the maps."""

    rule: ForwardingRule
    number: int
    """Its row of counters, and what its datagrams carry from input to output."""
    links: tuple[int, ...]


@dataclass
class _Input:
    ifindex: int
    link: int
    """Descriptor of the attachment."""
    virtual: bool
    """Frames come from this machine, with checksums that may be left to be filled in."""


class XdpEngine(AbstractContextManager["XdpEngine"]):
    """The programs, loaded, and the rules in their maps. A context manager.

    Args:
        find: the interface that a name means now.
        rules, outputs: how many there is room for, in all.
        features: what a device can do, by its index.

    Raises OSError: the kernel does not take the programs, or libbpf is missing.
    """

    def __init__(
        self,
        find: Find,
        *,
        rules: int = RULES,
        outputs: int = OUTPUTS,
        features: Features = netdev.xdp_features,
    ) -> None:
        sizes = {"rules": rules, "outputs": outputs, "many": rules, "rule_counts": rules}
        with ExitStack() as stack:
            loaded = stack.enter_context(Object(layout.OBJECT, sizes))
            self._ingress, self._egress = loaded.program("ingress"), loaded.program("egress")
            names = ("rules", "outputs", "links", "smallest", "one", "many", "counters", "rule_counts")
            self._maps = {name: loaded.map(name) for name in names}
            _spread_identifications(loaded.map("state"))
            loaded.attach("transmitted")
            self._stack = stack.pop_all()
        self._find, self._features = find, features
        self._rules: dict[Node, _Rule] = {}
        self._numbers = Numbers(rules, "rules")
        self._sets = OutputSets(self._maps["many"], rules)
        self._rows: dict[str, int] = {}
        """Rows of output interfaces in "links" and "one", for good."""
        self._devices: dict[int, Device] = {}
        """Output interfaces that can be used now, by row."""
        self._inputs: dict[str, _Input] = {}
        self._rules_on: Counter[str] = Counter()
        """How many rules each input has."""
        self.refused: dict[str, str] = {}
        """Input interfaces that exist and cannot be served, and why."""

    # -- rules --

    def unsuited(self, rules: Iterable[ForwardingRule]) -> dict[str, str]:
        """Why rules cannot be served, by id, as their outputs and the interfaces of these are now."""
        asked: dict[str, str | None] = {}
        found = {}
        for rule in rules:
            reasons = [not_for_xdp(rule)]
            for name in {output.interface for output in rule.outputs}:
                if name not in asked:
                    device = self._find(name)
                    asked[name] = self._trouble_of_output(name, device) if device else None
                reasons.append(asked[name])
            if reason := next(filter(None, reasons), None):
                found[rule.rule_id] = reason
        return found

    def add(self, rules: Sequence[ForwardingRule]) -> None:
        """Put rules in force, in place of those with the same input; all of them or none.

        Raises UnsuitedError: one cannot be served, or there is no room; OSError: the kernel refuses.
        """
        for reason in self.unsuited(rules).values():
            raise UnsuitedError(reason)
        rules = list({rule.node: rule for rule in rules}.values())
        before = [self._rules[rule.node] for rule in rules if rule.node in self._rules]
        made: list[_Rule] = []
        try:
            self._numbers.check(len(rules))
            for rule in rules:
                links = tuple(self._row(output.interface) for output in rule.outputs)
                if len(links) > 1:
                    self._sets.use(links, self._destination_of)
                made.append(_Rule(rule, self._numbers.take(), links))
            self._write_outputs(made)
            self._write_rules(made)
        except (OSError, UnsuitedError):
            self._delete_keys(one for one in made if one.rule.node not in self._rules)
            self._write_rules(before)
            self._retire(made)
            self._give_back(one.number for one in made)
            raise
        self._rules.update((one.rule.node, one) for one in made)
        self._rules_on.update(one.rule.input_interface for one in made)
        self._rules_on.subtract(one.rule.input_interface for one in before)
        self._retire(before)
        self._give_back(one.number for one in before)
        for name in {rule.input_interface for rule in rules} - self.refused.keys():
            self._set_input(name)

    def remove(self, rules: Iterable[ForwardingRule]) -> dict[Node, RuleCount]:
        """Take rules out of force; when this returns no datagram is on its way by them. Their last counts."""
        gone = [self._rules.pop(rule.node) for rule in rules if rule in self]
        self._rules_on.subtract(one.rule.input_interface for one in gone)
        self._delete_keys(gone)
        self._retire(gone)
        counts, numbers = self._maps["rule_counts"], [one.number for one in gone]
        rows = np.zeros((len(gone), counts.cpus), layout.RULE_COUNT)
        for row, number in enumerate(numbers):
            rows[row] = counts.per_cpu(word(number), layout.RULE_COUNT)
        self._give_back(numbers)
        for name in {one.rule.input_interface for one in gone}:
            self._set_input(name)
        return dict(zip((one.rule.node for one in gone), layout.rule_counts(rows), strict=True))

    def __contains__(self, rule: ForwardingRule) -> bool:
        held = self._rules.get(rule.node)
        return held is not None and held.rule == rule

    # -- interfaces --

    def refit(self) -> None:
        """Fit everything to the interfaces as they are, whenever those change.

        Raises OSError: the kernel refuses.
        """
        for name, row in self._rows.items():
            self._set_output(name, row)
        for name in {*self._rules_on, *self._inputs}:
            self._set_input(name)

    def detach(self) -> None:
        """Let nothing more in, for good; when this returns no datagram is on its way."""
        for name in [*self._inputs]:
            self._detach(name)
        netdev.wait_for_receivers()

    def close(self) -> None:
        """Detach from every interface and unload; nothing is left."""
        self.detach()
        self._stack.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- counts --

    @property
    def inputs(self) -> dict[str, int]:
        """The interfaces that the program is attached to, and their indices."""
        return {name: held.ifindex for name, held in self._inputs.items()}

    def counts(self) -> Counts:
        """What all rules and interfaces together came to since the engine was made."""
        return layout.counts(self._maps["counters"].per_cpu(word(0), layout.COUNTERS))

    def rule_counts(self) -> dict[Node, RuleCount]:
        """What was counted of each rule since it was added."""
        rows = self._maps["rule_counts"].read_array(layout.RULE_COUNT)
        numbers = [held.number for held in self._rules.values()]
        return dict(zip(self._rules, layout.rule_counts(rows[numbers]), strict=True))

    # -- inside: rules --

    def _row(self, name: str) -> int:
        if name not in self._rows and len(self._rows) == MOST_XDP_OUTPUTS:
            raise UnsuitedError(f"output interface {name}: XDP serves at most {MOST_XDP_OUTPUTS} of them")
        if name not in self._rows:
            self._rows[name] = len(self._rows)
            self._set_output(name, self._rows[name])
        return self._rows[name]

    def _write_outputs(self, rules: Iterable[_Rule], only: int | None = None) -> None:
        """Write outputs of rules; ``only``: those to one row of "links"."""
        places, rows = [], []
        for held in rules:
            for output, link in zip(held.rule.outputs, held.links, strict=True):
                device = self._devices.get(link)
                if device and only in (None, link):
                    places.append((held.number, device.ifindex))
                    rows.append(output_row(output, link))
        self._maps["outputs"].update_many(np.array(places, layout.PLACE), np.array(rows, layout.OUTPUT))

    def _write_rules(self, rules: Iterable[_Rule]) -> None:
        """Write the rules whose input is served."""
        keys, values = [], []
        for held in rules:
            if one := self._inputs.get(held.rule.input_interface):
                keys.append(self._key(held, one.ifindex))
                target = held.links[0] if len(held.links) == 1 else self._sets.key(held.links)
                values.append((held.number, len(held.links), target, one.virtual))
        self._maps["rules"].update_many(np.array(keys, layout.INPUT), np.array(values, layout.RULE))

    def _key(self, held: _Rule, ifindex: int) -> tuple[int, int, int, int]:
        return ifindex, raw_address(held.rule.input_group), raw_port(held.rule.input_port), 0

    def _delete_keys(self, rules: Iterable[_Rule]) -> None:
        for held in rules:
            if one := self._inputs.get(held.rule.input_interface):
                self._maps["rules"].delete(_bytes(self._key(held, one.ifindex), layout.INPUT))

    def _retire(self, rules: Sequence[_Rule]) -> None:
        """Give back what rules used that no key leads to any more."""
        if not rules:
            return
        netdev.wait_for_receivers()
        for held in rules:
            for link in held.links:
                if device := self._devices.get(link):
                    self._maps["outputs"].delete(_bytes((held.number, device.ifindex), layout.PLACE))
            self._sets.leave(held.links)

    def _give_back(self, numbers: Iterable[int]) -> None:
        """Clear the counters of rules that have retired, for other rules."""
        counts = self._maps["rule_counts"]
        for number in numbers:
            counts.update(word(number), bytes(counts.value_bytes * counts.cpus))
            self._numbers.give(number)

    # -- inside: interfaces --

    def _trouble_of_output(self, name: str, device: Device) -> str | None:
        try:
            return suitability.of_output(name, self._features(device.ifindex))
        except OSError:  # it is gone by now, and the kernel will say so
            return None

    def _usable(self, name: str) -> Device | None:
        """An output interface if copies can leave by it."""
        device = self._find(name)
        if device is None or device.ipv4 is None or self._trouble_of_output(name, device):
            return None
        return device

    def _set_output(self, name: str, row: int) -> None:
        """Have copies leave by an interface as it is now, or by none."""
        before, device = self._devices.get(row), self._usable(name)
        if device == before:
            return
        users = [held for held in self._rules.values() if row in held.links]
        if before and (device is None or device.ifindex != before.ifindex):
            self._point(row, None)
            netdev.wait_for_receivers()
            for held in users:
                self._maps["outputs"].delete(_bytes((held.number, before.ifindex), layout.PLACE))
            del self._devices[row]
        if device:
            self._maps["links"].update(word(row), _link(device))
            self._devices[row] = device
        shortest = min((each.mtu for each in self._devices.values()), default=0)
        self._maps["smallest"].update(word(0), word(shortest))
        if device and (before is None or before.ifindex != device.ifindex):
            self._write_outputs(users, row)
            self._point(row, device)

    def _point(self, row: int, device: Device | None) -> None:
        """Put an interface into the devmaps that have a place for it, or take it out."""
        destination = self._destination(device) if device else None
        put(self._maps["one"], row, destination)
        self._sets.point(row, destination)

    def _destination(self, device: Device) -> bytes:
        return _bytes((device.ifindex, self._egress), layout.DEVICE)

    def _destination_of(self, row: int) -> bytes | None:
        device = self._devices.get(row)
        return self._destination(device) if device else None

    def _set_input(self, name: str) -> None:
        """Take datagrams in from an interface as it is now if it has rules."""
        held, device = self._inputs.get(name), self._find(name) if self._rules_on[name] else None
        if held and device and device.ifindex == held.ifindex:
            return
        if held:
            self._detach(name)
        self.refused.pop(name, None)
        if device is None:
            return
        try:
            reason = suitability.of_input(name, self._features(device.ifindex))
        except OSError:
            return
        if reason is None:
            try:
                self._attach(name, device)
            except OSError as error:
                reason = suitability.of_attachment(name, device.mtu, error)
        if reason:
            self.refused[name] = reason

    def _attach(self, name: str, device: Device) -> None:
        link = bpf.attach_xdp(self._ingress, device.ifindex)
        wired = Path(f"/sys/class/net/{name}/device").exists()
        self._inputs[name] = _Input(device.ifindex, link, virtual=not wired)
        try:
            self._write_rules(held for held in self._rules.values() if held.rule.input_interface == name)
        except OSError:
            self._detach(name)
            raise

    def _detach(self, name: str) -> None:
        os.close(self._inputs[name].link)
        self._delete_keys(held for held in self._rules.values() if held.rule.input_interface == name)
        del self._inputs[name]


def _link(device: Device) -> bytes:
    """A row of "links"."""
    numbers = (device.ipv4 or bytes(4), device.mtu.to_bytes(4, "little"), device.mac[:4], device.mac[4:])
    return _bytes((device.ifindex, *(int.from_bytes(each, "little") for each in numbers)), layout.LINK)


def _bytes(values: tuple[int, ...], kind: npt.DTypeLike) -> bytes:
    return np.array(values, kind).tobytes()


def _spread_identifications(state: Map) -> None:
    """Start each CPU somewhere else: those of one source address should not run in step."""
    rows = np.zeros(state.cpus, layout.STATE)
    rows["identification"] = np.frombuffer(os.urandom(2 * state.cpus), np.uint16)
    state.update(word(0), rows.tobytes())
