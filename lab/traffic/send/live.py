"""The generator in the kernel: an XDP program makes datagrams of live frames (``lab/bpf/generate.bpf.c``).

BPF_PROG_TEST_RUN runs it over and over on frames that go out for real (Linux 5.18, ``bpf_test_run_xdp_live``
in net/bpf/test_run.c), without a system call, a copy or an skb for each: over veth several times what packet
sockets do. A run whose datagram is not due yet gives its frame back, which is how a rate is kept.

The receiving end of the link must take XDP frames: on veth that is one with NAPI, which GRO switches on.
"""

import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forwarder.abi.bpf_object import Object, fields
from lab.bpf import GENERATE
from lab.load.jobs import MAX_LIVE_PAYLOAD_BYTES, GeneratorName, SenderJob
from lab.load.stamp import HEADER_BYTES
from lab.load.stream_order import Integers, order, sequences
from lab.traffic.send.frames import source_macs, templates
from lab.traffic.send.schedule import Outcome, Schedule

_PROGRESS = ("started", "ended", "due", "sent", "slot", "in_burst", "rounds")
_LATENESS = ("late_sum", "late_max", "slipped")
_ASKED = ("slots", "burst", "bursts", "duration", "step", "rate_from", "rate_to", "ramp", "slack")
CONTROL: Final = np.dtype(fields(np.uint64, *_ASKED, "to_realtime", *_PROGRESS, *_LATENESS))
"""``struct control`` of the program, which says what each is."""

_NUMBERS = fields(np.uint32, "sum", "stream", "before", "of_stream", "interface", "unused")
SLOT: Final = np.dtype([("header", np.uint8, 48), *_NUMBERS])
"""``struct slot`` of the program."""

STEP_SHIFT = 16
"""Fraction bits of ``step`` and ``due``: 1/65536 ns keeps a rate to a few parts in a hundred million."""

BATCH = 64
"""Frames that leave together when all are due, or are given back: a flush and a softirq for each batch."""

RUNS = 1 << 16
"""Repetitions in one call: a few milliseconds, between which the generator checks for a stop request."""

LEAST_SLOTS = 1024

PARKED_ON = "mcl-park%d"
"""The kernel patches its dispatcher when it begins to run an XDP program and when it ends, 13 ms each time
(``bpf_prog_change_xdp``), but not for one that is attached somewhere: this one is, where nothing passes.

To an interface whose driver runs it. On loopback the stack would (``do_xdp_generic``), and as long as it has
one program to run it looks for one at every frame of every interface of the machine: 10 ns each, 2 % of
what a forwarded copy costs.
"""

_ANY_MAC: Final = "00:00:00:00:00:00"
"""Replaced by the interface's."""
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_IFREQ: Final = struct.Struct("16sH22x")


class LiveGenerator:
    """The program, loaded once for all jobs of a process; raises OSError where that is not possible."""

    name: Final[GeneratorName] = "xdp"

    def __init__(self) -> None:
        self._object: Object | None = None
        self._held = ExitStack()
        self._control: npt.NDArray[Any] = np.zeros(1, CONTROL)
        self._slots: npt.NDArray[Any] = np.zeros(0, SLOT)
        self._frame = b""
        self._ramp = (0, 0, 0)

    def prepare(self, job: SenderJob) -> Integers:
        """Make ready for a job; the stream of each slot by its place in the job."""
        if not job.streams or job.payload_bytes > MAX_LIVE_PAYLOAD_BYTES:
            what = f"{job.payload_bytes} bytes" if job.streams else "frames as they are"
            raise OSError(f"{what}: stamped datagrams of at most {MAX_LIVE_PAYLOAD_BYTES} bytes are allowed")
        turn = order([stream.share for stream in job.streams])
        if self._object is None or len(turn) > len(self._slots):
            self._load(max(LEAST_SLOTS, len(turn)))
        made = templates(job.streams, job.payload_bytes, _ANY_MAC, udp_checksum=job.udp_checksum)
        interfaces = [stream.interface or job.interface for stream in job.streams]
        indices = {name: socket.if_nametoindex(name) for name in set(interfaces)}
        made.frames[:, 6:12] = source_macs(interfaces)
        slots = self._slots[: len(turn)]
        slots["header"][:, :HEADER_BYTES] = made.frames[turn, :HEADER_BYTES]
        slots["sum"] = made.checksum_sums[turn]
        slots["stream"] = np.array([stream.stream_id for stream in job.streams])[turn]
        slots["before"], slots["of_stream"] = sequences(turn)
        slots["interface"] = np.array([indices[name] for name in interfaces])[turn]
        self._ramp = ramp_of(job)
        self._control[0] = 0
        self._control["slots"], self._control["burst"] = len(turn), job.segments
        self._frame = made.frames[0].tobytes()
        self._call(2)  # as nothing is asked for yet: ends at once
        return turn

    def send(self, schedule: Schedule, stop: Integers) -> Outcome:
        control = self._control
        for name in (*_PROGRESS, *_LATENESS):
            control[name] = 0
        control["rounds"], control["slot"] = divmod(schedule.first, int(control["slots"][0]))
        control["bursts"], control["duration"] = schedule.frames, schedule.duration_ns
        control["slack"] = schedule.slack_ns
        control["step"] = (schedule.interval_num << STEP_SHIFT) // schedule.interval_den
        control["rate_from"], control["rate_to"], control["ramp"] = self._ramp
        control["to_realtime"] = to_realtime = time.time_ns() - time.monotonic_ns()
        while not control["ended"][0]:
            if stop[0]:
                control["bursts"] = 0  # it ends when the one that it has begun is complete
            self._call(RUNS)
        started, ended = int(control["started"][0]), int(control["ended"][0])
        late_sum_ns, late_max_ns, slipped_ns = (int(control[name][0]) for name in _LATENESS)
        sent = int(control["sent"][0])
        return Outcome(
            frames=sent,
            duration_ns=ended - started,
            started_ns=started + to_realtime,
            late_ns_mean=late_sum_ns // max(1, sent),
            late_ns_max=late_max_ns,
            slipped_ns=slipped_ns,
        )

    def _load(self, slots: int) -> None:
        self._object = None
        self._held.close()
        with ExitStack() as held:
            place = _place_to_park(held)
            loaded = held.enter_context(Object(GENERATE, {"slots": slots}))
            loaded.attach_xdp("generate", place)
            self._held = held.pop_all()
        self._object = loaded
        self._control, self._slots = loaded.array("control", CONTROL), loaded.array("slots", SLOT)

    def _call(self, runs: int) -> None:
        assert self._object is not None
        self._object.run_live("generate", self._frame, runs, BATCH)


@contextmanager
def _tap(pattern: str) -> Iterator[str]:
    """The name of a tap interface (tun(4)) that nothing passes: down, and gone with the block or the process.

    Raises:
        OSError: no tun module, or no CAP_NET_ADMIN.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        made = fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(pattern.encode(), _IFF_TAP | _IFF_NO_PI))
        yield _IFREQ.unpack(made)[0].rstrip(b"\0").decode()
    finally:
        os.close(descriptor)


def _place_to_park(held: ExitStack) -> str:
    """An interface of the generator's own; loopback on a machine without the tun module."""
    try:
        return held.enter_context(_tap(PARKED_ON))
    except OSError:
        return "lo"


def ramp_of(job: SenderJob) -> tuple[int, int, int]:
    """Bursts a second at the beginning and at the end, and nanoseconds in between; zeros without a ramp."""
    if job.ramp_to_dps is None or job.rate_dps is None or job.duration_s is None:
        return 0, 0, 0
    first, last = (max(1, round(dps / job.segments)) for dps in (job.rate_dps, job.ramp_to_dps))
    return first, last, round(job.duration_s * 1e9)
