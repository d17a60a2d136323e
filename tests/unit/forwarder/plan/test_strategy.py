"""The presets, and the combinations of axes that cannot work."""

from __future__ import annotations

import itertools

import pytest

from forwarder.plan.strategy import (
    PRESETS,
    Grouping,
    Hashing,
    RulePlacement,
    Steering,
    Strategy,
    Width,
    strategy_problems,
)


def test_the_presets_are_the_documents_strategies() -> None:
    assert list(PRESETS) == [
        "fanout",
        "fanout-per-interface",
        "pool",
        "hybrid",
        "hybrid-hash",
        "dynamic",
        "rule-hash",
        "full-fanout",
    ]
    assert all(name == strategy.name for name, strategy in PRESETS.items())


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_is_refused(name: str) -> None:
    assert strategy_problems(PRESETS[name]) == []


@pytest.mark.parametrize(("placement", "steering"), list(itertools.product(RulePlacement, Steering)))
def test_steering_by_rule_goes_with_hashed_rules(placement: RulePlacement, steering: Steering) -> None:
    strategy = Strategy("own", Grouping.ALL_INTERFACES, Width.PER_CPU, placement, steering)
    by_rule = steering in (Steering.RULE_HASH, Steering.FILTER)
    problems = strategy_problems(strategy)
    assert bool(problems) == (by_rule and placement is not RulePlacement.HASH)
    assert strategy.leaves_wrong_workers == (placement is RulePlacement.HASH and not by_rule)
    for problem in problems:
        assert (problem.field, problem.value) == ("steering", steering.value)


def test_axes_are_replaced_one_by_one() -> None:
    preset = PRESETS["hybrid-hash"]
    assert preset.customised() == preset
    changed = preset.customised(width=Width.PER_CPU, steering=Steering.FILTER, hashing=Hashing.MODULO)
    assert (changed.width, changed.steering, changed.hashing) == ("per-cpu", "filter", "modulo")
    assert (changed.name, changed.grouping, changed.placement) == ("hybrid-hash", preset.grouping, "hash")
