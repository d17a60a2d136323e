"""The generator's process: ``python -m lab.traffic.send`` inside its namespace; see ``jobs.py``."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from forwarder.abi.af_packet import (
    PACKET_QDISC_BYPASS,
    PACKET_VNET_HDR,
    SOL_PACKET,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_UDP_L4,
)
from lab.traffic.frames import templates
from lab.traffic.jobs import SenderJob, SenderReport, TrafficError
from lab.traffic.kernels import (
    BATCHES,
    DURATION_NS,
    ERROR,
    LATE_MAX_NS,
    LATE_SUM_NS,
    OUTCOMES,
    REFUSED,
    SENT,
    SLIPPED_NS,
    STARTED_NS,
    Schedule,
    Slots,
    messages,
    transmit,
)
from lab.traffic.service import Control, serve
from lab.traffic.stamp import HEADER_BYTES, IP_BYTES, UDP_BYTES
from lab.traffic.turn import Integers, order, per_stream, sequences

SO_SNDBUFFORCE = 32
SEND_BUFFER_BYTES = 64 << 20
"""Frames queued on the way to another CPU count against the sender's buffer. A wire does not slow its sender
down, so there is room for all; what the receiving side cannot take is dropped there and counted."""

FOREVER_NS = 1 << 62

CATCH_UP_NS, CATCH_UP_DATAGRAMS = 1_000_000, 256
"""A sender that was held up makes good for so long, or so many datagrams, whichever is less: a quarter of the
backlog (``net.core.netdev_max_backlog``, 1,000) that a veth's receiving side has by default."""


def work(job: SenderJob, control: Control) -> SenderReport:
    """Prepare, wait for "go", send, report."""
    if job.cpu is not None:
        os.sched_setaffinity(0, {job.cpu})
    with open_socket(job) as packet_socket:
        slots, turn, stamp = prepare(job)
        outcome = np.zeros(OUTCOMES, np.int64)

        def send(schedule: Schedule) -> None:
            transmit(
                packet_socket.fileno(),
                slots,
                stamp,
                job.segments,
                job.payload_bytes,
                schedule,
                control.stop_flag,
                outcome,
            )

        send(Schedule(1, 1, 0, 0, 1, 0))  # compiles, or loads what was compiled before; sends nothing
        outcome[:] = 0
        control.say_ready()
        control.wait_for_go()
        cpu_before = time.thread_time_ns()
        send(schedule_of(job))
        cpu_ns = time.thread_time_ns() - cpu_before
    if outcome[ERROR]:
        raise TrafficError(f"sending on {job.interface}: {os.strerror(int(outcome[ERROR]))}")
    return report_of(job, outcome, turn, cpu_ns)


def open_socket(job: SenderJob) -> socket.socket:
    """A packet socket bound to the interface, which receives nothing (protocol 0).

    Messages with an address leave from another interface.
    """
    packet_socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        packet_socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        if job.qdisc_bypass:
            packet_socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        if job.segments > 1:
            packet_socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        packet_socket.bind((job.interface, 0))
    except OSError as error:
        packet_socket.close()
        raise TrafficError(f"interface {job.interface}: {error.strerror}") from error
    return packet_socket


def prepare(job: SenderJob) -> tuple[Slots, Integers, int]:
    """The slots to send from, the stream of each by its place in the job, the stamp's offset (-1: none)."""
    if job.frames:
        return _raw_slots(job), np.zeros(len(job.frames), np.int64), -1
    turn = order([stream.share for stream in job.streams], job.batch)
    interfaces = [stream.interface or job.interface for stream in job.streams]
    made = templates(job.streams, job.payload_bytes, "00:00:00:00:00:00", job.segments)
    vnet = _vnet_header(job) if job.segments > 1 else np.zeros(0, np.uint8)
    frames = np.empty((len(turn), len(vnet) + made.frames.shape[1]), np.uint8)
    frames[:, : len(vnet)] = vnet
    frames[:, len(vnet) :] = made.frames[turn]
    macs = {name: _mac(name) for name in set(interfaces)}
    frames[:, len(vnet) + 6 : len(vnet) + 12] = np.array([macs[name] for name in interfaces], np.uint8)[turn]
    slots = messages(
        frames,
        np.full(len(frames), frames.shape[1], np.int64),
        made.checksum_sums[turn],
        np.array([stream.stream_id for stream in job.streams], np.int64)[turn],
        *sequences(turn),
        _names(interfaces)[turn] if len(macs) > 1 else np.zeros((0, 0), np.uint8),
    )
    return slots, turn, len(vnet) + HEADER_BYTES


def _mac(interface: str) -> list[int]:
    try:
        text = Path(f"/sys/class/net/{interface}/address").read_text()
    except OSError as error:
        raise TrafficError(f"interface {interface}: {error.strerror}") from error
    return [int(octet, 16) for octet in text.strip().split(":")]


def _names(interfaces: Sequence[str]) -> npt.NDArray[np.uint8]:
    """A sockaddr_ll (packet(7)) for each interface: (interfaces, 20). Only family and index are looked at."""
    index = {name: socket.if_nametoindex(name) for name in set(interfaces)}
    packed = b"".join(
        struct.pack("=HHiHBB8s", socket.AF_PACKET, 0, index[name], 0, 0, 0, bytes(8)) for name in interfaces
    )
    return np.frombuffer(packed, np.uint8).reshape(len(interfaces), -1)


def _raw_slots(job: SenderJob) -> Slots:
    raw = [bytes.fromhex(frame) for frame in job.frames]
    frames = np.zeros((len(raw), max(map(len, raw))), np.uint8)
    for row, frame in zip(frames, raw, strict=True):
        row[: len(frame)] = np.frombuffer(frame, np.uint8)
    nothing = np.zeros(len(raw), np.int64)
    lengths = np.array([len(frame) for frame in raw], np.int64)
    return messages(frames, lengths, nothing, nothing, nothing, nothing, np.zeros((0, 0), np.uint8))


def _vnet_header(job: SenderJob) -> npt.NDArray[np.uint8]:
    """struct virtio_net_hdr (linux/virtio_net.h), little-endian, for a frame of several datagrams."""
    udp = HEADER_BYTES - UDP_BYTES
    fields = (HEADER_BYTES, job.payload_bytes, udp, 6)  # hdr_len, gso_size, csum_start, csum_offset
    header = bytes([VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP_L4]) + b"".join(
        value.to_bytes(2, "little") for value in fields
    )
    return np.frombuffer(header, np.uint8)


def schedule_of(job: SenderJob) -> Schedule:
    frames = FOREVER_NS if job.asked is None else -(-job.asked // job.segments)
    duration_ns = FOREVER_NS if job.duration_s is None else round(job.duration_s * 1e9)
    if job.duration_s is not None and job.rate_dps is not None:
        duration_ns += grace_ns(duration_ns)  # time for the last frames to leave, not to catch up
    if job.rate_dps is None:
        return Schedule(0, 1, frames, duration_ns, job.batch, 0)
    interval_ns = job.segments * 1_000_000_000
    slack_ns = min(CATCH_UP_NS, CATCH_UP_DATAGRAMS * 1_000_000_000 // job.rate_dps)
    return Schedule(interval_ns, job.rate_dps, frames, duration_ns, job.batch, slack_ns)


def grace_ns(duration_ns: int) -> int:
    """How much longer than asked a sender may take and still have reached its rate."""
    return max(10_000_000, duration_ns // 100)


def report_of(job: SenderJob, outcome: Integers, turn: Integers, cpu_ns: int) -> SenderReport:
    """``turn``: the stream of each slot, as :func:`prepare` gives it."""
    sent, duration_ns = int(outcome[SENT]), int(outcome[DURATION_NS])
    asked = job.asked
    complete = asked is not None and sent * job.segments >= asked
    in_time = True
    if job.rate_dps is not None and asked is not None:
        planned_ns = asked * 1_000_000_000 // job.rate_dps
        in_time = duration_ns <= planned_ns + grace_ns(planned_ns)
    timed_out = job.duration_s is not None and duration_ns >= job.duration_s * 1e9
    return SenderReport(
        offered=sent * job.segments,
        per_stream=tuple((per_stream(turn, sent) * job.segments).tolist()) if job.streams else (),
        duration_ns=duration_ns,
        started_ns=int(outcome[STARTED_NS]),
        reached=in_time and (complete or asked is None),
        ended="count" if complete else "duration" if timed_out else "stopped",
        late_ns_mean=int(outcome[LATE_SUM_NS]) // max(1, int(outcome[BATCHES])),
        late_ns_max=int(outcome[LATE_MAX_NS]),
        slipped_ns=int(outcome[SLIPPED_NS]),
        refused=int(outcome[REFUSED]),
        cpu_ns=cpu_ns,
    )


assert HEADER_BYTES - UDP_BYTES - IP_BYTES == 14  # the slots and the kernel's checksum offset rely on it

if __name__ == "__main__":
    raise SystemExit(serve(SenderJob, work))
