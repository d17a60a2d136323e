"""Switching over to another plan: its workers start beside the running ones, then take over all at once.

The incoming workers get every rule, and sockets of their own that take nothing yet. An error until then is
rolled back, and the outgoing workers are not affected. The switch (:mod:`forwarder.net.handover`) covers all
interfaces at once; then the outgoing workers forward what their rings hold, and end. Their counters stay, in
spare slots that the next switchover uses.
"""

import asyncio
import errno
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import numpy as np

from forwarder.abi.netdev import wait_for_receivers
from forwarder.engines.packet.schema import MATCHED, MATCHED_BYTES
from forwarder.net.handover import Handover
from forwarder.plan.model import Plan
from forwarder.plan.strategy import Steering
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule
from forwarder.supervisor.autoscaler import DRAIN_TIMEOUT_S, join_timeout_s
from forwarder.supervisor.state import ForwarderState
from forwarder.supervisor.supervisor import Supervisor
from forwarder.workers import receive_sockets
from forwarder.workers.handle import Receiver, State, WorkerHandle, spawning, wait_until_all_run
from forwarder.workers.pool import RETIRED, ForwarderSpec
from forwarder.workers.rule_counts import RuleCounters
from forwarder.workers.rule_index import FOREIGN, RuleIndex

PAUSE_S: Final = 0.01
"""Between batches of forks, to serve the control socket."""


async def switch_over(
    supervisor: Supervisor, spec: ForwarderSpec, index: RuleIndex, rules: Sequence[ForwardingRule]
) -> None:
    """Put another plan and its rules in force; whoever calls this has kept out changes of rules and sockets.

    ``index``: an empty one for that plan, which accepts the rules.

    Raises OSError: a process, socket or memory could not be had; everything is as it was.
    """
    state, pool = supervisor.state, supervisor.state.pool
    _check_running(state)
    index.add(rules)
    outgoing = pool.in_plan
    handover = Handover()
    incoming: list[WorkerHandle] = []
    try:
        supervisor.rules.prepare(rules)
        await _start_incoming(state, spec, index, incoming, handover)
        with suppress(OSError):  # the ring of a worker that has died is emptied by its successor
            await wait_until_all_run(outgoing, DRAIN_TIMEOUT_S)
        _check_running(state)
        state.early.pause()
        try:
            _hand_over(state.plan, spec.plan, outgoing, incoming, handover)
        except OSError:
            receive_sockets.stop_listening(incoming)
            receive_sockets.listen(outgoing, state.plan.strategy.hashing)
            supervisor.interfaces.recount()
            raise
    except BaseException:
        await asyncio.gather(*(handle.stop(DRAIN_TIMEOUT_S) for handle in incoming))
        for handle in incoming:
            receive_sockets.close(receive_sockets.places_of(handle))
            pool.discard_incoming(handle)
        handover.close()
        raise
    held = [(handle, pool.index, handle.plan.partition) for handle in outgoing]
    handover.close()
    for handle in outgoing:
        handle.plan = replace(handle.plan, group=RETIRED, partition=RETIRED, sockets=())
    pool.switch_over(spec, index, incoming, outgoing)
    supervisor.switch(spec, RuleBook(rules))
    state.past.retiring = _retiring(held, {rule.rule_id: rule for rule in rules})
    await asyncio.gather(*(handle.stop(DRAIN_TIMEOUT_S) for handle in outgoing))
    state.past.settle()
    for handle, old_index, partition in held:
        _retire(state, handle, old_index, partition)


def _check_running(state: ForwarderState) -> None:
    if state.stopping.is_set():
        raise OSError(errno.ECANCELED, "the forwarder is being stopped")


async def _start_incoming(
    state: ForwarderState,
    spec: ForwarderSpec,
    index: RuleIndex,
    incoming: list[WorkerHandle],
    handover: Handover,
) -> None:
    """Start the incoming workers, and note them in ``incoming`` as they are made."""
    pool = state.pool
    spare = [handle.plan.worker_id for handle in pool.spare]
    more = range(len(pool.workers), len(pool.workers) + len(spec.plan.workers))
    ids = [*spare, *more][: len(spec.plan.workers)]
    for worker_id, planned in zip(ids, spec.plan.workers, strict=True):
        incoming.append(pool.add_incoming(replace(planned, worker_id=worker_id), spec, index))
    for name in spec.plan.interfaces:
        if (link := state.links.find(name)) is not None:
            receive_sockets.open_receivers(link, name, incoming, spec.plan.strategy.hashing)
    for receiver in _receivers(incoming):
        handover.hold_back(receiver.sock)
    for _ in spawning(incoming):
        await asyncio.sleep(PAUSE_S)
        _check_running(state)
    await wait_until_all_run(incoming, join_timeout_s(incoming))


def _receivers(handles: Sequence[WorkerHandle]) -> list[Receiver]:
    return [receiver for handle in handles for receiver in handle.receivers.values()]


def _hand_over(
    old: Plan,
    new: Plan,
    outgoing: Sequence[WorkerHandle],
    incoming: Sequence[WorkerHandle],
    handover: Handover,
) -> None:
    """Let the incoming workers take every datagram from now on."""
    if Steering.FILTER in (old.strategy.steering, new.strategy.steering):
        # A socket has one filter, and these need it to find a datagram's owner: nobody listens for a moment.
        receive_sockets.stop_listening(outgoing)
    else:
        for receiver in _receivers(outgoing):
            handover.keep_on(receiver.sock)
        handover.switch()
        # Before the incoming workers' filter goes: the outgoing ones depend on what it notes.
        receive_sockets.stop_listening(outgoing)
    receive_sockets.listen(incoming, new.strategy.hashing)
    wait_for_receivers()


def _retiring(
    held: Sequence[tuple[WorkerHandle, RuleIndex, int]], kept: Mapping[str, ForwardingRule]
) -> list[RuleCounters]:
    """The counters of the outgoing workers for those rules that stay in force unchanged."""
    found = []
    for partition, index in {partition: index for _, index, partition in held}.items():
        rules = [rule for rule in index.rules(partition) if kept.get(rule.rule_id) == rule]
        blocks = [handle.block for handle, _, number in held if number == partition]
        slots = {rule.rule_id: index.place(rule)[1] for rule in rules}
        found.append(RuleCounters(blocks, slots, index.knows_foreign))
    return found


def _retire(state: ForwarderState, handle: WorkerHandle, index: RuleIndex, partition: int) -> None:
    """Close a worker that has ended, and clear its rule counters, which are in the past counts already."""
    state.pool.keep_counts(receive_sockets.close(receive_sockets.places_of(handle)))
    block = handle.block
    if index.knows_foreign:
        datagrams, payload = block.rule_matched[FOREIGN].tolist()
        block.counters[MATCHED] -= np.uint64(datagrams)
        block.counters[MATCHED_BYTES] -= np.uint64(payload)
        state.past.wrong_worker += datagrams
    block.forget_rules(range(index.slots_used(partition)))
    handle.state = State.PARKED
