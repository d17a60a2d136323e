"""Compiled checks of what arrived: which flow and sequence number, intact or not, in order or not, how late.

Rules:

* A datagram belongs to a flow by its arrival interface, its destination group and port, and the stream in its
  stamp. One of no known flow is *unexpected*; one without a valid stamp is *malformed*.
* *Corrupted*: of a known flow, but with another payload length, filler or UDP checksum than was sent, or with
  a sequence number that was never sent. It does not count as received, so it is also lost.
* *Duplicated*: intact, sequence number seen before. Only the first copy is considered further (RFC 4737,
  section 3.3). *Reordered*: its sequence number is below the next expected one, which is one above the
  highest seen so far (RFC 4737, section 3.3, type-P-reordered).
* Latencies go into the buckets of an HDR histogram with three digits, so memory does not grow with the trial.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hdrh.histogram import HdrHistogram

from forwarder.abi.jit import njit
from lab.load.jobs import Flow, LatencyReport
from lab.load.stamp import MAGIC, STAMP_BYTES
from lab.traffic.compiled import Bytes, Integers, be16, fold, sum_words, unsigned_at

COLUMNS = (
    *("received", "received_bytes", "duplicated", "reordered", "corrupted"),
    *("latency_min", "latency_max", "latency_sum"),
)
"""Counts of each flow; latencies in nanoseconds, 0 without any."""
RECEIVED, RECEIVED_BYTES, DUPLICATED, REORDERED, CORRUPTED, LATENCY_MIN, LATENCY_MAX, LATENCY_SUM = range(8)
FRAMES, GSO_FRAMES, UNEXPECTED, MALFORMED, NEGATIVE, FIRST_NS, LAST_NS, COPIES_MAX = range(8)
TOTALS = 8
"""Length of ``totals``. FIRST_NS is 0 until something arrives; COPIES_MAX: of one sequence number."""
MULTICAST = 14
"""The upper four bits of a multicast group's address."""

HIGHEST_NS = 60_000_000_000
"""A latency above one minute counts as one minute."""
DIGITS = 3
HALF_BITS = 10
"""Half a bucket of the histogram has 2**10 sub-buckets, which 3 digits need."""


class Tally(NamedTuple):
    """The state of a check: the flows, what was seen of them, and the sums."""

    table: Integers
    """Hash table with open addressing, its size a power of two: the flow's index, or -1."""
    flow_key: Integers
    flow_interface: Integers
    sequences: Integers
    start: Integers
    """Each flow's first place in ``copies``."""
    copies: Bytes
    """Copies of each sequence number, at most 255."""
    next_expected: Integers
    counts: Integers
    """(flows, columns)"""
    totals: Integers
    histogram: Integers


class Expectation(NamedTuple):
    """``payload_bytes``: 0 for any; ``full``: 1 to check the filler and the UDP checksum too."""

    payload_bytes: int
    full: int


@njit
def flow_key(group: int, port: int, stream: int) -> int:
    """The low 28 bits of a multicast address tell groups apart, so the key fits 60 bits."""
    return ((group & 0x0FFFFFFF) << 32) | (port << 16) | stream


@njit
def find_slot(
    table: Integers, flow_keys: Integers, flow_interface: Integers, key: int, interface: int
) -> int:
    """The table slot of the flow, or the empty one where it would go."""
    mask = len(table) - 1
    mixed = (key ^ (key >> 29) ^ (interface * 0x9E3779B1)) & 0x7FFFFFFF
    slot = (mixed * 0x45D9F3B >> 11) & mask
    while True:
        flow = table[slot]
        if flow < 0 or (flow_keys[flow] == key and flow_interface[flow] == interface):
            return slot
        slot = (slot + 1) & mask


def new_tally(flows: Sequence[Flow], interfaces: Sequence[str]) -> Tally:
    """An empty tally for ``flows``; an interface is known by its position in ``interfaces``."""
    keys = np.array([flow_key(int(flow.group), flow.port, flow.stream_id) for flow in flows], np.int64)
    number = {name: index for index, name in enumerate(interfaces)}
    where = np.array([number[flow.interface] for flow in flows], np.int64)
    table = np.full(max(4, 1 << (2 * len(flows) - 1).bit_length()), -1, np.int64)
    for index in range(len(flows)):
        table[find_slot(table, keys, where, int(keys[index]), int(where[index]))] = index
    sequences = np.array([flow.sequences for flow in flows], np.int64)
    return Tally(
        table=table,
        flow_key=keys,
        flow_interface=where,
        sequences=sequences,
        start=np.cumsum(sequences) - sequences,
        copies=np.zeros(int(sequences.sum()) + 1, np.uint8),
        next_expected=np.zeros(len(flows), np.int64),
        counts=np.zeros((len(flows), len(COLUMNS)), np.int64),
        totals=np.zeros(TOTALS, np.int64),
        histogram=np.zeros(HdrHistogram(1, HIGHEST_NS, DIGITS).counts_len, np.int64),
    )


@njit
def account(tally: Tally, flow: int, sequence: int, payload_bytes: int) -> bool:
    """Count one intact datagram of ``flow``; False when it is a duplicate."""
    counts = tally.counts[flow]
    counts[RECEIVED] += 1
    counts[RECEIVED_BYTES] += payload_bytes
    at = tally.start[flow] + sequence
    copies = min(unsigned_at(tally.copies, at) + 1, 255)
    tally.copies[at] = copies
    tally.totals[COPIES_MAX] = max(int(tally.totals[COPIES_MAX]), copies)
    if copies > 1:
        counts[DUPLICATED] += 1
        return False
    if sequence < tally.next_expected[flow]:
        counts[REORDERED] += 1
    else:
        tally.next_expected[flow] = sequence + 1
    return True


@njit
def record_latency(tally: Tally, flow: int, latency_ns: int, multicast: bool) -> None:
    """Add a latency to its flow, and for multicast to the histogram.

    The index of the bucket is ``hdrh``'s own (``HdrHistogram.counts_index_for``).
    """
    if latency_ns < 0:
        tally.totals[NEGATIVE] += 1
        return
    counts = tally.counts[flow]
    if counts[LATENCY_MIN] == 0 or latency_ns < counts[LATENCY_MIN]:
        counts[LATENCY_MIN] = latency_ns
    counts[LATENCY_MAX] = max(int(counts[LATENCY_MAX]), latency_ns)
    counts[LATENCY_SUM] += latency_ns
    if not multicast:
        return
    value = min(latency_ns, HIGHEST_NS)
    shift = 0
    while (value >> shift) >= (2 << HALF_BITS):
        shift += 1
    tally.histogram[(shift << HALF_BITS) + (value >> shift)] += 1


@njit
def filler_matches(data: Bytes, start: int, length: int) -> bool:
    different = 0
    for i in range(STAMP_BYTES, length):
        different |= unsigned_at(data, start + i) ^ (i & 0xFF)
    return different == 0


@njit
def check_payload(
    tally: Tally,
    interface: int,
    group: int,
    port: int,
    data: Bytes,
    start: int,
    length: int,
    captured: int,
    damaged: bool,
    time_ns: int,
    expectation: Expectation,
) -> None:
    """Check a datagram with ``length`` bytes of payload at ``data[start]``, of which ``captured`` are there.

    ``damaged``: its UDP checksum is already known to be wrong. ``time_ns``: its arrival, 0 when unknown.
    """
    if length < STAMP_BYTES or captured < STAMP_BYTES or (expectation.full and captured < length):
        tally.totals[MALFORMED] += 1
        return
    sequence = (be16(data, start + 4) << 16) | be16(data, start + 6)
    if (
        be16(data, start) != MAGIC
        or fold(sum_words(data, start, STAMP_BYTES) + (sequence & 0xFFFF)) != 0xFFFF
    ):
        tally.totals[MALFORMED] += 1
        return
    stream = be16(data, start + 2)
    key = flow_key(group, port, stream)
    flow = tally.table[find_slot(tally.table, tally.flow_key, tally.flow_interface, key, interface)]
    if flow < 0:
        tally.totals[UNEXPECTED] += 1
        return
    if (
        damaged
        or sequence >= tally.sequences[flow]
        or (expectation.payload_bytes and length != expectation.payload_bytes)
        or (expectation.full and not filler_matches(data, start, length))
    ):
        tally.counts[flow, CORRUPTED] += 1
        return
    if account(tally, flow, sequence, length) and time_ns:
        sent_ns = 0
        for i in range(8, 16):
            sent_ns = (sent_ns << 8) | unsigned_at(data, start + i)
        record_latency(tally, flow, time_ns - sent_ns, group >> 28 == MULTICAST)


@njit
def check_frame(
    tally: Tally,
    interface: int,
    data: Bytes,
    at: int,
    captured: int,
    length: int,
    gso_size: int,
    checksum_ready: bool,
    time_ns: int,
    expectation: Expectation,
) -> None:
    """Check an Ethernet frame of ``length`` bytes at ``data[at]``, of which ``captured`` are there.

    ``gso_size``: payload bytes of each datagram in a GSO frame, 0 for an ordinary frame. ``checksum_ready``:
    False when the sender left the checksum to an offload, so that there is nothing to verify.
    """
    totals = tally.totals
    totals[FRAMES] += 1
    # Rings are read one after another, so frames of different rings are not in order of time.
    totals[LAST_NS] = max(totals[LAST_NS], time_ns)
    if totals[FIRST_NS] == 0 or time_ns < totals[FIRST_NS]:
        totals[FIRST_NS] = time_ns
    ip = at + 14
    if captured < 14 + 20 or data[at + 12] != 0x08 or data[at + 13] != 0x00:
        totals[MALFORMED] += 1
        return
    header = (unsigned_at(data, ip) & 15) * 4
    total = be16(data, ip + 2)
    fragment = ((unsigned_at(data, ip + 6) & 0x3F) << 8) | unsigned_at(data, ip + 7)
    if (
        unsigned_at(data, ip) >> 4 != 4
        or header < 20
        or captured < 14 + header + 8
        or total < header + 8
        or total + 14 > length
        or data[ip + 9] != 17
        or fragment != 0
        or fold(sum_words(data, ip, header)) != 0xFFFF
    ):
        totals[MALFORMED] += 1
        return
    udp = ip + header
    udp_length = be16(data, udp + 4)
    if udp_length != total - header:
        totals[MALFORMED] += 1
        return
    group = (be16(data, ip + 16) << 16) | be16(data, ip + 18)
    port = be16(data, udp + 2)
    payload = udp + 8
    payload_bytes = udp_length - 8
    there = at + captured - payload
    damaged = False
    if expectation.full and checksum_ready and gso_size == 0 and there >= payload_bytes:
        # The generator always sends a checksum, so one that is missing (zero) is damage too.
        pseudo = sum_words(data, ip + 12, 8) + 17 + udp_length
        absent = data[udp + 6] == 0 and data[udp + 7] == 0
        damaged = absent or fold(pseudo + sum_words(data, udp, udp_length)) != 0xFFFF
    totals[GSO_FRAMES] += gso_size > 0
    step = gso_size or payload_bytes
    offset = 0
    while offset < payload_bytes or offset == 0:
        at, size = payload + offset, min(step, payload_bytes - offset)
        held = min(size, there - offset)
        check_payload(tally, interface, group, port, data, at, size, held, damaged, time_ns, expectation)
        offset += max(step, 1)


def latency_of(tally: Tally, clock_step_ns: int) -> LatencyReport | None:
    """The percentiles of a tally, ``None`` without any latency."""
    used = np.flatnonzero(tally.histogram)
    if not len(used):
        return None
    histogram = HdrHistogram(1, HIGHEST_NS, DIGITS)
    for index in used:
        histogram.record_value(histogram.get_value_from_index(int(index)), int(tally.histogram[index]))
    highest = int(histogram.get_max_value())
    # A percentile is the upper end of its bucket, which may lie above the highest value.
    percentiles = {
        name: min(highest, int(histogram.get_value_at_percentile(percent)))
        for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("p999", 99.9))
    }
    return LatencyReport(
        count=int(tally.histogram.sum()),
        min=int(histogram.get_min_value()),
        **percentiles,
        max=highest,
        negative=int(tally.totals[NEGATIVE]),
        clock_step_ns=clock_step_ns,
        histogram=histogram.encode().decode(),
    )
