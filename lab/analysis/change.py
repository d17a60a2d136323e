"""What a change of the running forwarder costs: which flows it moves, what came of each. Pure."""

from collections.abc import Sequence
from statistics import median

from forwarder.plan.placement import flow_owner
from lab.load.jobs import Stream
from lab.results import NS_PER_S, Change, Check, Trial

NS_PER_MS = 1_000_000


def moved(streams: Sequence[Stream], before: int, after: int) -> frozenset[int]:
    """The flows, by their ids, that change their worker when an elastic group's size does."""
    return frozenset(
        stream.stream_id for stream in streams if _worker(stream, before) != _worker(stream, after)
    )


def _worker(stream: Stream, members: int) -> int:
    """The place, in a group of so many, of the worker that gets the flow."""
    return flow_owner(int(stream.source), int(stream.group), stream.source_port, stream.port, members)


def reordered(counts: Sequence[int], flows: Sequence[int], those: frozenset[int]) -> tuple[int, int]:
    """Copies out of order in flows that stayed, and in ``those`` that moved.

    Args:
        counts: of each flow, as receivers report them.
        flows: the stream of each of them.
    """
    stayed = sum(count for count, flow in zip(counts, flows, strict=True) if flow not in those)
    return stayed, sum(counts) - stayed


def share_of(worker: int, trial: Trial) -> float:
    """Share of a trial's datagrams that one worker received."""
    received = {sample.worker_id: sample.received for sample in trial.workers}
    return received.get(worker, 0) / max(1, sum(received.values()))


def aimed(record: Change, blocked_ms: float) -> Check:
    """Whether no trial was blocked for longer than is hoped for."""
    longest = max(record.blocked_ns) / NS_PER_MS
    return Check(
        scenario=record.scenario,
        case=f"{record.case}: {record.title} at {record.asked_dps:,} dps",
        passed=longest <= blocked_ms,
        expected=f"blocked for {blocked_ms:g} ms at most",
        observed=f"{longest:.2f} ms, {sum(record.lost):,} copies lost",
        aim=True,
    )


def describe(record: Change) -> str:
    """A change in one line."""
    blocked = [ns / NS_PER_MS for ns in record.blocked_ns]
    line = f"{record.title}, {len(record.trial_ids)} times at {record.asked_dps:,} dps: "
    line += f"{sum(record.lost):,} copies lost, {sum(record.duplicated):,} again, "
    line += f"{sum(record.reordered):,} out of order in flows that stayed"
    if record.flows_moved:
        line += f", {sum(record.reordered_moved):,} in the {record.flows_moved} that moved"
    line += f"; blocked {median(blocked):.2f} ms, at most {max(blocked):.2f}"
    line += f"; took {median(record.took_ns) / NS_PER_S:.3f} s"
    if record.kept is not None and record.blocked_target_ns is not None:
        bound = record.blocked_target_ns / NS_PER_MS
        line += f"; at most {bound:g} ms promised: {'kept' if record.kept else 'missed'}"
    return line
