"""Forwarding rules: what one is, how a set of them is read, and what a set may hold.

Rules that a set keeps (:class:`RuleBook` is the one that checks them):

* no two rules have the same id, nor the same input (interface, group, port): a datagram matches one rule;
* no output of a rule is repeated: a receiver would get the datagram twice;
* no output is the rule's own input, and no chain of rules leads back to where it began. The graph has a node
  for each (interface, group, port) and an edge from a rule's input to each of its outputs; an edge back to a
  node upstream is a *loop*, whatever the TTL: the network between may send the datagram round until it dies.

Every check is linear in the rules, and adding a rule costs what it touches, not what the set holds.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from forwarder.problems import Problem, ProblemsError, from_pydantic, shown
from forwarder.rules.loops import disjoint_loops, first_closed

__all__ = [
    "ForwardingRule",
    "Output",
    "Problem",
    "RuleBook",
    "RulesError",
    "check_rules",
    "interface_name",
    "load_rules",
    "parse_rules",
]

Node = tuple[str, int, int]
"""(interface, group as an integer, port)"""

_INTERFACE_NAME = "an interface name: 1 to 15 bytes, without '/', ':' or white space"
_GROUP = "an IPv4 multicast address, 224.0.0.0 to 239.255.255.255"
PORT_ALLOWED = "an integer from 1 to 65535"
TTL_ALLOWED = "an integer from 1 to 255, or left out (the datagram's own, less one)"
_ALLOWED = {
    "rules": "a list of rules",
    "rule_id": "1 to 128 printable characters, or left out (interface:group:port)",
    "input_interface": _INTERFACE_NAME,
    "input_group": _GROUP,
    "input_port": PORT_ALLOWED,
    "outputs": "a list of 1 to 4096 outputs",
    "group": _GROUP,
    "port": PORT_ALLOWED,
    "interface": _INTERFACE_NAME,
    "ttl": TTL_ALLOWED,
    "source": "a unicast IPv4 address, 'preserve', or left out (the output interface's address)",
}


class RulesError(ProblemsError):
    """Rules that cannot be used."""


def interface_name(value: object) -> str:
    """``value`` if the kernel would take it as a device's name (``dev_valid_name``); else ValueError."""
    if not isinstance(value, str) or not _is_interface_name(value):
        raise ValueError(_INTERFACE_NAME)
    return value


@lru_cache(maxsize=4096)  # thousands of rules name a few interfaces
def _is_interface_name(name: str) -> bool:
    return (
        1 <= len(name.encode("utf-8", "surrogatepass")) <= 15
        and name not in (".", "..")
        and not any(c in "/:\0" or c.isspace() for c in name)
    )


_OCTETS = {str(number): number for number in range(256)}


def _address(value: object) -> IPv4Address:
    """An address from text, and from text only: ``IPv4Address`` would take integers and bytes, too.

    Octets are looked up, which is an eighth of the time that ``IPv4Address`` takes to read text; it was
    a third of the time to read 10,000 rules.
    """
    if isinstance(value, IPv4Address):
        return value
    if not isinstance(value, str):
        raise ValueError("an IPv4 address as text")
    try:
        a, b, c, d = map(_OCTETS.__getitem__, value.split("."))
    except (KeyError, ValueError):
        raise ValueError("an IPv4 address") from None
    return IPv4Address(a << 24 | b << 16 | c << 8 | d)


def _multicast(value: object) -> IPv4Address:
    address = _address(value)
    if int(address) >> 28 != 0b1110:
        raise ValueError(_GROUP)
    return address


def _source(value: object) -> object:
    if value is None or value == "preserve":
        return value
    address = _address(value)
    if not 0 < int(address) < 0xE000_0000:  # 224.0.0.0 and above: multicast, reserved, broadcast
        raise ValueError("a unicast IPv4 address")
    return address


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("printable characters")
    return value


MOST_OUTPUTS: Final = 4096
"""Of one rule: they reach a worker in one message."""


def _some(outputs: tuple[Output, ...]) -> tuple[Output, ...]:
    """Checked here, not by ``min_length``, which also complains when the only output has a bad field."""
    if not 1 <= len(outputs) <= MOST_OUTPUTS:
        raise ValueError("1 to 4096 outputs")
    return outputs


InterfaceName = Annotated[str, BeforeValidator(interface_name)]
Group = Annotated[IPv4Address, BeforeValidator(_multicast)]
RuleId = Annotated[str, Field(strict=True, min_length=1, max_length=128), AfterValidator(_printable)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


class Output(BaseModel):
    """Where a matching datagram goes; ``ttl`` and ``source`` left out: as the forwarder sets them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Group
    port: Port
    interface: InterfaceName
    ttl: Annotated[int, Field(strict=True, ge=1, le=255)] | None = None
    source: Annotated[IPv4Address | Literal["preserve"] | None, BeforeValidator(_source)] = None

    @property
    def node(self) -> Node:
        return (self.interface, int(self.group), self.port)


class ForwardingRule(BaseModel):
    """Datagrams to ``input_group:input_port`` that arrive on ``input_interface`` go to every output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The id comes last because it is derived from the fields before it when left out.
    input_interface: InterfaceName
    input_group: Group
    input_port: Port
    outputs: Annotated[tuple[Output, ...], AfterValidator(_some)]
    rule_id: RuleId = Field(
        default_factory=lambda fields: "{input_interface}:{input_group}:{input_port}".format_map(fields)
    )

    @property
    def node(self) -> Node:
        return (self.input_interface, int(self.input_group), self.input_port)


_rule_list: TypeAdapter[list[ForwardingRule]] = TypeAdapter(list[ForwardingRule])
_rule: TypeAdapter[ForwardingRule] = TypeAdapter(ForwardingRule)


class _Linked(NamedTuple):
    """A rule with its place in the graph, worked out once."""

    rule: ForwardingRule
    node: Node
    targets: tuple[Node, ...]


class RuleBook:
    """A set of rules that is right at all times: ``add`` takes all of its rules, or none and says why.

    Holds no locks and does no I/O. A change costs the rules given, their outputs and the chains they are part
    of (the shorter of what lies upstream and downstream), so that 10,000 single additions stay linear.
    """

    def __init__(self, rules: Iterable[ForwardingRule] = ()) -> None:
        """Raises :class:`RulesError` when ``rules`` do not go together."""
        self._by_id: dict[str, _Linked] = {}
        # Lists, and counts of parallel edges, because candidates are linked before they are checked.
        self._by_input: dict[Node, list[_Linked]] = {}
        self._upstream: dict[Node, dict[Node, int]] = {}
        problems = self.add(list(rules))
        if problems:
            raise RulesError(problems)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[ForwardingRule]:
        """The rules, in the order they were added."""
        return (linked.rule for linked in self._by_id.values())

    def __contains__(self, rule_id: object) -> bool:
        return rule_id in self._by_id

    def get(self, rule_id: str) -> ForwardingRule | None:
        linked = self._by_id.get(rule_id)
        return linked.rule if linked else None

    def add(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        """Add all of ``rules``, or none: then the answer is every problem, by place in ``rules``."""
        return self._try(rules, keep=True)

    def check(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        """What :meth:`add` would answer; the book stays as it is."""
        return self._try(rules, keep=False)

    def remove(self, rule_id: str) -> ForwardingRule:
        """Take one rule out and return it; raises :class:`RulesError` when there is none of that id."""
        linked = self._by_id.pop(rule_id, None)
        if linked is None:
            raise RulesError([Problem("rule_id", shown(rule_id), "the id of a rule in force")])
        self._unlink(linked)
        return linked.rule

    def _try(self, rules: Sequence[ForwardingRule], keep: bool) -> tuple[Problem, ...]:
        added = [_Linked(rule, rule.node, tuple([output.node for output in rule.outputs])) for rule in rules]
        problems = self._clashes(added)
        for linked in added:
            self._link(linked)
        problems += self._loops(added)
        if keep and not problems:
            self._by_id.update((linked.rule.rule_id, linked) for linked in added)
        else:
            for linked in added:
                self._unlink(linked)
        return tuple(problems)

    def _clashes(self, added: Sequence[_Linked]) -> list[Problem]:
        """Ids and inputs that are taken, and what is wrong within a rule."""
        problems = []
        ids: dict[str, int] = {}
        inputs: dict[Node, int] = {}
        for index, (rule, node, targets) in enumerate(added):
            where, name = f"rules[{index}]", repr(rule.rule_id)
            first = ids.setdefault(rule.rule_id, index)
            if rule.rule_id in self._by_id or first != index:
                other = "a rule in force" if rule.rule_id in self._by_id else f"rules[{first}]"
                problems.append(Problem(f"{where}.rule_id", name, f"an id of its own: {other} has it"))
            first = inputs.setdefault(node, index)
            if node in self._by_input or first != index:
                other = (self._by_input[node][0] if node in self._by_input else added[first]).rule.rule_id
                allowed = f"one rule for each input interface, group and port: rule {other!r} has it"
                problems.append(Problem(where, f"rule {name} matches {_show(node)}", allowed))
            if len(targets) == 1 and targets[0] != node:
                continue  # nearly every rule: nothing to compare
            outputs: dict[Node, int] = {}
            for place, target in enumerate(targets):
                at = f"{where}.outputs[{place}]"
                if target == node:
                    value = f"{_show(target)} is the input of its own rule {name}"
                    allowed = "an output other than the rule's input: the datagram would loop"
                    problems.append(Problem(at, value, allowed))
                first = outputs.setdefault(target, place)
                if first != place:
                    value = f"{_show(target)} is outputs[{first}] of rule {name}, too"
                    problems.append(Problem(at, value, "each output once"))
        return problems

    def _link(self, linked: _Linked) -> None:
        self._by_input.setdefault(linked.node, []).append(linked)
        for target in linked.targets:
            sources = self._upstream.setdefault(target, {})
            sources[linked.node] = sources.get(linked.node, 0) + 1

    def _unlink(self, linked: _Linked) -> None:
        node = linked.node
        self._by_input[node].remove(linked)
        if not self._by_input[node]:
            del self._by_input[node]
        for target in linked.targets:
            sources = self._upstream[target]
            sources[node] -= 1
            if not sources[node]:
                del sources[node]
                if not sources:
                    del self._upstream[target]

    def _downstream_of(self, node: Node) -> Iterable[Node]:
        return [target for linked in self._by_input.get(node, ()) for target in linked.targets]

    def _upstream_of(self, node: Node) -> Iterable[Node]:
        return self._upstream.get(node, ())

    def _loops(self, added: Sequence[_Linked]) -> list[Problem]:
        """One problem for each of a set of loops that share no node, as large as can be.

        The book had none before, so a loop passes through an added rule, and lies both downstream and
        upstream of the added rules: it is enough to search whichever of the two closes first.
        """
        nodes = list(dict.fromkeys(linked.node for linked in added))
        region = first_closed(nodes, self._downstream_of, self._upstream_of)
        place_of = {id(linked): place for place, linked in enumerate(added)}
        problems = []
        for loop in disjoint_loops(nodes, region, self._downstream_of):
            edges = [self._edge(a, b) for a, b in itertools.pairwise([*loop, loop[0]])]
            start = next(n for n, edge in enumerate(edges) if id(edge) in place_of)
            edges = [*edges[start:], *edges[:start]]
            path = [_show(edge.node) for edge in [*edges, edges[0]]]
            names = _shortened([repr(edge.rule.rule_id) for edge in edges])
            problems.append(
                Problem(
                    f"rules[{place_of[id(edges[0])]}]",
                    " -> ".join(_shortened(path)),
                    f"no loop: rules {', '.join(names)} would send a datagram back to where it came in",
                )
            )
        return problems

    def _edge(self, node: Node, target: Node) -> _Linked:
        """The rule that leads from ``node`` to ``target``: one in force, if there is one."""
        return next(linked for linked in self._by_input[node] if target in linked.targets)


def _show(node: Node) -> str:
    interface, group, port = node
    return f"{interface} {IPv4Address(group)}:{port}"


def _shortened(names: list[str], most: int = 16) -> list[str]:
    if len(names) <= most:
        return names
    return [*names[: most // 2], f"… {len(names) - most} more …", *names[-most // 2 :]]


def check_rules(existing: Sequence[ForwardingRule], added: Sequence[ForwardingRule]) -> list[Problem]:
    """All that is wrong with adding ``added`` to ``existing`` (which is right), by place in ``added``."""
    return list(RuleBook(existing).check(added))


def parse_rules(data: object) -> list[ForwardingRule]:
    """Rules from decoded JSON or TOML: ``{"rules": [...]}`` or the list alone.

    Raises :class:`RulesError` with every problem: of each rule, and of the well-formed ones together.
    """
    problems: list[Problem] = []
    if isinstance(data, Mapping):
        problems += [
            Problem(str(name), shown(value), "no such field: leave it out")
            for name, value in data.items()
            if name != "rules"
        ]
        if "rules" not in data:
            raise RulesError([*problems, Problem("rules", "(missing)", "required: a list of rules")])
        data = data["rules"]
    if not isinstance(data, list | tuple):
        raise RulesError([*problems, Problem("rules", shown(data), _ALLOWED["rules"])])
    try:
        rules, places = _rule_list.validate_python(data), list(range(len(data)))
    except ValidationError as error:
        problems += from_pydantic(error, _ALLOWED, "rules")
        rules, places = _well_formed(data)
    for problem in RuleBook().check(rules):
        problems.append(_replaced(problem, places))
    if problems:
        raise RulesError(problems)
    return rules


def _well_formed(data: Sequence[Any]) -> tuple[list[ForwardingRule], list[int]]:
    rules, places = [], []
    for place, item in enumerate(data):
        try:
            rules.append(_rule.validate_python(item))
            places.append(place)
        except ValidationError:
            continue
    return rules, places


def _replaced(problem: Problem, places: list[int]) -> Problem:
    """The problem with ``rules[i]`` counted in the caller's list rather than among the well-formed rules."""
    head, _, tail = problem.field.removeprefix("rules[").partition("]")
    return Problem(f"rules[{places[int(head)]}]{tail}", problem.value, problem.allowed)


def load_rules(path: Path) -> list[ForwardingRule]:
    """The rules in a ``.toml`` file (``[[rules]]`` tables) or, under any other name, a JSON file.

    Raises :class:`RulesError`, also for a file that cannot be read or decoded.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return parse_rules(tomllib.loads(text) if path.suffix == ".toml" else json.loads(text))
    except OSError as error:
        raise RulesError([Problem("rules", str(path), f"a readable file: {error.strerror}")]) from error
    except RulesError:
        raise
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise RulesError([Problem("rules", str(path), f"a {kind} file in UTF-8: {error}")]) from error
