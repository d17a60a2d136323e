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
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from forwarder import channel, ingress, limits, netlink
from forwarder.channel import WorkerRule
from forwarder.doorway import Doorway
from forwarder.host import Host
from forwarder.host_stack import HostStack
from forwarder.joins import Joins
from forwarder.links import InterfaceState, LinkView, input_trouble, output_trouble
from forwarder.packet import sockets
from forwarder.packet.engine import LINKS
from forwarder.packet.layout import SOCKETS
from forwarder.packet.memory import RULES, SharedMemory
from forwarder.packet.messages import Kind
from forwarder.planned import Plan, PlanError, WorkerPlan
from forwarder.problems import Problem
from forwarder.process import notify
from forwarder.rules import ForwardingRule, RuleBook
from forwarder.scaler import Scaler
from forwarder.setup import RuleCounts, Setup
from forwarder.tables import RuleTables
from forwarder.timing import RuleTiming
from forwarder.worker import warm_up
from forwarder.workers import FORKED_TOGETHER, Receiver, State, WorkerGoneError, WorkerHandle, spawn

STOP_TIMEOUT_S: Final = 1.0


class Supervisor:
    """Runs a plan.

    Args:
        setup: what to run.
        rules: the rules to begin with; they go together.
        host: the machine as it is when asked.
        skip_host_stack: whether this machine's own stack is spared the datagrams that workers take.
        log: takes one sentence at a time.
    """

    def __init__(
        self,
        setup: Setup,
        rules: Sequence[ForwardingRule],
        *,
        host: Callable[[], Host],
        skip_host_stack: bool = False,
        log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        plan = self.plan = setup.plan
        self._setup = setup
        self._host = host
        self.book = RuleBook(rules)
        self.view = LinkView()
        self.joins = Joins()
        self.workers: list[WorkerHandle] = []
        self.stopping = asyncio.Event()
        self.past_drops: Counter[str] = Counter()
        """Kernel drops of sockets that are gone, by interface."""
        self.log = log
        self.replan = setup.replan
        self.rule_changes = Doorway()
        self.refitting = asyncio.Lock()
        """Held while sockets are opened or closed, as that takes several conversations."""
        self.listening: set[str] = set()
        """Interfaces whose datagrams are let in."""
        self.host_stack = HostStack() if skip_host_stack else None
        self._memory = SharedMemory(len(plan.workers))
        self.tables = RuleTables(plan, most_rules=RULES, most_outputs=LINKS, most_inputs=SOCKETS)
        self.timing = RuleTiming()
        self.past_rules: dict[str, RuleCounts] = {}
        """What workers that are gone counted of rules in force."""
        self.past_wrong = 0
        """Datagrams that came to workers that are gone, and were another's."""
        self.spare: list[WorkerHandle] = []
        """Slots of former plans' workers, for those of the next."""
        self.newcomers: dict[WorkerHandle, RuleTables] = {}
        """Workers of a plan that is being put in place of this one, and their rules."""
        self._packed: dict[tuple[RuleTables, int], list[tuple[int, bytes]]] = {}
        """What a new process of a partition is told of rules, until they change."""
        self._equipped: set[WorkerHandle] = set()
        """Workers whose present process is being told everything, or has been."""
        self._joined: dict[str, tuple[int, bytes]] = {}
        self._ready: asyncio.Future[None] | None = None
        self._started = asyncio.Event()
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
        problems = self.tables.problems(list(self.book))
        if problems:
            raise PlanError(problems)
        self.timing.ask((rule.rule_id for rule in self.book), time.monotonic_ns())
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        try:
            self.view.update(await netlink.interfaces())
            self.tables.add(list(self.book))
            warm_up()
            gc.collect()
            gc.freeze()
            self.workers = [self.new_worker(plan) for plan in self.plan.workers]
            limits.allow_descriptors()
            limits.check_realtime(self._setup.realtime_priority)
            for name in self.plan.interfaces:
                if (state := self.view.find(name)) is not None:
                    ingress.open_receivers(state, name, self.workers, self.plan.strategy.hashing)
            spawn(self.workers)
            await self._ready
            for rule in self.book:
                self._join(rule)
            ingress.listen(self.workers, self.plan.strategy.hashing)
            for receiver in self._receivers():
                self._listens(receiver.interface, receiver.ifindex)
            self.timing.put_in_force((rule.rule_id for rule in self.book), time.monotonic_ns())
        except OSError as error:
            await self.stop()
            raise limits.explained(error, self.plan, FORKED_TOGETHER) from error
        except BaseException:
            await self.stop()
            raise
        self._started.set()
        self._spawn_task(self._follow_interfaces())
        self._watch()
        notify("READY=1")

    async def stop(self) -> None:
        """Let nothing more in, let the workers forward what they hold, end them, leave every group."""
        notify("STOPPING=1")
        self.stopping.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for receiver in self._receivers():
            sockets.mute(receiver.sock)
        await asyncio.gather(*(handle.stop(STOP_TIMEOUT_S) for handle in self.workers))
        self.joins.close()

    def close(self) -> None:
        """Give back sockets and memory, after the last statistics were taken."""
        if self.host_stack:
            self.host_stack.close()
        sockets.close_receivers([receiver.sock for receiver in self._receivers()])
        self._memory.close()

    # -- rules --

    async def add_rules(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        """Put rules in force, all or none; what was wrong with them otherwise."""
        async with self.rule_changes.passing():
            return await self._add_rules(rules)

    async def _add_rules(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        asked_ns = time.monotonic_ns()
        await self._started.wait()
        problems = self.tables.problems(rules)
        if problems:
            return self.book.check(rules) or problems
        problems = self.book.add(rules)
        if problems:
            return problems
        added = self.tables.add(rules)
        self.timing.ask((rule.rule_id for rule in rules), asked_ns)
        self._packed.clear()
        self._announce_links()
        messages = {partition: _in_messages(news) for partition, news in added.items()}
        told: list[asyncio.Future[int]] = []
        for handle in self.workers:
            told += self._tell_rules(handle, messages.get(handle.plan.partition, ()))
        await _settled(told)
        if self.plan.follows_rules:
            await self._follow_rules({rule.input_interface for rule in rules})
        kept = [rule for rule in rules if self.book.get(rule.rule_id) is rule]  # not removed meanwhile
        for rule in kept:
            self._join(rule)
        self.timing.put_in_force((rule.rule_id for rule in kept), time.monotonic_ns())
        return ()

    async def remove_rule(self, rule_id: str) -> ForwardingRule:
        """Take a rule out of force; raises :class:`~forwarder.rules.RulesError` when there is none such."""
        async with self.rule_changes.passing():
            return await self._remove_rule(rule_id)

    async def _remove_rule(self, rule_id: str) -> ForwardingRule:
        await self._started.wait()
        rule = self.book.remove(rule_id)
        self._leave(rule)
        self.timing.forget(rule_id)
        self.past_rules.pop(rule_id, None)
        removed = self.tables.remove(rule)
        self._packed.clear()
        body = channel.pack_keys([removed.key])
        told = [
            handle.tell(Kind.REMOVE_RULES, count=1, body=body)
            for handle in self.workers
            if handle.plan.partition in removed.known_to
        ]
        await _settled(told)
        for handle in self.workers:
            if handle.plan.partition == removed.partition:
                handle.block.forget_rule(removed.slot)
        self.tables.give_back(removed)
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

    def _tell_rules(
        self, handle: WorkerHandle, messages: Sequence[tuple[int, bytes]]
    ) -> list[asyncio.Future[int]]:
        return [handle.tell(Kind.ADD_RULES, count=count, body=body) for count, body in messages]

    def _all_rules(self, tables: RuleTables, partition: int) -> list[tuple[int, bytes]]:
        found = self._packed.get((tables, partition))
        if found is None:
            found = self._packed[tables, partition] = _in_messages(tables.contents(partition))
        return found

    def tables_of(self, handle: WorkerHandle) -> RuleTables:
        """The rules that a worker is told."""
        return self.newcomers.get(handle, self.tables)

    def _join(self, rule: ForwardingRule) -> None:
        state = self.view.find(rule.input_interface)
        if state is None or rule.rule_id in self._joined:
            return
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

    # -- workers --

    def new_worker(self, plan: WorkerPlan, setup: Setup | None = None) -> WorkerHandle:
        """A slot for a worker, of ``setup`` or the present one, without a process yet."""
        setup = setup or self._setup
        self._memory.reserve(plan.worker_id + 1)
        return WorkerHandle(
            plan,
            self._memory.block(plan.worker_id),
            busy_poll_ns=setup.busy_poll_us * 1000,
            realtime_priority=setup.realtime_priority,
            on_ready=self._begin,
            on_death=self._mourn,
        )

    def _begin(self, handle: WorkerHandle) -> None:
        self._spawn_task(self._equip(handle))

    async def _equip(self, handle: WorkerHandle) -> None:
        """Tell a new process everything, then let it run."""
        self._equipped.add(handle)
        tables = self.tables_of(handle)
        told = [handle.tell(Kind.SET_LINKS, body=self._links_body(tables))]
        told += self._tell_rules(handle, self._all_rules(tables, handle.plan.partition))
        told += [self._hand_over(handle, row) for row in handle.receivers]
        try:
            results = await asyncio.gather(*told)
        except WorkerGoneError:
            return
        if any(results):
            error = next(result for result in results if result)
            self.log(f"worker {handle.plan.worker_id} could not be set up: {os.strerror(error)}")
            return
        handle.run()
        assert self._ready is not None
        if not self._ready.done() and all(other.state is State.RUNNING for other in self.workers):
            self._ready.set_result(None)

    def _hand_over(self, handle: WorkerHandle, row: int) -> asyncio.Future[int]:
        receiver = handle.receivers[row]
        interface = self.tables_of(handle).input_number(receiver.interface)
        body = channel.pack_socket(row, receiver.ring.frames, receiver.ring.frame_bytes, interface)
        return handle.tell(Kind.ADD_SOCKET, body=body, descriptors=[receiver.sock.fileno()])

    def _mourn(self, handle: WorkerHandle, sentence: str) -> None:
        self.log(f"worker {handle.plan.worker_id}: {sentence}")
        self._equipped.discard(handle)
        assert self._ready is not None
        if not self._ready.done() and handle.restarts > 2:
            self._ready.set_exception(OSError(f"worker {handle.plan.worker_id} cannot start: {sentence}"))

    def _receivers(self) -> Iterator[Receiver]:
        return (receiver for handle in self.workers for receiver in handle.receivers.values())

    def take(self, setup: Setup, tables: RuleTables, book: RuleBook) -> None:
        """Speak of the workers of another setup, which have taken over, and of their rules."""
        former, now_ns = list(self.book), time.monotonic_ns()
        for rule in former:
            if book.get(rule.rule_id) != rule:
                self._leave(rule)
                self.timing.forget(rule.rule_id)
                self.past_rules.pop(rule.rule_id, None)
        fresh = [rule.rule_id for rule in book if self.book.get(rule.rule_id) != rule]
        self.timing.ask(fresh, now_ns)
        self.timing.put_in_force(fresh, now_ns)
        self.plan, self.replan, self._setup = setup.plan, setup.replan, setup
        self.tables, self.book = tables, book
        self._packed.clear()
        for rule in book:
            self._join(rule)
        served = {receiver.interface: receiver.ifindex for receiver in self._receivers()}
        for name in self.listening - served.keys():
            self._listens_no_more(name)
        for name, ifindex in served.items():
            self._listens(name, ifindex)
        if self._watching is not None:
            self._watching.cancel()
        changes = self.scaler.changes
        self.scaler = self._new_scaler(setup)
        self.scaler.changes.extend(changes)
        self._watch()

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
        async for _ in netlink.changes():
            self.view.update(await netlink.interfaces())
            try:
                async with self.refitting:
                    await self._refit()
            except OSError as error:
                self.log(f"interfaces changed while they were being opened: {error}")

    async def _follow_rules(self, names: Iterable[str]) -> None:
        """Serve those of the interfaces that have rules and leave those that have none, as they are now."""
        async with self.refitting:
            for name in names:
                wanted, served = self.tables.rules_on(name) > 0, name in self.plan.interfaces
                if wanted != served:
                    self._adopt(self.replan(list(self.book), {}))
                if served and not wanted:
                    self.log(f"interface {name} has no rule any more")
                    await _settled(self._close_receivers(name))
                state = self.view.find(name)
                if wanted and not served and state is not None:
                    await self._bring_up(name, state)

    def _adopt(self, plan: Plan) -> None:
        """Take a plan of the same workers with other sockets."""
        self.plan = plan
        for handle, planned in zip(self.in_plan(), plan.workers, strict=True):
            handle.plan = replace(planned, worker_id=handle.plan.worker_id)

    def in_plan(self) -> list[WorkerHandle]:
        """The workers of the plan, without slots of former ones."""
        return [handle for handle in self.workers if handle not in self.spare]

    def live_plan(self) -> Plan:
        """The plan for the rules in force, with the rings that there are."""
        if not self._started.is_set():
            return self.plan
        plan = self.replan(list(self.book), self.scaler.sizes())
        present = [handle for handle in self.workers if handle.state is not State.PARKED]
        workers = tuple(
            replace(handle.plan, sockets=ingress.as_opened(handle, handle.plan.sockets))
            for handle in sorted(present, key=lambda handle: handle.plan.group)
        )
        return replace(plan, workers=workers)

    async def _refit(self) -> None:
        """Make sockets, links and memberships fit the interfaces as they are now."""
        told = list(self._announce_links())
        for name in self.plan.interfaces:
            state = self.view.find(name)
            held = ingress.held(self.workers, name)
            stale = bool(held) and (
                state is None or held[0][0].receivers[held[0][1]].ifindex != state.ifindex
            )
            if stale:
                self.log(f"interface {name} is gone" if state is None else f"interface {name} was replaced")
                told += self._close_receivers(name)
                await _settled(told)
                for rule in self.book:
                    if rule.input_interface == name:
                        self._leave(rule)
            if state is not None and (stale or not held):
                await self._bring_up(name, state)
        await _settled(told)

    async def _bring_up(self, name: str, state: InterfaceState) -> None:
        """Serve an interface that has appeared."""
        self.log(f"interface {name} is served, index {state.ifindex}")
        hashing = self.plan.strategy.hashing
        ingress.open_receivers(state, name, self.workers, hashing)
        told = [
            self._hand_over(handle, row)
            for handle, row in ingress.held(self.workers, name)
            if handle in self._equipped
        ]
        await _settled(told)
        for rule in self.book:
            if rule.input_interface == name:
                self._join(rule)
        ingress.listen(self.workers, hashing, name)
        self._listens(name, state.ifindex)

    def _listens(self, interface: str, ifindex: int) -> None:
        """Its datagrams are let in from now on."""
        if interface in self.listening:
            return
        if self.host_stack:
            self.host_stack.skip(interface, ifindex)
        self.listening.add(interface)

    def _listens_no_more(self, interface: str) -> None:
        self.listening.discard(interface)
        if self.host_stack:
            self.host_stack.resume(interface)

    def _close_receivers(self, name: str) -> list[asyncio.Future[int]]:
        """Leave an interface: every worker lets go of its socket, which leaves its group with that."""
        told = []
        closing = []
        self._listens_no_more(name)
        for handle, row in ingress.held(self.workers, name):
            told.append(handle.tell(Kind.REMOVE_SOCKET, argument=row))
            receiver = handle.receivers.pop(row)
            self.past_drops[name] += receiver.count_drops()
            closing.append(receiver.sock)
        sockets.close_receivers(closing)
        return told

    def _announce_links(self) -> list[asyncio.Future[int]]:
        body = self._links_body(self.tables)
        if not body:
            return []
        return [handle.tell(Kind.SET_LINKS, body=body) for handle in self.workers]

    def _links_body(self, tables: RuleTables) -> bytes:
        body = b""
        for name, slot in tables.outputs.items():
            state = self.view.find(name)
            if state is None or output_trouble(name, state):
                body += channel.pack_link(slot, 0, 0, bytes(4), bytes(6))
            else:
                assert state.ipv4 is not None
                body += channel.pack_link(slot, state.ifindex, state.mtu, state.ipv4, state.mac)
        return body

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _in_messages(rules: Sequence[WorkerRule]) -> list[tuple[int, bytes]]:
    """The bodies of ADD_RULES messages, and how many rules are in each."""
    return [(len(part), channel.pack_rules(part)) for part in channel.in_messages(rules)]


async def _settled(told: Sequence[asyncio.Future[int]]) -> None:
    """Wait for workers' answers; one that died meanwhile is told everything again by its start."""
    await asyncio.gather(*told, return_exceptions=True)
