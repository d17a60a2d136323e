"""Putting another plan in force: its workers are started beside those of the running one, and relieve them.

The newcomers get every rule and open sockets of their own, which take nothing yet. What fails until then is
taken back, and those on duty never knew. The switch (:mod:`forwarder.net.handover`) turns for all interfaces
at once; then those on duty forward what their rings hold, and end. Their counters stay, in parked slots that
the next exchange uses.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import numpy as np

from forwarder.engines.packet.schema import MATCHED, MATCHED_BYTES
from forwarder.net.handover import Relief, wait_for_receivers
from forwarder.plan.model import Plan
from forwarder.plan.strategy import Steering
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule
from forwarder.supervisor.autoscaler import DRAIN_TIMEOUT_S, join_timeout_s
from forwarder.supervisor.supervisor import Supervisor
from forwarder.workers import receive_sockets as ingress
from forwarder.workers.handle import WorkerHandle, spawning, wait_until_all_run
from forwarder.workers.rule_index import FOREIGN, RuleTables
from forwarder.workers.spec import RETIRED, Holders, Setup

BREATH_S: Final = 0.01
"""Between bunches of forks the control socket is served."""


async def exchange(
    supervisor: Supervisor, setup: Setup, tables: RuleTables, rules: Sequence[ForwardingRule]
) -> None:
    """Have ``setup`` and ``rules`` in force instead of what is.

    Args:
        tables: for that setup, without rules; they found nothing wrong with these.

    Raises:
        OSError: a process, socket or memory could not be had; everything is as it was.
    """
    if supervisor.stopping.is_set():
        raise OSError(errno.ECANCELED, "the forwarder is being stopped")
    tables.add(rules)
    crew, on_duty = supervisor.crew, supervisor.crew.in_plan
    relief = Relief()
    newcomers: list[WorkerHandle] = []
    try:
        if supervisor.journal:
            supervisor.journal.prepare(rules)
        await _bring_in(supervisor, setup, tables, newcomers, relief)
        with suppress(OSError):  # what the rings of one that has died hold is for its successor
            await wait_until_all_run(on_duty, DRAIN_TIMEOUT_S)
        if supervisor.stopping.is_set():
            raise OSError(errno.ECANCELED, "the forwarder is being stopped")
        try:
            _turn(supervisor.plan, setup.plan, on_duty, newcomers, relief)
        except OSError:
            ingress.mute(newcomers)
            ingress.listen(on_duty, supervisor.plan.strategy.hashing)
            raise
    except BaseException:
        await asyncio.gather(*(handle.stop(DRAIN_TIMEOUT_S) for handle in newcomers))
        for handle in newcomers:
            ingress.close(ingress.places_of(handle))
            crew.forget_newcomer(handle)
        relief.close()
        raise
    held = [(handle, crew.tables, handle.plan.partition) for handle in on_duty]
    relief.close()
    _take_over(supervisor, setup, tables, RuleBook(rules), newcomers, on_duty)
    supervisor.retiring = _retiring(held, {rule.rule_id: rule for rule in rules})
    await asyncio.gather(*(handle.stop(DRAIN_TIMEOUT_S) for handle in on_duty))
    supervisor.past_rules, supervisor.retiring = supervisor.past_counts(), []
    for handle, old_tables, partition in held:
        _retire(supervisor, handle, old_tables, partition)


async def _bring_in(
    supervisor: Supervisor,
    setup: Setup,
    tables: RuleTables,
    newcomers: list[WorkerHandle],
    relief: Relief,
) -> None:
    crew = supervisor.crew
    spare = [handle.plan.worker_id for handle in crew.spare]
    more = range(len(crew.workers), len(crew.workers) + len(setup.plan.workers))
    ids = [*spare, *more][: len(setup.plan.workers)]
    for worker_id, planned in zip(ids, setup.plan.workers, strict=True):
        newcomers.append(crew.add_newcomer(replace(planned, worker_id=worker_id), setup, tables))
    for name in setup.plan.interfaces:
        if (state := supervisor.view.find(name)) is not None:
            ingress.open_receivers(state, name, newcomers, setup.plan.strategy.hashing)
    for handle in newcomers:
        for receiver in handle.receivers.values():
            relief.hold_back(receiver.sock)
    for _ in spawning(newcomers):
        await asyncio.sleep(BREATH_S)
        if supervisor.stopping.is_set():
            raise OSError(errno.ECANCELED, "the forwarder is being stopped")
    await wait_until_all_run(newcomers, join_timeout_s(newcomers))


def _turn(
    old: Plan, new: Plan, on_duty: Sequence[WorkerHandle], newcomers: Sequence[WorkerHandle], relief: Relief
) -> None:
    """Have the newcomers take what comes from now on."""
    if Steering.FILTER in (old.strategy.steering, new.strategy.steering):
        # A socket has one filter, and these need it to say whose a datagram is: a moment without listeners.
        ingress.mute(on_duty)
    else:
        for handle in on_duty:
            for receiver in handle.receivers.values():
                relief.keep_on(receiver.sock)
        relief.turn()
        # Before the newcomers' filter goes: those on duty go by what it notes.
        ingress.mute(on_duty)
    ingress.listen(newcomers, new.strategy.hashing)
    wait_for_receivers()


def _take_over(
    supervisor: Supervisor,
    setup: Setup,
    tables: RuleTables,
    book: RuleBook,
    newcomers: Sequence[WorkerHandle],
    on_duty: Sequence[WorkerHandle],
) -> None:
    """From now on the supervisor speaks of the newcomers."""
    for handle in on_duty:
        handle.plan = replace(handle.plan, group=RETIRED, partition=RETIRED, sockets=())
    supervisor.crew.relieve(setup, tables, newcomers, on_duty)
    supervisor.take(setup, book)


def _retiring(
    held: Sequence[tuple[WorkerHandle, RuleTables, int]], kept: Mapping[str, ForwardingRule]
) -> list[Holders]:
    """Those who were on duty, by their rules, of which they count the ``kept`` ones on."""
    found = []
    for partition, tables in {partition: tables for _, tables, partition in held}.items():
        rules = [rule for rule in tables.rules(partition) if kept.get(rule.rule_id) == rule]
        blocks = [handle.block for handle, _, number in held if number == partition]
        slots = {rule.rule_id: tables.place(rule)[1] for rule in rules}
        found.append(Holders(blocks, slots, tables.tells_wrong))
    return found


def _retire(supervisor: Supervisor, handle: WorkerHandle, tables: RuleTables, partition: int) -> None:
    """Close a worker that has ended; what it counted of rules in force is theirs already."""
    supervisor.crew.keep_counts(ingress.close(ingress.places_of(handle)))
    block = handle.block
    if tables.tells_wrong:
        datagrams, payload = block.rule_matched[FOREIGN].tolist()
        block.counters[MATCHED] -= np.uint64(datagrams)
        block.counters[MATCHED_BYTES] -= np.uint64(payload)
        supervisor.past_wrong += datagrams
    for slot in range(tables.slots_used(partition)):
        block.forget_rule(slot)
    handle.park()
