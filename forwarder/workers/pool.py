"""The worker pool: makes workers, sends them what they must know, and collects their replies.

A new process is sent all links, rules and sockets; later it is sent what changes. Besides the workers of the
plan in force, the pool has spare slots of earlier plans, and incoming workers of the next plan.
"""

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from forwarder.engines.packet.engine import SharedMemory
from forwarder.engines.packet.schema import LINKS, RULES, SOCKETS, Kind
from forwarder.net.links import LinkView
from forwarder.plan.model import Plan, WorkerPlan
from forwarder.problems import Log
from forwarder.rules.model import ForwardingRule
from forwarder.workers import encoding
from forwarder.workers.handle import Receiver, State, WorkerHandle
from forwarder.workers.request_channel import WorkerGoneError
from forwarder.workers.rule_index import Removed, RuleIndex

SpawnTask = Callable[[Coroutine[Any, Any, None]], object]
"""Starts a task in the background."""
PendingReplies = list[asyncio.Future[int]]
"""Replies that workers owe: an errno or 0 each."""
LevelOf = Callable[[int, int], int]
"""The address of the level of a ring, by worker and row of its socket, or 0."""
RETIRED: Final = -1
"""Group and partition of a slot whose worker belonged to an earlier plan."""


@dataclass(frozen=True)
class ForwarderSpec:
    """What a forwarder is made from."""

    plan: Plan
    replan: Callable[[Sequence[ForwardingRule], Mapping[int, int]], Plan]
    """Makes the plan for other rules, and for other sizes of elastic groups by group."""
    scale_threshold_dps: int
    """Datagrams/s of an elastic group that call for one more worker."""
    busy_poll_us: int = 0
    realtime_priority: int = 0
    """0 for none."""
    coalesce: bool = True
    fill_checksums: bool = True
    """Whether copies of datagrams without a UDP checksum get one."""


def index_for(plan: Plan) -> RuleIndex:
    """An empty rule index with the limits of a packet worker."""
    return RuleIndex(plan, most_rules=RULES, most_outputs=LINKS, most_inputs=SOCKETS)


class WorkerPool:
    """All worker slots; to be closed."""

    def __init__(
        self,
        spec: ForwarderSpec,
        links: LinkView,
        spawn_task: SpawnTask,
        log: Log,
        level_of: LevelOf = lambda *_: 0,
    ) -> None:
        self.spec, self.index = spec, index_for(spec.plan)
        self.workers: list[WorkerHandle] = []
        self.spare: list[WorkerHandle] = []
        """Slots of workers of earlier plans, for workers of the next."""
        # Counts of sockets that are closed, by interface.
        self.past_drops: Counter[str] = Counter()
        self.past_arrivals: Counter[str] = Counter()
        self.past_abandoned: Counter[str] = Counter()
        self._incoming: dict[WorkerHandle, RuleIndex] = {}
        """Workers of a plan that is about to take over, with the rules of that plan."""
        self._links = links
        self._spawn_task = spawn_task
        self._log = log
        self._level_of = level_of
        self._memory = SharedMemory(len(spec.plan.workers))
        self._packed: dict[tuple[RuleIndex, int], list[tuple[int, bytes]]] = {}
        """ADD_RULES messages for a new process of a partition, until rules change."""
        self._informed: set[WorkerHandle] = set()
        """Workers whose present process has been sent everything, or is being sent it."""
        self._freeing: set[asyncio.Future[None]] = set()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when all workers run for the first time; fails with OSError when one cannot start."""

    def add(self, plan: WorkerPlan) -> WorkerHandle:
        """Make a slot, without a process yet."""
        handle = self._new(plan, self.spec)
        self.workers.append(handle)
        return handle

    def add_incoming(self, plan: WorkerPlan, spec: ForwarderSpec, index: RuleIndex) -> WorkerHandle:
        """Make a slot for a worker of the next plan, with the rules of that plan."""
        handle = self._new(plan, spec)
        self._incoming[handle] = index
        return handle

    async def stop_incoming(self) -> None:
        """End the incoming workers, which forward nothing yet."""
        await asyncio.gather(*(handle.stop(0) for handle in self._incoming))

    def discard_incoming(self, handle: WorkerHandle) -> None:
        """Forget an incoming worker that has ended."""
        self._incoming.pop(handle, None)
        self._informed.discard(handle)

    def switch_over(
        self,
        spec: ForwarderSpec,
        index: RuleIndex,
        incoming: Sequence[WorkerHandle],
        outgoing: Sequence[WorkerHandle],
    ) -> None:
        """Put the incoming workers in place of the outgoing ones, whose slots become spare."""
        for handle in incoming:
            place = handle.plan.worker_id
            self.workers[place : place + 1] = [handle]
        used = {handle.plan.worker_id for handle in incoming}
        self.spare = [h for h in self.spare if h.plan.worker_id not in used] + list(outgoing)
        self.spare.sort(key=lambda handle: handle.plan.worker_id)
        self._incoming.clear()
        self._packed.clear()
        self.spec, self.index = spec, index

    @property
    def in_plan(self) -> list[WorkerHandle]:
        return [handle for handle in self.workers if handle not in self.spare]

    def keep_counts(self, closed: Iterable[Receiver]) -> None:
        """Add the counts of closed sockets to those of the past."""
        for receiver in closed:
            self.past_drops[receiver.interface] += receiver.drops
            self.past_arrivals[receiver.interface] += receiver.came
            self.past_abandoned[receiver.interface] += receiver.abandoned

    def close(self) -> None:
        self._memory.close()

    # -- requests to workers --

    def add_rules(self, rules: Sequence[ForwardingRule]) -> PendingReplies:
        """Put rules that the index accepts into it, and send them to the workers that hold them."""
        self._packed.clear()
        added = self.index.add(rules).items()
        messages = {number: list(encoding.rule_messages(more)) for number, more in added}
        self.send_links()
        return self._send_to_partitions(Kind.ADD_RULES, messages)

    def remove_rules(self, rules: Iterable[ForwardingRule]) -> asyncio.Future[None]:
        """Take rules out of the index, where it has them, and out of the workers.

        The future is done when no worker has any of them, and their counters are free for other rules.
        Whoever waits for it shields it, as nobody else frees them.
        """
        self._packed.clear()
        removed = [self.index.remove(rule) for rule in rules if rule.rule_id in self.index]
        keys: defaultdict[int, list[int]] = defaultdict(list)
        for one in removed:
            for partition in one.known_to:
                keys[partition].append(one.key)
        messages = {number: list(encoding.key_messages(found)) for number, found in keys.items()}
        pending = self._send_to_partitions(Kind.REMOVE_RULES, messages)
        freed = asyncio.ensure_future(self._free_counters(self.index, removed, self.in_plan, pending))
        self._freeing.add(freed)
        freed.add_done_callback(self._freeing.discard)
        return freed

    def _send_to_partitions(
        self, kind: Kind, messages: Mapping[int, Sequence[tuple[int, bytes]]]
    ) -> PendingReplies:
        """Send each partition's workers its messages: how many rules are in each, and its body."""
        return [
            handle.channel.send(kind, count=count, body=body)
            for handle in self.workers
            for count, body in messages.get(handle.plan.partition, ())
        ]

    def send_links(self) -> PendingReplies:
        """Send how each output interface is reached now."""
        body = self._packed_links(self.index)
        return [handle.channel.send(Kind.SET_LINKS, body=body) for handle in self.workers]

    def send_sockets(self, places: Sequence[tuple[WorkerHandle, int]]) -> PendingReplies:
        """Send newly opened sockets to those workers that have been sent the rest."""
        return [self._send_socket(handle, row) for handle, row in places if handle in self._informed]

    def withdraw_socket(self, handle: WorkerHandle, row: int) -> asyncio.Future[int]:
        """Have a worker let go of a socket that is about to be closed, and count what is left in its ring."""
        receiver, running = handle.receivers[row], handle.pid is not None
        pending = handle.channel.send(Kind.REMOVE_SOCKET, argument=row)

        def count(_: asyncio.Future[int]) -> None:
            self.past_abandoned[receiver.interface] += receiver.waiting(handle.claimed(row))

        if running:  # otherwise closing the socket counts it
            pending.add_done_callback(count)
        return pending

    def _new(self, plan: WorkerPlan, spec: ForwarderSpec) -> WorkerHandle:
        self._memory.reserve(plan.worker_id + 1)
        return WorkerHandle(
            plan,
            self._memory.block(plan.worker_id),
            busy_poll_ns=spec.busy_poll_us * 1000,
            realtime_priority=spec.realtime_priority,
            coalesce=spec.coalesce,
            fill_checksums=spec.fill_checksums,
            on_ready=self._on_ready,
            on_death=self._on_death,
        )

    def _on_ready(self, handle: WorkerHandle) -> None:
        if handle.pid is not None:  # otherwise its first message was read after it had ended
            self._spawn_task(self._inform(handle, handle.pid))

    async def _inform(self, handle: WorkerHandle, pid: int) -> None:
        """Send a new process everything, then let it run. If it ends meanwhile, its successor is sent it."""
        if handle.pid != pid:
            return
        self._informed.add(handle)
        index = self._index_of(handle)
        part = index, handle.plan.partition
        if part not in self._packed:
            self._packed[part] = list(encoding.rule_messages(index.contents(handle.plan.partition)))
        pending = [handle.channel.send(Kind.SET_LINKS, body=self._packed_links(index))]
        pending += [
            handle.channel.send(Kind.ADD_RULES, count=count, body=body) for count, body in self._packed[part]
        ]
        pending += [self._send_socket(handle, row) for row in handle.receivers]
        try:
            results = await asyncio.gather(*pending)
        except WorkerGoneError:
            return
        if handle.pid != pid:  # it had replied to everything, and ended
            return
        if error := next(filter(None, results), 0):
            self._log(f"worker {handle.plan.worker_id} could not be set up: {os.strerror(error)}")
            handle.reject()
            return
        handle.run()
        if not self.ready.done() and all(other.state is State.RUNNING for other in self.workers):
            self.ready.set_result(None)

    def _on_death(self, handle: WorkerHandle, sentence: str) -> None:
        self._log(f"worker {handle.plan.worker_id}: {sentence}")
        self._informed.discard(handle)
        if not self.ready.done() and handle.restarts > 2:
            self.ready.set_exception(OSError(f"worker {handle.plan.worker_id} cannot start: {sentence}"))

    def _index_of(self, handle: WorkerHandle) -> RuleIndex:
        return self._incoming.get(handle, self.index)

    def _send_socket(self, handle: WorkerHandle, row: int) -> asyncio.Future[int]:
        receiver = handle.receivers[row]
        interface = self._index_of(handle).input_number(receiver.interface)
        level = self._level_of(handle.plan.worker_id, row) if receiver.alone else 0
        body = encoding.pack_socket(row, receiver.ring.frames, receiver.ring.frame_bytes, interface, level)
        return handle.channel.send(Kind.ADD_SOCKET, body=body, descriptors=[receiver.sock.fileno()])

    def _packed_links(self, index: RuleIndex) -> bytes:
        body = b""
        for name, slot in index.outputs.items():
            state = self._links.find(name)
            if state is not None and state.up and state.ipv4 is not None:
                body += encoding.pack_link(slot, state.ifindex, state.mtu, state.ipv4, state.mac)
            else:
                body += encoding.pack_link(slot, 0, 0, bytes(4), bytes(6))
        return body

    async def _free_counters(
        self,
        index: RuleIndex,
        removed: Sequence[Removed],
        workers: Sequence[WorkerHandle],
        pending: PendingReplies,
    ) -> None:
        """Free the counters of removed rules once no worker counts in them any more."""
        slots: defaultdict[int, list[int]] = defaultdict(list)
        for one in removed:
            slots[one.partition].append(one.slot)
        blocks = [(handle.block, slots[handle.plan.partition]) for handle in workers]
        await settled(pending)
        for block, unused in blocks:
            block.forget_rules(unused)
        for one in removed:
            index.give_back(one)


async def settled(pending: PendingReplies) -> int:
    """An errno that one of the replies is, or 0; a worker that dies meanwhile is sent everything again."""
    replies = await asyncio.gather(*pending, return_exceptions=True)
    return next((reply for reply in replies if isinstance(reply, int) and reply), 0)
