"""Which groups are joined, and where: one wish for each rule, on the interface that its input means now."""

from __future__ import annotations

from collections.abc import Callable

from forwarder.net.links import LinkView
from forwarder.net.membership_sockets import Joins, Membership
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule


class Memberships:
    """The groups of the rules; to be closed.

    Args:
        view: the interfaces as they are.
        log: takes one sentence at a time.
    """

    def __init__(self, view: LinkView, log: Callable[[str], None]) -> None:
        self._view = view
        self._log = log
        self._joins = Joins()
        self._wished: dict[str, Membership] = {}
        """By rule."""

    def __len__(self) -> int:
        return len(self._joins)

    def join(self, rule: ForwardingRule) -> None:
        """Wish for a rule's group where its interface is now, which may be another one than before."""
        state = self._view.find(rule.input_interface)
        if state is None or self._wished.get(rule.rule_id, (0,))[0] == state.ifindex:
            return
        self.leave(rule)
        group = rule.input_group.packed
        try:
            self._joins.join(state.ifindex, group)
        except OSError as error:
            self._log(f"rule {rule.rule_id}: cannot join {rule.input_group} on {state.name}: {error}")
            return
        self._wished[rule.rule_id] = (state.ifindex, group)

    def leave(self, rule: ForwardingRule) -> None:
        """No wish any more."""
        membership = self._wished.pop(rule.rule_id, None)
        if membership is not None:
            self._joins.leave(*membership)

    def exchange(self, former: RuleBook, book: RuleBook) -> None:
        """The wishes of other rules; a group that both want is not left for a moment."""
        left = [self._wished.pop(rule.rule_id, None) for rule in former if book.get(rule.rule_id) != rule]
        for rule in book:
            self.join(rule)
        for membership in filter(None, left):
            self._joins.leave(*membership)

    def close(self) -> None:
        """Leave everything."""
        self._joins.close()
