"""The lab finds what a forwarder does wrong, to the datagram, and tells its own faults from that."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram
from kernel_support import faulty_forwarder
from kernel_support.faulty_forwarder import Faulty
from scapy.layers.inet import UDP
from scapy.utils import PcapNgReader

from lab.load.flows import Request
from lab.results import Drop, Setting, Trial
from lab.steps.evidence import of_repeat
from lab.trial.bench import Bench, bench
from lab.trial.plan import BenchPlan, divide

pytestmark = pytest.mark.serial

MS_NS = 1_000_000
BUCKET_NS = 1024
"""Width of a histogram's bucket at a millisecond, three digits."""
ATTEMPTS = 5


@dataclass(frozen=True)
class Instrument:
    bench: Bench
    plan: BenchPlan

    @property
    def forwarder(self) -> Faulty:
        assert isinstance(self.bench.subject, Faulty)
        return self.bench.subject

    def measure(
        self, dps: int, seconds: float, meanwhile: Callable[[], None] | None = None, **faults: Any
    ) -> Trial:
        """A trial in which the forwarder makes these mistakes, counting from its first datagram."""
        self.forwarder.make(**faults)
        request = Request("t", "test", "case", self.plan.setting, "fixed", dps, seconds)
        return self.bench.measure(request, meanwhile)

    def at_least(self, latency_ns: int) -> int:
        """Datagrams of the last trial that took so long."""
        report = self.bench.receiver.report().latency
        assert report is not None
        histogram = HdrHistogram.decode(report.histogram)
        lowest = histogram.get_lowest_equivalent_value(latency_ns)
        counts = ((index, histogram.get_count_at_index(index)) for index in range(histogram.counts_len))
        used = ((histogram.get_value_from_index(index), int(count)) for index, count in counts if count)
        return sum(count for value, count in used if value >= lowest)


@pytest.fixture(scope="module")
def instrument() -> Iterator[Instrument]:
    setting = Setting(payload_bytes=64)
    plan = BenchPlan(faulty_forwarder.NAME, setting, 1500, divide(os.sched_getaffinity(0)))
    with bench(plan, "instrument", {faulty_forwarder.NAME: faulty_forwarder.PEER}) as ready:
        yield Instrument(ready, plan)


def seen(trial: Trial) -> tuple[int, int, int, int]:
    """Lost, duplicated, reordered, damaged."""
    assert trial.streams is not None
    streams = trial.streams
    assert streams.lost == trial.expected - trial.delivered
    return streams.lost, streams.duplicated, streams.reordered, streams.corrupted


def test_a_forwarder_without_faults_has_none(instrument: Instrument) -> None:
    trial = instrument.measure(10_000, 0.2)
    assert seen(trial) == (0, 0, 0, 0)
    assert trial.ledger.balanced
    assert trial.delivered == trial.expected == trial.offered > 0


def test_one_loss_in_ten_thousand_is_counted_and_the_ledger_says_where(instrument: Instrument) -> None:
    trial = instrument.measure(42_000, 0.5, drop_every=10_000)
    dropped = trial.offered // 10_000
    assert dropped >= 1
    assert seen(trial) == (dropped, 0, 0, 0)
    assert trial.ledger.balanced
    assert trial.ledger.egress.drops == [Drop(place="faulty", reason="dropped on purpose", count=dropped)]


def test_a_loss_that_nobody_owns_up_to_stays_in_the_ledger_as_that(instrument: Instrument) -> None:
    instrument.forwarder.confesses = False
    try:
        trial = instrument.measure(10_000, 0.2, drop_every=700)
    finally:
        instrument.forwarder.confesses = True
    dropped = trial.offered // 700
    assert seen(trial) == (dropped, 0, 0, 0)
    assert trial.ledger.egress.unattributed == dropped > 0
    assert trial.ledger.ingress.unattributed == 0
    assert any(f"{dropped} of {trial.offered:,} copies unaccounted for" in text for text in trial.warnings)
    assert trial.validity != "valid"


def test_the_frames_of_a_ledger_that_does_not_balance_show_the_loss(
    instrument: Instrument, tmp_path: Path
) -> None:
    request = Request("t", "test", "case", instrument.plan.setting, "fixed", 10_000, 0.2)
    instrument.forwarder.confesses = False
    try:
        instrument.forwarder.make(drop_every=700)
        frames = of_repeat(
            tmp_path, instrument.bench, request, 10_000, lambda trial: not trial.ledger.balanced
        )
    finally:
        instrument.forwarder.confesses = True
    assert frames.what == "all of a repeat of the trial for 0.2 s, which failed, too"
    with PcapNgReader(f"{tmp_path}/{frames.file}") as reader:
        seen = Counter(packet.sniffed_on for packet in reader if UDP in packet)
    lost = seen["in0"] // 700
    assert lost > 0
    assert seen["out0"] == seen["r0"] == seen["in0"] - lost


def test_one_duplicate_is_counted_and_is_no_delivery(instrument: Instrument) -> None:
    trial = instrument.measure(10_000, 0.2, duplicate=[500])
    assert seen(trial) == (0, 1, 0, 0)
    assert trial.delivered == trial.offered
    assert trial.ledger.egress.unattributed == -1
    assert any("1 copies were delivered again" in text for text in trial.warnings), trial.warnings


def test_one_swap_of_neighbours_is_counted(instrument: Instrument) -> None:
    trial = instrument.measure(10_000, 0.2, swap=[500])
    assert seen(trial) == (0, 0, 1, 0)
    assert trial.ledger.balanced
    assert any("1 copies arrived out of order" in text for text in trial.warnings), trial.warnings


def test_all_faults_at_once_are_told_apart(instrument: Instrument) -> None:
    trial = instrument.measure(10_000, 0.2, drop_every=400, duplicate=[11, 211, 611], swap=[21, 521])
    assert seen(trial) == (trial.offered // 400, 3, 2, 0)
    assert trial.ledger.egress.unattributed == -3


def test_one_datagram_that_is_a_millisecond_late_is_counted(instrument: Instrument) -> None:
    """A shared machine may hold others up, too: the forwarder says how old each was when it let it go."""
    for _attempt in range(ATTEMPTS):
        trial = instrument.measure(500, 0.2, delay=[50])
        took = instrument.forwarder.took()
        assert len(took) == trial.offered
        surely = sum(before >= MS_NS + BUCKET_NS for before, _ in took)
        perhaps = sum(after >= MS_NS - BUCKET_NS for _, after in took)
        counted = instrument.at_least(MS_NS)
        assert counted >= surely >= 1
        assert trial.latency is not None
        assert trial.latency.max >= MS_NS
        if counted <= perhaps:  # what arrives may still wait for the processor
            break
    else:
        pytest.fail(f"in {ATTEMPTS} trials more were late than can have been, the last: {counted}, {perhaps}")


def test_a_delay_of_all_shows_in_every_percentile(instrument: Instrument) -> None:
    trial = instrument.measure(1_000, 0.2, hold=True)
    assert trial.latency is not None
    assert trial.latency.count == trial.offered == instrument.at_least(MS_NS)
    assert min(trial.latency.p50, trial.latency.p90, trial.latency.p99, trial.latency.max) >= MS_NS
    assert seen(trial)[0] == 0


def test_a_generator_that_is_held_up_makes_a_trial_invalid_and_not_lossy(instrument: Instrument) -> None:
    seconds = 2.0
    pid = instrument.bench.sender.pid

    def hold_up() -> None:
        time.sleep(seconds * 0.3)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds * 0.4)
        finally:
            os.kill(pid, signal.SIGCONT)

    trial = instrument.measure(10_000, seconds, hold_up)
    assert trial.validity == "invalid", trial.warnings
    assert trial.bound_by == "generator"
    assert trial.offered < 10_000 * seconds
    assert seen(trial) == (0, 0, 0, 0)
    assert trial.ledger.balanced
    assert trial.loss_ratio == 0
