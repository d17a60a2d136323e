"""What the strategy of a setting comes to: groups, workers, and how many of them get each datagram. Pure."""

from forwarder.plan.model import Sizing
from forwarder.plan.strategy import PRESETS, Grouping, Hashing, RulePlacement, Steering, Strategy, Width
from lab.results import Setting


def strategy_of(
    preset: str, placement: str | None = None, steering: str | None = None, hashing: str | None = None
) -> Strategy:
    """The preset with what differs from it; ``None`` where nothing does."""
    return PRESETS[preset].customised(
        placement=RulePlacement(placement) if placement else None,
        steering=Steering(steering) if steering else None,
        hashing=Hashing(hashing) if hashing else None,
    )


def groups_in(preset: str, inputs: int, groups: int | None = None) -> int:
    """Worker groups that a preset makes of ``inputs`` interfaces; ``groups``: as many as were asked for."""
    grouping = PRESETS[preset].grouping
    if grouping is Grouping.PER_INTERFACE:
        return inputs
    if grouping is Grouping.INTERFACE_GROUPS:
        return min(groups or Sizing().group_count, inputs)
    return 1


def workers_in_all(setting: Setting) -> int:
    """Workers of all groups; 0 for a subject without workers."""
    if setting.workers is None or setting.strategy is None:
        return 0
    return setting.workers * groups_in(setting.strategy, setting.inputs, setting.groups)


def is_elastic(setting: Setting) -> bool:
    """Whether the number of workers follows the load: ``setting.workers`` is then the most of a group."""
    return setting.strategy is not None and follows_load(setting.strategy)


def follows_load(strategy: str) -> bool:
    """Whether the strategy's groups are elastic."""
    return PRESETS[strategy].width is Width.ELASTIC


def least_workers(setting: Setting) -> int:
    """Workers of all groups while there is no load."""
    return workers_in_all(setting.model_copy(update={"workers": 1}) if is_elastic(setting) else setting)


def receivers_of(setting: Setting) -> int:
    """How many workers get each datagram: one, but for workers that share an interface without a fanout."""
    if setting.workers is None or setting.strategy is None:
        return 1
    chosen = strategy_of(setting.strategy, setting.placement, setting.steering, setting.hashing)
    return setting.workers if chosen.steering is Steering.UNGROUPED else 1
