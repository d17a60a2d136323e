"""The XDP engine in front of the workers: it takes the datagrams of the rules that it can serve.

Workers hold all rules whatever the engine. A datagram that XDP forwards never reaches a socket, so what the
kernel cannot forward (a rule with two outputs on an interface, an interface without native XDP, a datagram
in several buffers) is a worker's without more ado, each datagram once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from forwarder.engines.packet.schema import EGRESS_REASONS, INGRESS_REASONS
from forwarder.engines.xdp.engine import OUTPUTS, RULES, XdpEngine
from forwarder.engines.xdp.layout import RuleCount
from forwarder.engines.xdp.suitability import UnsuitedError
from forwarder.net.links import LinkView
from forwarder.plan.engine import Engine
from forwarder.problems import Log, first_of
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule, Node


class KernelPath:
    """Rules in the XDP engine; while the engine is packet, nothing here does anything. To be closed."""

    def __init__(self, engine: Engine, links: LinkView, log: Log) -> None:
        self.engine = engine
        self._links, self._log = links, log
        self._xdp: XdpEngine | None = None
        """Kept with its counters when the engine is packet again."""
        self._why: dict[str, str] = {}
        """Why rules are served by workers, by rule id."""
        self._past: dict[Node, RuleCount] = {}
        """Counts of rules in force that have left XDP."""

    def open(self, book: RuleBook) -> None:
        """Load the programs, and have XDP serve the rules that it can. Raises OSError: it cannot be used."""
        if self.engine is Engine.PACKET:
            return
        try:
            outputs = sum(len(rule.outputs) for rule in book)
            rooms = max(RULES, 2 * len(book)), max(OUTPUTS, 2 * outputs)
            self._xdp = self._xdp or XdpEngine(self._links.find, rules=rooms[0], outputs=rooms[1])
            self._xdp.refit()
        except OSError as error:
            said = f"engine xdp cannot be used: {error.strerror or error}"
            raise (OSError(error.errno, said) if error.errno else OSError(said)) from error
        self.add(list(book))

    def change(self, engine: Engine, book: RuleBook) -> None:
        """Go over to another engine, without losing a datagram. Raises OSError: it cannot be used."""
        before, self.engine = self.engine, engine
        if engine is before:
            return
        try:
            self.open(book)
        except OSError:
            self.engine = before
            raise
        if engine is Engine.PACKET:
            self._leave(list(book))
            self._why.clear()

    def add(self, rules: Sequence[ForwardingRule]) -> None:
        """Have XDP serve those of the rules that it can; workers have them all."""
        if self._xdp is None or self.engine is Engine.PACKET:
            return
        why = self._xdp.unsuited(rules)
        suited = [rule for rule in rules if rule.rule_id not in why]
        try:
            self._xdp.add(suited)
        except (UnsuitedError, OSError) as error:
            why |= {rule.rule_id: str(error) for rule in suited}
        for rule in rules:
            if rule.rule_id not in why:
                self._why.pop(rule.rule_id, None)
        self._note(why)

    def remove(self, rules: Iterable[ForwardingRule]) -> None:
        """Take rules from XDP; their datagrams are the workers' from now on."""
        if self._xdp is not None:
            rules = list(rules)
            self._xdp.remove(rules)
            for rule in rules:
                self._why.pop(rule.rule_id, None)
                self._past.pop(rule.node, None)

    def switch(self, before: RuleBook, book: RuleBook) -> None:
        """Go over to other rules."""
        self.remove([rule for rule in before if book.get(rule.rule_id) != rule])
        self.add([rule for rule in book if before.get(rule.rule_id) != rule])

    def refit(self, book: RuleBook) -> None:
        """Fit to the interfaces as they are; rules change their engine where these have changed."""
        if self._xdp is None or self.engine is Engine.PACKET:
            return
        rules = list(book)
        why = self._xdp.unsuited(rules)
        try:
            self._leave([rule for rule in rules if rule.rule_id in why])
            self._xdp.refit()
        except OSError as error:
            self._log(f"XDP does not follow the interfaces: {error}")
        self.add([rule for rule in rules if rule.rule_id not in why and rule not in self._xdp])
        self._note(why)

    def stop(self) -> None:
        """Let nothing more in; what was counted can be read still."""
        if self._xdp is not None:
            self._xdp.detach()

    def close(self) -> None:
        if self._xdp is not None:
            self._xdp.close()

    # -- what it does --

    def engine_of(self, rule: ForwardingRule) -> tuple[Engine, str | None]:
        """The engine that serves a rule, and why that is not the one asked for."""
        if self._xdp is None or self.engine is Engine.PACKET:
            return Engine.PACKET, None
        why = self._why.get(rule.rule_id) or self._xdp.refused.get(rule.input_interface)
        return (Engine.PACKET, why) if why else (Engine.XDP, None)

    def rule_counts(self) -> dict[Node, RuleCount]:
        """What XDP counted of each rule in force."""
        found = dict(self._past)
        for node, more in self._xdp.rule_counts().items() if self._xdp else ():
            found[node] = found[node].plus(more) if node in found else more
        return found

    def report(self) -> dict[str, Any] | None:
        """The interfaces that XDP takes datagrams from or not, and its counters; None without it.

        ``dropped``: copies that did not leave; ``passed``: datagrams that workers and the host got.
        """
        if self._xdp is None:
            return None
        counts = self._xdp.counts()
        named = {name: value for name, value in counts._asdict().items() if name != "reasons"}
        named["dropped"] = {reason: counts.reasons[reason] for reason in EGRESS_REASONS}
        named["passed"] = {reason: counts.reasons[reason] for reason in INGRESS_REASONS}
        return {"inputs": sorted(self._xdp.inputs), "refused": self._xdp.refused, "counters": named}

    def _leave(self, rules: Iterable[ForwardingRule]) -> None:
        """Give rules that stay in force to the workers alone."""
        left = self._xdp.remove(rules) if self._xdp else {}
        self._past |= {node: self._past.get(node, RuleCount()).plus(more) for node, more in left.items()}

    def _note(self, why: Mapping[str, str]) -> None:
        fresh: dict[str, list[str]] = {}
        for rule_id, reason in why.items():
            if self._why.get(rule_id) != reason:
                fresh.setdefault(reason, []).append(rule_id)
        for reason, rules in fresh.items():
            self._log(f"served by workers, not by XDP: {first_of(rules)}: {reason}")
        self._why |= why
