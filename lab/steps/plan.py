"""From scenarios and a profile to the steps of a run, in order. Touches nothing: ``mcastlab plan`` prints
these."""

from collections.abc import Collection, Hashable, Iterable, Iterator

from lab.scenario.model import Scenario
from lab.scenario.profiles import ProfileName
from lab.steps.kinds.bisect import BisectStep
from lab.steps.kinds.calibrate import CalibrateStep
from lab.steps.kinds.change import ChangeStep
from lab.steps.kinds.compare import CompareStep
from lab.steps.kinds.delay import DelayStep
from lab.steps.kinds.expect import ExpectStep
from lab.steps.kinds.footprint import FootprintStep
from lab.steps.kinds.functional import FunctionalStep
from lab.steps.kinds.group_capacity import GroupCapacityStep
from lab.steps.kinds.latency import LatencyStep
from lab.steps.kinds.load_profile import LoadProfileStep
from lab.steps.kinds.pipelines import PipelinesStep
from lab.steps.kinds.search import SearchStep
from lab.steps.kinds.soak import SoakStep
from lab.steps.kinds.sweep import SweepStep
from lab.steps.step import Selection, Step

KINDS: tuple[type[Step], ...] = (
    # Once for a scenario.
    FunctionalStep,  # packet by packet, field by field
    FootprintStep,  # many workers, started and measured without traffic
    # In each case in turn.
    ExpectStep,  # what one trial must show exactly
    CalibrateStep,  # the generator alone: its ceiling
    SearchStep,  # zero-loss rate of each subject
    CompareStep,  # two subjects in turn, as soon as both have been searched: their benches still run
    BisectStep,  # commits against a good one
    # What other tables ask for, which may start from what the searches found.
    LatencyStep,
    DelayStep,
    GroupCapacityStep,
    SweepStep,
    PipelinesStep,
    SoakStep,
    LoadProfileStep,
    ChangeStep,
)
"""Every kind of step, in the order of a run."""


def steps(scenarios: Iterable[Scenario], profile: ProfileName, absent: Collection[str] = ()) -> list[Step]:
    """Every step of a run, in order.

    Args:
        absent: subjects that cannot run here: steps that need them are left out.
    """
    seen: set[Hashable] = set()
    result: list[Step] = []
    for scenario in scenarios:
        for step in _steps_of(Selection(scenario, scenario.profile_named(profile), absent)):
            if step.once is None or step.once not in seen:
                result.append(step)
            seen.add(step.once)
    return result


def _steps_of(selection: Selection) -> Iterator[Step]:
    for kind in KINDS:
        yield from kind.for_scenario(selection)
    for case in selection.cases:
        for kind in KINDS:
            yield from kind.for_case(selection, case)
