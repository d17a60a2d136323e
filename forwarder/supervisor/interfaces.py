"""The interfaces that a forwarder serves: opened when they appear, left when they go, tried again meanwhile.

A rule's interface may not be there yet, may be made anew under the same name, may come and go with the rules.
Here is what follows: sockets opened, handed over and closed, groups joined and left, output links told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol

from pyroute2.netlink.exceptions import NetlinkError

from forwarder.net import netlink
from forwarder.net.host_stack import HostStack
from forwarder.net.links import InterfaceState, LinkView, input_trouble, output_trouble
from forwarder.net.memberships import Memberships
from forwarder.plan.model import Plan
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule
from forwarder.workers import limits
from forwarder.workers import receive_sockets as ingress
from forwarder.workers.pool import Crew, Told, settled

FIRST_RETRY_S: Final = 0.5
LONGEST_RETRY_S: Final = 30.0
"""After interfaces could not be opened; doubled each time."""


class Forwarder(Protocol):
    """What the supervisor says of what it runs."""

    plan: Plan
    book: RuleBook
    crew: Crew
    view: LinkView
    memberships: Memberships

    def adopt(self, plan: Plan) -> None: ...


class Interfaces:
    """Keeps the sockets of the plan true to the interfaces that there are; to be closed.

    Args:
        forwarder: plan, rules and workers, as they are when asked.
        host_stack: what spares this machine's own stack the datagrams that workers take, if wanted.
        spawn_task: runs something beside the rest.
        log: takes one sentence at a time.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        *,
        host_stack: HostStack | None,
        spawn_task: Callable[[Coroutine[Any, Any, None]], object],
        log: Callable[[str], None],
    ) -> None:
        self._forwarder = forwarder
        self._host_stack = host_stack
        self._spawn_task = spawn_task
        self._log = log
        self.changing = asyncio.Lock()
        """Held while sockets are opened or closed, as that takes several conversations."""
        self._listening: dict[str, int] = {}
        """Interfaces whose datagrams are let in, and their indices."""

    # -- all of them --

    def open(self) -> None:
        """Open the sockets of every interface that there is, all of them deaf.

        Raises:
            OSError: one could not be had.
        """
        forwarder = self._forwarder
        for name in forwarder.plan.interfaces:
            if (state := forwarder.view.find(name)) is not None:
                ingress.open_receivers(state, name, forwarder.crew.workers, forwarder.plan.strategy.hashing)

    def listen(self) -> None:
        """Join the groups and let datagrams in, everywhere."""
        forwarder = self._forwarder
        for rule in forwarder.book:
            forwarder.memberships.join(rule)
        ingress.listen(forwarder.crew.workers, forwarder.plan.strategy.hashing)
        self.recount()

    def recount(self) -> None:
        """Speak of the interfaces that the workers of the plan in force listen to, and of no others."""
        served = {
            receiver.interface: receiver.ifindex
            for handle in self._forwarder.crew.in_plan
            for receiver in handle.receivers.values()
        }
        for name in self._listening.keys() - served.keys():
            self._listens_no_more(name)
        for name, ifindex in served.items():
            self._listens(name, ifindex)

    def close(self) -> None:
        """Give back every socket."""
        if self._host_stack:
            self._host_stack.close()
        workers = self._forwarder.crew.workers
        ingress.close([place for handle in workers for place in ingress.places_of(handle)])

    def trouble(self, rule: ForwardingRule) -> str | None:
        """What a rule waits for, or None when it is running."""
        view = self._forwarder.view
        found = input_trouble(rule.input_interface, view.find(rule.input_interface))
        if found:
            return found
        if rule.input_interface not in self._listening:
            return f"input interface {rule.input_interface} is being opened"
        for output in rule.outputs:
            found = output_trouble(output.interface, view.find(output.interface))
            if found:
                return found
        return None

    # -- what changes --

    async def follow(self) -> None:
        """Take in every change of interfaces and addresses, for as long as the supervisor runs."""
        changed, delay_s = asyncio.Event(), 0.0
        self._spawn_task(netlink.tell_changes(changed))
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s or None):
                    await changed.wait()
                delay_s = 0.0
            changed.clear()
            try:
                self._forwarder.view.update(await netlink.interfaces())
                async with self.changing:
                    await self._refit()
                delay_s = 0.0
            except (OSError, NetlinkError) as error:
                # Where it was an interface that went, there will be word of it; memory comes back without.
                delay_s = min(max(FIRST_RETRY_S, 2 * delay_s), LONGEST_RETRY_S)
                self._log(f"interfaces could not be opened: {error}; trying again in {delay_s:g} s at most")

    async def follow_rules(self, names: Collection[str]) -> None:
        """Serve those of the interfaces that have rules and leave those that have none, as they are now.

        Raises:
            OSError: one could not be opened.
            HostError: the machine cannot be read, which a plan is made for.
        """
        forwarder = self._forwarder
        async with self.changing:
            served = set(forwarder.plan.interfaces)
            wanted = {name for name in names if forwarder.crew.tables.rules_on(name)}
            left, come = (set(names) - wanted) & served, wanted - served
            if left or come:
                # Of all rules in force, not of one interface after another.
                forwarder.adopt(forwarder.crew.setup.replan(list(forwarder.book), {}))
            for name in sorted(left):
                self._log(f"interface {name} has no rule any more")
                await settled(self._close(name))
            for name in sorted(come):
                if (state := forwarder.view.find(name)) is not None:
                    await self._bring_up(name, state)

    async def _refit(self) -> None:
        """Make sockets, links and memberships fit the interfaces as they are now.

        Raises:
            OSError: an interface could not be opened; the others have been.
        """
        forwarder = self._forwarder
        told = list(forwarder.crew.announce_links())
        failed: OSError | None = None
        for name in forwarder.plan.interfaces:
            state = forwarder.view.find(name)
            held = ingress.held(forwarder.crew.workers, name)
            stale = bool(held) and (
                state is None or held[0][0].receivers[held[0][1]].ifindex != state.ifindex
            )
            if stale:
                self._log(f"interface {name} is gone" if state is None else f"interface {name} was replaced")
                told += self._close(name)
                await settled(told)
                for rule in forwarder.book:
                    if rule.input_interface == name:
                        forwarder.memberships.leave(rule)
            if state is not None and (stale or not held):
                try:
                    await self._bring_up(name, state)
                except OSError as error:  # others may have more luck
                    failed = OSError(error.errno, f"{name}: {error.strerror}")
        await settled(told)
        if failed:
            raise failed

    async def _bring_up(self, name: str, state: InterfaceState) -> None:
        """Serve an interface that has appeared.

        Raises:
            OSError: a socket could not be had, or a worker could not take its own; none is left open.
        """
        forwarder = self._forwarder
        crew, hashing = forwarder.crew, forwarder.plan.strategy.hashing
        limits.check_memory([handle.plan for handle in crew.workers], [name])
        ingress.open_receivers(state, name, crew.workers, hashing)
        try:
            if refused := await settled(crew.hand_over(ingress.held(crew.workers, name))):
                raise OSError(refused, f"a worker could not take its socket: {os.strerror(refused)}")
            for rule in forwarder.book:
                if rule.input_interface == name:
                    forwarder.memberships.join(rule)
            ingress.listen(crew.workers, hashing, name)
        except OSError:
            await settled(self._close(name))
            raise
        self._listens(name, state.ifindex)
        self._log(f"interface {name} is served, index {state.ifindex}")

    def _close(self, name: str) -> Told:
        """Leave an interface: every worker lets go of its socket, which leaves its group with that."""
        self._listens_no_more(name)
        crew = self._forwarder.crew
        places = ingress.held(crew.workers, name)
        told = [crew.take_back(handle, row) for handle, row in places]
        crew.keep_counts(ingress.close(places))
        return told

    def _listens(self, interface: str, ifindex: int) -> None:
        """Its datagrams are let in from now on."""
        if self._listening.get(interface) == ifindex:
            return
        if interface in self._listening:
            self._listens_no_more(interface)
        if self._host_stack:
            try:
                self._host_stack.skip(interface, ifindex)
            except OSError as error:  # it may be gone, which we are told of later
                self._log(f"interface {interface}: this machine's stack is not spared its datagrams: {error}")
        self._listening[interface] = ifindex

    def _listens_no_more(self, interface: str) -> None:
        self._listening.pop(interface, None)
        if self._host_stack:
            self._host_stack.resume(interface)
