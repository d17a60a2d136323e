"""The supervisor: carries out a plan and keeps it true while rules, interfaces and processes come and go.

One thread, one event loop. Rules are changed here first, whole or not at all, then in every worker that holds
them; an answer goes out when all of them have them in force. Nothing here touches a packet.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any, Final

from forwarder.net import netlink
from forwarder.net.host_stack import HostStack
from forwarder.net.links import LinkView
from forwarder.net.memberships import Memberships
from forwarder.plan.host import Host, HostError
from forwarder.plan.model import Plan, PlanError
from forwarder.problems import Problem
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule, RulesError
from forwarder.supervisor.autoscaler import Histories, Scaler
from forwarder.supervisor.interfaces import Interfaces
from forwarder.supervisor.lock import Doorway
from forwarder.supervisor.rule_store import RuleJournal
from forwarder.supervisor.rule_timing import RuleTiming
from forwarder.workers import limits
from forwarder.workers import receive_sockets as ingress
from forwarder.workers.compilation import compile_apart
from forwarder.workers.entry_point import warm_up
from forwarder.workers.handle import FORKED_TOGETHER, State, spawn
from forwarder.workers.pool import Crew, settled, tables_for
from forwarder.workers.process import notify, told_when_slow
from forwarder.workers.spec import Holders, RuleCounts, Setup, counted

STOP_TIMEOUT_S: Final = 1.0
COMPILING: Final = "compiling the packet path for this machine: once, and for half a minute or so"
TIDY_S: Final = 60.0
"""As often the supervisor's garbage is collected, and every worker is spoken to."""


class StoppedError(Exception):
    """It was told to stop before it had started; what there was of it has been stopped."""


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
        self.memberships = Memberships(self.view, log)
        self.stopping = asyncio.Event()
        self.log = log
        self.rule_changes = Doorway()
        self.crew = Crew(setup, tables_for(plan), self.view, self._spawn_task, log)
        self.interfaces = Interfaces(
            self,
            host_stack=HostStack() if skip_host_stack else None,
            spawn_task=self._spawn_task,
            log=log,
        )
        self.timing = RuleTiming()
        self.past_rules: dict[str, RuleCounts] = {}
        """What workers that are gone counted of rules in force."""
        self.retiring: list[Holders] = []
        """Those who are not gone yet, and count on."""
        self.past_wrong = 0
        """Datagrams that came to workers that are gone, and were another's."""
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
            StoppedError: there was no time for it.
        """
        problems = self.crew.tables.problems(list(self.book))
        if problems:
            raise PlanError(problems)
        self.timing.ask((rule.rule_id for rule in self.book), time.monotonic_ns())
        try:
            if self.journal:
                self.journal.prepare(self.book)
            self.view.update(await netlink.interfaces())
            limits.check_memory(self.plan.workers, self.view)
            self.crew.tables.add(list(self.book))
            with told_when_slow(self.log, COMPILING):
                await self._unless_stopped(compile_apart())
                warm_up()
            gc.collect()
            gc.freeze()
            self.crew.make()
            limits.allow_descriptors()
            limits.check_realtime(self.crew.setup.realtime_priority)
            self.interfaces.open()
            spawn(self.crew.workers)
            await self._unless_stopped(self.crew.wait_until_ready())
            self.interfaces.listen()
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
        self._spawn_task(self.interfaces.follow())
        self._spawn_task(self._tidy())
        self._watch()
        notify("READY=1")

    async def _unless_stopped(self, awaited: Awaitable[None]) -> None:
        done = asyncio.ensure_future(awaited)
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait((done, stop), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise StoppedError
            await done
        finally:
            done.cancel()
            stop.cancel()

    async def _tidy(self) -> None:
        """Have every worker say something, as one that hangs is found out only by its silence.

        And collect what connections to the control socket leave in cycles (asyncio's streams do). Python
        would come to it after some 37,000 such objects: it waits for a quarter of what there was at the last
        full collection, all of which is frozen since (``gc_collect_generations``, gcmodule.c). What is not
        frozen is little: this takes 2 ms, and 14 with 10,000 rules that came later.
        """
        while True:
            await asyncio.sleep(TIDY_S)
            self.crew.announce_links()
            gc.collect()

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
        await stack.enter_async_context(self.interfaces.changing)

    async def _stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ingress.mute(self.crew.workers)
        await asyncio.gather(*(handle.stop(STOP_TIMEOUT_S) for handle in self.crew.workers))
        self.memberships.close()

    def close(self) -> None:
        """Give back sockets and memory, after the last statistics were taken."""
        if self.journal:
            self.journal.close()
        self.interfaces.close()
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
            names = {rule.input_interface for rule in rules}
            try:
                await self.interfaces.follow_rules(names)
            except (OSError, HostError) as error:
                for rule in rules:
                    if self.book.get(rule.rule_id) is rule:
                        await self._take_out(rule.rule_id, noted)
                await self._leave_interfaces(names)
                allowed = f"interfaces that there is room to serve; everything is as it was: {error}"
                return (Problem("rules", ", ".join(sorted(names)), allowed),)
        kept = [rule for rule in rules if self.book.get(rule.rule_id) is rule]  # not removed meanwhile
        for rule in kept:
            self.memberships.join(rule)
        self.timing.put_in_force((rule.rule_id for rule in kept), time.monotonic_ns())
        return ()

    async def remove_rule(self, rule_id: str) -> ForwardingRule:
        """Take a rule out of force; raises :class:`~forwarder.rules.model.RulesError` if it is not there."""
        async with self.rule_changes.passing():
            return await self.remove_rule_alone(rule_id)

    async def remove_rule_alone(self, rule_id: str, *, noted: bool = True) -> ForwardingRule:
        """The same, by one who is in the door of rule changes, or has closed it."""
        await self.started.wait()
        rule = await self._take_out(rule_id, noted)
        if self.plan.follows_rules:
            await self._leave_interfaces({rule.input_interface})
        return rule

    async def _take_out(self, rule_id: str, noted: bool) -> ForwardingRule:
        rule = self.book.remove(rule_id)
        if noted and self.journal and (problems := self.journal.removed(rule_id)):
            self.book.add([rule])
            raise RulesError(problems)
        self.memberships.leave(rule)
        self.timing.forget(rule_id)
        self.past_rules.pop(rule_id, None)
        removed = self.crew.tables.remove(rule)
        await settled(self.crew.remove_rule(removed.key, removed.known_to))
        for handle in self.crew.workers:
            if handle.plan.partition == removed.partition:
                handle.block.forget_rule(removed.slot)
        self.crew.tables.give_back(removed)
        return rule

    async def _leave_interfaces(self, names: Collection[str]) -> None:
        """Leave those that have no rule any more; the rules have gone, whether that can be done or not."""
        try:
            await self.interfaces.follow_rules(names)
        except (OSError, HostError) as error:
            self.log(f"interfaces without rules are served still, until one of their rules changes: {error}")

    def past_counts(self) -> dict[str, RuleCounts]:
        """What workers of former plans have counted of rules in force, by id."""
        return counted(self.retiring, self.past_rules)

    # -- another plan --

    def take(self, setup: Setup, book: RuleBook) -> None:
        """Speak of the workers of another setup, which have taken over, and of their rules."""
        now_ns = time.monotonic_ns()
        for rule in self.book:
            if book.get(rule.rule_id) != rule:
                self.timing.forget(rule.rule_id)
                self.past_rules.pop(rule.rule_id, None)
        fresh = [rule.rule_id for rule in book if self.book.get(rule.rule_id) != rule]
        self.timing.ask(fresh, now_ns)
        self.timing.put_in_force(fresh, now_ns)
        self.memberships.exchange(self.book, book)
        self.plan, self.book = setup.plan, book
        self.interfaces.recount()
        if self._watching is not None:
            self._watching.cancel()
        self.scaler = self._new_scaler(setup, self.scaler.histories)
        self.keep_rules()
        self._watch()

    def keep_rules(self) -> None:
        """Have the rules in force in the state file, which was prepared for them."""
        if self.journal:
            try:
                self.journal.commit(self.book)
            except OSError as error:  # too late to go back
                self.log(f"the rules are not in the state file: {error}")

    def _new_scaler(self, setup: Setup, histories: Histories | None = None) -> Scaler:
        return Scaler(
            self,
            setup.plan.groups,
            self._host,
            threshold_dps=setup.scale_threshold_dps,
            lock=self.interfaces.changing,
            log=self.log,
            histories=histories or {},
        )

    def _watch(self) -> None:
        self._watching = self._spawn_task(self.scaler.watch()) if self.scaler.groups else None

    def adopt(self, plan: Plan) -> None:
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

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.log(f"a fault of mcrd, in {task.get_name()}:")
            traceback.print_exception(error)
