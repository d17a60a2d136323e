"""What a sender and a receiver are asked to do, and what they answer: the messages of ``lab/traffic``.

Both are processes inside a namespace that speak JSON lines: ``{"do": "job", "job": …}`` on stdin,
``{"ready": true}`` on stdout, ``{"do": "go"}`` or ``{"do": "stop"}`` on stdin, the report on stdout, and the
next job. ``{"error": …}`` may stand in for either answer.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab.load.stamp import STAMP_BYTES

MAX_PAYLOAD_BYTES = 65507
"""UDP payload of the largest IPv4 datagram, and of a frame that the kernel cuts up."""
MAX_LIVE_PAYLOAD_BYTES = 2958
"""Largest payload of a live frame: a page, less the kernel's headroom and tailroom and a small reserve."""
MAX_SEGMENTS = 64
"""Datagrams that the kernel makes of one frame (UDP_MAX_SEGMENTS in linux/udp.h is no less)."""

Port = Annotated[int, Field(ge=1, le=65535)]
GeneratorName = Literal["packet", "xdp"]
ReceiverMode = Literal["ring", "count", "udp"]
InterfaceName = Annotated[str, Field(min_length=1, max_length=15)]


class TrafficError(RuntimeError):
    """A sender or receiver could not do its job; the message says which and why."""


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stream(Message):
    """A flow that the generator makes; ``stream_id`` is unique in a trial, over all senders.

    ``interface``: where it leaves, the job's when left out. ``share``: datagrams in each turn of the streams.
    ``mac``: the Ethernet destination, that of the multicast group when left out; a unicast stream, whose
    ``group`` is the address of one receiver, must say it.
    """

    stream_id: int = Field(ge=0, le=65535)
    group: IPv4Address
    port: Port
    source: IPv4Address
    source_port: Port
    ttl: int = Field(default=16, ge=0, le=255)
    dscp: int = Field(default=0, ge=0, le=63)
    interface: InterfaceName | None = None
    share: int = Field(default=1, ge=1, le=1024)
    mac: str | None = Field(default=None, pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")


class Phase(Message):
    """One rate for a while; 0 is silence."""

    dps: int = Field(ge=0)
    seconds: float = Field(gt=0)

    @property
    def datagrams(self) -> int:
        return round(self.dps * self.seconds)


class SenderJob(Message):
    """Send ``streams`` in turn, ``share`` datagrams of each, or ``frames`` once each in order.

    ``rate_dps``: datagrams a second over all streams, ``None`` as fast as possible. It ends after ``count``
    datagrams, after ``duration_s``, or when stopped, whichever comes first; with a rate and a duration the
    count follows. ``segments`` > 1 sends frames of that many datagrams for the kernel to cut up (UDP GSO), as
    a local sender with UDP_SEGMENT does. ``frames``: whole Ethernet frames in hexadecimal, not stamped.

    ``generator`` "packet": packet sockets. "xdp": live frames made in the kernel, for stamped streams of at
    most 2,958 bytes; ``segments`` are then datagrams that follow each other at once. Where the kernel
    does not do that, packets go out instead, and the report says so. ``ramp_to_dps``: the rate at the end,
    reached evenly from ``rate_dps`` over ``duration_s``; "xdp" only.

    ``phases``: rates one after another, instead of ``rate_dps``, ``count`` and ``duration_s``.
    """

    interface: InterfaceName
    streams: tuple[Stream, ...] = ()
    frames: tuple[str, ...] = ()
    payload_bytes: int = Field(default=64, ge=STAMP_BYTES, le=MAX_PAYLOAD_BYTES)
    rate_dps: int | None = Field(default=None, ge=1)
    count: int | None = Field(default=None, ge=1)
    duration_s: float | None = Field(default=None, gt=0)
    cpu: int | None = Field(default=None, ge=0)
    batch: int = Field(default=64, ge=1, le=1024)
    """At most so many frames a system call, also when catching up after a delay."""
    qdisc_bypass: bool = False
    segments: int = Field(default=1, ge=1, le=MAX_SEGMENTS)
    """Datagrams a frame; frames are at most 64 KiB."""
    udp_checksum: bool = True
    """Without, the field is zero: the sender computed none (RFC 768)."""
    generator: GeneratorName = "packet"
    ramp_to_dps: int | None = Field(default=None, ge=1)
    phases: tuple[Phase, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> SenderJob:
        if bool(self.streams) == bool(self.frames):
            raise ValueError("either streams or frames must be given")
        if self.frames and self.segments > 1:
            raise ValueError(f"segments {self.segments}: frames are sent as they are, 1 is allowed")
        if self.phases and (self.frames or (self.rate_dps, self.count, self.duration_s) != (None,) * 3):
            raise ValueError("phases: streams are allowed beside them, no rate_dps, count, duration_s")
        if self.streams and not self.phases and self.count is None and self.duration_s is None:
            raise ValueError("streams need a count or a duration_s to end")
        if self.segments * self.payload_bytes > MAX_PAYLOAD_BYTES:
            sizes = f"segments {self.segments} × payload_bytes {self.payload_bytes}"
            raise ValueError(f"{sizes}: at most {MAX_PAYLOAD_BYTES} bytes allowed")
        plain = self.rate_dps is None or self.duration_s is None or self.count is not None
        if self.ramp_to_dps is not None and (plain or self.generator != "xdp"):
            raise ValueError("ramp_to_dps: needs generator xdp, rate_dps and duration_s, and no count")
        return self

    @property
    def asked(self) -> int | None:
        """Datagrams asked for; ``None`` when only the duration bounds it."""
        if self.frames:
            return len(self.frames)
        if self.phases:
            return max(1, sum(phase.datagrams for phase in self.phases))
        if self.count is not None:
            return self.count
        if self.rate_dps is None or self.duration_s is None:
            return None
        return max(1, round(self.mean_dps * self.duration_s))

    @property
    def mean_dps(self) -> float:
        """Over the whole job; 0 where it goes as fast as possible."""
        return ((self.rate_dps or 0) + (self.ramp_to_dps or self.rate_dps or 0)) / 2


class PhaseReport(Message):
    """What was offered in a phase, and when: ``started_ns`` since the job began."""

    started_ns: int
    duration_ns: int
    """Until the next phase began, or the end."""
    offered: int


class SenderReport(Message):
    """``offered``: datagrams handed to the kernel, all streams; ``per_stream`` in the job's order.

    ``late_ns_max`` and ``late_ns_mean``: how far behind its schedule the first frame of a batch left.
    ``slipped_ns``: how much later than planned the schedule ended: a sender that is held up for more than a
    millisecond does not make good for it with a burst.
    ``refused``: frames among the offered that the device had no room for (ENOBUFS). They are not sent again,
    as on a wire; the device counts them as dropped (veth: tx_dropped), so they are not to be counted twice.
    ``reached``: everything asked for was offered, and no later than 1 % (at least 10 ms) after its time.
    ``ended``: why it stopped.
    """

    offered: int
    per_stream: tuple[int, ...]
    duration_ns: int
    started_ns: int
    """CLOCK_REALTIME."""
    reached: bool
    ended: Literal["count", "duration", "stopped"]
    late_ns_mean: int
    late_ns_max: int
    slipped_ns: int
    refused: int
    cpu_ns: int
    """Processor time of the sending thread, system calls and the softirqs that ran on top included."""
    generator: GeneratorName = "packet"
    """What sent; ``instead``: why it was not what the job asked for."""
    instead: str | None = None
    phases: tuple[PhaseReport, ...] = ()
    """Those that were begun."""

    @property
    def offered_dps(self) -> float:
        return self.offered * 1e9 / self.duration_ns if self.duration_ns else 0.0


class Flow(Message):
    """Datagrams that a receiver expects: ``stream_id`` arriving on ``interface`` for ``group:port``.

    ``sequences``: the stream has at most so many (sequence numbers from 0).
    """

    interface: InterfaceName
    group: IPv4Address
    port: Port
    stream_id: int = Field(ge=0, le=65535)
    sequences: int = Field(ge=1)


class ReceiverJob(Message):
    """Capture what arrives for ``flows``, and check each datagram.

    ``mode`` "ring": AF_PACKET rings that the kernel fills while this process sleeps; checked at the end,
    and on the way only when a ring is half full. ``mode`` "count": a program in the kernel checks headers and
    stamp of each datagram as it arrives; where that is not possible, rings, and the report says so. It sits
    where the stack takes frames from an ordinary sender, with ``xdp`` in front of it, for XDP frames.
    ``mode`` "udp": ordinary UDP sockets that join the groups, read all the time; payloads are checked whole,
    and there is no latency.

    ``payload_bytes``: what each datagram must carry, ``None`` any. ``full``: check filler and UDP checksum
    too (rings hold whole frames). ``offload``: GSO frames may arrive, implies whole frames. ``keep_frames``:
    hand back the first so many frames whole, for a functional check; ``interfaces``: capture there also
    without flows. Only multicast UDP is captured, with ``unicast`` all UDP, with ``everything`` all frames.
    """

    flows: tuple[Flow, ...] = ()
    interfaces: tuple[InterfaceName, ...] = ()
    mode: ReceiverMode = "ring"
    xdp: bool = False
    payload_bytes: int | None = Field(default=None, ge=STAMP_BYTES, le=MAX_PAYLOAD_BYTES)
    full: bool = False
    offload: bool = False
    mtu: int = 1500
    keep_frames: int = Field(default=0, ge=0)
    unicast: bool = False
    everything: bool = False
    ring_bytes_max: int = Field(default=2 << 30, ge=1 << 20)
    """For all rings together; mode "count": for what it counts; "udp": for all socket buffers."""
    frames_max: int | None = Field(default=None, ge=1)
    """Frames that can arrive, on all interfaces together; ``None``: one for each sequence number. What the
    kernel takes to reserve a ring grows with it; more than that is taken, too, as long as the check keeps up.
    """
    timed_every: Literal[1, 16] = 1
    """Counting, read the clock for the sequence numbers that this divides: a third of what counting costs.
    Latencies, first and last arrival are then those of one datagram in so many."""
    quiet_s: float = Field(default=0.2, gt=0)
    """Told to stop, it goes on until nothing has come for so long: what is still on its way counts."""
    cpu: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> ReceiverJob:
        if not self.flows and not self.interfaces:
            raise ValueError("flows or interfaces must be given")
        seen = {(flow.interface, flow.group, flow.port, flow.stream_id) for flow in self.flows}
        if len(seen) != len(self.flows):
            raise ValueError("flows: the same interface, group, port and stream_id is given twice")
        whole = {"full": self.full, "offload": self.offload, "everything": self.everything}
        asked = [name for name, value in (whole | {"keep_frames": self.keep_frames}).items() if value]
        if self.mode == "count" and asked:
            raise ValueError(f"mode count, {', '.join(asked)}: needs whole frames, mode ring is allowed")
        if self.xdp and self.mode != "count":
            raise ValueError(f"mode {self.mode}, xdp: mode count is allowed")
        return self

    @property
    def all_interfaces(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*(flow.interface for flow in self.flows), *self.interfaces)))


class Frame(Message):
    """A captured frame; ``gso_size`` is 0 for an ordinary one, ``vlan`` the tag that the kernel stripped."""

    interface: str
    time_ns: int
    data: str
    """Hexadecimal, from the Ethernet header on."""
    gso_size: int = 0
    checksum_ready: bool = True
    vlan: int | None = None


class LatencyReport(Message):
    """Send stamp to the kernel's receive timestamp, both CLOCK_REALTIME; nanoseconds."""

    count: int
    min: int
    p50: int
    p90: int
    p99: int
    p999: int
    max: int
    negative: int
    """Datagrams that seem to have arrived before they were sent: the clock was set."""
    clock_step_ns: int
    """How far CLOCK_REALTIME moved against CLOCK_MONOTONIC during the capture; should be near 0."""
    histogram: str
    """HDR histogram, as ``hdrh`` encodes it; can be added to others."""


class ReceiverReport(Message):
    """What arrived. The tuples are in the order of the job's flows.

    ``received``: intact datagrams, duplicates included; ``duplicated``: those after the first with the same
    sequence number; ``reordered``: RFC 4737 type-P-reordered, first copies only; ``corrupted``: of this flow,
    but not as sent; ``lost``: offered and never received intact. ``copies_max``: most intact copies of one
    sequence number of a flow, counted up to 255. ``unexpected``: datagrams of no known flow; ``malformed``:
    frames that are not a stamped datagram at all. ``drops``: by interface, frames that the kernel could not
    put into this receiver's ring or socket: the receiver's own loss. In mode "count" there is nothing to
    overrun, and they are frames that the program could not read.
    """

    received: tuple[int, ...]
    received_bytes: tuple[int, ...]
    """Payload bytes of the received datagrams."""
    duplicated: tuple[int, ...]
    reordered: tuple[int, ...]
    corrupted: tuple[int, ...]
    lost: tuple[int, ...]
    latency_min: tuple[int, ...] = ()
    latency_max: tuple[int, ...] = ()
    latency_sum: tuple[int, ...] = ()
    """Sum over the first copies of each flow, in nanoseconds; 0 if there are none."""
    copies_max: int
    unexpected: int
    malformed: int
    frames: int
    gso_frames: int
    drops: dict[str, int]
    first_ns: int | None
    last_ns: int | None
    """Arrival of the first and last datagram, CLOCK_REALTIME; ``None`` without any, and in "udp" mode."""
    latency: LatencyReport | None
    """Latency of multicast only; unicast streams have their own figures by flow."""
    captured: tuple[Frame, ...] = ()
    mode: ReceiverMode = "ring"
    """What received; ``instead``: why it was not what the job asked for."""
    instead: str | None = None

    @property
    def delivered(self) -> int:
        """Copies that arrived intact, duplicates left out."""
        return sum(self.received) - sum(self.duplicated)
