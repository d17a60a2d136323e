"""What the reports of sender, receivers and subject say about a trial: doubts, notes, shares. Pure."""

from collections.abc import Sequence
from typing import Literal

from lab.ledger.ledger import Account, Sample
from lab.load import mixed_traffic as mixed
from lab.load.flows import Request, input_of, streams_of
from lab.load.jobs import Flow, ReceiverReport, SenderReport
from lab.results import InputSample, Latency, OutputSample, Streams, WorkerSample
from lab.scenario.layout import receivers_of, workers_in_all

BoundBy = Literal["generator", "forwarder", "receiver", "asked", "unknown"]
Traffic = Literal["multicast", "unicast"]

STEAL_LIMIT = 0.02
"""Share of the processor time that the hypervisor may take before a note says so."""
STRAYS, STRAY_SHARE = 100, 0.02
"""Datagrams that may be received elsewhere than on the forwarder's CPUs, and their share, without a doubt."""


def doubts(seen: ReceiverReport, request: Request) -> list[str]:
    """Reasons to doubt a trial. Where several workers get each datagram, as many copies are expected."""
    found = []
    if dropped := sum(seen.drops.values()):
        found.append(f"the receivers' own rings dropped {dropped:,} frames")
    allowed = receivers_of(request.setting)
    if seen.copies_max > allowed:
        often = "once" if allowed == 1 else f"{allowed} times"
        found.append(f"{sum(seen.duplicated):,} copies were delivered again, some more than {often}")
    if corrupted := sum(seen.corrupted):
        found.append(f"{corrupted:,} copies arrived damaged")
    if strange := seen.unexpected + seen.malformed:
        found.append(f"{strange:,} frames arrived that nobody sent")
    if seen.latency and seen.latency.negative:
        found.append(f"{seen.latency.negative:,} latencies are negative: the clock was set")
    return found


def strays(arrived: int, received: int) -> list[str]:
    """Doubt about receive work that was not done on the forwarder's CPUs: frames due there, and counted."""
    missing = arrived - received
    if missing <= max(STRAYS, arrived * STRAY_SHARE):
        return []
    return [f"{missing:,} of {arrived:,} datagrams were not received on the forwarder's CPUs"]


def notes(
    sent: SenderReport, seen: ReceiverReport, request: Request, worker_cpus: Sequence[int], steal_share: float
) -> list[str]:
    """Remarks that leave a trial valid."""
    found = [] if sent.instead is None else [f"sent by packet sockets: {sent.instead}"]
    if seen.instead is not None:
        found.append(f"captured in rings: {seen.instead}")
    workers = workers_in_all(request.setting)
    if workers > len(worker_cpus):
        found.append(f"oversubscribed: {workers} workers on {len(worker_cpus)} CPU(s)")
    if reordered := sum(seen.reordered):
        found.append(f"{reordered:,} copies arrived out of order")
    if steal_share > STEAL_LIMIT:
        found.append(f"the hypervisor took {steal_share:.0%} of the processor time")
    return found


def drain_ns(sent: SenderReport, seen: ReceiverReport) -> int:
    """From the end of sending to the last copy; 0 when that came earlier, or none came."""
    return max(0, (seen.last_ns or 0) - (sent.started_ns + sent.duration_ns))


def bound_by(request: Request, seen: ReceiverReport, missing: int, short: bool, kept_up: bool) -> BoundBy:
    if short:
        return "generator"
    if missing > 0:
        return "receiver" if sum(seen.drops.values()) >= missing else "forwarder"
    if not kept_up:
        return "forwarder"
    return "generator" if request.dps is None else "asked"


def latency(seen: ReceiverReport) -> Latency | None:
    if seen.latency is None or not seen.latency.count:
        return None
    return Latency.model_validate(seen.latency, from_attributes=True)


def streams(seen: ReceiverReport, request: Request) -> Streams:
    faults = ("lost", "duplicated", "reordered", "corrupted")
    return Streams(
        streams=request.setting.flows,
        checked=sum(seen.received),
        **{fault: sum(getattr(seen, fault)) for fault in faults},
        copies_max=seen.copies_max,
        silent=sum(not received for received in seen.received),
    )


def inputs(
    request: Request, sent: SenderReport, seen: ReceiverReport, flows: Sequence[Flow], copies: int
) -> list[InputSample]:
    """What became of each input's datagrams; none for a single input.

    ``flows``: the receivers' flows in their order; ``copies``: due for each datagram.
    """
    setting = request.setting
    if setting.inputs == 1:
        return []
    offered, received, duplicated = ([0] * setting.inputs for _ in range(3))
    for stream, count in zip(streams_of(setting), sent.per_stream, strict=True):
        offered[input_of(stream.stream_id, setting)] += count
    for flow, arrived, again in zip(flows, seen.received, seen.duplicated, strict=True):
        number = input_of(flow.stream_id, setting)
        received[number] += arrived
        duplicated[number] += again
    return [
        InputSample(
            interface=f"in{number}",
            offered=offered[number],
            expected=offered[number] * copies,
            delivered=received[number] - duplicated[number],
            duplicated=duplicated[number],
        )
        for number in range(setting.inputs)
    ]


def outputs(
    request: Request, sent: SenderReport, seen: ReceiverReport, flows: Sequence[Flow]
) -> list[OutputSample]:
    """What arrived on each output, multicast and unicast apart; ``flows`` as for :func:`inputs`."""
    setting = request.setting
    streams = (stream.stream_id for stream in streams_of(setting))
    offered = dict(zip(streams, sent.per_stream, strict=True))
    parts: dict[tuple[str, Traffic], list[int]] = {}
    for number, flow in enumerate(flows):
        traffic: Traffic = "unicast" if mixed.is_unicast(flow.stream_id, setting) else "multicast"
        parts.setdefault((flow.interface, traffic), []).append(number)
    made = []
    for (interface, traffic), members in parts.items():
        first = [seen.received[at] - seen.duplicated[at] for at in members]
        low = [seen.latency_min[at] for at in members if seen.latency_min[at]]
        made.append(
            OutputSample(
                interface=interface,
                traffic=traffic,
                streams=len(members),
                offered=sum(offered[flows[at].stream_id] for at in members),
                delivered=sum(first),
                latency_min_ns=min(low, default=None),
                latency_mean_ns=sum(seen.latency_sum[at] for at in members) // sum(first) if low else None,
                latency_max_ns=max(seen.latency_max[at] for at in members) if low else None,
            )
        )
    return made


def shares(before: Sample | None, after: Sample | None) -> list[WorkerSample]:
    """Each worker's part in the trial."""
    return list(after.since(before or Sample(Account())).workers) if after else []
