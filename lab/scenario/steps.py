"""The steps of a run: what each is called, what it is about, how long it takes. Pure.

A *step* is what is finished or not; :mod:`lab.scenario.planner` says which there are, and in which order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lab.results import Setting
from lab.scenario.layout import workers_in_all
from lab.scenario.load_tables import STARTED_ANEW, ChangeTable, CourseTable, SoakTable, SweepTable
from lab.scenario.model import Scenario
from lab.scenario.profiles import Profile
from lab.scenario.rfc3918_tables import CapacityTable, DelayTable, LatencyTable
from lab.scenario.tables import Case, Compare, Expect, FootprintCase, Metric

SEARCH_TRIALS = 8
NARROWED_TRIALS = 7
ESTIMATED_WIDTH = 0.05
"""Trials of a full search and of one within known bounds: what these take on average at this width."""

TRIALS_PER_HALVING = 2
"""More trials for half the width."""

PDR_TRIALS = 4
"""What a second goal adds to a search."""

LOADED_TRIALS = 4
"""In time: two, with and without the subject, each as long as three."""

LONG = 3
"""Trials of latency and CPU are this much longer: CPU time comes in ticks, a p99 needs many datagrams."""

COMPILED_S = 40.0
"""The first start of another commit's forwarder: its packet path is compiled."""

HALF = 0.5
LOADS = (0.1, HALF, 0.9)
"""Shares of the zero-loss rate at which latency is measured."""

TRIAL_OVERHEAD_S = 0.15
"""Arming the receivers, draining the queues and reading every counter, for each trial."""

BENCH_START_S = 1.5
"""Namespaces, forwarder, sender and receiver, on average: some steps find their bench standing."""

CHANGE_S = 0.01
"""A rule added or removed, beside the time that is waited between two changes."""

CHANGE_READY_S = 0.1
"""Making ready for a change: a resize, as a rule."""

RULES_PER_S = 5_000
"""That a bench takes while it is built: subject, sender and receivers get as many."""

FUNCTIONAL_S = 8.0
FOOTPRINT_S, FOOTPRINT_WORKER_S = 4.0, 0.013
"""Of a footprint: its lab, and starting, measuring and stopping each worker."""


@dataclass(frozen=True)
class Step:
    """What all steps have: where they come from, and how long they take (estimate, seconds)."""

    scenario: Scenario
    profile: Profile

    @property
    def step_id(self) -> str:
        raise NotImplementedError

    @property
    def trials(self) -> int:
        return 0

    @property
    def seconds(self) -> float:
        return self.trials * (self.profile.trial_ms / 1000 + TRIAL_OVERHEAD_S) + BENCH_START_S


@dataclass(frozen=True)
class Checks(Step):
    """The functional checks, packet by packet."""

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/checks"

    @property
    def seconds(self) -> float:
        return FUNCTIONAL_S


@dataclass(frozen=True)
class Footprint(Step):
    """A number of workers, really started."""

    footprint: FootprintCase

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/{self.footprint.name}/footprint"

    @property
    def seconds(self) -> float:
        return FOOTPRINT_S + FOOTPRINT_WORKER_S * workers_in_all(self.footprint.setting)


@dataclass(frozen=True)
class Expectation(Step):
    """One trial that must show something exactly."""

    case: Case
    expect: Expect
    number: int
    """Among the scenario's expectations, from 1."""

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/{self.case.name}/{self.expect.subject}/expect-{self.number}"

    @property
    def setting(self) -> Setting:
        tried = self.scenario.rps_of(self.expect.subject)
        rps = tried[0] if self.expect.rps is None else self.expect.rps
        return self.scenario.result_setting(self.case, self.expect.subject, rps)

    @property
    def trials(self) -> int:
        return 1


@dataclass(frozen=True)
class Calibrate(Step):
    """The generator alone, flat out, straight into the receivers."""

    case: Case

    @property
    def step_id(self) -> str:
        return f"{self.scenario.name}/{self.case.name}/calibrate"

    @property
    def setting(self) -> Setting:
        return calibration_setting(self.scenario, self.case)

    @property
    def trials(self) -> int:
        return 3


@dataclass(frozen=True)
class Search(Step):
    """The zero-loss rate of one subject with one steering; with ``pdr`` that with little loss, too; with
    ``flat_out`` one trial more, unpaced; a long one at each of ``loads``, shares of the zero-loss rate."""

    case: Case
    subject: str
    rps: bool
    zero_loss: bool
    pdr: bool
    flat_out: bool
    loads: tuple[float, ...]

    @property
    def step_id(self) -> str:
        steering = "rps" if self.rps else "no-rps"
        return f"{self.scenario.name}/{self.case.name}/{self.subject}/{steering}/search"

    @property
    def setting(self) -> Setting:
        return self.scenario.result_setting(self.case, self.subject, self.rps)

    @property
    def trials(self) -> int:
        searched = _search_trials(SEARCH_TRIALS, self.profile) * self.zero_loss
        searched += PDR_TRIALS * self.pdr
        return searched + self.flat_out + LOADED_TRIALS * len(self.loads)

    @property
    def seconds(self) -> float:
        return super().seconds + (COMPILED_S if self.setting.commit else 0.0)


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a subject in a case, with one steering or (``None``) its best."""

    subject: str
    case: Case
    rps: bool | None = None


def _suffix(side: Side) -> str:
    """Tells sides with a fixed steering apart, in a step's id."""
    return {None: "", True: "+rps", False: "+no-rps"}[side.rps]


@dataclass(frozen=True)
class Comparison(Step):
    """``a / b`` in one metric, in pairs taken in turn."""

    compare: Compare
    a: Side
    b: Side
    number: int = 1
    """Among the repetitions of the same."""

    @property
    def metric(self) -> Metric:
        return self.compare.metric

    @property
    def case_name(self) -> str:
        if self.a.case == self.b.case:
            return self.a.case.name
        return f"{self.a.case.name} / {self.b.case.name}"

    @property
    def step_id(self) -> str:
        metric = self.metric.replace(" ", "-").replace("/", "-per-")
        sides = f"{self.a.subject}{_suffix(self.a)}-{self.b.subject}{_suffix(self.b)}"
        again = f"/{self.number}" if self.compare.repeat > 1 else ""
        return f"{self.scenario.name}/{self.case_name}/{sides}/{metric}{again}"

    @property
    def trials(self) -> int:
        each = _search_trials(NARROWED_TRIALS, self.profile) if self.metric == "zero-loss rate" else 1
        # CPU per copy has the generator alone as its baseline, each time.
        return (4 if self.metric == "CPU per copy" else 2) * each * self.profile.pairs

    @property
    def seconds(self) -> float:
        longer = LONG - 1 if self.metric in ("CPU per copy", "latency p99") else 0
        return super().seconds + self.trials * longer * self.profile.trial_ms / 1000


@dataclass(frozen=True)
class Probe(Step):
    """What a table ``[[latency]]``, ``[[delay]]`` or ``[[capacity]]`` asks of a subject in a case."""

    case: Case
    subject: str
    number: int
    """Of the table among those of its kind, from 1."""

    @property
    def rps(self) -> bool:
        return self.scenario.rps_of(self.subject)[0]

    @property
    def setting(self) -> Setting:
        return self.scenario.result_setting(self.case, self.subject, self.rps)

    def named(self, kind: str) -> str:
        return f"{self.scenario.name}/{self.case.name}/{self.subject}/{kind}-{self.number}"


@dataclass(frozen=True)
class LatencySet(Probe):
    """The latencies of each output at several rates."""

    table: LatencyTable

    @property
    def step_id(self) -> str:
        return self.named("latency")

    @property
    def trials(self) -> int:
        return (LOADED_TRIALS // 2) * (len(self.table.shares) + len(self.table.multicast_dps))


@dataclass(frozen=True)
class Delay(Probe):
    """Join and leave delay."""

    table: DelayTable

    @property
    def step_id(self) -> str:
        return self.named("delay")

    @property
    def seconds(self) -> float:
        each = 2 * (self.table.hold_ms / 1000 + CHANGE_S)
        return 2 * BENCH_START_S + self.profile.repetitions * each


@dataclass(frozen=True)
class Capacity(Probe):
    """The largest number of groups."""

    table: CapacityTable

    @property
    def step_id(self) -> str:
        return self.named("capacity")

    @property
    def trials(self) -> int:
        return len(self.table.groups)

    @property
    def seconds(self) -> float:
        sending = sum(groups * self.table.per_group / self.table.dps for groups in self.table.groups)
        building = sum(BENCH_START_S + groups / RULES_PER_S for groups in self.table.groups)
        return building + max(sending, self.trials * self.profile.trial_ms / 1000)

    def setting_of(self, groups: int) -> Setting:
        return self.setting.model_copy(update={"rules": groups, "flows": groups})


@dataclass(frozen=True)
class Sweep(Probe):
    """A trial at each of several rates."""

    table: SweepTable

    @property
    def step_id(self) -> str:
        return self.named("sweep")

    @property
    def trials(self) -> int:
        return len(self.table.ceiling_shares) + len(self.table.dps)


@dataclass(frozen=True)
class Soak(Probe):
    """One rate for a long time."""

    table: SoakTable

    @property
    def step_id(self) -> str:
        return self.named("soak")

    @property
    def trials(self) -> int:
        return self.table.trials(self.profile.soak_s)

    @property
    def seconds(self) -> float:
        return self.trials * (self.table.trial_s + TRIAL_OVERHEAD_S) + BENCH_START_S


@dataclass(frozen=True)
class Course(Probe):
    """A load that changes over time."""

    table: CourseTable

    @property
    def step_id(self) -> str:
        return self.named("course")

    @property
    def trials(self) -> int:
        return 1

    @property
    def seconds(self) -> float:
        return self.table.seconds + TRIAL_OVERHEAD_S + BENCH_START_S


@dataclass(frozen=True)
class Change(Probe):
    """Changes of the running forwarder, one in each trial."""

    table: ChangeTable

    @property
    def step_id(self) -> str:
        return self.named("change")

    @property
    def trials(self) -> int:
        return self.table.trials * len(self.table.kinds)

    @property
    def seconds(self) -> float:
        each = self.table.trial_s + TRIAL_OVERHEAD_S + CHANGE_READY_S
        anew = sum(kind in STARTED_ANEW for kind in self.table.kinds) * self.table.trials
        return self.trials * each + (1 + anew) * BENCH_START_S


def _search_trials(at_estimated_width: int, profile: Profile) -> int:
    halvings = math.log2(ESTIMATED_WIDTH / profile.search_width)
    return max(2, round(at_estimated_width + TRIALS_PER_HALVING * halvings))


def calibration_setting(scenario: Scenario, case: Case) -> Setting:
    """What the generator's ceiling depends on; cases in which this is equal share one calibration."""
    values = scenario.settings_of(case)
    return Setting(
        payload_bytes=values.payload_bytes,
        inputs=values.inputs,
        skew=values.skew,
        flows=values.flows,
        burst=values.burst,
        generator=values.generator,
        rules=values.inputs,
        egress=values.egress,
    )


Probed = LatencySet | Delay | Capacity | Sweep | Soak | Course | Change
AnyStep = Checks | Footprint | Expectation | Calibrate | Search | Comparison | Probed
