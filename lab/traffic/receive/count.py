"""The counting receiver: a program at each interface checks every datagram and lets it go no further.

The program is ``lab/bpf/count.bpf.c``. Its rules and results are those of :mod:`lab.traffic.receive.check` on
a ring of headers and stamps. It saves the cost of a ring, which matters because the receiving side of a veth
pair works on the sender's CPU. Nothing can overrun, so it loses nothing.
"""

import os
import socket
import time
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from forwarder.abi import bpf
from forwarder.abi.bpf_object import Object, fields
from lab.bpf import COUNT
from lab.load.jobs import ReceiverJob
from lab.traffic.compiled import Integers
from lab.traffic.receive import check
from lab.traffic.receive.check import Tally

Rows = npt.NDArray[Any]


_narrow, _wide = partial(fields, np.uint32), partial(fields, np.uint64)
CONTROL: Final = np.dtype(
    _wide("payload_bytes", "unicast", "to_realtime", "lowest", "flows", "buckets", "untimed")
)
INTERFACE: Final = np.dtype([*_narrow("first", "low", "streams", "unused"), *_wide("unread")])
FLOW: Final = np.dtype(
    _wide("key")
    + _narrow("number", "next", "sequences", "start", "next_expected", "unused")
    + _wide("duplicated", "reordered", "corrupted", "line")
)
LATENCY: Final = np.dtype(_wide("bytes", "lowest", "highest", "sum"))
_COUNTED = ("frames", "unexpected", "malformed", "negative")
TOTAL: Final = np.dtype([*_wide(*_COUNTED, "first", "last"), ("unused", np.uint64, 2)])
"""The structures of the program, which describes each field."""

KNOWN: Final = np.uint64(1 << 63)
SAME_STREAM: Final = 64
LARGEST_START: Final = (1 << 32) - 1
CLOCK_READINGS: Final = 32
POSSIBLE_CPUS: Final = Path("/sys/devices/system/cpu/possible")


class Placed(NamedTuple):
    """The rows of each interface's flows: one for each stream from the lowest to the highest.

    ``first``, ``low``, ``streams``: (interfaces,), row and number of the lowest stream, and how many there
    are; ``row``: (flows,); ``following``: (rows,), row of the next flow of the same stream there, or 0.
    """

    first: Integers
    low: Integers
    streams: Integers
    row: Integers
    following: Integers


def place(interface: Integers, stream: Integers, interfaces: int) -> Placed:
    """Rows for flows on ``interface[i]`` with ``stream[i]``; further flows that share both come last.

    Raises:
        OSError: more flows share both than the program looks at.
    """
    low = np.full(interfaces, 1 << 16, np.int64)
    high = np.full(interfaces, -1, np.int64)
    np.minimum.at(low, interface, stream)
    np.maximum.at(high, interface, stream)
    streams = np.maximum(high - low + 1, 0)
    first = np.cumsum(streams) - streams
    row = first[interface] + stream - low[interface]
    _, index, counts = np.unique(row, return_index=True, return_counts=True)
    if len(counts) and counts.max() > SAME_STREAM:
        raise OSError(f"{counts.max():,} flows of one stream at one interface: at most {SAME_STREAM} allowed")
    others = np.setdiff1d(np.arange(len(row)), index, assume_unique=True)
    following = np.zeros(int(streams.sum()) + len(others), np.int64)
    for new, flow in enumerate(others, start=int(streams.sum())):
        following[new], following[row[flow]] = following[row[flow]], new
        row[flow] = new
    return Placed(first, low, streams, row, following)


class Counter(AbstractContextManager["Counter"]):
    """The program at every interface of a job, counting from here on.

    Raises:
        OSError: impossible here (no libbpf, no CAP_BPF, no tcx before Linux 6.6), or too little memory.
    """

    def __init__(self, job: ReceiverJob, tally: Tally) -> None:
        indices = {name: socket.if_nametoindex(name) for name in job.all_interfaces}
        lowest = min(indices.values())
        self._at = {name: index - lowest for name, index in indices.items()}
        keys = tally.flow_key
        self._placed = place(tally.flow_interface, keys & 0xFFFF, len(indices))
        padded = -(-tally.sequences // 4) * 4
        self._start = np.cumsum(padded) - padded
        cpus, flows, buckets = _cpus(), max(1, len(keys)), len(tally.histogram)
        maps: dict[str, tuple[np.dtype[Any], int]] = {
            "interfaces": (INTERFACE, max(self._at.values()) + 1),
            "flows": (FLOW, max(1, len(self._placed.following))),
            "latencies": (LATENCY, cpus * flows),
            "totals": (TOTAL, cpus),
            "histogram": (np.dtype(np.uint64), cpus * buckets),
            "copies": (np.dtype(np.uint64), max(1, -(-int(padded.sum()) // 8))),
        }
        needed = sum(row.itemsize * entries for row, entries in maps.values())
        if needed > min(job.ring_bytes_max, LARGEST_START):
            raise OSError(f"counting needs {needed:,} bytes: {job.ring_bytes_max:,} allowed")
        with ExitStack() as stack:
            sizes = {name: entries for name, (_, entries) in maps.items()}
            program = self.object = stack.enter_context(Object(COUNT, sizes))
            arrays = {name: program.array(name, row) for name, (row, _) in maps.items()}
            self._interfaces, self._flows = arrays["interfaces"], arrays["flows"]
            self._totals = arrays["totals"]
            self._latencies = arrays["latencies"].reshape(cpus, flows)
            self._histogram = arrays["histogram"].reshape(cpus, buckets)
            self._copies = arrays["copies"].view(np.uint8)
            self._lay_out(tally)
            control = program.array("control", CONTROL)
            control["payload_bytes"], control["unicast"] = job.payload_bytes or 0, job.unicast
            control["lowest"], control["flows"], control["buckets"] = lowest, flows, buckets
            control["untimed"] = job.timed_every - 1
            control["to_realtime"] = clock_difference_ns()
            for name, index in indices.items():
                if job.xdp:
                    program.attach_xdp("count_frame", name)
                else:
                    link = bpf.attach_ingress(program.program("count_packet"), index)
                    stack.callback(os.close, link)
            self._stack = stack.pop_all()

    def _lay_out(self, tally: Tally) -> None:
        placed = self._placed
        for name in ("first", "low", "streams"):
            self._interfaces[name][list(self._at.values())] = getattr(placed, name)
        rows = np.zeros(len(placed.following), FLOW)
        rows["next"] = placed.following
        of_flow = rows[placed.row]
        of_flow["key"] = tally.flow_key.astype(np.uint64) | KNOWN
        of_flow["number"] = np.arange(len(placed.row))
        of_flow["sequences"], of_flow["start"] = tally.sequences, self._start
        rows[placed.row] = of_flow
        self._flows[: len(rows)] = rows

    @property
    def frames(self) -> int:
        return int(self._totals["frames"].sum())

    def add_to(self, tally: Tally) -> dict[str, int]:
        """Write the counts into an empty tally; returns the frames that could not be read, by interface."""
        flows = self._flows[self._placed.row]
        counts = tally.counts
        parts = zip(self._start, tally.sequences, strict=True)
        seen = [np.count_nonzero(self._copies[start : start + sequences]) for start, sequences in parts]
        for name in ("duplicated", "reordered", "corrupted"):
            counts[:, check.COLUMNS.index(name)] = flows[name]
        latencies = self._latencies[:, : len(flows)]
        counts[:, check.RECEIVED] = np.array(seen, np.int64) + counts[:, check.DUPLICATED]
        counts[:, check.RECEIVED_BYTES] = latencies["bytes"].sum(axis=0)
        counts[:, check.LATENCY_MIN] = least(latencies["lowest"])
        counts[:, check.LATENCY_MAX] = latencies["highest"].max(axis=0)
        counts[:, check.LATENCY_SUM] = latencies["sum"].sum(axis=0)
        totals = tally.totals
        columns = (check.FRAMES, check.UNEXPECTED, check.MALFORMED, check.NEGATIVE)
        for column, name in zip(columns, _COUNTED, strict=True):
            totals[column] = self._totals[name].sum()
        totals[check.FIRST_NS] = least(self._totals["first"])
        totals[check.LAST_NS] = self._totals["last"].max()
        totals[check.COPIES_MAX] = self._copies.max()
        tally.histogram[:] = self._histogram.sum(axis=0)
        return {name: int(self._interfaces["unread"][at]) for name, at in self._at.items()}

    def __exit__(self, *_: object) -> None:
        """Detach from the interfaces."""
        self._stack.close()


def least(values: Rows) -> Rows:
    """The smallest non-zero value of each column, or 0."""
    found = np.where(values == 0, np.iinfo(np.uint64).max, values).min(axis=0)
    return np.where(found == np.iinfo(np.uint64).max, 0, found)


def clock_difference_ns() -> int:
    """CLOCK_REALTIME less CLOCK_MONOTONIC: constant unless the clock is set or slewed.

    The quickest of several readings: an interrupted one is wrong by up to half of its duration, and so would
    be every arrival time of a trial.
    """
    readings = []
    for _ in range(CLOCK_READINGS):
        before, real, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, real - (before + after) // 2))
    return min(readings)[1]


def _cpus() -> int:
    """One more than the highest CPU number that the kernel may ever use ("0-3" or "0,2-5")."""
    return int(POSSIBLE_CPUS.read_text().replace(",", "-").rsplit("-", 1)[-1]) + 1
