"""Worker processes as the supervisor holds them: forked, stopped, mourned, replaced.

What a worker needs to go on after a sudden death is kept here, not in the process: its receive sockets with
their rings and fanout places, its counters, and a descriptor of its io_uring.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Unpack

from forwarder.abi import mempolicy
from forwarder.abi.io_uring import submission_head
from forwarder.engines.packet import sockets
from forwarder.engines.packet.engine import PacketEngine
from forwarder.engines.packet.memory import BLOCK_BYTES, Block, settle
from forwarder.engines.packet.messages import Kind
from forwarder.engines.packet.schema import CURSOR_CLAIMED
from forwarder.engines.packet.sockets import Ring
from forwarder.plan.model import WorkerPlan
from forwarder.workers import encoding as channel
from forwarder.workers import entry_point as worker
from forwarder.workers import large_pages as pages
from forwarder.workers.process import Entry, fork
from forwarder.workers.request_channel import Conversation, nobody_there

FIRST_BACKOFF_S: Final = 0.02
LONGEST_BACKOFF_S: Final = 5.0
HEALTHY_AFTER_S: Final = 10.0
DRAIN_TRIES: Final = 3
HANGING_AFTER_S: Final = 10.0
"""A running worker looks for messages every few milliseconds, however much traffic there is. Where thousands
share a few busy CPUs, each may wait some seconds for its turn."""
START_HANGS_AFTER_S: Final = 60.0
"""The same while a worker is starting, perhaps with thousands of others, from its fork on."""
FORKED_TOGETHER: Final = 16
"""With more, the parent writes less often in between, but each child inherits more that is not its own."""


class State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing-off"
    STOPPED = "stopped"
    PARKED = "parked"
    """Of an elastic group, and not needed now: no process, no sockets; its counters stay."""


@dataclass
class Receiver:
    """A receive socket that the supervisor keeps for a worker."""

    interface: str
    ifindex: int
    sock: socket.socket
    ring: Ring
    fanout_slot: int | None
    came: int = 0
    """Frames, since the socket was made; as of the last count."""
    drops: int = 0
    abandoned: int = 0
    """Frames that its ring held when it was closed: its worker had died, and was not to come back."""

    def count_drops(self) -> int:
        """Frames that found no free slot, since the socket was made."""
        came, dropped = sockets.arrivals(self.sock)
        self.came += came
        self.drops += dropped
        return self.drops

    def fill(self, claimed: int) -> float:
        """Share of the ring's slots that wait for their worker, as of the last count.

        Args:
            claimed: frames that the worker has taken since the socket was made.
        """
        return self.waiting(claimed) / self.ring.frames

    def waiting(self, claimed: int) -> int:
        """Frames in the ring, as of the last count; ``claimed`` as above."""
        return max(0, self.came - self.drops - claimed)


class WorkerHandle:
    """One worker slot: a plan, sockets and counters that stay, a process that may come and go.

    Args:
        on_ready: called when a process has said its first word; it must then be told links, rules, sockets.
        on_death: called with a sentence when a process died that was not asked to.
    """

    def __init__(
        self,
        plan: WorkerPlan,
        block: Block,
        *,
        busy_poll_ns: int,
        realtime_priority: int,
        on_ready: Callable[[WorkerHandle], None],
        on_death: Callable[[WorkerHandle, str], None],
    ) -> None:
        self.plan = plan
        self.block = block
        mempolicy.prefer_for(block.counters.ctypes.data, BLOCK_BYTES, plan.memory_node)
        self.receivers: dict[int, Receiver] = {}
        self.pid: int | None = None
        self.state = State.STARTING
        self.restarts = 0
        self._head_offset = 0
        self._busy_poll_ns = busy_poll_ns
        self._realtime_priority = realtime_priority
        self._on_ready = on_ready
        self._on_death = on_death
        self._conversation: Conversation | None = None
        self._pidfd: int | None = None
        self._uring_fd: int | None = None
        self._silent_s: float | None = None
        """Of the process that is being killed for it."""
        self._started_at = 0.0
        self._backoff_s = FIRST_BACKOFF_S
        self._respawn: asyncio.TimerHandle | None = None
        self._ended_well = False
        self._ended = asyncio.Event()
        self._running = asyncio.Event()

    def claimed(self, row: int) -> int:
        """Frames that this slot's processes have taken from a socket's ring."""
        return int(self.block.cursors[row, CURSOR_CLAIMED])

    def prepare(self, tx_ring: socket.socket) -> Birth:
        """Make everything else that a process for this slot needs, up to the fork.

        Raises:
            OSError: no descriptor or memory to be had.
        """
        with mempolicy.preferring(self.plan.memory_node), ExitStack() as undo:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            undo.callback(ours.close)
            undo.callback(theirs.close)
            transmitter = undo.enter_context(sockets.open_transmitter())
            engine = PacketEngine(
                self.block, transmitter, theirs.fileno(), tx_ring=tx_ring, busy_poll_ns=self._busy_poll_ns
            )
            undo.callback(engine.close)
            # The ring's memory is read once more if the worker dies suddenly.
            uring_fd = os.dup(engine.uring_fd)
            undo.callback(os.close, uring_fd)
            start = worker.WorkerStart(
                entry=Entry(
                    f"mcrd-w{self.plan.worker_id}",
                    self.plan.cpu,
                    (theirs.fileno(), transmitter.fileno(), tx_ring.fileno(), engine.uring_fd),
                    self.plan.memory_node,
                ),
                channel=theirs,
                engine=engine,
                realtime_priority=self._realtime_priority,
            )
            ours.setblocking(False)
            undo.pop_all()
        return Birth(self, start, ours, transmitter, tx_ring, uring_fd)

    def adopt(self, birth: Birth, pid: int) -> None:
        """Take a forked process into this slot."""
        loop = asyncio.get_running_loop()
        birth.release()
        self.pid, self._pidfd = pid, os.pidfd_open(pid)
        self._conversation = Conversation(
            birth.channel, START_HANGS_AFTER_S, on_ready=self._ready, on_silence=self._lose_patience
        )
        self._uring_fd, self._head_offset = birth.uring_fd, birth.start.engine.head_offset
        self.state = State.STARTING
        self._silent_s = None
        self._running.clear()
        self._ended.clear()
        self._started_at = loop.time()
        loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        """The process has ended."""
        assert self.pid is not None
        loop = asyncio.get_running_loop()
        _, status = os.waitpid(self.pid, 0)
        pid, self.pid = self.pid, None
        self._ended_well = status == 0
        self._ended.set()
        if self.state is not State.STOPPED:
            self._running.clear()
        self._disconnect()
        self._settle()
        if self.state is State.STOPPED:
            return
        if loop.time() - self._started_at >= HEALTHY_AFTER_S:
            self._backoff_s = FIRST_BACKOFF_S
        delay, self._backoff_s = self._backoff_s, min(self._backoff_s * 2, LONGEST_BACKOFF_S)
        self.state = State.BACKING_OFF
        self.restarts += 1
        self._respawn = loop.call_later(delay, self._try_again)
        why = f"did not answer for {self._silent_s:g} s and " if self._silent_s is not None else ""
        self._on_death(
            self, f"process {pid} {why}{_ending(status)}; starting another in {delay * 1000:.0f} ms"
        )

    def _try_again(self) -> None:
        self._respawn = None
        try:
            spawn([self])
        except (OSError, MemoryError) as error:
            delay, self._backoff_s = self._backoff_s, min(self._backoff_s * 2, LONGEST_BACKOFF_S)
            self._respawn = asyncio.get_running_loop().call_later(delay, self._try_again)
            self._on_death(
                self, f"no process could be started ({error or 'no memory'}); trying again in {delay:.1f} s"
            )

    def _settle(self) -> None:
        assert self._uring_fd is not None
        settle(self.block, submission_head(self._uring_fd, self._head_offset))
        os.close(self._uring_fd)
        self._uring_fd = None

    def _disconnect(self) -> None:
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _ready(self) -> None:
        if self.state is State.STARTING:
            self._on_ready(self)

    def _lose_patience(self) -> None:
        """Whoever changes rules or interfaces waits for all workers: one that hangs makes room for another.

        Its rings wait for that, so it takes nothing with it.
        """
        if self._conversation is not None and self.pid is not None:
            self._silent_s = self._conversation.patience_s
            os.kill(self.pid, signal.SIGKILL)

    def run(self) -> None:
        """The process has been told everything; it may have been stopped since."""
        if self.state is not State.STARTING:
            return
        self.state = State.RUNNING
        if self._conversation is not None:
            self._conversation.allow(HANGING_AFTER_S)
        self._running.set()

    def give_up(self) -> None:
        """The process has refused what it was told: another may have what this one could not get."""
        if self.state is State.STARTING and self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    async def wait_until_running(self) -> None:
        """Also after the process has died on the way and another was started.

        Raises:
            OSError: it was stopped instead.
        """
        await self._running.wait()
        if self.state is State.STOPPED:
            raise OSError(errno.ECANCELED, f"worker {self.plan.worker_id} was stopped")

    def park(self) -> None:
        """Of a worker that was stopped: it is not needed now."""
        self.state = State.PARKED

    async def stop(self, timeout_s: float) -> bool:
        """Ask the process to forward what it holds and end; kill it when it does not.

        Returns:
            Whether it did; otherwise there was none, or its rings may hold something still.
        """
        self.state = State.STOPPED
        self._running.set()  # whoever waits for it need not
        if self._respawn is not None:
            self._respawn.cancel()
            self._respawn = None
        if self.pid is None or self._conversation is None:
            return False
        self._conversation.allow(None)
        self._conversation.tell(Kind.STOP)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout_s)
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            await self._ended.wait()
        return self._ended_well

    async def drain(self, timeout_s: float) -> None:
        """Like :meth:`stop`; what the rings of a process that has died hold is left to another."""
        for _ in range(DRAIN_TRIES):
            if await self.stop(timeout_s):
                return
            with suppress(OSError):
                spawn([self])
                await wait_until_all_run([self], timeout_s)
        await self.stop(timeout_s)

    def tell(self, kind: Kind, **fields: Unpack[channel.Fields]) -> asyncio.Future[int]:
        """As :meth:`Conversation.tell`."""
        if self._conversation is None:
            return nobody_there()
        return self._conversation.tell(kind, **fields)


@dataclass(frozen=True)
class Birth:
    """A worker about to be forked."""

    handle: WorkerHandle
    start: worker.WorkerStart
    channel: socket.socket
    """The supervisor's end."""
    transmitter: socket.socket
    tx_ring: socket.socket
    uring_fd: int

    def release(self) -> None:
        """Close what only the child uses."""
        self.start.engine.close()
        self.start.channel.close()
        self.transmitter.close()
        self.tx_ring.close()

    def abandon(self) -> None:
        """Close everything: there will be no child."""
        self.release()
        self.channel.close()
        os.close(self.uring_fd)


def spawn(handles: Sequence[WorkerHandle]) -> None:
    """Fork a process into each of these slots.

    Raises:
        OSError: no process, descriptor or memory to be had; the slots that have none stay without.
    """
    for _ in spawning(handles):
        pass


def spawning(handles: Sequence[WorkerHandle]) -> Iterator[None]:
    """The same, bunch by bunch, for who has other things to do in between.

    They are prepared, forked and adopted in bunches: a page that the supervisor writes between two forks
    becomes the private copy of the worker forked before, so it does next to nothing there.

    Raises:
        OSError: as above.
    """
    if len(handles) > FORKED_TOGETHER:
        pages.collapse()
    for first in range(0, len(handles), FORKED_TOGETHER):
        bunch = handles[first : first + FORKED_TOGETHER]
        births: list[Birth] = []
        pids: list[int] = []
        tx_rings = sockets.open_tx_rings([handle.plan.memory_node for handle in bunch])
        try:
            for handle, tx_ring in zip(bunch, tx_rings, strict=True):
                births.append(handle.prepare(tx_ring))
            sys.stdout.flush()
            sys.stderr.flush()
            _tell_apart(births)
            for birth in births:
                pids.append(_fork(birth.start))  # noqa: PERF401
        finally:
            for birth, pid in zip(births, pids, strict=False):
                birth.handle.adopt(birth, pid)
            for birth in births[len(pids) :]:
                birth.abandon()
            sockets.close_all(tx_rings[len(births) :])
        yield


def _tell_apart(births: Sequence[Birth]) -> None:
    """Have each worker unmap the io_urings of those that are forked together with it."""
    regions = [list(birth.start.engine.uring_mappings.items()) for birth in births]
    for birth, own in zip(births, regions, strict=True):
        birth.start.entry.unmap([region for of in regions if of is not own for region in of])


async def wait_until_all_run(handles: Sequence[WorkerHandle], timeout_s: float) -> None:
    """Until every one of them runs; raises OSError when that takes longer, or one is stopped instead."""
    try:
        async with asyncio.timeout(timeout_s):
            for handle in handles:
                await handle.wait_until_running()
    except TimeoutError as error:
        raise OSError(f"a new worker was not ready after {timeout_s:g} s") from error


def _fork(start: worker.WorkerStart) -> int:
    pid = fork()
    if pid == 0:
        status = 1
        try:
            worker.main(start)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with status {os.WEXITSTATUS(status)}"
