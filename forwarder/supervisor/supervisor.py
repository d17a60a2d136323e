"""The supervisor: runs a plan, and keeps it in force while rules, interfaces and processes come and go.

It is one thread with one event loop, and touches no packet.
"""

import asyncio
import gc
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any, Final

from forwarder.engines.xdp.early_drop import EarlyFilter
from forwarder.net import netlink
from forwarder.net.host_stack import HostStack
from forwarder.net.links import LinkView
from forwarder.net.memberships import Memberships
from forwarder.plan.engine import EarlyDrop, Engine
from forwarder.plan.host import Host
from forwarder.plan.model import Plan
from forwarder.problems import Log
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule
from forwarder.supervisor.autoscaler import Autoscaler, Histories
from forwarder.supervisor.interfaces import Interfaces
from forwarder.supervisor.kernel_path import KernelPath
from forwarder.supervisor.rule_changes import RuleChanges
from forwarder.supervisor.rule_store import RuleStore
from forwarder.supervisor.state import ForwarderState
from forwarder.workers import limits, receive_sockets
from forwarder.workers.compilation import compile_apart
from forwarder.workers.entry_point import warm_up
from forwarder.workers.handle import FORKED_TOGETHER, State, spawn
from forwarder.workers.pool import ForwarderSpec, WorkerPool
from forwarder.workers.process import logged_when_slow, notify

STOP_TIMEOUT_S: Final = 1.0
COMPILING: Final = "compiling the packet path for this machine: once, and for half a minute or so"
UPKEEP_S: Final = 60.0
"""Interval of garbage collection, of a request to every worker, and of a look at devices' features."""


async def upkeep(state: ForwarderState) -> None:
    """Send every worker a request, look at devices' features, and collect garbage, once in a while.

    A worker that hangs is found only because it owes a reply. The garbage is what connections to the control
    socket leave in reference cycles (asyncio's streams do). Python would collect it after some 37,000 such
    objects: it waits for a quarter of what there was at the last full collection, all of which is frozen
    since (``gc_collect_generations``, gcmodule.c). Little is not frozen: this takes 2 ms, and 14 ms with
    10,000 rules that were added later.
    """
    while True:
        await asyncio.sleep(UPKEEP_S)
        state.pool.send_links()
        state.kernel.refit(state.book)
        gc.collect()


class StoppedError(Exception):
    """The supervisor was stopped before it had started; everything that it had made is gone."""


class Supervisor:
    """Runs a forwarder.

    Args:
        rules: the rules to begin with, already checked.
        host: reads the machine as it is now.
        skip_host_stack: whether this machine's own network stack is spared the datagrams that workers take.
        engine: what forwards the datagrams of rules that it can serve; workers do the rest.
        early_drop: whether the driver drops datagrams for a ring that is nearly full.

    Raises RulesError: the rules contradict each other.
    """

    def __init__(
        self,
        spec: ForwarderSpec,
        rules: Sequence[ForwardingRule],
        *,
        host: Callable[[], Host],
        store: RuleStore | None = None,
        skip_host_stack: bool = False,
        engine: Engine = Engine.PACKET,
        early_drop: EarlyDrop = EarlyDrop.OFF,
        log: Log = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        self._host = host
        self._store = store
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        links = LinkView()
        early = EarlyFilter(early_drop, log)
        if engine is Engine.XDP:
            early.give_way()
        pool = WorkerPool(spec, links, self._spawn_task, log, early.level_of)
        kernel, memberships = KernelPath(engine, links, log), Memberships(links, log)
        self.state = ForwarderState(spec.plan, RuleBook(rules), pool, links, memberships, kernel, early)
        host_stack = HostStack() if skip_host_stack else None
        self.interfaces = Interfaces(self.state, host_stack, self._spawn_task, log)
        self.rules = RuleChanges(self.state, self.interfaces, store, log)
        self.autoscaler = self._new_autoscaler(spec)
        self._watching: asyncio.Task[None] | None = None

    # -- start and stop --

    async def start(self) -> None:
        """Open every socket, start every worker, and let traffic in once all of them have their rules.

        Raises:
            PlanError: the workers cannot hold the rules.
            OSError: a process, socket, descriptor or memory could not be had; nothing is left behind.
            StoppedError: the supervisor was stopped meanwhile.
        """
        state, pool = self.state, self.state.pool
        try:
            self.rules.load()
            state.links.update(await netlink.interfaces())
            limits.check_memory(state.plan.workers, state.links)
            with logged_when_slow(self._log, COMPILING):
                await self._unless_stopped(compile_apart())
                warm_up()
            gc.collect()
            gc.freeze()
            gc.enable()
            for planned in pool.spec.plan.workers:
                pool.add(planned)
            limits.allow_descriptors()
            limits.check_realtime(pool.spec.realtime_priority)
            self.interfaces.open()
            state.early.open(state.plan.interfaces)
            spawn(pool.workers)
            await self._unless_stopped(pool.ready)
            self.interfaces.listen()
            state.early.check()
            self.rules.confirm()
            state.kernel.open(state.book)
        except OSError as error:
            await self.stop()
            raise limits.explained(error, state.plan, FORKED_TOGETHER) from error
        except BaseException:
            await self.stop()
            raise
        state.started.set()
        self._spawn_task(self.interfaces.follow())
        self._spawn_task(upkeep(state))
        self._watch()
        notify("READY=1")

    async def _unless_stopped(self, awaited: Awaitable[None]) -> None:
        done = asyncio.ensure_future(awaited)
        stop = asyncio.ensure_future(self.state.stopping.wait())
        try:
            await asyncio.wait((done, stop), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise StoppedError
            await done
        finally:
            done.cancel()
            stop.cancel()

    async def stop(self) -> None:
        """Let nothing more in, let the workers forward what they hold, end them, leave every group."""
        notify("STOPPING=1")
        self.state.stopping.set()
        await self.state.pool.stop_incoming()
        async with AsyncExitStack() as no_more_changes:
            if self.state.started.is_set():
                with suppress(TimeoutError):  # changes that are under way may end first
                    async with asyncio.timeout(STOP_TIMEOUT_S):
                        await no_more_changes.enter_async_context(self.rules.exclusive())
                        await no_more_changes.enter_async_context(self.state.sockets_lock)
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            workers = self.state.pool.workers
            self.state.early.stop()  # or it would drop what nobody listens to any more
            receive_sockets.stop_listening(workers)
            self.state.kernel.stop()
            await asyncio.gather(*(handle.stop(STOP_TIMEOUT_S) for handle in workers))
            self.state.memberships.close()

    def close(self) -> None:
        """Release sockets and memory, after the last statistics were taken."""
        if self._store:
            self._store.close()
        self.interfaces.close()
        self.state.kernel.close()
        self.state.early.close()
        self.state.pool.close()

    # -- plans --

    def switch(self, spec: ForwarderSpec, book: RuleBook) -> None:
        """Go over to another plan and its rules; its workers have taken over already."""
        self.rules.switch(book)
        self.state.plan = spec.plan
        self.interfaces.recount()
        if self._watching is not None:
            self._watching.cancel()
        self.autoscaler.superseded = True
        self.autoscaler = self._new_autoscaler(spec, self.autoscaler.histories)
        self._watch()

    def _new_autoscaler(self, spec: ForwarderSpec, histories: Histories | None = None) -> Autoscaler:
        return Autoscaler(
            self.state,
            spec.plan.groups,
            self._host,
            threshold_dps=spec.scale_threshold_dps,
            log=self._log,
            histories=histories or {},
        )

    def _watch(self) -> None:
        self._watching = self._spawn_task(self.autoscaler.watch()) if self.autoscaler.groups else None

    def live_plan(self) -> Plan:
        """The plan for the rules in force, with the rings that there are."""
        if not self.state.started.is_set():
            return self.state.plan
        pool = self.state.pool
        plan = pool.spec.replan(list(self.state.book), self.autoscaler.sizes())
        present = [handle for handle in pool.workers if handle.state is not State.PARKED]
        workers = tuple(
            replace(handle.plan, sockets=receive_sockets.as_opened(handle, handle.plan.sockets))
            for handle in sorted(present, key=lambda handle: handle.plan.group)
        )
        return replace(plan, workers=workers)

    # -- tasks --

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._log(f"a fault of mcrd, in {task.get_name()}:")
            traceback.print_exception(error)
