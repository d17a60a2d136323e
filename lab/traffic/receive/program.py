"""The receiver's process in its namespace; see ``jobs.py`` and ``fork_server.py``."""

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from lab.load.jobs import Frame, ReceiverJob, ReceiverMode, ReceiverReport, TrafficError
from lab.load.stamp import HEADER_BYTES, STAMP_BYTES
from lab.traffic.receive import check
from lab.traffic.receive.check import Expectation, Tally, latency_of, new_tally
from lab.traffic.receive.count import Counter, clock_difference_ns
from lab.traffic.receive.ring import Ring, blocks_for, capture_filter, dropping
from lab.traffic.receive.sockets import Sockets
from lab.traffic.service import Control, serve

WATCH_S = 0.05
"""Interval at which a sleeping receiver looks whether a ring is half full."""
LAST_BLOCK_S = 5.0
"""Timeout for the last block, which takes milliseconds unless the machine is overloaded."""
LOOKS = 10
"""Looks within a quiet time. Counted, not timed: on a machine that stood still nothing could arrive."""
ETHERNET_AND_TAG = 18
LARGEST_FRAME = 65535 + ETHERNET_AND_TAG

Drain = Callable[[Ring], None]


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture yields besides the tally."""

    drops: dict[str, int]
    frames: tuple[Frame, ...] = ()
    mode: ReceiverMode = "ring"
    instead: str | None = None


def work(job: ReceiverJob, control: Control) -> ReceiverReport:
    """Open, say ready, capture until told to stop and nothing more arrives, report."""
    if job.cpu is not None:
        os.sched_setaffinity(0, {job.cpu})
    tally = new_tally(job.flows, job.all_interfaces)
    whole = job.full or job.mode == "udp"
    expectation = Expectation(job.payload_bytes or 0, int(whole))
    clock_before = clock_difference_ns()
    capture = {"udp": capture_udp, "count": capture_count, "ring": capture_ring}[job.mode]
    captured = capture(job, control, tally, expectation)
    clock_step_ns = clock_difference_ns() - clock_before
    told = control.stop_arguments.get("offered") or {}
    offered = [told.get(str(flow.stream_id), flow.sequences) for flow in job.flows]
    return report_of(tally, offered, captured, clock_step_ns)


def capture_count(job: ReceiverJob, control: Control, tally: Tally, expectation: Expectation) -> Captured:
    """Let a program in the kernel check what arrives; where that is impossible, use rings."""
    try:
        counter = Counter(job, tally)
    except OSError as error:
        return replace(capture_ring(job, control, tally, expectation), instead=str(error))
    with counter:
        control.say_ready()
        control.wait_for_stop()
        wait_for_quiet(lambda: counter.frames, job.quiet_s)
        return Captured(counter.add_to(tally), mode="count")


def capture_ring(job: ReceiverJob, control: Control, tally: Tally, expectation: Expectation) -> Captured:
    """Let the kernel fill a ring per interface; check what is in them when the trial is over."""
    kept: list[Frame] = []

    def drain(ring: Ring) -> None:
        if len(kept) < job.keep_frames:
            # Reading them takes time, in which more may arrive: those are kept the next time.
            waiting = ring.waiting_blocks
            kept.extend(islice(ring.waiting_frames(waiting), job.keep_frames - len(kept)))
            ring.drain(tally, expectation, waiting)
        else:
            ring.drain(tally, expectation)

    with ExitStack() as stack:
        rings = open_rings(job, stack)
        stack.enter_context(dropping(job.all_interfaces))

        def drain_half_full() -> None:
            for ring in rings:
                if ring.half_full:
                    drain(ring)

        def arrived() -> int:
            for ring in rings:
                ring.update_statistics()
            drain_half_full()
            return sum(ring.packets for ring in rings)

        for ring in rings:
            drain(ring)  # compiles, or loads what was compiled before
        control.say_ready()
        while not control.wait_for_stop(WATCH_S):
            drain_half_full()
        wait_for_quiet(arrived, job.quiet_s)
        for ring in rings:
            drain_rest(ring, drain)
        drops = {ring.interface: ring.drops for ring in rings}
    kept.sort(key=lambda frame: frame.time_ns)
    return Captured(drops, tuple(kept))


def open_rings(job: ReceiverJob, stack: ExitStack) -> list[Ring]:
    """A ring for each interface, closed by ``stack``."""
    whole = job.full or job.offload or job.everything or job.keep_frames > 0
    snap = snap_bytes(job, whole)
    program = capture_filter(snap, everything=job.everything, unicast=job.unicast)
    typical = HEADER_BYTES + (job.payload_bytes or job.mtu) if whole else snap
    interfaces = job.all_interfaces
    everything = sum(flow.sequences for flow in job.flows)
    # The kernel waits for a grace period with each ring that it makes or frees: for all at the same time.
    pool = stack.enter_context(ThreadPoolExecutor(len(interfaces)))

    def opened(number: int) -> Ring:
        interface = interfaces[number]
        expected = sum(flow.sequences for flow in job.flows if flow.interface == interface)
        if job.frames_max is not None:
            share = expected / everything if everything else 1 / len(interfaces)
            expected = min(expected, math.ceil(job.frames_max * share))
        blocks = blocks_for(expected, typical, job.ring_bytes_max // len(interfaces))
        ring = Ring(interface, number, blocks, program, vnet=whole)
        stack.callback(pool.submit, ring.close)
        return ring

    opening = [pool.submit(opened, number) for number in range(len(interfaces))]
    wait(opening)
    return [made.result() for made in opening]


def wait_for_quiet(arrived: Callable[[], int], quiet_s: float) -> None:
    """Return when the number of frames that have ``arrived`` has not changed for ``quiet_s``."""
    seen, looks = arrived(), 0
    while looks < LOOKS:
        time.sleep(quiet_s / LOOKS)
        now = arrived()
        looks = looks + 1 if now == seen else 0
        seen = now


def drain_rest(ring: Ring, drain: Drain) -> None:
    """Check every frame that the kernel has counted for ``ring``."""
    deadline = time.monotonic() + LAST_BLOCK_S
    while True:
        ring.update_statistics()
        drain(ring)
        missing = ring.packets - ring.drops - ring.taken
        if missing <= 0:
            return
        if time.monotonic() > deadline:
            raise TrafficError(
                f"interface {ring.interface}: {missing} of {ring.packets} frames counted by the kernel "
                f"did not appear in the ring within {LAST_BLOCK_S:g} s"
            )
        time.sleep(0.005)


def capture_udp(job: ReceiverJob, control: Control, tally: Tally, expectation: Expectation) -> Captured:
    """Read ordinary sockets for as long as the trial runs."""
    with closing(Sockets(job.flows, job.all_interfaces, job.ring_bytes_max)) as sockets:
        stopped = np.ones(1, np.int64)
        sockets.read_until_idle(0, stopped, tally, expectation)  # compiles
        control.say_ready()
        sockets.read_until_idle(round(job.quiet_s * 1000), control.stop_flag, tally, expectation)
        return Captured(sockets.drops(), mode="udp")


def snap_bytes(job: ReceiverJob, whole: bool) -> int:
    """How much of each frame a check needs."""
    if not whole:
        return HEADER_BYTES + STAMP_BYTES
    return LARGEST_FRAME if job.offload or job.everything else job.mtu + ETHERNET_AND_TAG


def report_of(tally: Tally, offered: list[int], captured: Captured, clock_step_ns: int) -> ReceiverReport:
    flows = {name: tuple(tally.counts[:, at].tolist()) for at, name in enumerate(check.COLUMNS)}
    intact = zip(offered, flows["received"], flows["duplicated"], strict=True)
    totals = tally.totals
    return ReceiverReport(
        **flows,
        lost=tuple(sent - received + duplicated for sent, received, duplicated in intact),
        copies_max=int(totals[check.COPIES_MAX]),
        unexpected=int(totals[check.UNEXPECTED]),
        malformed=int(totals[check.MALFORMED]),
        frames=int(totals[check.FRAMES]),
        gso_frames=int(totals[check.GSO_FRAMES]),
        drops=captured.drops,
        first_ns=int(totals[check.FIRST_NS]) or None,
        last_ns=int(totals[check.LAST_NS]) or None,
        latency=latency_of(tally, clock_step_ns),
        captured=captured.frames,
        mode=captured.mode,
        instead=captured.instead,
    )


def main() -> int:
    return serve(ReceiverJob, work)
