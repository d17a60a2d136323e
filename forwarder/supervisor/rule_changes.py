"""Every change of the rules in force: the whole of it, or nothing.

A change has four stages, and an error or a cancellation in any of them leaves everything as it was:

1. *Validate*: the rule book and the rule index accept the rules, or say all that is wrong with them.
2. *Persist*: the change is written to the state file, so that a change that was answered survives a kill.
3. *Send*: every worker that holds the rules confirms them, and their interfaces are opened.
4. *Commit*: the groups are joined, and the rules count as in force.

There is no ``await`` before stage 3, so book, index and state file change together. From there on, other
changes may come in between: what is rolled back or committed is only what nobody else has removed meanwhile.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from forwarder.plan.host import HostError
from forwarder.plan.model import PlanError
from forwarder.problems import Log, Problem, shown
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule, RulesError
from forwarder.supervisor.interfaces import Interfaces
from forwarder.supervisor.rule_store import RuleStore
from forwarder.supervisor.state import ForwarderState
from forwarder.workers.pool import settled


class RuleChanges:
    """Changes the rules of a running forwarder; ``store`` is the state file, if there is one."""

    def __init__(
        self, state: ForwarderState, interfaces: Interfaces, store: RuleStore | None, log: Log
    ) -> None:
        self._state = state
        self._interfaces = interfaces
        self._store = store
        self._log = log
        self._lock: Final = ReadersWriterLock()
        self.exclusive: Final = self._lock.exclusive
        """Lets nobody else change rules for the length of a ``with`` block."""
        self.timing = RuleTiming()

    # -- while the forwarder runs --

    async def add(self, rules: Sequence[ForwardingRule], *, persist: bool = True) -> None:
        """Put rules in force.

        ``persist``: whether to write them to the state file; otherwise the caller does.

        Raises RulesError: everything that is wrong with them, or why they cannot be served.
        """
        async with self._lock.shared():
            asked_ns = time.monotonic_ns()
            state, index = self._state, self._state.pool.index
            await state.started.wait()
            if problems := index.problems(rules):
                raise RulesError(state.book.check(rules) or problems)
            if problems := state.book.add(rules):
                raise RulesError(problems)
            interfaces, persisted = {rule.input_interface for rule in rules}, False
            try:
                if persist and self._store:
                    self._store.added(rules)
                    persisted = True
                self.timing.ask((rule.rule_id for rule in rules), asked_ns)
                await settled(state.pool.add_rules(rules))
                if state.plan.follows_rules:
                    await self._interfaces.serve(interfaces)
            except BaseException as error:
                await self._roll_back(self._still_in_force(rules), interfaces, persisted)
                if not isinstance(error, OSError | HostError):
                    raise
                allowed = f"interfaces that there is room to serve; everything is as it was: {error}"
                raise RulesError([Problem("rules", ", ".join(sorted(interfaces)), allowed)]) from error
            kept = self._still_in_force(rules)
            for rule in kept:
                state.memberships.join(rule)
            state.kernel.add(kept)
            self.timing.put_in_force((rule.rule_id for rule in kept), time.monotonic_ns())

    async def remove(self, rule_id: str) -> None:
        """Take a rule out of force. Raises RulesError: no such id, or the state file cannot be written."""
        async with self._lock.shared():
            await self._state.started.wait()
            rule = self._state.book.get(rule_id)
            if rule is None:
                raise RulesError([Problem("rule_id", shown(rule_id), "the id of a rule in force")])
            if self._store:
                self._store.removed([rule_id])
            await asyncio.shield(self._take_out([rule]))
            await self._leave({rule.input_interface})

    async def replace(
        self, added: Sequence[ForwardingRule], removed: Sequence[str], wanted: Iterable[ForwardingRule]
    ) -> None:
        """Go over to the ``wanted`` rules; only within :attr:`exclusive`.

        Rules are added before others are removed, so that an error is found before anything has changed.

        Raises RulesError: why they cannot be served; OSError: the state file cannot be written.
        """
        self.prepare(wanted)
        try:
            await self.add(added, persist=False)
        except BaseException:
            if self._store:
                self._store.discard()
            raise
        rules = [rule for rule_id in removed if (rule := self._state.book.get(rule_id))]
        taken_out = self._take_out(rules)
        self._commit_store()
        await asyncio.shield(taken_out)
        await self._leave({rule.input_interface for rule in rules})

    # -- start, and another plan --

    def load(self) -> None:
        """Take the rules to begin with; workers are sent them as they start.

        Raises PlanError: the workers cannot hold them; OSError: the state file cannot be written.
        """
        rules = list(self._state.book)
        if problems := self._state.pool.index.problems(rules):
            raise PlanError(problems)
        self.timing.ask((rule.rule_id for rule in rules), time.monotonic_ns())
        self.prepare(rules)
        self._state.pool.index.add(rules)

    def confirm(self) -> None:
        """Commit the rules to begin with: every worker has them, and interfaces are open."""
        self.timing.put_in_force((rule.rule_id for rule in self._state.book), time.monotonic_ns())
        if self._store:
            self._store.commit(self._state.book)

    def prepare(self, rules: Iterable[ForwardingRule]) -> None:
        """Write rules beside the state file, for a later commit. Raises OSError: they cannot be written."""
        if self._store:
            self._store.prepare(rules)

    def switch(self, book: RuleBook) -> None:
        """Commit the prepared rules of another plan, whose workers have them already."""
        state, now_ns = self._state, time.monotonic_ns()
        for rule in state.book:
            if book.get(rule.rule_id) != rule:
                self._forget(rule)
        fresh = [rule.rule_id for rule in book if state.book.get(rule.rule_id) != rule]
        self.timing.ask(fresh, now_ns)
        self.timing.put_in_force(fresh, now_ns)
        state.memberships.switch(state.book, book)
        state.kernel.switch(state.book, book)
        state.book = book
        self._commit_store()

    # -- steps of a change --

    def _take_out(self, rules: Sequence[ForwardingRule]) -> asyncio.Future[None]:
        """Take rules out of force; done when no worker has them any more."""
        for rule in rules:
            self._state.book.remove(rule.rule_id)
            self._state.memberships.leave(rule)
            self._forget(rule)
        self._state.kernel.remove(rules)
        return self._state.pool.remove_rules(rules)

    def _forget(self, rule: ForwardingRule) -> None:
        self.timing.forget(rule.rule_id)
        self._state.past.forget(rule.rule_id)

    async def _roll_back(
        self, rules: Sequence[ForwardingRule], interfaces: Collection[str], persisted: bool
    ) -> None:
        """Make everything as it was before these rules were added."""
        if persisted and self._store:
            try:
                self._store.removed([rule.rule_id for rule in rules])
            except RulesError as error:
                self._store.stale = True
                self._log(f"the state file has rules that are not in force, until the next change: {error}")
        await asyncio.shield(self._take_out(rules))
        await self._leave(interfaces)

    async def _leave(self, interfaces: Collection[str]) -> None:
        """Close those that have no rule any more; the rules have gone, whether that can be done or not."""
        if not self._state.plan.follows_rules:
            return
        try:
            await self._interfaces.leave(interfaces)
        except (OSError, HostError) as error:
            self._log(f"interfaces without rules are served still, until one of their rules changes: {error}")

    def _still_in_force(self, rules: Sequence[ForwardingRule]) -> list[ForwardingRule]:
        return [rule for rule in rules if self._state.book.get(rule.rule_id) is rule]

    def _commit_store(self) -> None:
        if self._store:
            try:
                self._store.commit(self._state.book)
            except OSError as error:  # too late to go back
                self._log(f"the rules are not in the state file: {error}")


class Timing(NamedTuple):
    """How long one rule took, in nanoseconds from the request, or from the supervisor's start."""

    in_force_after_ns: int | None
    """Until every worker that holds it had it; ``None`` before."""
    first_datagram_after_ns: int | None
    """Until a worker took the first datagram that it matched; ``None`` before."""


class RuleTiming:
    """When rules were asked for and came into force, on the monotonic clock."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        self._in_force: dict[str, int] = {}

    def ask(self, rule_ids: Iterable[str], now_ns: int) -> None:
        self._asked.update(dict.fromkeys(rule_ids, now_ns))

    def put_in_force(self, rule_ids: Iterable[str], now_ns: int) -> None:
        """Note the time for those rules that were not forgotten meanwhile."""
        self._in_force.update((rule_id, now_ns) for rule_id in rule_ids if rule_id in self._asked)

    def forget(self, rule_id: str) -> None:
        self._asked.pop(rule_id, None)
        self._in_force.pop(rule_id, None)

    def of(self, rule_id: str, first_ns: int = 0) -> Timing:
        """A rule's timing; ``first_ns`` is when its first datagram was taken, 0 for not yet."""
        asked, in_force = self._asked[rule_id], self._in_force.get(rule_id)
        return Timing(None if in_force is None else in_force - asked, first_ns - asked if first_ns else None)


class ReadersWriterLock:
    """A readers-writer lock for one event loop; the task that holds it alone may also share it."""

    def __init__(self) -> None:
        self._sharing = 0
        self._owner: asyncio.Task[object] | None = None
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Hold it together with others for the length of a ``with`` block."""
        if self._owner is not None and self._owner is asyncio.current_task():
            yield
            return
        await self._wait_until(lambda: self._owner is None)
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1
            self._wake()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold it alone for the length of a ``with`` block; those who come later wait."""
        await self._wait_until(lambda: self._owner is None)
        self._owner = asyncio.current_task()
        try:
            await self._wait_until(lambda: not self._sharing)
            yield
        finally:
            self._owner = None
            self._wake()

    async def _wait_until(self, free: Callable[[], bool]) -> None:
        while not free():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
