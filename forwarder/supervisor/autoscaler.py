"""Resizes elastic groups, by load or on request, without losing a datagram.

To join, a worker's sockets are opened in the fanout groups of the others, where nothing is steered to them;
the worker is forked and sent everything; then the program that steers flows is replaced. To leave, the
program is replaced first, then the worker forwards what its rings hold and ends, then its sockets are closed.
The worker that joined last leaves first, so that no other changes its place in the fanout group. Its slot is
kept, *parked*, with its counters, and is used again first.

:mod:`forwarder.supervisor.scaling_policy` decides when to resize.
"""

import asyncio
import errno
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from forwarder.net import packet_sockets
from forwarder.plan.host import Host, HostError
from forwarder.plan.model import GroupPlan
from forwarder.plan.planner import one_more
from forwarder.problems import Log, Problem
from forwarder.supervisor import scaling_policy as elastic
from forwarder.supervisor.scaling_policy import Decision, Limits, Load
from forwarder.supervisor.state import ForwarderState
from forwarder.workers import limits, receive_sockets
from forwarder.workers.handle import Receiver, State, WorkerHandle, spawn, wait_until_all_run

SAMPLE_S: Final = 0.1
JOIN_TIMEOUT_S: Final = 10.0
"""Timeout for a new worker to load its rules."""
EACH_TIMEOUT_S: Final = 0.1
"""Added to it for each of several new workers, as they are forked and sent rules one after another."""
DRAIN_TIMEOUT_S: Final = 5.0
"""Timeout for a leaving worker to forward what its rings hold."""
CLOSE_TIMEOUT_S: Final = 5.0
"""Timeout for the kernel to take the sockets of a worker that has ended out of their groups."""
RETRY_NS: Final = 1_000_000_000
"""Delay after a resize that failed; doubled each time, up to 32 times as long."""
LOG_LENGTH: Final = 32
"""How many resizes of a group are remembered."""


def join_timeout_s(incoming: Sequence[WorkerHandle]) -> float:
    return JOIN_TIMEOUT_S + len(incoming) * EACH_TIMEOUT_S


@dataclass(frozen=True)
class Change:
    """A resize that was tried."""

    at_ns: int
    group: int
    before: int
    after: int
    """The size that was wanted; where the resize failed, the group may have another."""
    reason: str
    failed: str | None
    took_ns: int


@dataclass
class History:
    """The resizes of one group."""

    latest: deque[Change] = field(default_factory=lambda: deque(maxlen=LOG_LENGTH))
    done: int = 0
    failed: int = 0

    def note(self, change: Change) -> None:
        self.latest.append(change)
        if change.failed:
            self.failed += 1
        else:
            self.done += 1


Histories = Mapping[tuple[str, ...], History]
"""By the group's interfaces, because the group's id may differ in another plan."""


class Autoscaler:
    """Resizes the elastic groups of a plan.

    ``host``: reads the machine as it is now; ``histories``: of the groups of the plan before.
    """

    def __init__(
        self,
        state: ForwarderState,
        groups: Sequence[GroupPlan],
        host: Callable[[], Host],
        *,
        threshold_dps: int,
        log: Log,
        histories: Histories = MappingProxyType({}),
    ) -> None:
        self.groups = {group.group_id: group for group in groups if group.elastic}
        self.histories = {
            group.interfaces: histories.get(group.interfaces, History()) for group in self.groups.values()
        }
        self.superseded = False
        """Whether another plan, with an autoscaler of its own, has come into force."""
        self._state = state
        self._host = host
        self._log = log
        self._limits = {
            number: Limits(group.min_workers or 1, group.max_workers, threshold_dps)
            for number, group in self.groups.items()
        }
        # Not always the minimum: a group may have been given a size to begin with.
        self._memories = {number: elastic.Memory(self.groups[number].workers) for number in self._limits}
        self._loads: dict[int, Load] = {}
        self._counted: dict[int, _Count] = {}
        self._held_until_ns: dict[int, int] = {}
        self._failures: Counter[int] = Counter()
        self._resizing: set[int] = set()

    # -- state --

    def members(self, group: int) -> list[WorkerHandle]:
        """The workers of a group that take traffic, in the order in which they joined."""
        workers = self._state.pool.workers
        return [one for one in workers if one.plan.group == group and one.state is not State.PARKED]

    def report(self) -> list[dict[str, Any]]:
        """Size, bounds, load and resizes of each elastic group."""
        return [
            {
                "group": number,
                "interfaces": list(group.interfaces),
                "workers": len(self.members(number)),
                "min_workers": self._limits[number].min_workers,
                "max_workers": self._limits[number].max_workers,
                "threshold_dps": self._limits[number].threshold_dps,
                "offered_dps": load.offered_dps if (load := self._loads.get(number)) else 0.0,
                "ring_fill": load.ring_fill if load else 0.0,
                "ring_drops": load.ring_drops if load else 0,
                "measured_ns": load.at_ns if load else None,
                "resizes_done": (history := self.histories[group.interfaces]).done,
                "resizes_failed": history.failed,
                "changes": [{**asdict(change), "group": number} for change in history.latest],
            }
            for number, group in self.groups.items()
        ]

    def sizes(self) -> Mapping[int, int]:
        """Workers of each elastic group."""
        return {number: len(self.members(number)) for number in self.groups}

    def problems(self, group: int, workers: int) -> list[Problem]:
        """Why a resize cannot be asked for."""
        if group not in self.groups:
            known = ", ".join(map(str, self.groups)) or "none: no group is elastic"
            return [Problem("group", str(group), f"the id of an elastic group: {known}")]
        limits = self._limits[group]
        if not limits.min_workers <= workers <= limits.max_workers:
            allowed = f"an integer from {limits.min_workers} to {limits.max_workers}"
            return [Problem("workers", str(workers), allowed)]
        return []

    # -- watching --

    async def watch(self) -> None:
        """Measure and resize all groups for as long as the supervisor runs, each by itself."""
        async with asyncio.TaskGroup() as resizes:
            while True:
                await asyncio.sleep(SAMPLE_S)
                for number in self.groups:
                    load = self._measure(number)
                    if load is None:
                        continue
                    self._loads[number] = load
                    if number in self._resizing or load.at_ns < self._held_until_ns.get(number, 0):
                        continue
                    memory, decision = elastic.decide(self._memories[number], load, self._limits[number])
                    self._memories[number] = memory
                    if decision:
                        self._resizing.add(number)
                        resizes.create_task(self._carry_out(number, decision))

    def _measure(self, group: int) -> Load | None:
        """The load since the last measurement; None at the first one."""
        count = _count(self.members(group))
        before, self._counted[group] = self._counted.get(group), count
        if before is None or before.sockets != count.sockets:
            return None
        offered_dps = (count.came - before.came) / ((count.at_ns - before.at_ns) / 1e9)
        return Load(count.at_ns, offered_dps, count.ring_fill, count.drops - before.drops)

    # -- changing --

    async def resize(self, group: int, workers: int, reason: str, decided_for: int | None = None) -> None:
        """Give a group this many workers.

        ``decided_for``: its size when that was decided; if it has another size by now, nothing is done.

        Raises OSError: a process, socket, CPU or memory could not be had, or another plan has come into force
        meanwhile, or the forwarder is being stopped. The group has as many workers as before, but a group
        that was to lose several may have lost some.
        """
        await self._state.started.wait()
        async with self._state.sockets_lock:
            if self._state.stopping.is_set():
                raise OSError(errno.ECANCELED, "the forwarder is being stopped")
            if self.superseded:
                raise OSError(errno.ESTALE, "another plan has come into force: ask again")
            members = self.members(group)
            began, before = time.monotonic_ns(), len(members)
            failed: str | None = "interrupted"
            if decided_for not in (None, before):
                workers = before
            try:
                if workers > before:
                    await self._grow(self.groups[group], members, workers - before)
                else:
                    while len(members) > workers:
                        await self._shrink(members)
                failed = None
            except (OSError, HostError, MemoryError) as error:
                failed = str(error) or "no memory to be had"
                if isinstance(error, OSError):
                    raise
                number = errno.EIO if isinstance(error, HostError) else errno.ENOMEM
                raise OSError(number, failed) from error
            except Exception as error:
                failed = f"a fault of mcrd: {type(error).__name__}: {error}"
                raise
            finally:
                now = time.monotonic_ns()
                self._memories[group] = elastic.settled(self._memories[group], len(self.members(group)), now)
                if workers != before:
                    change = Change(began, group, before, workers, reason, failed, now - began)
                    self.histories[self.groups[group].interfaces].note(change)
                    outcome = f" in {change.took_ns / 1e6:.0f} ms"
                    if failed:
                        outcome = f" failed, it has {len(self.members(group))}: {failed}"
                    self._log(f"group {group}: from {before} to {workers} workers{outcome} ({reason})")

    async def _carry_out(self, group: int, decision: Decision) -> None:
        try:
            await self.resize(group, decision.after, decision.reason, decision.before)
        except Exception as error:
            if not isinstance(error, OSError):
                traceback.print_exc()
            wait_ns = RETRY_NS << min(self._failures[group], 5)
            self._failures[group] += 1
            self._held_until_ns[group] = time.monotonic_ns() + wait_ns
        else:
            self._failures[group] = 0
        finally:
            self._resizing.discard(group)

    async def _grow(self, group: GroupPlan, members: list[WorkerHandle], more: int) -> None:
        joining: list[WorkerHandle] = []
        try:
            for _ in range(more):
                handle = self._slot(group, [*members, *joining])
                joining.append(handle)
                receive_sockets.join_late(self._state.links, handle, members)
            spawn(joining)
            await wait_until_all_run(joining, join_timeout_s(joining))
            receive_sockets.steer_flows([*members, *joining])
        except BaseException:
            with suppress(OSError):  # some interfaces may steer to those already
                receive_sockets.steer_flows(members)
            for handle in reversed(joining):
                await handle.stop(DRAIN_TIMEOUT_S)
                await self._park(handle)
            raise

    def _slot(self, group: GroupPlan, members: Sequence[WorkerHandle]) -> WorkerHandle:
        """A slot for the group's next member: a parked one, or a new one."""
        workers = self._state.pool.workers
        idle = [h for h in workers if h.plan.group == group.group_id and h.state is State.PARKED]
        parked = idle[0] if idle else None
        inside = [handle.plan for handle in members]
        others = [h.plan for h in workers if h.state is not State.PARKED and h.plan.group != group.group_id]
        worker_id = parked.plan.worker_id if parked else len(workers)
        plan = one_more(self._host(), group, inside, others, worker_id)
        limits.check_memory([plan], self._state.links)
        if parked is None:
            parked = self._state.pool.add(plan)
        parked.plan, parked.state = plan, State.STARTING
        return parked

    async def _shrink(self, members: list[WorkerHandle]) -> None:
        """Take the last member out."""
        *staying, leaving = members
        receive_sockets.steer_flows(staying)
        await leaving.drain(DRAIN_TIMEOUT_S)
        await self._park(leaving)
        members.pop()

    async def _park(self, handle: WorkerHandle) -> None:
        closed = packet_sockets.identities(receiver.sock for receiver in handle.receivers.values())
        self._state.pool.keep_counts(receive_sockets.close(receive_sockets.places_of(handle)))
        handle.state = State.PARKED
        # An interface that comes back is opened for the workers that have it planned.
        handle.plan = replace(handle.plan, sockets=())
        # The kernel may keep the io_uring of a process that has ended for some ms, and with it an armed poll
        # that keeps the socket in its place in the group: a worker that joined now would get a wrong place.
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while packet_sockets.linger(closed):
            if time.monotonic() > deadline:
                self._log(f"worker {handle.plan.worker_id}: its sockets are open still, somewhere")
                return
            await asyncio.sleep(0.001)


class _Count(NamedTuple):
    at_ns: int
    sockets: list[Receiver]
    """The sockets that were counted; only counts of the same sockets can be compared."""
    came: int
    drops: int
    ring_fill: float


def _count(handles: Sequence[WorkerHandle]) -> _Count:
    places = [(handle, row, receiver) for handle in handles for row, receiver in handle.receivers.items()]
    sockets = [receiver for _, _, receiver in places]
    drops = sum(receiver.count_drops() for receiver in sockets)
    came = sum(receiver.came for receiver in sockets)
    fill = max((receiver.fill(handle.claimed(row)) for handle, row, receiver in places), default=0.0)
    return _Count(time.monotonic_ns(), sockets, came, drops, fill)
