"""Worker slots in the supervisor: their processes are forked, stopped, and replaced when they die.

A worker's successor needs its receive sockets with their rings and fanout places, its counters and a
descriptor of its io_uring: these are kept here, not in the process.
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
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Final

from forwarder.abi import mempolicy
from forwarder.abi.uring_setup import submission_head
from forwarder.engines.packet.accounting import Block, settle
from forwarder.engines.packet.engine import BLOCK_BYTES, PacketEngine
from forwarder.engines.packet.schema import CURSOR_CLAIMED, Kind
from forwarder.net import packet_sockets
from forwarder.net.packet_sockets import Ring
from forwarder.plan.model import WorkerPlan
from forwarder.workers import entry_point
from forwarder.workers.process import Entry, collapse_memory, fork
from forwarder.workers.request_channel import ClosedChannel, RequestChannel

FIRST_BACKOFF_S: Final = 0.02
LONGEST_BACKOFF_S: Final = 5.0
HEALTHY_AFTER_S: Final = 10.0
"""A process that has lived this long resets the back-off."""
DRAIN_TRIES: Final = 3
HANGING_AFTER_S: Final = 10.0
"""Longest silence of a running worker. It looks for requests every few milliseconds under any traffic, but
where thousands share a few busy CPUs, each may wait some seconds for its turn."""
START_HANGS_AFTER_S: Final = 60.0
"""Longest silence of a worker that is starting, perhaps with thousands of others."""
FORKED_TOGETHER: Final = 16
"""Workers forked in one batch. In a larger batch the parent writes less often between forks, but each child
inherits more that is not its own."""


class State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing-off"
    STOPPED = "stopped"
    PARKED = "parked"
    """Idle slot of an elastic group: no process or sockets, but counters are kept."""


@dataclass
class Receiver:
    """A receive socket that the supervisor keeps for a worker."""

    interface: str
    ifindex: int
    sock: socket.socket
    ring: Ring
    fanout_slot: int | None = None
    alone: bool = False
    """Whether no other worker reads the interface, or ever will in this plan."""
    came: int = 0
    """Frames since the socket was made, as of the last count."""
    drops: int = 0
    """Frames that found no free slot in the ring, as of the last count."""
    abandoned: int = 0
    """Frames in the ring when it was closed, after its worker had died."""

    def count_drops(self) -> int:
        """Update the counts; returns the drops."""
        came, dropped = packet_sockets.arrivals(self.sock)
        self.came += came
        self.drops += dropped
        return self.drops

    def fill(self, claimed: int) -> float:
        """Share of the ring's slots that hold a frame, as of the last count; see :meth:`waiting`."""
        return self.waiting(claimed) / self.ring.frames

    def waiting(self, claimed: int) -> int:
        """Frames in the ring as of the last count, if the worker has taken ``claimed`` since it was made."""
        return max(0, self.came - self.drops - claimed)


@dataclass(eq=False)
class WorkerHandle:
    """One worker slot: a plan, sockets and counters that stay, and a process that may be replaced.

    ``on_ready`` is called when a process is ready, which must then be sent links, rules and sockets;
    ``on_death`` is called with a sentence when one died without having been asked to.
    """

    plan: WorkerPlan
    block: Block
    _: KW_ONLY
    busy_poll_ns: int
    realtime_priority: int
    coalesce: bool = True
    fill_checksums: bool = True
    on_ready: Callable[[WorkerHandle], None]
    on_death: Callable[[WorkerHandle, str], None]
    receivers: dict[int, Receiver] = field(default_factory=dict)
    pid: int | None = None
    state: State = State.STARTING
    restarts: int = 0
    channel: RequestChannel | ClosedChannel = field(default_factory=ClosedChannel)
    _head_offset: int = 0
    _pidfd: int | None = None
    _uring_fd: int | None = None
    _silent_s: float | None = None
    """How long a process was silent that is being killed for it."""
    _started_at: float = 0.0
    _backoff_s: float = FIRST_BACKOFF_S
    _respawn: asyncio.TimerHandle | None = None
    _ended_well: bool = False
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _running: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        mempolicy.prefer_for(self.block.counters.ctypes.data, BLOCK_BYTES, self.plan.memory_node)

    def claimed(self, row: int) -> int:
        """Frames that this slot's processes have taken from a socket's ring."""
        return int(self.block.cursors[row, CURSOR_CLAIMED])

    def prepare(self, tx_ring: socket.socket) -> PreparedWorker:
        """Make everything else that a process needs, up to the fork; raises OSError if it fails."""
        with mempolicy.preferring(self.plan.memory_node), ExitStack() as undo:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            undo.callback(ours.close)
            undo.callback(theirs.close)
            transmitter = undo.enter_context(packet_sockets.open_transmitter())
            engine = PacketEngine(
                self.block,
                transmitter,
                theirs.fileno(),
                tx_ring=tx_ring,
                busy_poll_ns=self.busy_poll_ns,
                coalesce=self.coalesce,
                fill_checksums=self.fill_checksums,
            )
            undo.callback(engine.close)
            # The ring's memory is read once more if the worker dies suddenly.
            uring_fd = os.dup(engine.uring_fd)
            undo.callback(os.close, uring_fd)
            keep = (theirs.fileno(), transmitter.fileno(), tx_ring.fileno(), engine.uring_fd)
            entry = Entry(f"mcrd-w{self.plan.worker_id}", self.plan.cpu, keep, self.plan.memory_node)
            ours.setblocking(False)
            undo.pop_all()
        return PreparedWorker(self, entry, engine, ours, (theirs, transmitter, tx_ring), uring_fd)

    def attach(self, prepared: PreparedWorker, pid: int) -> None:
        """Take a forked process into this slot."""
        loop = asyncio.get_running_loop()
        prepared.release()
        self.pid, self._pidfd = pid, os.pidfd_open(pid)
        self.channel = RequestChannel(
            prepared.channel, START_HANGS_AFTER_S, on_ready=self._ready, on_silence=self._kill_silent
        )
        self._uring_fd, self._head_offset = prepared.uring_fd, prepared.engine.head_offset
        self.state = State.STARTING
        self._silent_s = None
        self._running.clear()
        self._ended.clear()
        self._started_at = loop.time()
        loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        assert self.pid is not None
        loop = asyncio.get_running_loop()
        _, status = os.waitpid(self.pid, 0)
        pid, self.pid = self.pid, None
        self._ended_well = status == 0
        self._ended.set()
        if self.state is not State.STOPPED:
            self._running.clear()
        self.channel.close()
        self.channel = ClosedChannel()
        assert self._pidfd is not None
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        assert self._uring_fd is not None
        settle(self.block, submission_head(self._uring_fd, self._head_offset))
        os.close(self._uring_fd)
        self._pidfd = self._uring_fd = None
        if self.state is State.STOPPED:
            return
        if loop.time() - self._started_at >= HEALTHY_AFTER_S:
            self._backoff_s = FIRST_BACKOFF_S
        self.state = State.BACKING_OFF
        self.restarts += 1
        delay = self._respawn_later()
        silent = f"did not answer for {self._silent_s:g} s and " if self._silent_s is not None else ""
        ending = f"process {pid} {silent}{_ending(status)}"
        self.on_death(self, f"{ending}; starting another in {delay * 1000:.0f} ms")

    def _try_again(self) -> None:
        self._respawn = None
        try:
            spawn([self])
        except (OSError, MemoryError) as error:
            why, delay = f"no process could be started ({error or 'no memory'})", self._respawn_later()
            self.on_death(self, f"{why}; trying again in {delay:.1f} s")

    def _respawn_later(self) -> float:
        """Start another process after a delay in seconds, which doubles each time."""
        delay, self._backoff_s = self._backoff_s, min(self._backoff_s * 2, LONGEST_BACKOFF_S)
        self._respawn = asyncio.get_running_loop().call_later(delay, self._try_again)
        return delay

    def _ready(self) -> None:
        if self.state is State.STARTING:
            self.on_ready(self)

    def _kill_silent(self) -> None:
        """Replace a process that hangs, as every change of rules or interfaces waits for all workers.

        Nothing is lost with it: what its rings hold waits for its successor.
        """
        if self.pid is not None:
            self._silent_s = self.channel.silence_limit_s
            os.kill(self.pid, signal.SIGKILL)

    def run(self) -> None:
        """Note that the process has everything, unless it was stopped meanwhile."""
        if self.state is State.STARTING:
            self.state = State.RUNNING
            self.channel.limit_silence(HANGING_AFTER_S)
            self._running.set()

    def reject(self) -> None:
        """Replace a process that could not take its sockets or rules."""
        if self.state is State.STARTING and self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    async def wait_until_running(self) -> None:
        """Wait until the process runs, or a successor does; raises OSError when the worker was stopped."""
        await self._running.wait()
        if self.state is State.STOPPED:
            raise OSError(errno.ECANCELED, f"worker {self.plan.worker_id} was stopped")

    async def stop(self, timeout_s: float) -> bool:
        """Have the process forward what its rings hold and end; kill it after ``timeout_s``.

        Returns whether it did. Otherwise there was no process, or its rings may still hold frames.
        """
        self.state = State.STOPPED
        self._running.set()  # nobody need wait any longer
        if self._respawn is not None:
            self._respawn.cancel()
            self._respawn = None
        if self.pid is None:
            return False
        self.channel.limit_silence(None)
        self.channel.send(Kind.STOP)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout_s)
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            await self._ended.wait()
        return self._ended_well

    async def drain(self, timeout_s: float) -> None:
        """Like :meth:`stop`, but start another process when one dies before its rings are empty."""
        for _ in range(DRAIN_TRIES):
            if await self.stop(timeout_s):
                return
            with suppress(OSError):
                spawn([self])
                await wait_until_all_run([self], timeout_s)
        await self.stop(timeout_s)


@dataclass(frozen=True)
class PreparedWorker:
    """Everything for a worker that is about to be forked."""

    handle: WorkerHandle
    entry: Entry
    engine: PacketEngine
    channel: socket.socket
    """The supervisor's end."""
    sockets: tuple[socket.socket, ...]
    """Those of the child: its end of the channel, its transmitter and its transmit ring."""
    uring_fd: int

    def release(self) -> None:
        """Close what only the child uses."""
        self.engine.close()
        for sock in self.sockets:
            sock.close()

    def abandon(self) -> None:
        """Close everything, as there will be no child."""
        self.release()
        self.channel.close()
        os.close(self.uring_fd)


def spawn(handles: Sequence[WorkerHandle]) -> None:
    """Fork a process into each of these slots.

    Raises OSError: no process, descriptor or memory to be had; the other slots stay without a process.
    """
    for _ in spawning(handles):
        pass


def spawning(handles: Sequence[WorkerHandle]) -> Iterator[None]:
    """Like :func:`spawn`, batch by batch, for callers with other work to do in between.

    Workers are prepared, forked and attached in batches: a page that the supervisor writes between two forks
    becomes the private copy of the worker forked before, so it does next to nothing there.
    """
    if len(handles) > FORKED_TOGETHER:
        collapse_memory()
    for first in range(0, len(handles), FORKED_TOGETHER):
        batch = handles[first : first + FORKED_TOGETHER]
        prepared: list[PreparedWorker] = []
        pids: list[int] = []
        tx_rings = packet_sockets.open_tx_rings([handle.plan.memory_node for handle in batch])
        try:
            for handle, tx_ring in zip(batch, tx_rings, strict=True):
                prepared.append(handle.prepare(tx_ring))
            sys.stdout.flush()
            sys.stderr.flush()
            _unmap_others(prepared)
            for one in prepared:
                pids.append(_fork(one.entry, one.engine, one.handle.realtime_priority))  # noqa: PERF401
        finally:
            for one, pid in zip(prepared, pids, strict=False):
                one.handle.attach(one, pid)
            for one in prepared[len(pids) :]:
                one.abandon()
            packet_sockets.close_all(tx_rings[len(prepared) :])
        yield


def _unmap_others(batch: Sequence[PreparedWorker]) -> None:
    """Have each worker unmap the io_urings of those that are forked together with it."""
    regions = [list(one.engine.uring_mappings.items()) for one in batch]
    for one, own in zip(batch, regions, strict=True):
        one.entry.unmap([region for of in regions if of is not own for region in of])


async def wait_until_all_run(handles: Sequence[WorkerHandle], timeout_s: float) -> None:
    """Wait until all of them run; raises OSError when that takes longer, or one is stopped instead."""
    try:
        async with asyncio.timeout(timeout_s):
            for handle in handles:
                await handle.wait_until_running()
    except TimeoutError as error:
        raise OSError(f"a new worker was not ready after {timeout_s:g} s") from error


def _fork(entry: Entry, engine: PacketEngine, realtime_priority: int) -> int:
    pid = fork()
    if pid == 0:
        status = 1
        try:
            entry_point.main(entry, engine, realtime_priority)
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
