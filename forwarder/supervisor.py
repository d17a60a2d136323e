"""The supervisor: carries out a plan and keeps it true while rules, interfaces and processes come and go.

One thread, one event loop. Rules are changed here first, whole or not at all, then in every worker that holds
them; an answer goes out when all of them have them in force. Nothing here touches a packet.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from forwarder import ingress, limits, netlink
from forwarder.crew import Crew, settled, tables_for
from forwarder.doorway import Doorway
from forwarder.host import Host
from forwarder.host_stack import HostStack
from forwarder.joins import Joins
from forwarder.links import InterfaceState, LinkView, input_trouble, output_trouble
from forwarder.packet import sockets
from forwarder.packet.messages import Kind
from forwarder.planned import Plan, PlanError
from forwarder.problems import Problem
from forwarder.process import notify
from forwarder.rule_journal import RuleJournal
from forwarder.rules import ForwardingRule, RuleBook, RulesError
from forwarder.scaler import Scaler
from forwarder.setup import RuleCounts, Setup
from forwarder.timing import RuleTiming
from forwarder.worker import warm_up
from forwarder.workers import FORKED_TOGETHER, State, spawn

STOP_TIMEOUT_S: Final = 1.0
FIRST_RETRY_S: Final = 0.5
LONGEST_RETRY_S: Final = 30.0
"""After interfaces could not be opened; doubled each time."""


class Supervisor:
    """Runs a plan.

    Args:
        setup: what to run.
        rules: the rules to begin with; they go together.
        host: the machine as it is when asked.
        journal: keeps the rules, if given.
        skip_host_stack: whether this machine's own stack is spared the datagrams that workers take.
        log: takes one sentence at a time.
    """

    def __init__(
        self,
        setup: Setup,
        rules: Sequence[ForwardingRule],
        *,
        host: Callable[[], Host],
        journal: RuleJournal | None = None,
        skip_host_stack: bool = False,
        log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        plan = self.plan = setup.plan
        self._host = host
        self.journal = journal
        self.book = RuleBook(rules)
        self.view = LinkView()
        self.joins = Joins()
        self.stopping = asyncio.Event()
        self.past_drops: Counter[str] = Counter()
        """Kernel drops of sockets that are gone, by interface."""
        self.log = log
        self.rule_changes = Doorway()
        self.refitting = asyncio.Lock()
        """Held while sockets are opened or closed, as that takes several conversations."""
        self.listening: dict[str, int] = {}
        """Interfaces whose datagrams are let in, and their indices."""
        self.host_stack = HostStack() if skip_host_stack else None
        self.crew = Crew(setup, tables_for(plan), self.view, self._spawn_task, log)
        self.timing = RuleTiming()
        self.past_rules: dict[str, RuleCounts] = {}
        """What workers that are gone counted of rules in force."""
        self.past_wrong = 0
        """Datagrams that came to workers that are gone, and were another's."""
        self._joined: dict[str, tuple[int, bytes]] = {}
        self.started = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.scaler = self._new_scaler(setup)
        self._watching: asyncio.Task[None] | None = None

    # -- start and stop --

    async def start(self) -> None:
        """Open every socket, start every worker, and let traffic in once all of them have their rules.

        Raises:
            PlanError: the workers cannot hold the rules that there are to begin with.
            OSError: something could not be had; nothing is left behind.
        """
        problems = self.crew.tables.problems(list(self.book))
        if problems:
            raise PlanError(problems)
        self.timing.ask((rule.rule_id for rule in self.book), time.monotonic_ns())
        try:
            if self.journal:
                self.journal.prepare(self.book)
            self.view.update(await netlink.interfaces())
            self.crew.tables.add(list(self.book))
            warm_up()
            gc.collect()
            gc.freeze()
            self.crew.make()
            limits.allow_descriptors()
            limits.check_realtime(self.crew.setup.realtime_priority)
            for name in self.plan.interfaces:
                if (state := self.view.find(name)) is not None:
                    ingress.open_receivers(state, name, self.crew.workers, self.plan.strategy.hashing)
            spawn(self.crew.workers)
            await self.crew.wait_until_ready()
            for rule in self.book:
                self._join(rule)
            ingress.listen(self.crew.workers, self.plan.strategy.hashing)
            for receiver in self.crew.receivers:
                self._listens(receiver.interface, receiver.ifindex)
            self.timing.put_in_force((rule.rule_id for rule in self.book), time.monotonic_ns())
            if self.journal:
                self.journal.commit(self.book)
        except OSError as error:
            await self.stop()
            raise limits.explained(error, self.plan, FORKED_TOGETHER) from error
        except BaseException:
            await self.stop()
            raise
        self.started.set()
        self._spawn_task(self._follow_interfaces())
        self._watch()
        notify("READY=1")

    async def stop(self) -> None:
        """Let nothing more in, let the workers forward what they hold, end them, leave every group."""
        notify("STOPPING=1")
        self.stopping.set()
        await self.crew.end_newcomers()
        async with AsyncExitStack() as no_more_changes:
            if self.started.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._end_changes(no_more_changes), STOP_TIMEOUT_S)
            await self._stop()

    async def _end_changes(self, stack: AsyncExitStack) -> None:
        """Let what is being changed be finished, and nothing else begin."""
        await stack.enter_async_context(self.rule_changes.closed())
        await stack.enter_async_context(self.refitting)

    async def _stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ingress.mute(self.crew.workers)
        await asyncio.gather(*(handle.stop(STOP_TIMEOUT_S) for handle in self.crew.workers))
        self.joins.close()

    def close(self) -> None:
        """Give back sockets and memory, after the last statistics were taken."""
        if self.host_stack:
            self.host_stack.close()
        if self.journal:
            self.journal.close()
        sockets.close_all([receiver.sock for receiver in self.crew.receivers])
        self.crew.close()

    # -- rules --

    async def add_rules(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        """Put rules in force, all or none; what was wrong with them otherwise."""
        async with self.rule_changes.passing():
            return await self.add_rules_alone(rules)

    async def add_rules_alone(
        self, rules: Sequence[ForwardingRule], *, noted: bool = True
    ) -> tuple[Problem, ...]:
        """The same, by one who is in the door of rule changes, or has closed it.

        Args:
            noted: whether it is for the state file, too; otherwise the caller sees to that.
        """
        asked_ns = time.monotonic_ns()
        await self.started.wait()
        problems = self.crew.tables.problems(rules)
        if problems:
            return self.book.check(rules) or problems
        problems = self.book.add(rules)
        if problems:
            return problems
        if noted and self.journal and (problems := self.journal.added(rules)):
            for rule in rules:
                self.book.remove(rule.rule_id)
            return problems
        added = self.crew.tables.add(rules)
        self.timing.ask((rule.rule_id for rule in rules), asked_ns)
        self.crew.announce_links()
        await settled(self.crew.add_rules(added))
        if self.plan.follows_rules:
            try:
                await self._follow_rules({rule.input_interface for rule in rules})
            except OSError as error:
                for rule in rules:
                    if self.book.get(rule.rule_id) is rule:
                        await self.remove_rule_alone(rule.rule_id, noted=noted)
                allowed = f"interfaces that there is room to serve; everything is as it was: {error}"
                return (Problem("rules", ", ".join({rule.input_interface for rule in rules}), allowed),)
        kept = [rule for rule in rules if self.book.get(rule.rule_id) is rule]  # not removed meanwhile
        for rule in kept:
            self._join(rule)
        self.timing.put_in_force((rule.rule_id for rule in kept), time.monotonic_ns())
        return ()

    async def remove_rule(self, rule_id: str) -> ForwardingRule:
        """Take a rule out of force; raises :class:`~forwarder.rules.RulesError` when there is none such."""
        async with self.rule_changes.passing():
            return await self.remove_rule_alone(rule_id)

    async def remove_rule_alone(self, rule_id: str, *, noted: bool = True) -> ForwardingRule:
        """The same, by one who is in the door of rule changes, or has closed it."""
        await self.started.wait()
        rule = self.book.remove(rule_id)
        if noted and self.journal and (problems := self.journal.removed(rule_id)):
            self.book.add([rule])
            raise RulesError(problems)
        self._leave(rule)
        self.timing.forget(rule_id)
        self.past_rules.pop(rule_id, None)
        removed = self.crew.tables.remove(rule)
        await settled(self.crew.remove_rule(removed.key, removed.known_to))
        for handle in self.crew.workers:
            if handle.plan.partition == removed.partition:
                handle.block.forget_rule(removed.slot)
        self.crew.tables.give_back(removed)
        if self.plan.follows_rules:
            await self._follow_rules({rule.input_interface})
        return rule

    def trouble(self, rule: ForwardingRule) -> str | None:
        """What a rule waits for, or None when it is running."""
        found = input_trouble(rule.input_interface, self.view.find(rule.input_interface))
        if found:
            return found
        if rule.input_interface not in self.listening:
            return f"input interface {rule.input_interface} is being opened"
        for output in rule.outputs:
            found = output_trouble(output.interface, self.view.find(output.interface))
            if found:
                return found
        return None

    def _join(self, rule: ForwardingRule) -> None:
        state = self.view.find(rule.input_interface)
        if state is None or self._joined.get(rule.rule_id, (0,))[0] == state.ifindex:
            return
        self._leave(rule)
        group = rule.input_group.packed
        try:
            self.joins.join(state.ifindex, group)
        except OSError as error:
            self.log(f"rule {rule.rule_id}: cannot join {rule.input_group} on {state.name}: {error}")
            return
        self._joined[rule.rule_id] = (state.ifindex, group)

    def _leave(self, rule: ForwardingRule) -> None:
        membership = self._joined.pop(rule.rule_id, None)
        if membership is not None:
            self.joins.leave(*membership)

    # -- another plan --

    def take(self, setup: Setup, book: RuleBook) -> None:
        """Speak of the workers of another setup, which have taken over, and of their rules."""
        former, now_ns = list(self.book), time.monotonic_ns()
        left = []
        for rule in former:
            if book.get(rule.rule_id) != rule:
                left.append(self._joined.pop(rule.rule_id, None))
                self.timing.forget(rule.rule_id)
                self.past_rules.pop(rule.rule_id, None)
        fresh = [rule.rule_id for rule in book if self.book.get(rule.rule_id) != rule]
        self.timing.ask(fresh, now_ns)
        self.timing.put_in_force(fresh, now_ns)
        self.plan, self.book = setup.plan, book
        for rule in book:
            self._join(rule)
        # Not before: a group that is still wanted is not left for a moment.
        for membership in filter(None, left):
            self.joins.leave(*membership)
        # Not what those still hold that have been relieved.
        served = {
            receiver.interface: receiver.ifindex
            for handle in self.crew.in_plan
            for receiver in handle.receivers.values()
        }
        for name in self.listening.keys() - served.keys():
            self._listens_no_more(name)
        for name, ifindex in served.items():
            self._listens(name, ifindex)
        if self._watching is not None:
            self._watching.cancel()
        changes = self.scaler.changes
        self.scaler = self._new_scaler(setup)
        self.scaler.changes.extend(changes)
        self.keep_rules()
        self._watch()

    def keep_rules(self) -> None:
        """Have the rules in force in the state file, which was prepared for them."""
        if self.journal:
            try:
                self.journal.commit(self.book)
            except OSError as error:  # too late to go back
                self.log(f"the rules are not in the state file: {error}")

    def _new_scaler(self, setup: Setup) -> Scaler:
        return Scaler(
            self,
            setup.plan.groups,
            self._host,
            threshold_dps=setup.scale_threshold_dps,
            lock=self.refitting,
            log=self.log,
        )

    def _watch(self) -> None:
        self._watching = self._spawn_task(self.scaler.watch()) if self.scaler.groups else None

    # -- interfaces --

    async def _follow_interfaces(self) -> None:
        """Take in every change of interfaces and addresses, for as long as the supervisor runs."""
        changed, delay_s = asyncio.Event(), 0.0
        self._spawn_task(netlink.tell_changes(changed))
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s or None):
                    await changed.wait()
                delay_s = 0.0
            changed.clear()
            try:
                self.view.update(await netlink.interfaces())
                async with self.refitting:
                    await self._refit()
                delay_s = 0.0
            except (OSError, NetlinkError) as error:
                # Where it was an interface that went, there will be word of it; memory comes back without.
                delay_s = min(max(FIRST_RETRY_S, 2 * delay_s), LONGEST_RETRY_S)
                self.log(f"interfaces could not be opened: {error}; trying again in {delay_s:g} s at most")

    async def _follow_rules(self, names: Iterable[str]) -> None:
        """Serve those of the interfaces that have rules and leave those that have none, as they are now."""
        async with self.refitting:
            for name in names:
                wanted, served = self.crew.tables.rules_on(name) > 0, name in self.plan.interfaces
                if wanted != served:
                    self._adopt(self.crew.setup.replan(list(self.book), {}))
                if served and not wanted:
                    self.log(f"interface {name} has no rule any more")
                    await settled(self._close_all(name))
                state = self.view.find(name)
                if wanted and not served and state is not None:
                    await self._bring_up(name, state)

    def _adopt(self, plan: Plan) -> None:
        """Take a plan of the same workers with other sockets."""
        self.plan = plan
        for handle, planned in zip(self.crew.in_plan, plan.workers, strict=True):
            handle.plan = replace(planned, worker_id=handle.plan.worker_id)

    def live_plan(self) -> Plan:
        """The plan for the rules in force, with the rings that there are."""
        if not self.started.is_set():
            return self.plan
        plan = self.crew.setup.replan(list(self.book), self.scaler.sizes())
        present = [handle for handle in self.crew.workers if handle.state is not State.PARKED]
        workers = tuple(
            replace(handle.plan, sockets=ingress.as_opened(handle, handle.plan.sockets))
            for handle in sorted(present, key=lambda handle: handle.plan.group)
        )
        return replace(plan, workers=workers)

    async def _refit(self) -> None:
        """Make sockets, links and memberships fit the interfaces as they are now.

        Raises:
            OSError: an interface could not be opened; the others have been.
        """
        told = list(self.crew.announce_links())
        failed: OSError | None = None
        for name in self.plan.interfaces:
            state = self.view.find(name)
            held = ingress.held(self.crew.workers, name)
            stale = bool(held) and (
                state is None or held[0][0].receivers[held[0][1]].ifindex != state.ifindex
            )
            if stale:
                self.log(f"interface {name} is gone" if state is None else f"interface {name} was replaced")
                told += self._close_all(name)
                await settled(told)
                for rule in self.book:
                    if rule.input_interface == name:
                        self._leave(rule)
            if state is not None and (stale or not held):
                try:
                    await self._bring_up(name, state)
                except OSError as error:  # others may have more luck
                    failed = OSError(error.errno, f"{name}: {error.strerror}")
        await settled(told)
        if failed:
            raise failed

    async def _bring_up(self, name: str, state: InterfaceState) -> None:
        """Serve an interface that has appeared.

        Raises:
            OSError: a socket could not be had, or a worker could not take its own; none is left open.
        """
        hashing = self.plan.strategy.hashing
        ingress.open_receivers(state, name, self.crew.workers, hashing)
        try:
            if refused := await settled(self.crew.hand_over(ingress.held(self.crew.workers, name))):
                raise OSError(refused, f"a worker could not take its socket: {os.strerror(refused)}")
            for rule in self.book:
                if rule.input_interface == name:
                    self._join(rule)
            ingress.listen(self.crew.workers, hashing, name)
        except OSError:
            await settled(self._close_all(name))
            raise
        self._listens(name, state.ifindex)
        self.log(f"interface {name} is served, index {state.ifindex}")

    def _listens(self, interface: str, ifindex: int) -> None:
        """Its datagrams are let in from now on."""
        if self.listening.get(interface) == ifindex:
            return
        if interface in self.listening:
            self._listens_no_more(interface)
        if self.host_stack:
            try:
                self.host_stack.skip(interface, ifindex)
            except OSError as error:  # it may be gone, which we are told of later
                self.log(f"interface {interface}: this machine's stack is not spared its datagrams: {error}")
        self.listening[interface] = ifindex

    def _listens_no_more(self, interface: str) -> None:
        self.listening.pop(interface, None)
        if self.host_stack:
            self.host_stack.resume(interface)

    def _close_all(self, name: str) -> list[asyncio.Future[int]]:
        """Leave an interface: every worker lets go of its socket, which leaves its group with that."""
        told = []
        closing = []
        self._listens_no_more(name)
        for handle, row in ingress.held(self.crew.workers, name):
            told.append(handle.tell(Kind.REMOVE_SOCKET, argument=row))
            receiver = handle.receivers.pop(row)
            self.past_drops[name] += receiver.count_drops()
            closing.append(receiver.sock)
        sockets.close_all(closing)
        return told

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
