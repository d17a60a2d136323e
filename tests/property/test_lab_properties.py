"""What holds for any counts and any capacity."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.ledger import REFUSED, Account, Outside, build
from lab.results import Setting
from lab.search import Goal, Observation, find_zero_loss
from lab.trial import groups, rules_of, streams_of

count = st.integers(0, 10**6)


@given(
    delivered=count,
    no_rule=count,
    ring_full=count,
    input_dropped=count,
    output_dropped=count,
    receiver_dropped=count,
    refused_elsewhere=count,
    seen_twice=count,
)
def test_a_ledger_fed_with_a_complete_account_balances(
    delivered: int,
    no_rule: int,
    ring_full: int,
    input_dropped: int,
    output_dropped: int,
    receiver_dropped: int,
    refused_elsewhere: int,
    seen_twice: int,
) -> None:
    due = delivered + output_dropped + receiver_dropped + refused_elsewhere
    account = Account(
        matched=due,
        copies_due=due,
        ingress={("forwarder", "no_rule"): no_rule, ("packet-socket", "ring full"): ring_full},
        # The forwarder may have been told of some of the device's drops, and counts them as well.
        egress={REFUSED: refused_elsewhere + min(seen_twice, output_dropped)},
    )
    outside = Outside(
        due + no_rule + ring_full + input_dropped, input_dropped, output_dropped, receiver_dropped, delivered
    )
    assert build(account, outside).balanced


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

    found = find_zero_loss(measure, 500_000.0, Goal(0.5, width, 2, trials_max=24))
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


@given(number=st.integers(1, 70_000))
def test_groups_are_distinct_and_administratively_scoped(number: int) -> None:
    names = groups(number)
    assert len(set(names)) == number
    assert all(name.startswith("239.") for name in (names[0], names[-1]))
