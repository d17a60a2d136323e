"""How long rules take, from when they were asked for."""

from __future__ import annotations

from forwarder.supervisor.rule_timing import RuleTiming, Timing


def test_times_count_from_the_request() -> None:
    timing = RuleTiming()
    timing.ask(["a", "b"], 1000)
    assert timing.of("a") == Timing(None, None)
    timing.put_in_force(["a", "b"], 1200)
    assert timing.of("a") == Timing(200, None)
    assert timing.of("b", first_ns=5000) == Timing(200, 4000)


def test_a_rule_removed_before_it_was_in_force_leaves_nothing_behind_for_the_next_of_its_name() -> None:
    timing = RuleTiming()
    timing.ask(["a"], 1000)
    timing.forget("a")
    timing.put_in_force(["a"], 1200)
    timing.ask(["a"], 9000)
    assert timing.of("a") == Timing(None, None)
    timing.forget("a")
