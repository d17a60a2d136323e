"""A set of rules that go together.

The conditions, which :class:`RuleBook` checks:

* no two rules have the same id, nor the same input (interface, group, port): a datagram matches one rule;
* no output of a rule is repeated: a receiver would get the datagram twice;
* no output is the rule's own input, and no chain of rules leads back to where it began. The graph has a node
  for each (interface, group, port) and an edge from a rule's input to each of its outputs; an edge back to a
  node upstream is a *loop*, whatever the TTL: the network between may send the datagram round until it dies.

Every check is linear in the rules, and adding a rule costs what it touches, not what the set holds.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from forwarder.problems import Problem, shown
from forwarder.rules.loops import disjoint_loops, first_closed
from forwarder.rules.model import ForwardingRule, Node, RulesError


class _Linked(NamedTuple):
    """A rule with its place in the graph, worked out once."""

    rule: ForwardingRule
    node: Node
    targets: tuple[Node, ...]


class RuleBook:
    """A set of rules that is valid at all times: ``add`` adds all of its rules, or none.

    Holds no locks and does no I/O. A change costs the rules given, their outputs and the chains they are part
    of (the shorter of what lies upstream and downstream), so that 10,000 single additions stay linear.
    """

    def __init__(self, rules: Iterable[ForwardingRule] = ()) -> None:
        """Raises :class:`RulesError` when ``rules`` do not go together."""
        self._by_id: dict[str, _Linked] = {}
        # Lists, and counts of parallel edges, because candidates are linked before they are checked.
        self._by_input: dict[Node, list[_Linked]] = {}
        self._upstream: dict[Node, dict[Node, int]] = {}
        if problems := self.add(list(rules)):
            raise RulesError(problems)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[ForwardingRule]:
        """The rules, in the order they were added."""
        return (linked.rule for linked in self._by_id.values())

    def get(self, rule_id: str) -> ForwardingRule | None:
        linked = self._by_id.get(rule_id)
        return linked.rule if linked else None

    def add(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        """Add all of ``rules``, or none; return every problem, by place in ``rules``."""
        return self._try(rules, keep=True)

    def check(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        """What :meth:`add` would return; the book is not changed."""
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
        problems = [*self._clashes(added)]
        for linked in added:
            self._link(linked)
        problems += self._loops(added)
        if keep and not problems:
            self._by_id.update((linked.rule.rule_id, linked) for linked in added)
        else:
            for linked in added:
                self._unlink(linked)
        return tuple(problems)

    def _clashes(self, added: Sequence[_Linked]) -> Iterator[Problem]:
        """Ids and inputs that are taken, and conflicts within a rule."""
        ids: dict[str, int] = {}
        inputs: dict[Node, int] = {}
        for index, (rule, node, targets) in enumerate(added):
            where, name = f"rules[{index}]", repr(rule.rule_id)
            first = ids.setdefault(rule.rule_id, index)
            if rule.rule_id in self._by_id or first != index:
                other = "a rule in force" if rule.rule_id in self._by_id else f"rules[{first}]"
                yield Problem(f"{where}.rule_id", name, f"an id of its own: {other} has it")
            first = inputs.setdefault(node, index)
            if node in self._by_input or first != index:
                other = (self._by_input[node][0] if node in self._by_input else added[first]).rule.rule_id
                allowed = f"one rule for each input interface, group and port: rule {other!r} has it"
                yield Problem(where, f"rule {name} matches {_show(node)}", allowed)
            if len(targets) == 1 and targets[0] != node:
                continue  # nearly every rule: nothing to compare
            outputs: dict[Node, int] = {}
            for place, target in enumerate(targets):
                at = f"{where}.outputs[{place}]"
                if target == node:
                    value = f"{_show(target)} is the input of its own rule {name}"
                    allowed = "an output other than the rule's input: the datagram would loop"
                    yield Problem(at, value, allowed)
                if (first := outputs.setdefault(target, place)) != place:
                    value = f"{_show(target)} is outputs[{first}] of rule {name}, too"
                    yield Problem(at, value, "each output once")

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

    def _loops(self, added: Sequence[_Linked]) -> Iterator[Problem]:
        """One problem for each of a set of loops that share no node, as large as can be.

        The book had none before, so a loop passes through an added rule, and lies both downstream and
        upstream of the added rules: it is enough to search whichever of the two closes first.
        """
        nodes = list(dict.fromkeys(linked.node for linked in added))
        region = first_closed(nodes, self._downstream_of, self._upstream_of)
        place_of = {id(linked): place for place, linked in enumerate(added)}
        for loop in disjoint_loops(nodes, region, self._downstream_of):
            edges = [self._edge(a, b) for a, b in itertools.pairwise([*loop, loop[0]])]
            start = next(n for n, edge in enumerate(edges) if id(edge) in place_of)
            edges = [*edges[start:], *edges[:start]]
            path = " -> ".join(_shortened([_show(edge.node) for edge in [*edges, edges[0]]]))
            names = ", ".join(_shortened([repr(edge.rule.rule_id) for edge in edges]))
            allowed = f"no loop: rules {names} would send a datagram back to where it came in"
            yield Problem(f"rules[{place_of[id(edges[0])]}]", path, allowed)

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
