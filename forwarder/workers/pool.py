"""The workers of a forwarder: made, told what they must know, asked what they answered.

What a worker is told are links, rules and sockets: all of them when its process begins, and what changes
afterwards. Besides those of the plan in force there may be spare slots of former plans, and newcomers of the
next.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from forwarder.engines.packet.engine import LINKS
from forwarder.engines.packet.memory import RULES, SharedMemory
from forwarder.engines.packet.messages import Kind
from forwarder.engines.packet.schema import SOCKETS
from forwarder.net.links import LinkView, output_trouble
from forwarder.plan.model import Plan, WorkerPlan
from forwarder.workers import encoding as channel
from forwarder.workers.encoding import WorkerRule
from forwarder.workers.handle import Receiver, State, WorkerHandle
from forwarder.workers.request_channel import WorkerGoneError
from forwarder.workers.rule_index import RuleTables
from forwarder.workers.spec import Setup

Told = list[asyncio.Future[int]]
"""What workers will answer."""


def tables_for(plan: Plan) -> RuleTables:
    """Without rules yet, for what a worker has room for."""
    return RuleTables(plan, most_rules=RULES, most_outputs=LINKS, most_inputs=SOCKETS)


class Crew:
    """All worker slots; to be closed.

    Args:
        setup: what they are made of.
        tables: their rules.
        view: the interfaces as they are.
        spawn_task: runs something beside the rest.
        log: takes one sentence at a time.
    """

    def __init__(
        self,
        setup: Setup,
        tables: RuleTables,
        view: LinkView,
        spawn_task: Callable[[Coroutine[Any, Any, None]], object],
        log: Callable[[str], None],
    ) -> None:
        self.setup = setup
        self.tables = tables
        self.workers: list[WorkerHandle] = []
        self.spare: list[WorkerHandle] = []
        """Slots of former plans' workers, for those of the next."""
        self.past_drops: Counter[str] = Counter()
        self.past_arrivals: Counter[str] = Counter()
        self.past_abandoned: Counter[str] = Counter()
        """What sockets that are gone dropped, what had come to them, what was left in them, by interface."""
        self._newcomers: dict[WorkerHandle, RuleTables] = {}
        """Workers of a plan that is being put in place of this one, and their rules."""
        self._view = view
        self._spawn_task = spawn_task
        self._log = log
        self._memory = SharedMemory(len(setup.plan.workers))
        self._packed: dict[tuple[RuleTables, int], list[tuple[int, bytes]]] = {}
        """What a new process of a partition is told of rules, until they change."""
        self._equipped: set[WorkerHandle] = set()
        """Workers whose present process is being told everything, or has been."""
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def make(self) -> None:
        """The slots that the plan calls for, without processes yet."""
        self.workers += [self._new(plan, self.setup) for plan in self.setup.plan.workers]

    def add(self, plan: WorkerPlan) -> WorkerHandle:
        """One slot more."""
        handle = self._new(plan, self.setup)
        self.workers.append(handle)
        return handle

    def add_newcomer(self, plan: WorkerPlan, setup: Setup, tables: RuleTables) -> WorkerHandle:
        """A worker of another setup with rules of its own, for a slot that is spare or comes after all."""
        handle = self._new(plan, setup)
        self._newcomers[handle] = tables
        return handle

    async def end_newcomers(self) -> None:
        """Those of a plan that is not in force yet hold nothing, and are not to come any more."""
        await asyncio.gather(*(handle.stop(0) for handle in self._newcomers))

    def forget_newcomer(self, handle: WorkerHandle) -> None:
        """It is not to come after all."""
        self._newcomers.pop(handle, None)
        self._equipped.discard(handle)

    def relieve(
        self,
        setup: Setup,
        tables: RuleTables,
        newcomers: Sequence[WorkerHandle],
        former: Sequence[WorkerHandle],
    ) -> None:
        """From now on it is the newcomers' setup and rules, and ``former`` slots are spare."""
        for handle in newcomers:
            place = handle.plan.worker_id
            self.workers[place : place + 1] = [handle]
        used = {handle.plan.worker_id for handle in newcomers}
        self.spare = [h for h in self.spare if h.plan.worker_id not in used] + list(former)
        self.spare.sort(key=lambda handle: handle.plan.worker_id)
        self._newcomers.clear()
        self._packed.clear()
        self.setup, self.tables = setup, tables

    @property
    def in_plan(self) -> list[WorkerHandle]:
        """The workers of the plan, without slots of former ones."""
        return [handle for handle in self.workers if handle not in self.spare]

    def keep_counts(self, closed: Iterable[Receiver]) -> None:
        """What has come to sockets that were closed, what they dropped and still held, stays counted."""
        for receiver in closed:
            self.past_drops[receiver.interface] += receiver.drops
            self.past_arrivals[receiver.interface] += receiver.came
            self.past_abandoned[receiver.interface] += receiver.abandoned

    async def wait_until_ready(self) -> None:
        """Until all workers that there are to begin with run; raises OSError when one cannot start."""
        await self._ready

    def close(self) -> None:
        """Give back the memory of their counters."""
        self._memory.close()

    # -- what they are told --

    def add_rules(self, added: Mapping[int, Sequence[WorkerRule]]) -> Told:
        """Rules of partitions, which the tables have already."""
        self._packed.clear()
        messages = {partition: _in_messages(rules) for partition, rules in added.items()}
        told: Told = []
        for handle in self.workers:
            told += _tell_rules(handle, messages.get(handle.plan.partition, ()))
        return told

    def remove_rule(self, key: int, partitions: Sequence[int]) -> Told:
        """A rule that the tables have no more."""
        self._packed.clear()
        body = channel.pack_keys([key])
        return [
            handle.tell(Kind.REMOVE_RULES, count=1, body=body)
            for handle in self.workers
            if handle.plan.partition in partitions
        ]

    def announce_links(self) -> Told:
        """Where outputs lead, as it is now."""
        body = self._links_body(self.tables)
        return [handle.tell(Kind.SET_LINKS, body=body) for handle in self.workers]

    def hand_over(self, places: Sequence[tuple[WorkerHandle, int]]) -> Told:
        """Sockets that were opened, for those who have been told the rest."""
        return [self._hand_over(handle, row) for handle, row in places if handle in self._equipped]

    def take_back(self, handle: WorkerHandle, row: int) -> asyncio.Future[int]:
        """A socket that is about to be closed, from its worker; what that leaves in the ring is counted."""
        receiver, at_it = handle.receivers[row], handle.pid is not None
        told = handle.tell(Kind.REMOVE_SOCKET, argument=row)

        def count(_: asyncio.Future[int]) -> None:
            self.past_abandoned[receiver.interface] += receiver.waiting(handle.claimed(row))

        if at_it:  # otherwise whoever closes it knows already
            told.add_done_callback(count)
        return told

    def _new(self, plan: WorkerPlan, setup: Setup) -> WorkerHandle:
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
        if handle.pid is not None:  # otherwise its first word was heard when it had ended
            self._spawn_task(self._equip(handle, handle.pid))

    async def _equip(self, handle: WorkerHandle, pid: int) -> None:
        """Tell a new process everything, then let it run; its successor, if it ends, is told itself."""
        if handle.pid != pid:
            return
        self._equipped.add(handle)
        tables = self._tables_of(handle)
        told = [handle.tell(Kind.SET_LINKS, body=self._links_body(tables))]
        told += _tell_rules(handle, self._all_rules(tables, handle.plan.partition))
        told += [self._hand_over(handle, row) for row in handle.receivers]
        try:
            results = await asyncio.gather(*told)
        except WorkerGoneError:
            return
        if handle.pid != pid:  # it had answered everything, and ended
            return
        if any(results):
            error = next(result for result in results if result)
            self._log(f"worker {handle.plan.worker_id} could not be set up: {os.strerror(error)}")
            handle.give_up()
            return
        handle.run()
        if not self._ready.done() and all(other.state is State.RUNNING for other in self.workers):
            self._ready.set_result(None)

    def _mourn(self, handle: WorkerHandle, sentence: str) -> None:
        self._log(f"worker {handle.plan.worker_id}: {sentence}")
        self._equipped.discard(handle)
        if not self._ready.done() and handle.restarts > 2:
            self._ready.set_exception(OSError(f"worker {handle.plan.worker_id} cannot start: {sentence}"))

    def _tables_of(self, handle: WorkerHandle) -> RuleTables:
        return self._newcomers.get(handle, self.tables)

    def _all_rules(self, tables: RuleTables, partition: int) -> list[tuple[int, bytes]]:
        found = self._packed.get((tables, partition))
        if found is None:
            found = self._packed[tables, partition] = _in_messages(tables.contents(partition))
        return found

    def _hand_over(self, handle: WorkerHandle, row: int) -> asyncio.Future[int]:
        receiver = handle.receivers[row]
        interface = self._tables_of(handle).input_number(receiver.interface)
        body = channel.pack_socket(row, receiver.ring.frames, receiver.ring.frame_bytes, interface)
        return handle.tell(Kind.ADD_SOCKET, body=body, descriptors=[receiver.sock.fileno()])

    def _links_body(self, tables: RuleTables) -> bytes:
        body = b""
        for name, slot in tables.outputs.items():
            state = self._view.find(name)
            if state is None or output_trouble(name, state):
                body += channel.pack_link(slot, 0, 0, bytes(4), bytes(6))
            else:
                assert state.ipv4 is not None
                body += channel.pack_link(slot, state.ifindex, state.mtu, state.ipv4, state.mac)
        return body


async def settled(told: Sequence[asyncio.Future[int]]) -> int:
    """Wait for workers' answers; one that died meanwhile is told everything again by its start.

    Returns:
        An errno that one of them answered, or 0.
    """
    answers = await asyncio.gather(*told, return_exceptions=True)
    return next((answer for answer in answers if isinstance(answer, int) and answer), 0)


def _tell_rules(handle: WorkerHandle, messages: Sequence[tuple[int, bytes]]) -> Told:
    return [handle.tell(Kind.ADD_RULES, count=count, body=body) for count, body in messages]


def _in_messages(rules: Sequence[WorkerRule]) -> list[tuple[int, bytes]]:
    """The bodies of ADD_RULES messages, and how many rules are in each."""
    return [(len(part), channel.pack_rules(part)) for part in channel.in_messages(rules)]
