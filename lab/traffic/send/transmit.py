"""The compiled, paced ``sendmmsg`` loop of the packet-socket generator.

Its data (see :func:`messages`): slot ``i`` is one frame buffer, one ``iovec`` that points to it and one
``mmsghdr`` that points to that. Slots hold the streams in turn (:mod:`lab.load.stream_order`). Addresses are
written once. For each datagram only the stamp and the UDP checksum change. The kernel copies the frame during
the call, so a slot can be reused at once.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from forwarder.abi.jit import njit
from forwarder.abi.native import syscall
from lab.traffic.compiled import MONOTONIC, REALTIME, Bytes, Integers, fold, now_ns, stamp_at
from lab.traffic.send.schedule import Outcome, Schedule

SYS_SENDMMSG = 307
"""x86-64; asm/unistd_64.h."""
SYS_CLOCK_NANOSLEEP = 230
EINTR, ENOBUFS = 4, 105

ROUSE_NS = 100_000
"""How long before a due time a sender wakes; it sleeps only if at least twice as much is left."""

SENT, DURATION_NS, STARTED_NS, LATE_SUM_NS, LATE_MAX_NS, REFUSED, ERROR, BATCHES, SLIPPED_NS = range(9)
OUTCOMES = 9
"""What :func:`transmit` leaves in ``outcome``; SENT counts frames, the lateness is that of each batch."""


def outcome_of(counts: Integers) -> Outcome:
    """What :func:`transmit` has left."""
    found = [int(count) for count in counts]
    return Outcome(
        frames=found[SENT],
        duration_ns=found[DURATION_NS],
        started_ns=found[STARTED_NS],
        late_ns_mean=found[LATE_SUM_NS] // max(1, found[BATCHES]),
        late_ns_max=found[LATE_MAX_NS],
        slipped_ns=found[SLIPPED_NS],
        refused=found[REFUSED],
    )


class Slots(NamedTuple):
    """Frames and the structures that ``sendmmsg`` takes, prepared once.

    ``frames``: (slots, bytes) uint8, behind ``vnet`` bytes of virtio_net_hdr; ``sums``: (slots,) int64, what
    the UDP checksum comes from for sequence number 0, or 0 for none; ``streams``: (slots,) int64, stream ids;
    ``before`` and ``totals``: (slots,) int64, slots of the same stream before this one, and in all;
    ``names``: (slots, 20) uint8, a sockaddr_ll each, or no rows where the socket's own interface is meant;
    ``iovecs``: (slots, 2) uint64; ``headers``: (slots, 8) uint64, a mmsghdr each.
    """

    frames: Bytes
    sums: Integers
    streams: Integers
    before: Integers
    totals: Integers
    names: Bytes
    iovecs: npt.NDArray[np.uint64]
    headers: npt.NDArray[np.uint64]


def messages(frames: Bytes, lengths: Integers, names: Bytes, *columns: Integers) -> Slots:
    """Slots for ``frames``, of which row ``i`` is ``lengths[i]`` bytes long.

    ``columns``: sums, streams, before and totals, as in :class:`Slots`; ``names`` too.

    struct mmsghdr is 64 bytes on x86-64: msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control,
    msg_controllen, msg_flags, msg_len (the last four padded to eight bytes each).
    """
    count = len(frames)
    iovecs = np.zeros((count, 2), np.uint64)
    iovecs[:, 0] = frames.ctypes.data + np.arange(count, dtype=np.uint64) * np.uint64(frames.strides[0])
    iovecs[:, 1] = lengths.astype(np.uint64)
    headers = np.zeros((count, 8), np.uint64)
    headers[:, 2] = iovecs.ctypes.data + np.arange(count, dtype=np.uint64) * np.uint64(16)
    headers[:, 3] = 1
    if len(names):
        headers[:, 0] = names.ctypes.data + np.arange(count, dtype=np.uint64) * np.uint64(names.strides[0])
        headers[:, 1] = names.shape[1]
    sums, streams, before, totals = columns
    return Slots(frames, sums, streams, before, totals, names, iovecs, headers)


@njit
def sleep_until(time_ns: int, scratch: Integers) -> None:
    """Sleep, with at most the kernel's slack (50 microseconds) too long, to a time of CLOCK_MONOTONIC, or for
    10 ms: there may be a reason to stop."""
    time_ns = min(time_ns, now_ns(MONOTONIC, scratch) + 10_000_000)
    scratch[0] = time_ns // 1_000_000_000
    scratch[1] = time_ns % 1_000_000_000
    syscall(SYS_CLOCK_NANOSLEEP, MONOTONIC, 1, scratch.ctypes.data, 0, 0, 0)


@njit
def transmit(
    descriptor: int,
    slots: Slots,
    stamp: int,
    segments: int,
    payload_bytes: int,
    schedule: Schedule,
    stop: Integers,
    outcome: Integers,
) -> None:
    """Send until the schedule's frames or time are used up, or ``stop[0]`` becomes non-zero.

    Frame ``k`` of the run uses slot ``(first + k) % slots``. ``stamp``: offset of the first payload in a
    frame, -1 to send frames untouched.
    ``segments`` payloads of ``payload_bytes`` follow each other in a frame; with more than one the kernel
    fills in the UDP checksum. ``outcome``: int64, see the constants.

    Where datagrams are far apart it sleeps in between: others may use the CPU.
    Each batch is what is due by now, so a sender that keeps up sends one frame at a time, stamped with the
    time of its own departure; only one that is behind sends several at once. One that was held up for long
    (another process, the hypervisor) would send a burst that no one asked for, and that would be lost: beyond
    ``slack_ns`` it does not catch up, and the rate is missed instead, which the report says.
    """
    scratch = np.zeros(2, np.int64)
    count = slots.frames.shape[0]
    header_address = slots.headers.ctypes.data
    checksum_at = stamp - 2
    sent = 0
    position = schedule.first % count
    rounds = schedule.first // count
    start = now_ns(MONOTONIC, scratch)
    origin = start
    outcome[STARTED_NS] = now_ns(REALTIME, scratch)
    now = start
    while sent < schedule.frames and stop[0] == 0:
        now = now_ns(MONOTONIC, scratch)
        elapsed = now - start
        if elapsed >= schedule.duration_ns:
            break
        take = min(schedule.batch, count - position, schedule.frames - sent)
        if schedule.interval_num:
            late = now - origin - sent * schedule.interval_num // schedule.interval_den
            if late < 0:
                if late < -2 * ROUSE_NS:
                    sleep_until(now - late - ROUSE_NS, scratch)
                continue
            outcome[LATE_SUM_NS] += late
            outcome[LATE_MAX_NS] = max(int(outcome[LATE_MAX_NS]), late)
            if late > schedule.slack_ns:
                outcome[SLIPPED_NS] += late - schedule.slack_ns
                origin += late - schedule.slack_ns
                late = schedule.slack_ns
            take = min(take, late * schedule.interval_den // schedule.interval_num + 1)
        outcome[BATCHES] += 1
        if stamp >= 0:
            time_ns = now_ns(REALTIME, scratch)
            for i in range(position, position + take):
                frame = slots.frames[i]
                first = (rounds * int(slots.totals[i]) + int(slots.before[i])) * segments
                for segment in range(segments):
                    at = stamp + segment * payload_bytes
                    stamp_at(frame, at, int(slots.streams[i]), first + segment, time_ns)
                if segments == 1 and slots.sums[i]:
                    checksum = (0xFFFF - fold(int(slots.sums[i]) + 0xFFFF - (first & 0xFFFF))) or 0xFFFF
                    frame[checksum_at] = checksum >> 8
                    frame[checksum_at + 1] = checksum & 0xFF
        done = 0
        while done < take and stop[0] == 0:
            address = header_address + (position + done) * 64
            result = syscall(SYS_SENDMMSG, descriptor, address, take - done, 0, 0, 0)
            if result >= 0 or result == -ENOBUFS:
                # It stopped at a frame that the device refused, and dropped: gone, as on a wire. (Without
                # one frame sent before it the call returns the error, else only the number of those.)
                done += max(result, 0)
                if done < take:
                    outcome[REFUSED] += 1
                    done += 1
            elif result != -EINTR:
                outcome[ERROR] = -result
                stop[0] = 1
        sent += done
        position += done
        if position == count:
            position = 0
            rounds += 1
    outcome[SENT] = sent
    outcome[DURATION_NS] = now_ns(MONOTONIC, scratch) - start
