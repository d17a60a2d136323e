"""The generator on packet sockets: a compiled loop over ``sendmmsg`` (:mod:`lab.traffic.send.transmit`)."""

import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from forwarder.abi import af_packet
from lab.load.jobs import GeneratorName, SenderJob, TrafficError
from lab.load.stamp import HEADER_BYTES, IP_BYTES, UDP_BYTES
from lab.load.stream_order import Integers, order, sequences
from lab.traffic.send.frames import source_macs, templates
from lab.traffic.send.schedule import Outcome, Schedule
from lab.traffic.send.transmit import ERROR, OUTCOMES, Slots, messages, outcome_of, transmit

SO_SNDBUFFORCE = 32
SEND_BUFFER_BYTES = 64 << 20
"""Frames queued on the way to another CPU count against the sender's buffer. A wire does not slow its sender
down, so there is room for all; what the receiving side cannot take is dropped there and counted."""

assert HEADER_BYTES - UDP_BYTES - IP_BYTES == 14  # the slots and the kernel's checksum offset rely on it


class PacketGenerator:
    """Sends one job after another; a socket each."""

    name: Final[GeneratorName] = "packet"

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def prepare(self, job: SenderJob) -> Integers:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._job, self._socket = job, open_socket(job)
        self._slots, turn, self._stamp = prepare(job)
        # Compiles, or loads what was compiled before; sends nothing.
        self._transmit(Schedule(1, 1, 0, 0, 1, 0), np.ones(1, np.int64))
        return turn

    def send(self, schedule: Schedule, stop: Integers) -> Outcome:
        """Raises TrafficError."""
        outcome = self._transmit(schedule, stop)
        if outcome[ERROR]:
            raise TrafficError(f"sending on {self._job.interface}: {os.strerror(int(outcome[ERROR]))}")
        return outcome_of(outcome)

    def _transmit(self, schedule: Schedule, stop: Integers) -> Integers:
        assert self._socket is not None
        job, outcome = self._job, np.zeros(OUTCOMES, np.int64)
        descriptor = self._socket.fileno()
        transmit(
            descriptor, self._slots, self._stamp, job.segments, job.payload_bytes, schedule, stop, outcome
        )
        return outcome


def open_socket(job: SenderJob) -> socket.socket:
    """A packet socket bound to the interface, which receives nothing (protocol 0).

    Messages with an address leave from another interface.
    """
    packet_socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        packet_socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        if job.qdisc_bypass:
            packet_socket.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_QDISC_BYPASS, 1)
        if job.segments > 1:
            packet_socket.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_VNET_HDR, 1)
        packet_socket.bind((job.interface, 0))
    except OSError as error:
        packet_socket.close()
        raise TrafficError(f"interface {job.interface}: {error.strerror}") from error
    return packet_socket


def prepare(job: SenderJob) -> tuple[Slots, Integers, int]:
    """The slots to send from, the stream of each by its place in the job, the stamp's offset (-1: none).

    Raises TrafficError: the kernel gives each datagram that it cuts from a frame a checksum.
    """
    if job.segments > 1 and not job.udp_checksum:
        raise TrafficError(f"segments {job.segments}: 1 is allowed for packet sockets without udp_checksum")
    if job.frames:
        return _raw_slots(job), np.zeros(len(job.frames), np.int64), -1
    turn = order([stream.share for stream in job.streams], job.batch)
    interfaces = [stream.interface or job.interface for stream in job.streams]
    any_mac = "00:00:00:00:00:00"  # replaced below
    made = templates(job.streams, job.payload_bytes, any_mac, job.segments, job.udp_checksum)
    vnet = _vnet_header(job) if job.segments > 1 else np.zeros(0, np.uint8)
    frames = np.empty((len(turn), len(vnet) + made.frames.shape[1]), np.uint8)
    frames[:, : len(vnet)] = vnet
    frames[:, len(vnet) :] = made.frames[turn]
    frames[:, len(vnet) + 6 : len(vnet) + 12] = source_macs(interfaces)[turn]
    lengths = np.full(len(frames), frames.shape[1], np.int64)
    names = _names(interfaces)[turn] if len(set(interfaces)) > 1 else np.zeros((0, 0), np.uint8)
    ids = np.array([stream.stream_id for stream in job.streams], np.int64)
    slots = messages(frames, lengths, names, made.checksum_sums[turn], ids[turn], *sequences(turn))
    return slots, turn, len(vnet) + HEADER_BYTES


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
    return messages(frames, lengths, np.zeros((0, 0), np.uint8), *[nothing] * 4)


def _vnet_header(job: SenderJob) -> npt.NDArray[np.uint8]:
    """struct virtio_net_hdr (linux/virtio_net.h), little-endian, for a frame of several datagrams.

    flags, gso_type; hdr_len, gso_size, csum_start, csum_offset.
    """
    kind = (af_packet.VIRTIO_NET_HDR_F_NEEDS_CSUM, af_packet.VIRTIO_NET_HDR_GSO_UDP_L4)
    sizes = (HEADER_BYTES, job.payload_bytes, HEADER_BYTES - UDP_BYTES, 6)
    return np.frombuffer(struct.pack("<2B4H", *kind, *sizes), np.uint8)
