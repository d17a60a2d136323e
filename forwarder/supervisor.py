"""The supervisor: carries out a plan and keeps it true while rules, interfaces and processes come and go.

One thread, one event loop. Rules are changed here first, whole or not at all, then in every worker that holds
them; an answer goes out when all of them have them in force. Nothing here touches a packet.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from forwarder import channel, netlink
from forwarder.abi import af_packet as ap
from forwarder.joins import Joins
from forwarder.links import InterfaceState, LinkView, input_trouble, output_trouble
from forwarder.packet import sockets
from forwarder.packet.engine import LINKS
from forwarder.packet.memory import RULES, SharedMemory
from forwarder.packet.messages import Kind
from forwarder.packet.sockets import Ring
from forwarder.planned import Plan
from forwarder.problems import Problem
from forwarder.process import notify
from forwarder.rules import ForwardingRule, RuleBook
from forwarder.tables import Numbering, Placer, Slots, rule_key, worker_rule
from forwarder.worker import warm_up
from forwarder.workers import Receiver, State, WorkerGoneError, WorkerHandle, spawn

INPUTS: Final = 65_535
STOP_TIMEOUT_S: Final = 1.0

_FANOUT_MODES: Final = {
    "cpu": ap.PACKET_FANOUT_CPU,
    "hash": ap.PACKET_FANOUT_HASH,
    "lb": ap.PACKET_FANOUT_LB,
}


def unsupported(plan: Plan) -> list[Problem]:
    """What a plan asks for that this version can plan but not run yet."""
    problems = []
    if plan.strategy.steers_by_rule:
        problems.append(
            Problem(
                "steering", str(plan.strategy.steering), "cpu, hash, lb or none can be run by this version"
            )
        )
    if any(group.max_workers > group.workers for group in plan.groups):
        problems.append(Problem("auto_scale", "true", "a fixed number of workers can be run by this version"))
    return problems


class Supervisor:
    """Runs a plan.

    Args:
        plan: what to run.
        rules: the rules to begin with; they go together.
        busy_poll_us: of every worker.
        log: takes one sentence at a time.
    """

    def __init__(
        self,
        plan: Plan,
        rules: Sequence[ForwardingRule],
        *,
        busy_poll_us: int = 0,
        log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        self.plan = plan
        self.book = RuleBook(rules)
        self.view = LinkView()
        self.joins = Joins()
        self.workers: list[WorkerHandle] = []
        self.stopping = asyncio.Event()
        self.past_drops: Counter[str] = Counter()
        """Kernel drops of sockets that are gone, by interface."""
        self._log = log
        self._busy_poll_ns = busy_poll_us * 1000
        self._memory = SharedMemory(len(plan.workers))
        self._inputs = Numbering(INPUTS)
        self._outputs = Numbering(LINKS)
        self._placer = Placer(plan)
        self._slots = {partition.partition_id: Slots() for partition in plan.partitions}
        self._joined: dict[str, tuple[int, bytes]] = {}
        self._ready: asyncio.Future[None] | None = None
        self._started = False
        self._tasks: set[asyncio.Task[None]] = set()

    # -- start and stop --

    async def start(self) -> None:
        """Open every socket, start every worker, and let traffic in once all of them have their rules.

        Raises:
            OSError: something could not be had; nothing is left behind.
        """
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        try:
            self.view.update(await netlink.interfaces())
            for rule in self.book:
                self._number(rule)
            warm_up()
            gc.collect()
            gc.freeze()
            self.workers = [
                WorkerHandle(
                    plan,
                    self._memory.block(plan.worker_id),
                    busy_poll_ns=self._busy_poll_ns,
                    on_ready=lambda handle: self._spawn_task(self._equip(handle)),
                    on_death=self._mourn,
                )
                for plan in self.plan.workers
            ]
            for name in self.plan.interfaces:
                self._open_receivers(name)
            spawn(self.workers)
            await self._ready
            for rule in self.book:
                self._join(rule)
            self._listen_all()
        except BaseException:
            await self.stop()
            raise
        self._started = True
        self._spawn_task(self._follow_interfaces())
        notify("READY=1")

    async def stop(self) -> None:
        """Let nothing more in, let the workers forward what they hold, end them, leave every group."""
        notify("STOPPING=1")
        self.stopping.set()
        for handle in self.workers:
            for receiver in handle.receivers.values():
                sockets.mute(receiver.sock)
        await asyncio.gather(*(handle.stop(STOP_TIMEOUT_S) for handle in self.workers))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.joins.close()

    def close(self) -> None:
        """Give back sockets and memory, after the last statistics were taken."""
        for handle in self.workers:
            handle.close()
        self._memory.close()

    # -- rules --

    async def add_rules(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        """Put rules in force, all or none; what was wrong with them otherwise."""
        problems = self.book.check(rules) or self._placeable(rules)
        if problems:
            return problems
        self.book.add(rules)
        by_partition: dict[int, list[ForwardingRule]] = {}
        for rule in rules:
            by_partition.setdefault(self._number(rule), []).append(rule)
            self._join(rule)
        told: list[asyncio.Future[int]] = []
        self._announce_links()
        for handle in self.workers:
            told += self._tell_rules(handle, by_partition.get(handle.plan.partition, ()))
        await _settled(told)
        return ()

    async def remove_rule(self, rule_id: str) -> ForwardingRule:
        """Take a rule out of force; raises :class:`~forwarder.rules.RulesError` when there is none such."""
        rule = self.book.remove(rule_id)
        self._leave(rule)
        partition = self._placer.partition(rule)
        assert partition is not None
        key = rule_key(rule, self._inputs)
        body = channel.pack_keys([key])
        told = [
            handle.tell(Kind.REMOVE_RULES, count=1, body=body)
            for handle in self.workers
            if handle.plan.partition == partition
        ]
        await _settled(told)
        slot = self._slots[partition].give_back(rule_id)
        for handle in self.workers:
            if handle.plan.partition == partition:
                handle.block.rule_matched[slot] = 0
                handle.block.rule_unsent[slot] = 0
        return rule

    def slot(self, rule: ForwardingRule) -> tuple[int, int]:
        """The partition that holds a rule in force, and its counters' row there."""
        partition = self._placer.partition(rule)
        assert partition is not None, f"{rule.rule_id}: refused when it was added"
        return partition, self._slots[partition][rule.rule_id]

    def slots_used(self, partition: int) -> int:
        """Rows of counters that a partition has needed so far."""
        return self._slots[partition].used

    def rules_held(self, handle: WorkerHandle) -> int:
        return len(self._slots[handle.plan.partition])

    def trouble(self, rule: ForwardingRule) -> str | None:
        """What a rule waits for, or None when it is running."""
        found = input_trouble(rule.input_interface, self.view.find(rule.input_interface))
        if found:
            return found
        for output in rule.outputs:
            found = output_trouble(output.interface, self.view.find(output.interface))
            if found:
                return found
        return None

    def _placeable(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        problems = []
        served = ", ".join(self.plan.interfaces)
        for index, rule in enumerate(rules):
            partition = self._placer.partition(rule)
            if partition is None:
                problems.append(
                    Problem(
                        f"rules[{index}].input_interface",
                        f"{rule.input_interface!r} of rule {rule.rule_id!r}",
                        f"an interface that the workers serve: {served}",
                    )
                )
            elif len(self._slots[partition]) + len(rules) > RULES:
                problems.append(
                    Problem(f"rules[{index}]", rule.rule_id, f"at most {RULES:,} rules in a worker")
                )
        names = {output.interface for rule in rules for output in rule.outputs} | set(self._outputs.names())
        if len(names) > LINKS:
            problems.append(Problem("rules", f"{len(names)} output interfaces", f"at most {LINKS} of them"))
        return tuple(problems)

    def _number(self, rule: ForwardingRule) -> int:
        """Give a rule its numbers; the partition that holds it."""
        partition = self._placer.partition(rule)
        assert partition is not None, f"{rule.rule_id}: checked before"
        self._slots[partition].take(rule.rule_id)
        self._inputs.number(rule.input_interface)
        for output in rule.outputs:
            self._outputs.number(output.interface)
        return partition

    def _tell_rules(self, handle: WorkerHandle, rules: Sequence[ForwardingRule]) -> list[asyncio.Future[int]]:
        slots = self._slots[handle.plan.partition]
        packed = (worker_rule(rule, slots[rule.rule_id], self._inputs, self._outputs) for rule in rules)
        return [
            handle.tell(Kind.ADD_RULES, count=len(part), body=channel.pack_rules(part))
            for part in channel.in_messages(packed)
        ]

    def _join(self, rule: ForwardingRule) -> None:
        state = self.view.find(rule.input_interface)
        if state is None or rule.rule_id in self._joined:
            return
        group = rule.input_group.packed
        try:
            self.joins.join(state.ifindex, group)
        except OSError as error:
            self._log(f"rule {rule.rule_id}: cannot join {rule.input_group} on {state.name}: {error}")
            return
        self._joined[rule.rule_id] = (state.ifindex, group)

    def _leave(self, rule: ForwardingRule) -> None:
        membership = self._joined.pop(rule.rule_id, None)
        if membership is not None:
            self.joins.leave(*membership)

    # -- workers --

    async def _equip(self, handle: WorkerHandle) -> None:
        """Tell a new process everything, then let it run."""
        told = [handle.tell(Kind.SET_LINKS, body=self._links_body())]
        partition = handle.plan.partition
        rules = [rule for rule in self.book if self._placer.partition(rule) == partition]
        told += self._tell_rules(handle, rules)
        told += [self._hand_over(handle, row) for row in handle.receivers]
        try:
            results = await asyncio.gather(*told)
        except WorkerGoneError:
            return
        if any(results):
            error = next(result for result in results if result)
            self._log(f"worker {handle.plan.worker_id} could not be set up: {os.strerror(error)}")
            return
        handle.state = State.RUNNING
        assert self._ready is not None
        if not self._ready.done() and all(other.state is State.RUNNING for other in self.workers):
            self._ready.set_result(None)

    def _hand_over(self, handle: WorkerHandle, row: int) -> asyncio.Future[int]:
        receiver = handle.receivers[row]
        interface = self._inputs.number(receiver.interface)
        body = channel.pack_socket(row, receiver.ring.frames, receiver.ring.frame_bytes, interface)
        return handle.tell(Kind.ADD_SOCKET, body=body, descriptors=[receiver.sock.fileno()])

    def _mourn(self, handle: WorkerHandle, sentence: str) -> None:
        self._log(f"worker {handle.plan.worker_id}: {sentence}")
        assert self._ready is not None
        if not self._ready.done() and handle.restarts > 2:
            self._ready.set_exception(OSError(f"worker {handle.plan.worker_id} cannot start: {sentence}"))

    # -- interfaces --

    def _open_receivers(self, name: str) -> bool:
        """Open an interface's sockets for every worker that serves it, in joining order; False if absent."""
        state = self.view.find(name)
        if state is None:
            return False
        serving = [
            (planned, row, handle)
            for handle in self.workers
            for row, planned in enumerate(handle.plan.sockets)
            if planned.interface == name
        ]
        serving.sort(key=lambda item: item[0].fanout.slot if item[0].fanout else item[2].plan.worker_id)
        group: int | None = None
        for planned, row, handle in serving:
            ring = Ring(planned.ring.frames, planned.ring.frame_bytes)
            sock = sockets.open_receiver(state.ifindex, ring)
            handle.receivers[row] = Receiver(
                name, state.ifindex, sock, ring, planned.fanout.slot if planned.fanout else None
            )
            if planned.fanout:
                mode = _FANOUT_MODES[planned.fanout.mode]
                group = sockets.join_fanout(sock, group, mode, planned.fanout.max_members)
        return True

    def _listen_all(self) -> None:
        for handle in self.workers:
            for receiver in handle.receivers.values():
                sockets.listen(receiver.sock)

    async def _follow_interfaces(self) -> None:
        """Take in every change of interfaces and addresses, for as long as the supervisor runs."""
        async for _ in netlink.changes():
            self.view.update(await netlink.interfaces())
            try:
                await self._refit()
            except OSError as error:
                self._log(f"interfaces changed while they were being opened: {error}")

    async def _refit(self) -> None:
        """Make sockets, links and memberships fit the interfaces as they are now."""
        told = list(self._announce_links())
        for name in self.plan.interfaces:
            state = self.view.find(name)
            held = [
                (handle, row)
                for handle in self.workers
                for row, receiver in handle.receivers.items()
                if receiver.interface == name
            ]
            stale = bool(held) and (
                state is None or held[0][0].receivers[held[0][1]].ifindex != state.ifindex
            )
            if stale:
                self._log(f"interface {name} is gone" if state is None else f"interface {name} was replaced")
                for handle, row in held:
                    told.append(handle.tell(Kind.REMOVE_SOCKET, argument=row))
                    receiver = handle.receivers.pop(row)
                    self.past_drops[name] += receiver.count_drops()
                    receiver.sock.close()
                await _settled(told)
                for rule in self.book:
                    if rule.input_interface == name:
                        self._leave(rule)
            if state is not None and (stale or not held):
                await self._bring_up(name, state)
        await _settled(told)

    async def _bring_up(self, name: str, state: InterfaceState) -> None:
        """Serve an interface that has appeared."""
        self._log(f"interface {name} has appeared, index {state.ifindex}")
        self._open_receivers(name)
        told = [
            self._hand_over(handle, row)
            for handle in self.workers
            for row, receiver in handle.receivers.items()
            if receiver.interface == name and handle.state is State.RUNNING
        ]
        await _settled(told)
        for rule in self.book:
            if rule.input_interface == name:
                self._join(rule)
        for handle in self.workers:
            for receiver in handle.receivers.values():
                if receiver.interface == name:
                    sockets.listen(receiver.sock)

    def _announce_links(self) -> list[asyncio.Future[int]]:
        body = self._links_body()
        if not body:
            return []
        return [handle.tell(Kind.SET_LINKS, body=body) for handle in self.workers]

    def _links_body(self) -> bytes:
        body = b""
        for name, slot in self._outputs.names().items():
            state = self.view.find(name)
            if state is None or output_trouble(name, state):
                body += channel.pack_link(slot, 0, 0, bytes(4), bytes(6))
            else:
                assert state.ipv4 is not None
                body += channel.pack_link(slot, state.ifindex, state.mtu, state.ipv4, state.mac)
        return body

    def _spawn_task(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _settled(told: Sequence[asyncio.Future[int]]) -> None:
    """Wait for workers' answers; one that died meanwhile is told everything again by its start."""
    await asyncio.gather(*told, return_exceptions=True)
