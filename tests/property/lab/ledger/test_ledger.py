"""What holds for any counts and any capacity."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.analysis.compare import detectable, paired_ratio, verdict
from lab.analysis.search import Observation, find_zero_loss
from lab.ledger.ledger import REFUSED, Account, Outside, build
from lab.load.flows import Request, groups, input_of, receiver_job, rules_of, streams_of
from lab.results import Setting
from lab.scenario.profiles import Profile

count = st.integers(0, 10**6)


@given(st.tuples(count, count, count), st.tuples(count, count, count), count, count, st.integers(1, 8))
def test_a_ledger_fed_with_a_complete_account_balances(
    matched: tuple[int, ...], devices: tuple[int, ...], no_rule: int, ring_full: int, receivers: int
) -> None:
    delivered, refused_elsewhere, seen_twice = matched
    input_dropped, output_dropped, receiver_dropped = devices
    due = delivered + output_dropped + receiver_dropped + refused_elsewhere
    account = Account(
        matched=due,
        copies_due=due,
        ingress={("forwarder", "no_rule"): no_rule, ("packet-socket", "ring full"): ring_full},
        # The forwarder may have been told of some of the device's drops, and counts them as well.
        egress={REFUSED: refused_elsewhere + min(seen_twice, output_dropped)},
    )
    # What every worker of several is given was offered once, and what no worker is given is lost to each.
    each, left_over = divmod(due + no_rule + ring_full, receivers)
    malformed = {("forwarder", "malformed"): -left_over % receivers}
    account = replace(account, ingress={**account.ingress, **malformed})
    offered = each + bool(left_over) + input_dropped
    outside = Outside(offered, input_dropped, output_dropped, receiver_dropped, delivered, receivers)
    ledger = build(account, outside)
    assert ledger.balanced
    assert ledger.ingress.entered == offered * receivers
    assert ledger.egress.left == delivered


@given(delivered=count, missing=st.integers(1, 10**6))
def test_a_missing_copy_never_disappears(delivered: int, missing: int) -> None:
    due = delivered + missing
    ledger = build(Account(due, due), Outside(due, 0, 0, 0, delivered))
    assert ledger.egress.unattributed == missing


@settings(max_examples=50, deadline=None)
@given(
    capacity=st.floats(2_000, 900_000), width=st.sampled_from([0.02, 0.05, 0.1]), outputs=st.integers(1, 16)
)
def test_a_search_never_claims_a_rate_that_loses(capacity: float, width: float, outputs: int) -> None:
    def measure(seconds: float, dps: float) -> Observation:
        offered = round(seconds * dps)
        taken = min(offered, int(capacity * seconds))
        return Observation(offered, offered, offered * outputs, taken * outputs)

    found = find_zero_loss(
        measure, 500_000.0, Profile(trial_ms=500, search_width=width, search_trials_max=24)
    )
    if found.lower_dps is not None:
        seen = measure(0.5, found.lower_dps)
        assert seen.delivered == seen.expected
    if found.upper_dps is not None:
        seen = measure(0.5, found.upper_dps)
        assert seen.delivered < seen.expected


@given(rules=st.integers(1, 300), flows=st.integers(1, 300), outputs=st.integers(1, 8))
def test_every_flow_has_a_rule_and_is_unlike_the_others(rules: int, flows: int, outputs: int) -> None:
    setting = Setting(payload_bytes=64, rules=rules, flows=flows, outputs=outputs)
    made = rules_of(setting, [f"out{number}" for number in range(outputs)])
    streams = streams_of(setting)
    matched = {rule.group for rule in made}
    assert len(matched) == rules
    assert all(str(stream.group) in matched for stream in streams)
    assert len({(stream.group, stream.source_port) for stream in streams}) == flows
    assert len({stream.group for stream in streams}) == min(rules, flows)


@given(
    inputs=st.integers(1, 24),
    rules_each=st.integers(1, 20),
    flows_each=st.integers(1, 20),
    skew=st.integers(1, 9),
    direct=st.booleans(),
)
def test_every_input_has_its_rules_flows_and_share(
    inputs: int, rules_each: int, flows_each: int, skew: int, direct: bool
) -> None:
    setting = Setting(
        payload_bytes=64, inputs=inputs, rules=inputs * rules_each, flows=inputs * flows_each, skew=skew
    )
    input_of_group = {rule.group: rule.input_interface for rule in rules_of(setting, ["out0"])}
    streams = streams_of(setting)
    shares = [0] * inputs
    for stream in streams:
        number = input_of(stream.stream_id, setting)
        assert input_of_group[str(stream.group)] == f"in{number}", "a flow enters where its rule is"
        assert stream.interface == (f"g{number}" if inputs > 1 else None)
        shares[number] += stream.share
    assert len({stream.group for stream in streams}) == inputs * min(rules_each, flows_each)
    assert all(shares[0] == share * (skew if inputs > 1 else 1) for share in shares[1:])

    asked = Request("t", "s", "c", setting, "fixed", 50_000, 0.3)
    outputs = [f"r{number}" for number in range(inputs if direct else 2)]
    job = receiver_job(asked, outputs, 1500, direct=direct)
    assert len(job.flows) == len(streams) * (1 if direct else 2)
    turn = sum(shares)
    for stream, flow in zip(streams, job.flows, strict=False):
        if not direct:
            assert flow.sequences >= 15_000 * stream.share / turn + stream.share - 1


@given(number=st.integers(1, 70_000))
def test_groups_are_distinct_and_administratively_scoped(number: int) -> None:
    names = groups(number)
    assert len(set(names)) == number
    assert all(name.startswith("239.") for name in (names[0], names[-1]))


@given(
    pairs=st.lists(st.tuples(st.floats(1, 1e6), st.floats(1, 1e6)), min_size=2, max_size=12),
    scale=st.floats(1e-3, 1e3),
)
@settings(max_examples=40, deadline=None)
def test_a_comparison_does_not_depend_on_units_or_on_which_side_is_named_first(
    pairs: list[tuple[float, float]], scale: float
) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    ratio, seen = paired_ratio(a, b), detectable(a, b)
    assert ratio.low <= ratio.value <= ratio.high
    assert seen is not None
    assert detectable(b, a) == pytest.approx(seen, abs=1e-12)
    assert detectable([x * scale for x in a], b) == pytest.approx(seen, rel=1e-6, abs=1e-9)
    better, worse = verdict(ratio, higher_is_better=True), verdict(ratio, higher_is_better=False)
    assert (better == "no difference") == (worse == "no difference")
    assert better in (None, "no difference") or better != worse


@given(seed=st.integers(0, 2**32), capacity=st.floats(2_000, 450_000))
@settings(max_examples=25, deadline=None)
def test_a_search_given_its_recorded_answers_back_asks_for_the_same_and_finds_the_same(
    seed: int, capacity: float
) -> None:
    asked: list[tuple[float, float]] = []
    answers: list[Observation] = []
    noise = random.Random(seed)

    def measure(seconds: float, dps: float) -> Observation:
        offered = round(dps * seconds)
        lost = max(0, offered - round(capacity * seconds)) + (noise.random() < 0.2)
        asked.append((seconds, dps))
        answers.append(Observation(offered, offered, offered, max(0, offered - lost)))
        return answers[-1]

    goal = Profile(trial_ms=300, search_width=0.05, search_trials_max=24)
    found = find_zero_loss(measure, 500_000, goal)
    again: list[tuple[float, float]] = []

    def replay(seconds: float, dps: float) -> Observation:
        again.append((seconds, dps))
        assert again[-1] == asked[len(again) - 1]
        return answers[len(again) - 1]

    assert find_zero_loss(replay, 500_000, goal) == found
    assert again == asked
