"""From scenarios and a profile to the steps of a run, in order. Pure: ``mcastlab plan`` prints these.

A case's expectations come first; then it is calibrated (the generator alone), searched for each subject and
steering, and compared; comparisons use what the searches found to choose each subject's steering and to
narrow their own searches. What other tables ask for comes last: it may start from the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from lab.results import NONE, Setting
from lab.scenario.model import Scenario
from lab.scenario.profiles import Profile, ProfileName
from lab.scenario.rfc3918_tables import Chosen
from lab.scenario.steps import (
    HALF,
    LOADS,
    AnyStep,
    Calibrate,
    Capacity,
    Change,
    Checks,
    Comparison,
    Course,
    Delay,
    Expectation,
    Footprint,
    LatencySet,
    Probed,
    Search,
    Side,
    Soak,
    Sweep,
)
from lab.scenario.tables import Case, Compare

PROBES: Mapping[str, Callable[..., Probed]] = {
    "latency": LatencySet,
    "delay": Delay,
    "capacity": Capacity,
    "sweep": Sweep,
    "soak": Soak,
    "course": Course,
    "change": Change,
}
"""The step that a table of each kind asks for, one for each subject in each case."""


def steps(scenarios: Iterable[Scenario], profile: ProfileName, absent: Collection[str] = ()) -> list[AnyStep]:
    """Every step of a run, in order; a calibration that an earlier case covers is left out.

    Args:
        absent: subjects that cannot run here: what is to be done with them is left out, too.
    """
    calibrated: list[Setting] = []
    result: list[AnyStep] = []
    for scenario in scenarios:
        for step in _of(scenario, scenario.profile_named(profile), absent):
            if isinstance(step, Calibrate):
                if step.setting in calibrated:
                    continue
                calibrated.append(step.setting)
            result.append(step)
    return result


def _of(scenario: Scenario, profile: Profile, absent: Collection[str]) -> Iterator[AnyStep]:
    if scenario.functional:
        yield Checks(scenario, profile)
    for footprint in scenario.footprint:
        yield Footprint(scenario, profile, footprint)
    cases = scenario.cases_in(profile)
    measured = [case for case in cases if scenario.measured_in(case)]
    comparable = [each for each in scenario.compare if each.a not in absent and each.b not in absent]
    pairs = [
        (compare, *sides)
        for compare in comparable
        for sides in _pairs(compare, cases if compare.a == NONE else measured)
    ]
    searched: list[Case] = []
    for case in cases:
        present = [subject for subject in scenario.subjects_in(case) if subject not in absent]
        for number, expect in enumerate(scenario.expect, start=1):
            if expect.case == case.name and expect.subject not in absent:
                yield Expectation(scenario, profile, case, expect, number)
        probes = list(_probes(scenario, profile, case, present))
        swept = any(isinstance(probe, Sweep) and probe.table.ceiling_shares for probe in probes)
        if present and (scenario.measured_in(case) or swept):
            yield Calibrate(scenario, profile, case)
        yield from _searches(scenario, profile, case, present)
        searched.append(case)
        # As soon as both sides have been searched: their benches still stand.
        for compare, a, b in pairs:
            if case in (a.case, b.case) and a.case in searched and b.case in searched:
                for number in range(1, compare.repeat + 1):
                    yield Comparison(scenario, profile, compare, a, b, number)
        yield from probes


def _probes(scenario: Scenario, profile: Profile, case: Case, present: Sequence[str]) -> Iterator[Probed]:
    def of(table: Chosen) -> Iterator[str]:
        if table.cases is None or case.name in table.cases:
            yield from (each for each in table.subjects or present if each in present)

    for key, tables in scenario.probes():
        for number, table in enumerate(tables, start=1):
            for subject in of(table):
                yield PROBES[key](scenario, profile, case, subject, number, table)


def _searches(scenario: Scenario, profile: Profile, case: Case, present: Sequence[str]) -> Iterator[Search]:
    measure = scenario.measured_in(case)
    if not measure:
        return
    for subject in present:
        for rps in scenario.rps_of(subject):
            yield Search(
                scenario,
                profile,
                case,
                subject,
                rps,
                zero_loss="zero-loss" in measure,
                pdr="pdr" in measure,
                flat_out="flat-out" in measure,
                loads=LOADS if "latency" in measure else (HALF,) if "half-rate" in measure else (),
            )


def _pairs(compare: Compare, cases: Sequence[Case]) -> Iterator[tuple[Side, Side]]:
    named = {case.name: case for case in cases}
    if compare.a_case is not None and compare.b_case is not None:
        # A profile may leave one of the two cases out: then there is nothing to compare.
        if compare.a_case in named and compare.b_case in named:
            yield (
                Side(compare.a, named[compare.a_case], compare.a_rps),
                Side(compare.b, named[compare.b_case], compare.b_rps),
            )
        return
    for case in cases:
        if compare.cases is None or case.name in compare.cases:
            yield Side(compare.a, case, compare.a_rps), Side(compare.b, case, compare.b_rps)
