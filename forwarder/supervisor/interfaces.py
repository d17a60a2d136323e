"""Serves interfaces: opens them when they appear, closes them when they go, and retries after a failure.

A rule's interface may not exist yet, may be created anew under the same name, and may come and go with the
rules.
"""

import asyncio
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError

from forwarder.net import links, netlink
from forwarder.net.host_stack import HostStack
from forwarder.net.links import InterfaceState
from forwarder.problems import Log
from forwarder.rules.model import ForwardingRule
from forwarder.supervisor.state import ForwarderState
from forwarder.workers import limits, receive_sockets
from forwarder.workers.pool import PendingReplies, SpawnTask, settled

FIRST_RETRY_S: Final = 0.5
LONGEST_RETRY_S: Final = 30.0
"""Delay after interfaces could not be opened; doubled each time."""


@dataclass
class Interfaces:
    """Opens and closes the sockets of the plan as interfaces and rules come and go; to be closed."""

    _state: ForwarderState
    _host_stack: HostStack | None
    """Spares this machine's own network stack the datagrams that workers take, if wanted."""
    _spawn_task: SpawnTask
    _log: Log
    _served: dict[str, int] = field(default_factory=dict)
    """Interfaces whose datagrams are let in, and their indices."""

    # -- all of them --

    def open(self) -> None:
        """Open the sockets of every interface that exists; they let nothing in yet. May raise OSError."""
        state = self._state
        for name in state.plan.interfaces:
            if (link := state.links.find(name)) is not None:
                receive_sockets.open_receivers(link, name, state.pool.workers, state.plan.strategy.hashing)

    def listen(self) -> None:
        """Join the groups and let datagrams in, everywhere."""
        state = self._state
        for rule in state.book:
            state.memberships.join(rule)
        receive_sockets.listen(state.pool.workers, state.plan.strategy.hashing)
        self.recount()

    def recount(self) -> None:
        """Find the interfaces that the workers of the plan in force listen to."""
        served = {
            receiver.interface: receiver.ifindex
            for handle in self._state.pool.in_plan
            for receiver in handle.receivers.values()
        }
        for name in self._served.keys() - served.keys():
            self._mark_closed(name)
        for name, ifindex in served.items():
            self._mark_served(name, ifindex)

    def close(self) -> None:
        if self._host_stack:
            self._host_stack.close()
        workers = self._state.pool.workers
        receive_sockets.close([place for handle in workers for place in receive_sockets.places_of(handle)])

    def trouble(self, rule: ForwardingRule) -> str | None:
        """What a rule waits for, or None when it is running."""
        find, name = self._state.links.find, rule.input_interface
        if found := links.trouble("input", name, find(name)):
            return found
        if name not in self._served:
            return f"input interface {name} is being opened"
        names = (output.interface for output in rule.outputs)
        troubles = (links.trouble("output", name, find(name)) for name in names)
        return next(filter(None, troubles), None)

    # -- what changes --

    async def follow(self) -> None:
        """Follow every change of interfaces and addresses, for as long as the supervisor runs."""
        changed, delay_s = asyncio.Event(), 0.0
        self._spawn_task(netlink.watch_changes(changed))
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s or None):
                    await changed.wait()
                delay_s = 0.0
            changed.clear()
            try:
                self._state.links.update(await netlink.interfaces())
                async with self._state.sockets_lock:
                    await self._refit()
                self._state.kernel.refit(self._state.book)
                delay_s = 0.0
            except (OSError, NetlinkError) as error:
                # The kernel reports an interface that goes, but not memory that becomes free.
                delay_s = min(max(FIRST_RETRY_S, 2 * delay_s), LONGEST_RETRY_S)
                self._log(f"interfaces could not be opened: {error}; trying again in {delay_s:g} s at most")

    async def serve(self, names: Collection[str]) -> None:
        """Open those of the interfaces that have rules now; raises OSError or HostError if that fails."""
        state = self._state
        async with state.sockets_lock:
            wanted = {name for name in names if state.pool.index.rules_on(name)}
            self._replan(wanted - {*state.plan.interfaces})
            # Planned ones, too: another rule's may have failed.
            for name in sorted(wanted - self._served.keys()):
                if (link := state.links.find(name)) is not None:
                    await self._open(name, link)

    async def leave(self, names: Collection[str]) -> None:
        """Close those of the interfaces that have no rule any more; raises HostError if there is no plan."""
        state = self._state
        async with state.sockets_lock:
            unused = {name for name in names if not state.pool.index.rules_on(name)}
            self._replan(unused & {*state.plan.interfaces})
            for name in sorted(unused & self._served.keys()):
                self._log(f"interface {name} has no rule any more")
                await settled(self._close(name))

    def _replan(self, changed: Collection[str]) -> None:
        """Plan for all rules in force at once, if interfaces come or go."""
        if changed:
            self._state.adopt(self._state.pool.spec.replan(list(self._state.book), {}))

    async def _refit(self) -> None:
        """Fit all to the interfaces as they are. Raises OSError: one could not be opened; the others are."""
        state = self._state
        pending = list(state.pool.send_links())
        failed: OSError | None = None
        for name in state.plan.interfaces:
            link = state.links.find(name)
            held = receive_sockets.held(state.pool.workers, name)
            stale = bool(held) and (link is None or held[0][0].receivers[held[0][1]].ifindex != link.ifindex)
            if stale:
                self._log(f"interface {name} is gone" if link is None else f"interface {name} was replaced")
                pending += self._close(name)
                await settled(pending)
                for rule in state.book:
                    if rule.input_interface == name:
                        state.memberships.leave(rule)
            if link is not None and (stale or not held):
                try:
                    await self._open(name, link)
                except OSError as error:  # others may be opened still
                    failed = OSError(error.errno, f"{name}: {error.strerror}")
        await settled(pending)
        if failed:
            raise failed

    async def _open(self, name: str, link: InterfaceState) -> None:
        """Serve an interface that has appeared. Raises OSError: that failed; no socket is left open."""
        pool, hashing = self._state.pool, self._state.plan.strategy.hashing
        limits.check_memory([handle.plan for handle in pool.workers], [name])
        receive_sockets.open_receivers(link, name, pool.workers, hashing)
        try:
            if refused := await settled(pool.send_sockets(receive_sockets.held(pool.workers, name))):
                raise OSError(refused, f"a worker could not take its socket: {os.strerror(refused)}")
            for rule in self._state.book:
                if rule.input_interface == name:
                    self._state.memberships.join(rule)
            receive_sockets.listen(pool.workers, hashing, name)
        except OSError:
            await settled(self._close(name))
            raise
        self._mark_served(name, link.ifindex)
        self._log(f"interface {name} is served, index {link.ifindex}")

    def _close(self, name: str) -> PendingReplies:
        """Close an interface's sockets, which leave their fanout group once their workers let go of them."""
        self._mark_closed(name)
        pool = self._state.pool
        places = receive_sockets.held(pool.workers, name)
        pending = [pool.withdraw_socket(handle, row) for handle, row in places]
        pool.keep_counts(receive_sockets.close(places))
        return pending

    def _mark_served(self, interface: str, ifindex: int) -> None:
        """Note that an interface's datagrams are let in."""
        if self._served.get(interface) != ifindex:
            self._mark_closed(interface)
            if self._host_stack:
                try:
                    self._host_stack.skip(interface, ifindex)
                except OSError as error:  # it may be gone, which the kernel reports later
                    said = "this machine's stack is not spared its datagrams"
                    self._log(f"interface {interface}: {said}: {error}")
            self._served[interface] = ifindex
        self._drop_early(interface, ifindex)

    def _drop_early(self, interface: str, ifindex: int) -> None:
        link = self._state.links.find(interface)
        for handle, row in receive_sockets.held(self._state.pool.in_plan, interface)[:1]:
            receiver = handle.receivers[row]
            ring = (handle.plan.worker_id, row) if receiver.alone else None
            self._state.early.serve(interface, ifindex, link.mtu if link else 0, ring, receiver.ring.frames)

    def _mark_closed(self, interface: str) -> None:
        if self._served.pop(interface, None) is not None:
            self._state.early.leave(interface)
        if self._host_stack:
            self._host_stack.resume(interface)
