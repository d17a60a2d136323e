"""The receive sockets of an interface, one for each worker that serves it.

They belong to the supervisor. The socket of a worker that dies stays where it was in the fanout group, so the
order of joining, by which the kernel chooses a member, stays as planned. The order also survives an interface
that goes down and up again: the kernel then links the sockets anew in the order in which they were made
(``packet_notifier`` and ``packet_create`` in ``net/packet/af_packet.c``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from forwarder.abi import af_packet as ap
from forwarder.net import packet_sockets, steering
from forwarder.net.links import InterfaceState, LinkView
from forwarder.net.packet_sockets import Ring
from forwarder.plan.model import SocketPlan
from forwarder.plan.resources import LEAST_FRAMES, RingPlan, frame_bytes
from forwarder.plan.strategy import Hashing
from forwarder.workers.handle import Receiver, WorkerHandle

_FANOUT_MODES: Final = {
    "cpu": ap.PACKET_FANOUT_CPU,
    "hash": ap.PACKET_FANOUT_HASH,
    "lb": ap.PACKET_FANOUT_LB,
    "cbpf": ap.PACKET_FANOUT_CBPF,
    "flow": ap.PACKET_FANOUT_CBPF,
    "cpu-map": ap.PACKET_FANOUT_CBPF,
}
_filter_program = lru_cache(maxsize=1)(steering.filter_program)
"""All interfaces of a worker have the same program, and are opened one after another."""

Place = tuple[WorkerHandle, int]
"""A worker and the row of one of its receivers."""


def places_of(handle: WorkerHandle) -> list[Place]:
    return [(handle, row) for row in handle.receivers]


def held(handles: Iterable[WorkerHandle], interface: str) -> list[Place]:
    return [
        (handle, row)
        for handle in handles
        for row, receiver in handle.receivers.items()
        if receiver.interface == interface
    ]


def open_receivers(
    state: InterfaceState, name: str, handles: Sequence[WorkerHandle], hashing: Hashing
) -> None:
    """Open an interface's socket for every worker that serves it, in joining order; they let nothing in yet.

    Raises OSError: a socket could not be had; none is left open.
    """
    all_of_them = [(planned, handle) for handle in handles for planned in handle.plan.sockets]
    serving = [pair for pair in all_of_them if pair[0].interface == name]
    serving.sort(key=lambda pair: pair[0].fanout.slot if pair[0].fanout else pair[1].plan.worker_id)
    group: int | None = None
    rings = [_ring(planned.ring, state.mtu, handle) for planned, handle in serving]
    opened = packet_sockets.open_receivers(state.ifindex, rings)
    try:
        for (planned, handle), ring, sock in zip(serving, rings, opened, strict=True):
            most = planned.fanout.max_members if planned.fanout else len(serving)
            receiver = Receiver(name, state.ifindex, sock, ring, alone=max(most, len(serving)) == 1)
            group = _assign(handle, planned, receiver, group)
        if serving and (fanout := planned.fanout):
            if fanout.mode == "cbpf":
                packet_sockets.steer(sock, steering.owner_program(fanout.members, hashing))
            elif fanout.mode == "flow":
                packet_sockets.steer(sock, steering.flow_program(len(serving)))
            elif fanout.mode == "cpu-map":
                packet_sockets.steer(sock, steering.cpu_program(fanout.cpus, fanout.members))
    except BaseException:
        for handle, row in held(handles, name):
            handle.receivers.pop(row)
        packet_sockets.close_all(opened)
        raise


def as_opened(handle: WorkerHandle, planned: Sequence[SocketPlan]) -> tuple[SocketPlan, ...]:
    """Planned sockets, with the rings that a worker has instead where they are open."""
    rings = {receiver.interface: receiver.ring for receiver in handle.receivers.values()}
    opened = {name: RingPlan(ring.frame_bytes, ring.frames) for name, ring in rings.items()}
    return tuple(replace(one, ring=opened.get(one.interface, one.ring)) for one in planned)


def join_late(links: LinkView, handle: WorkerHandle, members: Sequence[WorkerHandle]) -> None:
    """Open the sockets of a worker in the fanout groups of ``members``, which carry traffic.

    Nothing is steered to them before :func:`steer_flows`.

    Raises OSError: a socket could not be had; none is left open.
    """
    try:
        for planned in handle.plan.sockets:
            state, places = links.find(planned.interface), held(members, planned.interface)
            if state is None or not places:
                continue
            member, row = places[0]
            present = member.receivers[row]
            ring = _ring(planned.ring, state.mtu, handle)
            (sock,) = packet_sockets.open_receivers(present.ifindex, [ring])
            group = packet_sockets.fanout_group(present.sock) if planned.fanout else None
            _assign(handle, planned, Receiver(planned.interface, state.ifindex, sock, ring), group)
            packet_sockets.listen(sock)
    except BaseException:
        close(places_of(handle))
        raise


def steer_flows(members: Sequence[WorkerHandle]) -> None:
    """Spread the flows on the interfaces of a group over these members, from the next datagram on.

    When this returns, no datagram is on its way to another worker: the kernel waits for those
    (``__fanout_set_data_bpf`` calls ``synchronize_net``).
    """
    for receiver in members[0].receivers.values():
        packet_sockets.steer(receiver.sock, steering.flow_program(len(members)))


def close(places: Iterable[Place]) -> list[Receiver]:
    """Close sockets, which thereby leave their fanout groups; returns them with their last counts."""
    closed = []
    for handle, row in places:
        receiver = handle.receivers.pop(row)
        receiver.count_drops()
        if handle.pid is None:  # otherwise its worker still empties the ring
            receiver.abandoned = receiver.waiting(handle.claimed(row))
        closed.append(receiver)
    packet_sockets.close_all([receiver.sock for receiver in closed])
    return closed


def listen(handles: Iterable[WorkerHandle], hashing: Hashing, interface: str | None = None) -> None:
    """Let datagrams in, on one interface or on all."""
    for handle in handles:
        plans = {planned.interface: planned for planned in handle.plan.sockets}
        for receiver in handle.receivers.values():
            if interface in (None, receiver.interface):
                own = plans[receiver.interface].filter
                program = _filter_program(own.slot, own.members, hashing) if own else None
                packet_sockets.listen(receiver.sock, program)


def stop_listening(handles: Iterable[WorkerHandle]) -> None:
    """Let nothing more in; the rings keep what they hold."""
    for handle in handles:
        for receiver in handle.receivers.values():
            packet_sockets.mute(receiver.sock)


def _ring(planned: RingPlan, mtu: int, handle: WorkerHandle) -> Ring:
    """A ring of the planned size, in slots that hold a datagram of the interface's present MTU."""
    frame = max(planned.frame_bytes, frame_bytes(mtu))
    return Ring(frame, max(LEAST_FRAMES, planned.ring_bytes // frame), handle.plan.memory_node)


def _assign(handle: WorkerHandle, planned: SocketPlan, receiver: Receiver, group: int | None) -> int | None:
    """Give a socket to a worker, and join its fanout group, or create one; returns the group."""
    row = next(row for row in range(len(handle.receivers) + 1) if row not in handle.receivers)
    handle.receivers[row] = receiver
    # A worker that died before it released the row's last ring has left its cursor there.
    handle.block.cursors[row] = 0
    if (fanout := planned.fanout) is None:
        return None
    receiver.fanout_slot = fanout.slot
    return packet_sockets.join_fanout(receiver.sock, group, _FANOUT_MODES[fanout.mode], fanout.max_members)
