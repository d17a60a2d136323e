"""The load of a trial: rules, the flows that match them, and what sender and receivers are asked to do. Pure.

Rule ``i`` is on input ``i`` modulo the number of inputs, and so is flow ``i``; the flows of an input are
spread over its rules. Each rule has a group of its own, so that every subject can tell them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address

from lab.load import mixed_traffic as mixed
from lab.load.jobs import Flow, Phase, ReceiverJob, SenderJob, Stream
from lab.results import Purpose, Setting

FIRST_GROUP = int(IPv4Address("239.1.0.0"))
PORT = 5001
FIRST_SOURCE_PORT = 10_000
SOURCE_PORTS = 50_000

QUIET_S = 0.02
"""The receivers' silence that ends a trial: what the subject has sent by then crosses one queue."""

FASTEST_DPS = 8_000_000
"""Above what any generator here reaches: bounds the sequence numbers of a trial without a rate."""

FASTEST_COPIES_DPS = 1_500_000
"""Above what any subject here delivers, all outputs together, when each copy is a frame."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One forwarding rule of a trial: same group and port in and out, so that every subject can do it."""

    rule_id: str
    group: str
    port: int
    source: str
    """The sender's address: kernel multicast routing matches it, mcrd does not."""
    input_interface: str
    output_interfaces: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """One trial, asked for. ``dps`` is ``None`` for as fast as the generator can.

    ``setting`` may differ from the bench's in payload, flows, bursts, skew, unicast and UDP checksums.
    """

    trial_id: str
    scenario: str
    case: str
    setting: Setting
    purpose: Purpose
    dps: int | None
    seconds: float
    baseline: float | None = None
    """CPUs busy with generator and receivers alone at this rate (1.0 is one CPU), when known."""
    phases: tuple[Phase, ...] = ()
    """Rates one after another, of which ``dps`` is the mean and ``seconds`` the sum."""

    @property
    def asked(self) -> int | None:
        """Datagrams; ``None`` for as many as the generator can."""
        if self.phases:
            return sum(phase.datagrams for phase in self.phases)
        return None if self.dps is None else round(self.dps * self.seconds)


def standing(setting: Setting) -> Setting:
    """``setting`` without what can change from trial to trial on one bench: a flow for each input."""
    load = {"payload_bytes": 64, "flows": setting.inputs, "burst": 1, "skew": 1, "unicast_percent": 0}
    if setting.pipelines:
        load["pipelines"] = 1
    return setting.model_copy(update=load | {"udp_checksum": True})


def groups(count: int) -> list[str]:
    """The first ``count`` groups of the range that trials use."""
    return [str(IPv4Address(FIRST_GROUP + number)) for number in range(count)]


def source(number: int) -> str:
    """The sender's address on an input (see :mod:`lab.load.topology`)."""
    return f"10.10.{number}.1"


def input_of(stream_id: int, setting: Setting) -> int:
    """The number of the input that a stream enters by."""
    return stream_id % setting.inputs


def rules_of(setting: Setting, output_interfaces: Sequence[str]) -> list[Rule]:
    """``setting.rules`` rules from the inputs in turn to every output, one group each, the group kept."""
    outputs = tuple(output_interfaces)
    return [
        Rule(f"rule-{number}", group, PORT, source(into), f"in{into}", outputs)
        for number, group in enumerate(groups(setting.rules))
        for into in [number % setting.inputs]
    ]


def rules_on(interface: str, setting: Setting) -> int:
    """How many of these rules are on an input, ``in0`` for instance."""
    return len(range(int(interface.removeprefix("in")), setting.rules, setting.inputs))


@lru_cache(maxsize=8)
def streams_of(setting: Setting) -> tuple[Stream, ...]:
    """``setting.flows`` flows, spread evenly over inputs and rules, told apart by their source ports.

    Behind them the unicast ones, if any (:mod:`lab.load.mixed_traffic`).
    """
    names = groups(setting.rules)
    inputs = setting.inputs
    made: list[Stream] = []
    share = mixed.shares(setting.unicast_percent, setting.flows, setting.outputs)[0]
    for flow in range(setting.flows):
        into = input_of(flow, setting)
        flows_here = len(range(into, setting.flows, inputs))
        rules_here = len(range(into, setting.rules, inputs))
        rule = into + flow // inputs * rules_here // flows_here % rules_here * inputs
        made.append(
            Stream(
                stream_id=flow,
                group=IPv4Address(names[rule]),
                port=PORT,
                source=IPv4Address(source(into)),
                source_port=FIRST_SOURCE_PORT + flow % SOURCE_PORTS,
                interface=f"g{into}" if inputs > 1 else None,
                share=setting.skew if into == 0 and inputs > 1 else share,
            )
        )
    return (*made, *mixed.unicast_streams(setting, made[0]))


def sender_job(request: Request, cpu: int) -> SenderJob:
    return SenderJob(
        interface="g0",
        streams=streams_of(request.setting),
        payload_bytes=request.setting.payload_bytes,
        segments=request.setting.burst,
        udp_checksum=request.setting.udp_checksum,
        generator=request.setting.generator,
        rate_dps=None if request.phases else request.dps,
        duration_s=None if request.phases else request.seconds,
        phases=request.phases,
        cpu=cpu,
    )


def receiver_job(request: Request, outputs: Sequence[str], mtu: int, *, direct: bool) -> ReceiverJob:
    """The capture of one trial, with room for what can arrive at ``outputs``.

    ``direct``: what is sent on an input arrives at the output of the same number, and nowhere else. Frames
    that carry several datagrams are for rings, others are counted; live ones, where no subject makes packets
    of them, before the stack would.
    """
    setting = request.setting
    offload = setting.egress == "offload"
    streams = streams_of(setting)
    turn = sum(stream.share for stream in streams)
    asked = request.asked
    # Each phase is rounded up to whole bursts.
    offered = FASTEST_DPS * request.seconds if asked is None else asked + len(request.phases) * setting.burst
    return ReceiverJob(
        flows=tuple(
            Flow(
                interface=name,
                group=stream.group,
                port=stream.port,
                stream_id=stream.stream_id,
                # What is asked for is rounded, and so is a flow's part: up to whole bursts, in turns.
                sequences=(1 + stream.share) * setting.burst + int(offered * stream.share / turn),
            )
            for number, name in enumerate(outputs)
            for stream in streams
            if _arrives(stream.stream_id, number, setting, direct)
        ),
        unicast=setting.unicast_percent > 0,
        payload_bytes=setting.payload_bytes,
        mode="ring" if offload else "count",
        xdp=direct and not offload and setting.generator == "xdp",
        offload=offload,
        mtu=mtu,
        frames_max=max(1, round(FASTEST_COPIES_DPS * request.seconds)),
        timed_every=1 if request.purpose in ("latency", "fixed", "functional") else 16,
        quiet_s=QUIET_S,
    )


def _arrives(stream_id: int, output: int, setting: Setting, direct: bool) -> bool:
    """Whether a stream is to arrive at the output of this number."""
    if mixed.is_unicast(stream_id, setting):
        return mixed.output_of(stream_id, setting) == output
    return not direct or input_of(stream_id, setting) == output
